-- The clips of which nothing but the place is kept, as an erased person is audible in them. Reads: again, erased.
CREATE TEMP TABLE reread AS
SELECT a.clip_id, a.product, a.activation, a.locale, a.country, a.recorded_at, a.duration_ms, a.participants
FROM again a
SEMI JOIN (SELECT file_no, row_no FROM erased WHERE flaw = 'erased') e ON e.file_no = a.file_no AND e.row_no = a.row_no
