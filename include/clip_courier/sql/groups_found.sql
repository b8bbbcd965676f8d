-- What every clip shows, and on which rung; a clip that found no group has none. Reads: clip, ladder.
SELECT
    c.clip_ref,
    c.rung::TINYINT AS rung,
    CASE WHEN c.rung IS NOT NULL THEN l.shown_locale END AS shown_locale,
    CASE WHEN c.rung IS NOT NULL THEN l.shown_product END AS shown_product,
    CASE WHEN c.rung IS NOT NULL THEN l.shown_week END AS shown_week
FROM clip c
JOIN (SELECT DISTINCT shown, shown_locale, shown_product, shown_week FROM ladder) l ON l.shown = c.shown
ORDER BY c.clip_ref
