-- Who is audible in which drawable clip, each once; `mark` is a hash of the person. Reads: drawable.
CREATE TEMP VIEW speaker AS
SELECT * EXCLUDE (p1, p2, more, mark1, mark2), p1 AS person_id, mark1 AS mark FROM drawable WHERE more IS NULL
UNION ALL
SELECT * EXCLUDE (p1, p2, more, mark1, mark2), p2, mark2 FROM drawable WHERE more IS NULL AND p2 <> p1
UNION ALL
SELECT *, hash(person_id)
FROM (
    SELECT * EXCLUDE (p1, p2, more, mark1, mark2), unnest(list_distinct(more)) AS person_id
    FROM drawable
    WHERE more IS NOT NULL
)
