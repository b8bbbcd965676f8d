-- The fewest distinct persons, and the fewest clips, that any group has of what is shown, as it was counted.
-- Reads: batch (with what it shows), before.
WITH clip AS (
    SELECT TRUE AS is_ours, rung, shown_locale, shown_product, shown_week, duration_ms, sample_rate_hz, channels, person_ids
    FROM batch
    WHERE rung IS NOT NULL
    UNION ALL
    SELECT FALSE, NULL, shown_locale, shown_product, shown_week, duration_ms, sample_rate_hz, channels, person_ids
    FROM before
),
told AS (
    SELECT
        is_ours,
        rung,
        hash(shown_locale, shown_product, shown_week) AS shown,
        hash(len(list_filter($bounds, lambda bound: bound <= duration_ms)), sample_rate_hz, channels) AS sound,
        list_transform(person_ids, lambda p: hash(p)) AS persons
    FROM clip
),
found AS (
    SELECT DISTINCT shown, CASE WHEN rung = 0 OR $by_sound THEN sound END AS s FROM told WHERE is_ours
),
voice AS MATERIALIZED (
    SELECT t.shown, f.s, t.persons FROM told t JOIN found f ON f.shown = t.shown AND coalesce(f.s, t.sound) = t.sound
),
persons AS (
    SELECT shown, s, count(*) AS persons
    FROM (SELECT DISTINCT shown, s, unnest(persons) AS person FROM voice)
    GROUP BY shown, s
)
SELECT
    (SELECT min(persons) FROM persons) AS persons,
    (SELECT min(clips) FROM (SELECT count(*) AS clips FROM voice GROUP BY shown, s)) AS clips
