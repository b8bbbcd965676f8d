-- Reads: deliveries, clips, masked_transcripts (all that were returned, also those that are not shown), ledger_returns.
INSERT INTO vendor_scorecard
WITH per_batch AS (
    SELECT
        d.vendor,
        d.batch_id,
        d.due_at < $now AND count(t.clip_key) < count(c.clip_key) AS is_overdue,
        count(c.clip_key) AS clips,
        count(t.clip_key) AS returned_clips,
        count(t.clip_key) FILTER (t.status = 'transcribed') AS transcribed_clips
    FROM deliveries d
    LEFT JOIN clips c ON c.batch_id = d.batch_id
    LEFT JOIN masked_transcripts t ON t.batch_id = c.batch_id AND t.clip_key = c.clip_key
    WHERE d.delivered_at IS NOT NULL
    GROUP BY d.vendor, d.batch_id, d.due_at
),
file AS (
    SELECT vendor, sum(rejected_rows) AS rejected_rows, count(*) FILTER (state = 'REFUSED') AS refused_files
    FROM ledger_returns
    GROUP BY vendor
),
turnaround AS (
    SELECT t.vendor, median(epoch(t.submitted_at) - epoch(d.delivered_at)) / 3600 AS hours
    FROM masked_transcripts t
    JOIN deliveries d ON d.batch_id = t.batch_id
    GROUP BY t.vendor
)
SELECT
    p.vendor,
    count(*),
    count(*) FILTER (p.is_overdue),
    sum(p.clips),
    sum(p.returned_clips),
    sum(p.transcribed_clips),
    coalesce(any_value(f.rejected_rows), 0),
    coalesce(any_value(f.refused_files), 0),
    any_value(h.hours)
FROM per_batch p
LEFT JOIN file f ON f.vendor = p.vendor
LEFT JOIN turnaround h ON h.vendor = p.vendor
GROUP BY p.vendor
ORDER BY p.vendor
