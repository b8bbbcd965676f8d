-- The drawable clips in groups that the design cannot tell apart, in order. Clips with rivals are first counted as if they
-- had none, and then taken off: this spares looking for each clip whether it has any. Reads: drawable, rival, stratum.
WITH counted AS (
    SELECT stratum_no, billed_ms, weight, 1 AS rivals, count(*) AS clips, count(*) AS kept, sum(duration_ms) AS ms
    FROM drawable
    GROUP BY ALL
    UNION ALL
    SELECT stratum_no, billed_ms, weight, 1, -count(*), -count(*), -sum(duration_ms) FROM rival GROUP BY ALL
    UNION ALL
    SELECT stratum_no, billed_ms, weight, rivals, count(*), count(*) FILTER (is_kept), sum(duration_ms)
    FROM rival
    GROUP BY ALL
),
added AS (
    SELECT
        stratum_no,
        billed_ms,
        weight,
        rivals,
        sum(clips)::BIGINT AS clips,
        sum(kept)::BIGINT AS kept,
        sum(ms)::BIGINT AS duration_ms
    FROM counted
    GROUP BY ALL
    HAVING sum(clips) > 0
)
SELECT s.stratum, a.* EXCLUDE (stratum_no)
FROM added a
JOIN stratum s ON s.stratum_no = a.stratum_no
ORDER BY a.stratum_no, billed_ms, weight, rivals
