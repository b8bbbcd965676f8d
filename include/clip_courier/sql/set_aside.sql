-- How many eligible clips are not drawn because validation rejected them before. Reads: judged, set_aside (clip_id).
SELECT count(*) AS clips FROM judged WHERE reason IS NULL AND clip_id IN (SELECT clip_id FROM set_aside)
