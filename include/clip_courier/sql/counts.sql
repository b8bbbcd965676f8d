-- Reads: drawable.
SELECT count(*) AS clips FROM drawable
