-- Clips whose group is large enough stay where they are. Reads: clip, size.
UPDATE clip
SET rung = $rung
FROM size
WHERE clip.rung IS NULL
    AND clip.least_rung <= $rung
    AND size.shown = clip.shown
    AND size.s = CASE WHEN $by_sound THEN clip.sound ELSE -1 END
    AND size.persons >= $k
