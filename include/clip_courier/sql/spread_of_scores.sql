-- How far clips of a stratum differ in errors from what its word error rate expects of their words: the deviation that
-- optimum allocation asks for (Cochran 1977, "Sampling Techniques", §6.3). Reads the warehouse.
WITH rate AS (
    SELECT c.stratum, sum(s.substitutions + s.deletions + s.insertions) / nullif(sum(s.words), 0) AS rate
    FROM scores s
    JOIN clips c ON c.clip_key = s.clip_key AND c.batch_id = s.batch_id
    GROUP BY c.stratum
)
SELECT c.stratum, stddev_samp(s.substitutions + s.deletions + s.insertions - r.rate * s.words) AS spread
FROM scores s
JOIN clips c ON c.clip_key = s.clip_key AND c.batch_id = s.batch_id
JOIN rate r ON r.stratum = c.stratum
GROUP BY c.stratum
HAVING spread IS NOT NULL
ORDER BY c.stratum
