-- The clips that are judged anew, with the first reason that lies with their participants; `mark1` and `mark2` are hashes of
-- these, to tell quickly who is surely not meant. Reads: looked, weighed.
CREATE TEMP TABLE anew AS
SELECT
    l.file_no,
    l.row_no,
    l.clip_id,
    l.product,
    l.activation,
    l.locale,
    l.country,
    l.recorded_at,
    l.duration_ms,
    l.people,
    l.p1,
    l.p2,
    l.more,
    CASE WHEN l.p1 IS NOT NULL THEN hash(l.p1) END AS mark1,
    CASE WHEN l.p2 IS NOT NULL THEN hash(l.p2) END AS mark2,
    l.flaw,
    w.reason AS personal_reason
FROM looked l
LEFT JOIN weighed w ON w.clip_no = l.rowid
