-- Reads: ledger_batches, delivered_clips, masked_transcripts. What was recalled is in neither of the last two.
INSERT INTO deliveries
WITH kept AS (SELECT batch_id, count(*) AS clips FROM delivered_clips GROUP BY batch_id),
answered AS (SELECT batch_id, count(*) AS clips FROM masked_transcripts GROUP BY batch_id)
SELECT
    b.batch_id,
    b.vendor,
    b.night,
    b.state,
    b.clip_count,
    b.audio_ms,
    b.size_bytes,
    b.manifested_at,
    b.delivered_at,
    b.due_at,
    CASE WHEN b.delivered_at IS NOT NULL THEN coalesce(a.clips, 0) END,
    CASE WHEN b.delivered_at IS NOT NULL THEN coalesce(k.clips, 0) - coalesce(a.clips, 0) END
FROM ledger_batches b
LEFT JOIN kept k ON k.batch_id = b.batch_id
LEFT JOIN answered a ON a.batch_id = b.batch_id
ORDER BY b.batch_id
