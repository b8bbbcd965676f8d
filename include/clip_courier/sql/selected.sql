-- The drawn clips with the contract's columns, and how many rows of landing carry the same id.
SELECT
    row_number() OVER (ORDER BY c.clip_id, c.recorded_at, c.audio_uri) AS row,
    c.clip_id,
    c.call_id,
    c.product,
    c.activation,
    c.locale,
    c.country,
    c.recorded_at,
    c.duration_ms,
    c.sample_rate_hz,
    c.channels,
    c.audio_uri,
    c.audio_sha256,
    c.participants,
    list_distinct(list_transform(c.participants, lambda p: p.person_id)) AS person_ids,
    c.hypotheses,
    d.stratum,
    d.inclusion_probability,
    count(*) OVER (PARTITION BY c.clip_id) AS copies
FROM clips c
JOIN drawn d ON d.clip_id = c.clip_id
ORDER BY row
