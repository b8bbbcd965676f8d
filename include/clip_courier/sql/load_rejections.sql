-- Reads: refused, masked_transcripts, ledger_batches.
INSERT INTO rejections
SELECT night, stage, vendor, batch_id, clip_key, reason FROM refused
UNION ALL
-- Counted, and joined to no clip: what it says of a person is not for analysts.
SELECT b.night, 'collect', b.vendor, b.batch_id, NULL, t.status
FROM masked_transcripts t
JOIN ledger_batches b ON b.batch_id = t.batch_id
WHERE t.status IN ('sensitive', 'distress')
ORDER BY ALL
