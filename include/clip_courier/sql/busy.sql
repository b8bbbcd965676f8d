-- Who may meet a cap for persons tonight; only their clips are weighed against each other. The rowid is their number.
-- Two persons may have one mark: then both are looked at, which changes no answer.
-- Reads: speaker, exposure (person_id, heard_ms).
CREATE TEMP TABLE busy AS
WITH often AS (
    SELECT mark FROM speaker GROUP BY mark HAVING count(*) > $clips_per_person
),
named AS (
    SELECT person_id, any_value(mark) AS mark
    FROM speaker
    WHERE $most_of_person_ms > $exposure_ms
        OR mark IN (FROM often)
        OR person_id IN (SELECT person_id FROM exposure WHERE heard_ms + $most_of_person_ms > $exposure_ms)
    GROUP BY person_id
)
SELECT n.person_id, n.mark, greatest($exposure_ms - coalesce(e.heard_ms, 0), 0) AS left_ms
FROM named n
LEFT JOIN exposure e ON e.person_id = n.person_id
