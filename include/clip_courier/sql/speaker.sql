-- Who is audible in which drawable clip, each once. Reads: drawable.
CREATE TEMP VIEW speaker AS
SELECT rowid AS clip_no, clip_id, stratum, duration_ms, p1 AS person_id FROM drawable WHERE more IS NULL
UNION ALL
SELECT rowid, clip_id, stratum, duration_ms, p2 FROM drawable WHERE more IS NULL AND p2 <> p1
UNION ALL
SELECT rowid, clip_id, stratum, duration_ms, unnest(list_distinct(more)) FROM drawable WHERE more IS NOT NULL
