-- Who is audible in which clip, each once, by number; only of the clips that need it: those that are not clear, and
-- those of busy persons. Reads: looked, listener.
CREATE TEMP TABLE audible AS
SELECT rowid AS clip_no, n1 AS person_no FROM looked WHERE (is_busy OR NOT is_clear) AND more IS NULL AND n1 IS NOT NULL
UNION ALL
SELECT rowid, n2 FROM looked WHERE (is_busy OR NOT is_clear) AND more IS NULL AND n2 <> coalesce(n1, -1)
UNION ALL
SELECT m.clip_no, l.rowid
FROM (SELECT rowid AS clip_no, unnest(list_distinct(more)) AS person_id FROM looked WHERE more IS NOT NULL) m
JOIN listener l ON l.person_id = m.person_id
