-- The fewest distinct persons, and the fewest clips, that any group has of what is shown. Reads: batch, before.
WITH clip AS (
    SELECT TRUE AS is_ours, * FROM batch
    UNION ALL BY NAME
    SELECT FALSE AS is_ours, * FROM before
),
told AS (
    SELECT
        is_ours,
        hash(
            shown_locale, shown_product, shown_week, bucket(shown_duration_ms), shown_sample_rate_hz, shown_channels
        ) AS shown,
        list_transform(person_ids, lambda p: hash(p)) AS persons
    FROM clip
),
voice AS MATERIALIZED (
    SELECT shown, persons FROM told SEMI JOIN (SELECT shown FROM told WHERE is_ours) USING (shown)
),
persons AS (
    SELECT shown, count(*) AS persons
    FROM (SELECT DISTINCT shown, unnest(persons) AS person FROM voice)
    GROUP BY shown
)
SELECT
    (SELECT min(persons) FROM persons) AS persons,
    (SELECT min(clips) FROM (SELECT count(*) AS clips FROM voice GROUP BY shown)) AS clips
