-- The refs of the clips that something keeps out. Reads: clips (with clip_ref), judged.
-- What a participant has against it comes first: it is also what recalls a clip that left long ago.
SELECT c.clip_ref, coalesce(min(j.personal_reason), min(j.reason), 'malformed') AS reason
FROM clips c
LEFT JOIN judged j ON j.clip_id = c.clip_id
GROUP BY c.clip_ref
HAVING count(j.clip_id) = 0 OR bool_or(j.reason IS NOT NULL)
