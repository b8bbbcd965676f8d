-- Who is audible in which drawable clip, each once, by their mark, a hash; `place`: where the row first lists them. Should two
-- persons have one mark they count as one, and are heard less for it. Reads: drawable.
CREATE TEMP VIEW speaker AS
WITH two AS (
    SELECT * EXCLUDE (more) FROM drawable WHERE more IS NULL
),
listed AS (
    SELECT
        * EXCLUDE (more, mark1, mark2),
        hash(unnest(more)) AS mark,
        generate_subscripts(more, 1) AS place
    FROM drawable
    WHERE more IS NOT NULL
)
SELECT * EXCLUDE (mark1, mark2), mark1 AS mark, 1 AS place FROM two
UNION ALL
SELECT * EXCLUDE (mark1, mark2), mark2, 2 FROM two WHERE mark2 <> mark1
UNION ALL
SELECT * EXCLUDE (place), min(place) FROM listed GROUP BY ALL
