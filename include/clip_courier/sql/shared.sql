-- The strata that at least $k persons share: the name of another one could be somebody's, as product and locale stand
-- here as landing has them. Counted by the first participant alone, and exactly where there may be few.
-- Reads: drawable, stratum.
WITH rough AS (
    SELECT stratum_no, approx_count_distinct(mark1) AS persons FROM drawable GROUP BY stratum_no
),
enough AS (
    SELECT stratum_no FROM rough WHERE persons >= 1000
    UNION ALL
    SELECT stratum_no
    FROM drawable
    WHERE stratum_no IN (SELECT stratum_no FROM rough WHERE persons < 1000)
    GROUP BY stratum_no
    HAVING count(DISTINCT mark1) >= $k
)
SELECT stratum FROM stratum WHERE stratum_no IN (FROM enough)
