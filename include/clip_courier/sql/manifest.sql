-- The gate: exactly the contract's columns, named one by one, in the order of the refs (which tells nothing).
-- Reads: batch (the crosswalk's rows of one batch).
SELECT
    clip_ref,
    speaker_refs,
    locale,
    product,
    strftime(recorded_at::TIMESTAMP, '%G-W%V') AS recorded_week,
    duration_ms::INTEGER AS duration_ms,
    sample_rate_hz::INTEGER AS sample_rate_hz,
    channels::TINYINT AS channels,
    'audio/' || clip_ref || '.flac' AS audio_file,
    flac_sha256 AS audio_sha256,
    shown_hypotheses AS hypotheses
FROM batch
ORDER BY clip_ref
