INSERT INTO deliveries
SELECT batch_id, vendor, night, state, clip_count, audio_ms, size_bytes, manifested_at, delivered_at, due_at
FROM ledger_batches ORDER BY batch_id
