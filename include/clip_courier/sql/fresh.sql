-- The clips of landing that are judged anew: of files that are new, and what is read again, whose verdict is not kept.
-- Reads: arrived, reread.
CREATE TEMP VIEW fresh AS
SELECT
    clip_id, product, activation, locale, country, recorded_at, duration_ms, participants, file_no, row_no
FROM arrived
UNION ALL
SELECT *, NULL, NULL FROM reread
