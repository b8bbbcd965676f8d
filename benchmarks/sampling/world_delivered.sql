-- Of a day's clips the 5 % that earlier nights delivered, as crosswalks hold them; one in 200 of them was recalled.
-- Reads: clips, those of the day.
SELECT DISTINCT clip_id, recorded_at, hash(clip_id || 'r') % 200 = 0 AS is_recalled
FROM clips
WHERE hash(clip_id || 'd') % 20 = 0
