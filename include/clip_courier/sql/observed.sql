-- Every ratio that is estimated, as its observations: of what measure and cell, with which weight, and whose.
-- Reads: scored, compared, masked_transcripts, deliveries, ledger_returns.
CREATE TEMP VIEW observed AS
WITH heard AS (
    SELECT
        *,
        1 / inclusion_probability AS weight,
        substitutions + deletions + insertions AS errors,
        coalesce(speaker_keys, [speaker_key]) AS persons
    FROM scored
),
-- A clip that two vendors transcribed is one clip, with the mean of what they make of it.
clip AS (
    SELECT stratum, product, locale, recorded_week, weight, errors, words, duration_ms, persons
    FROM heard
    WHERE is_overlap IS DISTINCT FROM TRUE
    UNION ALL
    SELECT
        any_value(stratum),
        any_value(product),
        any_value(locale),
        any_value(recorded_week),
        any_value(weight),
        avg(errors),
        avg(words),
        any_value(duration_ms),
        any_value(persons)
    FROM heard
    WHERE is_overlap
    GROUP BY clip_key
),
agreement AS (
    SELECT c.*, unnest([c.vendor, c.other_vendor]) AS judged, coalesce(c.speaker_keys, [c.speaker_key]) AS persons
    FROM compared c
),
answer AS (
    SELECT
        t.vendor,
        t.batch_id,
        epoch(t.submitted_at) - epoch(d.delivered_at) AS seconds,
        median(epoch(t.submitted_at) - epoch(d.delivered_at)) OVER (PARTITION BY t.vendor) AS median_seconds
    FROM masked_transcripts t
    JOIN deliveries d ON d.batch_id = t.batch_id
)
SELECT 'stratum' AS measure, stratum AS cell, weight, errors AS numerator, words AS denominator, duration_ms, persons
FROM clip
UNION ALL
SELECT 'product', product, weight, errors, words, duration_ms, persons FROM clip
UNION ALL
SELECT 'locale', locale, weight, errors, words, duration_ms, persons FROM clip
UNION ALL
SELECT 'week', recorded_week, weight, errors, words, duration_ms, persons FROM clip
UNION ALL
SELECT CASE WHEN is_withheld THEN 'withheld' ELSE 'shown' END, vendor, weight, errors, words, duration_ms, persons
FROM heard
WHERE is_withheld IS NOT NULL
UNION ALL
-- Neither transcript is the right one: against the mean length of both.
SELECT 'pairwise_wer', judged, 1, errors, (words + other_words) / 2, 0, persons FROM agreement WHERE slots IS NOT NULL
UNION ALL
SELECT 'word_disagreement', judged, 1, errors, slots, 0, persons FROM agreement WHERE slots IS NOT NULL
UNION ALL
SELECT 'status_disagreement', judged, 1, (status <> other_status)::INTEGER, 1, 0, persons FROM agreement
UNION ALL
-- Rows of one file go wrong together.
SELECT 'rejected', vendor, 1, rejected_rows, accepted_rows + rejected_rows, 0, [batch_id || ' ' || n]
FROM ledger_returns
WHERE accepted_rows + rejected_rows > 0
UNION ALL
-- Clips of one batch come back together.
SELECT 'turnaround', vendor, 1, (seconds <= median_seconds)::INTEGER, 1, 0, [batch_id] FROM answer
