-- Reads: deliveries. What was cut in the nights from $first to $last, one row a vendor.
SELECT
    vendor,
    count(*) AS batches,
    sum(clip_count)::BIGINT AS clips,
    sum(audio_ms) / 3600000 AS hours,
    (coalesce(sum(clip_count) FILTER (delivered_at IS NOT NULL), 0))::BIGINT AS delivered_clips,
    sum(answered_clips)::BIGINT AS answered_clips,
    sum(owed_clips)::BIGINT AS owed_clips
FROM deliveries
WHERE night BETWEEN $first AND $last
GROUP BY vendor
ORDER BY vendor
