-- What was found and is judged anew. Reads: found.
CREATE TEMP TABLE stale AS SELECT * FROM found WHERE is_stale
