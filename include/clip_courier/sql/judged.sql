-- Every clip of the landing window with the first reason that keeps it out, contracts §2, in the documented order
-- (selection.REFUSALS); no reason means eligible. Reads: verdict, bounds (one row), taken (once a clip).
CREATE TEMP VIEW judged AS
SELECT
    v.* EXCLUDE (reason),
    CASE
        WHEN v.reason IS NOT NULL THEN v.reason
        WHEN t.is_recalled THEN 'recalled'
        WHEN t.clip_id IS NOT NULL THEN 'already_delivered'
    END AS reason
FROM (
    SELECT
        v.*,
        CASE
            WHEN v.flaw IS NOT NULL THEN v.flaw
            WHEN v.recorded_at > b.now THEN 'future'
            WHEN v.recorded_at < b.oldest THEN 'too_old'
            WHEN v.duration_ms < b.min_duration_ms THEN 'too_short'
            WHEN v.duration_ms > b.max_duration_ms THEN 'too_long'
            ELSE v.personal_reason
        END AS reason
    FROM verdict v, bounds b
) v
LEFT JOIN taken t ON t.clip_id = CASE WHEN v.reason IS NULL THEN v.clip_id END
