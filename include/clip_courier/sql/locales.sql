-- Reads: clips.
SELECT DISTINCT locale FROM clips WHERE locale IS NOT NULL
