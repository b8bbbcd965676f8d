-- Reads: drawable, overheard.
DELETE FROM drawable WHERE clip_no IN (SELECT clip_no FROM overheard)
