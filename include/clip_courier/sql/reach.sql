-- The drawable clips in groups that the design cannot tell apart. Reads: drawable, rival.
SELECT
    d.stratum,
    d.billed_ms::BIGINT AS billed_ms,
    d.weight,
    coalesce(r.rivals, 1) AS rivals,
    count(*) AS clips,
    count(*) FILTER (coalesce(r.is_kept, TRUE)) AS kept,
    sum(d.duration_ms)::BIGINT AS duration_ms
FROM drawable d
LEFT JOIN rival r ON r.clip_no = d.rowid
GROUP BY ALL
ORDER BY ALL
