-- The clips that the rules let through, with what stands against drawing them: `recalled`, `already_delivered`, `set_aside`
-- (validation rejected them before), later `overheard`. The rowid is the clip's number; of
-- up to two participants the marks, of more the list.
-- Reads: ruled, naming, taken (once a clip), set_aside (clip_id), weight (clip_id, weight: those that do not weigh 1).
-- An id that stands twice counts twice until it is drawn; validation refuses it then.
CREATE TEMP TABLE considered AS
SELECT
    r.clip_id,
    n.stratum_no,
    n.product_no,
    r.duration_ms,
    (r.duration_ms + $step_ms - 1) // $step_ms * $step_ms AS billed_ms,
    coalesce(w.weight, 1.0) AS weight,
    r.more,
    r.mark1,
    r.mark2,
    CASE
        WHEN t.is_recalled THEN 'recalled'
        WHEN t.clip_id IS NOT NULL THEN 'already_delivered'
        WHEN s.clip_id IS NOT NULL THEN 'set_aside'
    END AS standing
FROM ruled r
JOIN naming n
    ON n.product = r.product
    AND n.locale = CASE WHEN $by_locale THEN r.locale ELSE '' END
    AND n.country = CASE WHEN $by_country THEN r.country ELSE '' END
    AND n.activation = CASE WHEN $by_activation THEN r.activation ELSE '' END
LEFT JOIN taken t ON t.clip_id = r.clip_id
LEFT JOIN weight w ON w.clip_id = r.clip_id
LEFT JOIN set_aside s ON s.clip_id = r.clip_id
WHERE r.reason IS NULL
