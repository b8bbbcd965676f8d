-- A clip that two vendors hear is heard twice: whose seconds would not reach for all of theirs that are meant for two.
-- Reads: drawn, looked, listener.
CREATE TEMP TABLE short AS
WITH meant AS MATERIALIZED (
    SELECT
        l.p1,
        l.p2,
        l.more,
        d.duration_ms,
        md5_number($overlap_key || d.clip_id) < $overlap_share::UHUGEINT AS is_for_two
    FROM drawn d
    JOIN looked l ON l.clip_id = d.clip_id
),
heard AS MATERIALIZED (
    SELECT person_id, sum(duration_ms * CASE WHEN is_for_two THEN 2 ELSE 1 END) AS heard_ms
    FROM (
        SELECT unnest(coalesce(list_distinct(more), list_distinct([p1, p2]))) AS person_id, duration_ms, is_for_two
        FROM meant
    )
    GROUP BY person_id
)
SELECT h.person_id
FROM heard h
JOIN listener l ON l.person_id = h.person_id
WHERE h.heard_ms > l.left_ms
