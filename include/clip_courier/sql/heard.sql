-- The busy persons who are audible in the drawable clips. Reads: speaker, busy.
CREATE TEMP TABLE heard AS
SELECT s.* EXCLUDE (mark), b.rowid AS person_no, b.left_ms
FROM speaker s
JOIN busy b ON b.mark = s.mark
