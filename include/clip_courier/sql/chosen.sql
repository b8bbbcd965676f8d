-- What was drawn of each stratum. Reads: drawn.
SELECT stratum, count(*) AS clips, sum(duration_ms)::BIGINT AS duration_ms FROM drawn GROUP BY stratum
