-- Clips whose group is large enough stay where they are. Reads: clip, size.
UPDATE clip
SET rung = $rung
FROM size
WHERE clip.rung IS NULL AND clip.least_rung <= $rung AND size.shown = clip.shown AND size.persons >= $k
