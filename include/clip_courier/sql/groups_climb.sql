-- Clips without a group go on to the next rung. Reads: clip, ladder.
UPDATE clip
SET shown = l.shown
FROM ladder l
WHERE l.kind = clip.kind AND l.rung = $rung AND clip.rung IS NULL AND clip.least_rung <= $rung
