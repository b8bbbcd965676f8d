-- Who may meet a cap for persons tonight; only their clips are weighed against each other. The rowid is their number.
-- Reads: speaker, exposure (person_id, heard_ms).
CREATE TEMP TABLE busy AS
WITH exposed AS (
    SELECT hash(person_id) AS mark, sum(heard_ms) AS heard_ms FROM exposure GROUP BY mark
),
named AS (
    SELECT mark
    FROM speaker
    GROUP BY mark
    HAVING count(*) > $clips_per_person OR $most_of_person_ms > $exposure_ms
    UNION
    SELECT mark
    FROM speaker
    WHERE mark IN (SELECT mark FROM exposed WHERE heard_ms + $most_of_person_ms > $exposure_ms)
)
SELECT n.mark, greatest($exposure_ms - coalesce(e.heard_ms, 0), 0)::BIGINT AS left_ms
FROM named n
LEFT JOIN exposed e ON e.mark = n.mark
