-- The clips of landing that are judged anew: of files that are new, and in files that are not those of which nothing but the
-- place is kept, as an erased person is audible in them; their verdict is not kept. Reads: arrived, again, erased.
CREATE TEMP VIEW fresh AS
SELECT
    clip_id, product, activation, locale, country, recorded_at, duration_ms, participants, file_no, row_no
FROM arrived
UNION ALL
SELECT
    a.clip_id, a.product, a.activation, a.locale, a.country, a.recorded_at, a.duration_ms, a.participants, NULL, NULL
FROM again a
SEMI JOIN (SELECT file_no, row_no FROM erased WHERE flaw = 'erased') e ON e.file_no = a.file_no AND e.row_no = a.row_no
