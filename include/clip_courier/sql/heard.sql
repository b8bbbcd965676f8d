-- The busy persons who are audible in the drawable clips. Reads: drawable, audible, listener.
CREATE TEMP TABLE heard AS
SELECT d.clip_no, d.clip_id, d.stratum, d.duration_ms, l.person_id, a.person_no, l.left_ms
FROM drawable d
JOIN audible a ON a.clip_no = d.clip_no
JOIN listener l ON l.rowid = a.person_no
WHERE a.is_busy
