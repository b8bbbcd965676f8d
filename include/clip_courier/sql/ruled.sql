-- Every clip of the landing window with the first reason that the rules of contracts §2 find, in the documented order
-- (selection.REFUSALS), before it is asked what vendors have already. Reads: verdict, bounds (one row).
CREATE TEMP VIEW ruled AS
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
