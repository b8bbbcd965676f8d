-- Every clip of the landing window with what does not change with the night: the first flaw that lies in the clip, and the
-- first reason that lies with its participants. Reads: anew, found.
CREATE TEMP VIEW verdict AS
SELECT clip_id, product, activation, locale, country, recorded_at, duration_ms, p1, p2, more, mark1, mark2, flaw,
    personal_reason
FROM anew
UNION ALL
SELECT clip_id, product, activation, locale, country, recorded_at, duration_ms, p1, p2, more, mark1, mark2, flaw,
    personal_reason
FROM found
WHERE NOT is_stale
