-- Who is audible in the drawable clips of busy persons. Reads: drawable, looked, listener.
CREATE TEMP TABLE heard AS
SELECT h.clip_no, h.clip_id, h.stratum, h.duration_ms, l.person_id, l.rowid AS person_no, l.left_ms
FROM (
    SELECT
        d.clip_no,
        d.clip_id,
        d.stratum,
        d.duration_ms,
        unnest(
            coalesce(list_distinct(j.more), CASE WHEN j.p2 IS NULL OR j.p2 = j.p1 THEN [j.p1] ELSE [j.p1, j.p2] END)
        ) AS person_id
    FROM drawable d
    JOIN looked j ON j.rowid = d.clip_no
    WHERE d.is_busy
) h
JOIN listener l ON l.person_id = h.person_id
WHERE l.is_busy
