-- The gate: exactly the contract's columns, named one by one, in the order of the refs (which tells nothing).
-- Locale, product and week are what the clip's group shows. Reads: batch (the crosswalk's rows of one batch).
SELECT
    clip_ref,
    speaker_refs,
    shown_locale AS locale,
    shown_product AS product,
    shown_week AS recorded_week,
    duration_ms::INTEGER AS duration_ms,
    sample_rate_hz::INTEGER AS sample_rate_hz,
    channels::TINYINT AS channels,
    'audio/' || clip_ref || '.flac' AS audio_file,
    flac_sha256 AS audio_sha256,
    shown_hypotheses AS hypotheses
FROM batch
ORDER BY clip_ref
