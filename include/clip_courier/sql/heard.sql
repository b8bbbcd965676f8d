-- The busy persons who are audible in the drawable clips. Reads: speaker, busy.
CREATE TEMP TABLE heard AS
SELECT s.clip_no, s.clip_id, s.stratum, s.duration_ms, s.person_id, b.rowid AS person_no, b.left_ms
FROM speaker s
JOIN busy b ON b.person_id = s.person_id
