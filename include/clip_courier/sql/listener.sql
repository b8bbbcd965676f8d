-- Everyone who is audible in the clips; the rowid is their number for the session.
-- `is_busy`: who may meet a cap for persons tonight; only then are their clips weighed against each other.
-- Reads: clips, exposure (person_id, heard_ms).
CREATE TEMP TABLE listener AS
SELECT
    person_id,
    clips > $clips_per_person OR coalesce(e.heard_ms, 0) + $most_of_person_ms > $exposure_ms AS is_busy,
    greatest($exposure_ms - coalesce(e.heard_ms, 0), 0) AS left_ms
FROM (SELECT person_id, count(*) AS clips FROM (SELECT unnest(participants).person_id AS person_id FROM clips) GROUP BY person_id)
LEFT JOIN exposure e USING (person_id)
WHERE person_id IS NOT NULL
