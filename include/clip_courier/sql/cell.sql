-- A person with more clips than the cap has as many cells as may be taken of them; of each cell one clip survives.
-- Cells are cut from the person's clips in order of stratum and length, so that rivals are alike. A participant's seconds
-- bound the number of cells, too. Reads: heard, overheard.
CREATE TEMP TABLE cell AS
WITH within_reach AS (
    SELECT * FROM heard WHERE clip_no NOT IN (SELECT clip_no FROM overheard)
),
capped AS (
    SELECT person_no, count(*) AS clips, least($clips_per_person, any_value(left_ms) // max(duration_ms)) AS cap
    FROM within_reach
    GROUP BY person_no
    HAVING clips > cap
)
SELECT
    h.* EXCLUDE (person_no, left_ms),
    h.person_no * $clips_per_person
        + (row_number() OVER (PARTITION BY h.person_no ORDER BY h.stratum_no, h.duration_ms, h.clip_id) - 1) * c.cap // c.clips
        AS cell
FROM within_reach h
JOIN capped c ON c.person_no = h.person_no
