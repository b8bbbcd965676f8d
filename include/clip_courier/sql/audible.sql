-- Who is audible in which clip, each once, by number; only those who need to be looked at: who is not clear, and who is
-- busy. Of clips with more than two participants all. Reads: looked, listener.
CREATE TEMP TABLE audible AS
SELECT rowid AS clip_no, n1 AS person_no, NOT is_clear1 AS is_open, is_busy1 AS is_busy
FROM looked
WHERE more IS NULL AND n1 IS NOT NULL AND (is_busy1 OR NOT is_clear1)
UNION ALL
SELECT rowid, n2, NOT is_clear2, is_busy2
FROM looked
WHERE more IS NULL AND n2 <> coalesce(n1, -1) AND (is_busy2 OR NOT is_clear2)
UNION ALL
SELECT m.clip_no, l.rowid, TRUE, l.is_busy
FROM (SELECT rowid AS clip_no, unnest(list_distinct(more)) AS person_id FROM looked WHERE more IS NOT NULL) m
JOIN listener l ON l.person_id = m.person_id
