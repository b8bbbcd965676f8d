-- How many distinct persons show what a clip without a group shows now: of its like, of clips with a group, and of what
-- the vendor has. `s` is the sound where it counts. Reads: clip, held.
CREATE OR REPLACE TEMP TABLE size AS
WITH asked AS (
    SELECT DISTINCT shown, CASE WHEN $by_sound THEN sound ELSE -1 END AS s
    FROM clip
    WHERE rung IS NULL AND least_rung <= $rung
),
voice AS (
    SELECT shown, CASE WHEN $by_sound THEN sound ELSE -1 END AS s, persons
    FROM (
        SELECT shown, sound, persons FROM clip WHERE rung IS NOT NULL OR least_rung <= $rung
        UNION ALL
        SELECT shown, sound, persons FROM held
    )
),
-- Distinct first, so that what does not fit into memory can go to disk.
person AS (
    SELECT DISTINCT shown, s, unnest(persons) AS person FROM voice SEMI JOIN asked USING (shown, s)
)
SELECT shown, s, count(*) AS persons FROM person GROUP BY shown, s
