-- The marks of those who may be judged otherwise than before: about whom something came since, or had not arrived then.
-- Reads: new_events, new_persons, waiting (person_id).
CREATE TEMP TABLE changed AS
SELECT DISTINCT hash(person_id) AS mark
FROM (
    SELECT person_id FROM new_events WHERE purpose = $purpose
    UNION ALL
    SELECT person_id FROM new_persons
    UNION ALL
    SELECT person_id FROM waiting
)
WHERE person_id IS NOT NULL
