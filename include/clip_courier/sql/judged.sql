-- Every clip of the landing window with the first reason that keeps it out, contracts §2, in the documented order
-- (selection.REFUSALS); no reason means eligible. Reads: looked, weighed, taken (once a clip).
CREATE TEMP VIEW judged AS
SELECT
    l.rowid AS clip_no,
    l.* EXCLUDE (reason),
    CASE
        WHEN l.reason IS NOT NULL THEN l.reason
        WHEN w.reason IS NOT NULL THEN w.reason
        WHEN t.is_recalled THEN 'recalled'
        WHEN t.clip_id IS NOT NULL THEN 'already_delivered'
    END AS reason,
    w.reason AS personal_reason
FROM looked l
LEFT JOIN weighed w ON w.clip_no = l.rowid
LEFT JOIN taken t ON t.clip_id = l.clip_id
