-- Reads: deliveries, returns, recalls. What somebody must see to at $now in batches of the nights from $first to $last.
WITH batches AS (SELECT * FROM deliveries WHERE night BETWEEN $first AND $last),

returned AS (SELECT returns.* FROM returns JOIN batches USING (batch_id)),

alerts AS (
    SELECT 1 AS place, vendor, 'clips are overdue' AS alert, sum(owed_clips)::BIGINT AS rows
    FROM batches
    WHERE due_at < $now
    GROUP BY vendor
    UNION ALL
    SELECT 2, vendor, 'rows say that a person is in distress', sum(distress_rows)::BIGINT FROM returned GROUP BY vendor
    UNION ALL
    SELECT 3, vendor, 'rows are marked sensitive', sum(sensitive_rows)::BIGINT FROM returned GROUP BY vendor
    UNION ALL
    SELECT 4, vendor, 'rows of clips that were to be deleted', sum(breach_rows)::BIGINT FROM returned GROUP BY vendor
    UNION ALL
    SELECT 5, vendor, 'files were refused whole', count(*) FROM returned WHERE state = 'REFUSED' GROUP BY vendor
    UNION ALL
    SELECT 6, recalls.vendor, 'recalls have no receipt', count(*)
    FROM recalls JOIN batches USING (batch_id)
    WHERE recalls.state <> 'RECEIPTED'
    GROUP BY recalls.vendor
)

SELECT vendor, alert, rows FROM alerts WHERE rows > 0 ORDER BY place, vendor
