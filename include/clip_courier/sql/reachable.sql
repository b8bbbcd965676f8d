-- Reads: drawable, overheard.
DELETE FROM drawable WHERE rowid IN (SELECT clip_no FROM overheard)
