-- A clip that two vendors hear is heard twice: whose seconds would not reach for all of theirs that are meant for two.
-- Reads: drawn, speaker, exposure.
CREATE TEMP TABLE short AS
SELECT s.mark
FROM (
    SELECT clip_id, md5_number($overlap_key || clip_id) < $overlap_share::UHUGEINT AS is_for_two
    FROM drawn
    WHERE $overlap_share <> '0'
) d
JOIN speaker s ON s.clip_id = d.clip_id
LEFT JOIN (SELECT hash(person_id) AS mark, sum(heard_ms) AS heard_ms FROM exposure GROUP BY mark) e ON e.mark = s.mark
GROUP BY s.mark
HAVING sum(s.duration_ms * CASE WHEN d.is_for_two THEN 2 ELSE 1 END)
    > greatest($exposure_ms - coalesce(any_value(e.heard_ms), 0), 0)
