-- Krippendorff's alpha is 1 less the disagreement over the one that chance alone would make: with n values that meet in
-- pairs, n_c of them being c, that is (n² - sum of n_c²) / (n (n - 1)) (Krippendorff 2011, nominal data).
-- The interval of a median is where the shares on either end of the interval of one half lie (Woodruff 1952).
-- Reads: deliveries, clips, masked_transcripts (all that were returned, also those that are not shown), ledger_returns,
-- compared, estimated, steered (cell, estimate, ci_low, ci_high).
INSERT INTO vendor_scorecard BY NAME
WITH per_batch AS (
    SELECT
        d.vendor,
        d.batch_id,
        d.due_at < $now AND count(t.clip_key) < count(c.clip_key) AS is_overdue,
        count(c.clip_key) AS clips,
        count(c.clip_key) FILTER (c.is_withheld) AS withheld_clips,
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
    SELECT t.vendor, list_sort(list((epoch(t.submitted_at) - epoch(d.delivered_at)) / 3600)) AS hours
    FROM masked_transcripts t
    JOIN deliveries d ON d.batch_id = t.batch_id
    WHERE t.submitted_at IS NOT NULL
    GROUP BY t.vendor
),
agreement AS (
    SELECT unnest([vendor, other_vendor]) AS vendor, status, other_status, slots, words, other_words, said
    FROM compared
),
meeting AS (
    SELECT vendor, 'word_disagreement' AS measure, unnest(said)::VARCHAR AS value, 1 AS times
    FROM agreement
    UNION ALL
    -- A word that the other has not meets no word.
    SELECT vendor, 'word_disagreement', '', 2 * slots - words - other_words FROM agreement WHERE slots IS NOT NULL
    UNION ALL
    SELECT vendor, 'status_disagreement', unnest([status, other_status]), 1 FROM agreement
),
chance AS (
    SELECT vendor, measure, (sum(times) ** 2 - sum(times ** 2)) / nullif(sum(times) * (sum(times) - 1), 0) AS disagreement
    FROM (SELECT vendor, measure, value, sum(times) AS times FROM meeting GROUP BY vendor, measure, value)
    GROUP BY vendor, measure
),
alpha AS (
    SELECT
        e.measure,
        e.cell AS vendor,
        1 - e.estimate / nullif(c.disagreement, 0) AS estimate,
        1 - e.ci_high / nullif(c.disagreement, 0) AS ci_low,
        1 - e.ci_low / nullif(c.disagreement, 0) AS ci_high
    FROM estimated e
    JOIN chance c ON c.vendor = e.cell AND c.measure = e.measure
)
SELECT
    p.vendor,
    count(*) AS batches,
    count(*) FILTER (p.is_overdue) AS overdue_batches,
    sum(p.clips) AS clips,
    sum(p.returned_clips) AS returned_clips,
    sum(p.transcribed_clips) AS transcribed_clips,
    coalesce(any_value(f.rejected_rows), 0) AS rejected_rows,
    coalesce(any_value(f.refused_files), 0) AS refused_files,
    any_value(r.estimate) AS reject_rate,
    any_value(r.ci_low) AS reject_rate_low,
    CASE WHEN any_value(r.ci_high) IS NOT NULL THEN least(any_value(r.ci_high), 1) END AS reject_rate_high,
    any_value(list_aggregate(h.hours, 'median')) AS median_turnaround_hours,
    any_value(h.hours[greatest(1, floor(len(h.hours) * (m.estimate - m.margin)))::INTEGER]) AS turnaround_low,
    any_value(h.hours[least(len(h.hours), ceil(len(h.hours) * (m.estimate + m.margin)) + 1)::INTEGER]) AS turnaround_high,
    coalesce(any_value(s.clips), 0) AS overlap_clips,
    any_value(w.estimate) AS pairwise_wer,
    any_value(w.ci_low) AS pairwise_wer_low,
    any_value(w.ci_high) AS pairwise_wer_high,
    any_value(wa.estimate) AS word_alpha,
    any_value(wa.ci_low) AS word_alpha_low,
    any_value(wa.ci_high) AS word_alpha_high,
    any_value(sa.estimate) AS status_alpha,
    any_value(sa.ci_low) AS status_alpha_low,
    any_value(sa.ci_high) AS status_alpha_high,
    sum(p.withheld_clips) AS withheld_clips,
    any_value(e.estimate) AS steering_effect,
    any_value(e.ci_low) AS steering_effect_low,
    any_value(e.ci_high) AS steering_effect_high
FROM per_batch p
LEFT JOIN file f ON f.vendor = p.vendor
LEFT JOIN turnaround h ON h.vendor = p.vendor
LEFT JOIN estimated r ON r.cell = p.vendor AND r.measure = 'rejected'
LEFT JOIN estimated m ON m.cell = p.vendor AND m.measure = 'turnaround'
LEFT JOIN estimated w ON w.cell = p.vendor AND w.measure = 'pairwise_wer'
LEFT JOIN estimated s ON s.cell = p.vendor AND s.measure = 'status_disagreement'
LEFT JOIN alpha wa ON wa.vendor = p.vendor AND wa.measure = 'word_disagreement'
LEFT JOIN alpha sa ON sa.vendor = p.vendor AND sa.measure = 'status_disagreement'
LEFT JOIN steered e ON e.cell = p.vendor
GROUP BY p.vendor
ORDER BY p.vendor
