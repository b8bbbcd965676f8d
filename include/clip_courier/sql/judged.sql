-- Every clip of the landing window with the first reason that keeps it out; no reason means eligible.
-- Reads: ruled, taken (once a clip).
CREATE TEMP VIEW judged AS
SELECT
    r.* EXCLUDE (reason),
    CASE
        WHEN r.reason IS NOT NULL THEN r.reason
        WHEN t.is_recalled THEN 'recalled'
        WHEN t.clip_id IS NOT NULL THEN 'already_delivered'
    END AS reason
FROM ruled r
LEFT JOIN taken t ON t.clip_id = CASE WHEN r.reason IS NULL THEN r.clip_id END
