-- The refs of the clips that something keeps out. Reads: clips (with clip_ref), judged.
SELECT c.clip_ref, coalesce(any_value(j.reason), 'malformed') AS reason
FROM clips c
LEFT JOIN judged j ON j.clip_id = c.clip_id
GROUP BY c.clip_ref
HAVING count(j.clip_id) = 0 OR bool_or(j.reason IS NOT NULL)
