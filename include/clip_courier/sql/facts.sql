-- What validation judges, one row a row of the sample: nothing in it names a person, a recording or what was said.
-- Reads: selected, probed (row, audio_problem, measured_ms, measured_sample_rate_hz, measured_channels),
-- known_locales, known_countries, and what a rule of rules.py says in SQL, under the fact's name.
SELECT
    s.row,
    s.clip_key,
    s.product,
    s.activation,
    s.locale,
    s.duration_ms,
    s.sample_rate_hz,
    s.channels,
    s.copies,
    s.product_persons >= $k AS is_product_common,
    is_locale_known(s.locale) IS TRUE AS is_locale_known,
    is_country_known(s.country) IS TRUE AS is_country_known,
    has_sound_ranks(s.hypotheses) IS TRUE AS has_sound_ranks,
    has_texts(s.hypotheses) IS TRUE AS has_texts,
    has_sound_confidences(s.hypotheses) IS TRUE AS has_sound_confidences,
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
