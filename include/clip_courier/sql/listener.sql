-- Everyone who is audible in the clips that are judged anew; the rowid is their number for the session. Reads: voice.
CREATE TEMP TABLE listener AS
SELECT person_id
FROM (
    SELECT p1 AS person_id FROM voice WHERE more IS NULL
    UNION ALL
    SELECT p2 FROM voice WHERE more IS NULL
    UNION ALL
    SELECT unnest(more) FROM voice WHERE more IS NOT NULL
)
WHERE person_id IS NOT NULL
GROUP BY person_id
