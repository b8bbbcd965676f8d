-- The gate: exactly the contract's columns, named one by one, in the order of the refs (which tells nothing).
-- What describes a clip is what its group shows, and what its sound was made. Reads: batch (the crosswalk's rows of one batch).
SELECT
    clip_ref,
    speaker_refs,
    shown_locale AS locale,
    shown_product AS product,
    shown_week AS recorded_week,
    shown_duration_ms AS duration_ms,
    shown_sample_rate_hz AS sample_rate_hz,
    shown_channels AS channels,
    'audio/' || clip_ref || '.flac' AS audio_file,
    flac_sha256 AS audio_sha256,
    shown_hypotheses AS hypotheses
FROM batch
ORDER BY clip_ref
