-- The eligible clips that may be drawn: not those that validation rejected before. The rowid is the clip's number.
-- Reads: judged, set_aside (clip_id), weight (clip_id, weight: those that do not weigh 1).
-- An id that stands twice counts twice until it is drawn; validation refuses it then.
CREATE TEMP TABLE drawable AS
SELECT
    j.clip_id,
    concat_ws(
        ' × ',
        CASE WHEN $by_product THEN j.product END,
        CASE WHEN $by_locale THEN j.locale END,
        CASE WHEN $by_country THEN j.country END,
        CASE WHEN $by_activation THEN j.activation END
    ) AS stratum,
    j.duration_ms,
    (j.duration_ms + $step_ms - 1) // $step_ms * $step_ms AS billed_ms,
    coalesce(w.weight, 1.0) AS weight,
    j.product,
    j.p1,
    j.p2,
    j.more
FROM judged j
LEFT JOIN weight w ON w.clip_id = j.clip_id
LEFT JOIN set_aside s ON s.clip_id = j.clip_id
WHERE j.reason IS NULL AND s.clip_id IS NULL
