-- Every clip that a vendor has, without what identifies anyone. Reads: crosswalk, ledger_batches.
SELECT
    c.clip_key,
    c.batch_id,
    b.night,
    b.vendor,
    c.stratum,
    c.product,
    c.locale,
    strftime(c.recorded_at::TIMESTAMP, '%G-W%V') AS recorded_week,
    c.duration_ms,
    c.inclusion_probability,
    count(*) OVER (PARTITION BY c.clip_key, b.night) > 1 AS is_overlap,
    c.is_withheld,
    c.speaker_key,
    coalesce(c.speaker_keys, [c.speaker_key]) AS speaker_keys
FROM crosswalk c
JOIN ledger_batches b ON b.batch_id = c.batch_id
WHERE b.delivered_at IS NOT NULL
