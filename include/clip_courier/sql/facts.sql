-- What validation judges, one row a row of the sample: nothing in it names a person, a recording or what was said.
-- Reads: selected, probed (row, audio_problem, measured_ms, measured_sample_rate_hz, measured_channels), known_tags
-- (the locales that are well-formed and registered).
SELECT
    s.row,
    s.clip_key,
    s.product,
    s.activation,
    s.locale,
    s.country,
    s.duration_ms,
    s.sample_rate_hz,
    s.channels,
    s.copies,
    s.product_persons >= $k AS is_product_common,
    s.locale IN (SELECT locale FROM known_tags) AS is_locale_known,
    coalesce(len(list_filter(s.hypotheses, lambda h: h.rank IS NULL OR h.rank < 1)) = 0
        AND len(list_distinct(list_transform(s.hypotheses, lambda h: h.rank))) = len(s.hypotheses), TRUE)
        AS has_sound_ranks,
    coalesce(len(list_filter(s.hypotheses, lambda h: h.text IS NULL)) = 0, TRUE) AS has_texts,
    coalesce(len(list_filter(s.hypotheses, lambda h: h.confidence IS NULL
        OR NOT h.confidence BETWEEN 0 AND 1)) = 0, TRUE) AS has_sound_confidences,
    coalesce(p.audio_problem NOT IN ('audio_missing', 'audio_outside', 'audio_too_large'), TRUE) AS is_audio_there,
    coalesce(p.audio_problem <> 'audio_hash_mismatch', TRUE) AS is_audio_the_one,
    coalesce(p.audio_problem NOT IN ('audio_corrupt', 'audio_empty'), TRUE) AS is_audio_whole,
    -- A header may round, and a codec pads; a longer recording holds what nobody asked about. A description that is true
    -- of no recording has a reason of its own.
    coalesce(
        (s.duration_ms < 1 OR abs(p.measured_ms - s.duration_ms) <= 500 + s.duration_ms / 20)
            AND (s.sample_rate_hz < 1 OR p.measured_sample_rate_hz = s.sample_rate_hz)
            AND (s.channels < 1 OR p.measured_channels = s.channels),
        TRUE
    ) AS is_audio_as_described
FROM selected s
JOIN probed p ON p.row = s.row
ORDER BY s.row
