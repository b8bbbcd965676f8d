-- Of a day's clips the 5 % that earlier nights delivered; one in 200 of them was recalled. Variables as for the clips.
SELECT
    clip_id,
    hash(clip_id || 'r') % 200 = 0 AS is_recalled
FROM (
    SELECT DISTINCT 'c' || left(md5('clip' || CASE WHEN n % 99991 = 7 THEN n - 1 ELSE n END), 16) AS clip_id
    FROM (
        SELECT getvariable('first_clip') + k AS n FROM (SELECT unnest(range(getvariable('day_clips'))) AS k)
    )
)
WHERE hash(clip_id || 'd') % 20 = 0
