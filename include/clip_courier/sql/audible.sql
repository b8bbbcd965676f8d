-- Who is audible in which clip and needs to be looked at, as they are not clear, each once, by number. Of clips with more
-- than two participants all. Reads: looked, listener.
CREATE TEMP VIEW audible AS
SELECT rowid AS clip_no, n1 AS person_no FROM looked WHERE more IS NULL AND n1 IS NOT NULL AND NOT is_clear1
UNION ALL
SELECT rowid, n2 FROM looked WHERE more IS NULL AND n2 <> coalesce(n1, -1) AND NOT is_clear2
UNION ALL
SELECT m.clip_no, l.rowid
FROM (SELECT rowid AS clip_no, unnest(list_distinct(more)) AS person_id FROM looked WHERE more IS NOT NULL) m
JOIN listener l ON l.person_id = m.person_id
