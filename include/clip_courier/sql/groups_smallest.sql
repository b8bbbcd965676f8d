-- The fewest distinct persons, and the fewest clips, that any clip's group has, as it was counted. Reads: clip, held.
WITH found AS (
    SELECT DISTINCT shown, CASE WHEN rung = 0 OR $by_sound THEN sound ELSE -1 END AS s FROM clip WHERE rung IS NOT NULL
),
voice AS (
    SELECT v.shown, f.s, v.persons
    FROM (
        SELECT shown, sound, persons FROM clip WHERE rung IS NOT NULL
        UNION ALL
        SELECT shown, sound, persons FROM held
    ) v
    JOIN found f ON f.shown = v.shown AND f.s IN (v.sound, -1)
),
clips AS (
    SELECT shown, s, count(*) AS clips FROM voice GROUP BY shown, s
),
persons AS (
    SELECT shown, s, count(*) AS persons
    FROM (SELECT DISTINCT shown, s, unnest(persons) AS person FROM voice)
    GROUP BY shown, s
)
SELECT min(persons) AS persons, min(clips) AS clips FROM persons JOIN clips USING (shown, s)
