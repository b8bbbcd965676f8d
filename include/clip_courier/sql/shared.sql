-- The strata that at least $k persons share: the name of another one could be somebody's, as product and locale stand
-- here as landing has them. Counted by the first participant alone, and exactly where there may be few. Reads: drawable.
WITH rough AS (
    SELECT stratum, approx_count_distinct(p1) AS persons FROM drawable GROUP BY stratum
)
SELECT stratum FROM rough WHERE persons >= 1000
UNION ALL
SELECT stratum
FROM drawable
WHERE stratum IN (SELECT stratum FROM rough WHERE persons < 1000)
GROUP BY stratum
HAVING count(DISTINCT p1) >= $k
