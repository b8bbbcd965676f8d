-- How many clips have no group, on any rung. Reads: clip.
SELECT count(*) AS clips FROM clip WHERE rung IS NULL
