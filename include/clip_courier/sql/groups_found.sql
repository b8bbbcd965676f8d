-- What every clip shows, and on which rung; a clip that found no group has none. Reads: clip, ladder.
SELECT
    c.clip_ref,
    c.rung::TINYINT AS rung,
    l.shown_locale,
    l.shown_product,
    l.shown_week,
    CASE WHEN l.rung IS NOT NULL THEN coalesce(l.shown_padded_ms, c.sound_ms) END AS shown_duration_ms,
    l.shown_rate AS shown_sample_rate_hz,
    l.shown_channels
FROM clip c
LEFT JOIN ladder l ON l.kind = c.kind AND l.rung = c.rung
ORDER BY c.clip_ref
