-- Of each returned file, how many of its rows are there and how many stand: the others gave way to a higher revision.
-- Reads: returned. Which row stands is decided as in current_transcripts.
WITH placed AS (
    SELECT
        batch_id,
        n,
        row_number() OVER (PARTITION BY batch_id, clip_ref ORDER BY revision DESC, n DESC, row_number DESC) = 1 AS is_current
    FROM returned
)
SELECT batch_id, n, count(*) AS rows, count(*) FILTER (is_current) AS current_rows
FROM placed
GROUP BY batch_id, n
