-- A clip that two vendors hear is heard twice: whose seconds would not reach for all of theirs that are meant for two.
-- Reads: drawn, looked, audible, listener.
CREATE TEMP TABLE short AS
WITH meant AS MATERIALIZED (
    SELECT
        l.rowid AS clip_no,
        d.duration_ms,
        md5_number($overlap_key || d.clip_id) < $overlap_share::UHUGEINT AS is_for_two
    FROM drawn d
    JOIN looked l ON l.clip_id = d.clip_id
    WHERE $overlap_share <> '0'
)
SELECT any_value(l.person_id) AS person_id
FROM meant m
JOIN audible a ON a.clip_no = m.clip_no
JOIN listener l ON l.rowid = a.person_no
GROUP BY a.person_no
HAVING sum(m.duration_ms * CASE WHEN m.is_for_two THEN 2 ELSE 1 END) > any_value(l.left_ms)
