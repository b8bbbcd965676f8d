-- What each combination of what describes a clip shows at each rung, numbered so that what a group has in common has one
-- number. A week is shown as the first of its four (W01, W05, …, W49), then as the first of its ISO year. Sound is shown
-- as one channel of at most 16 kHz, then as long as its coarser bucket (NULL: as it is), then at 8 kHz. Reads: batch.
CREATE TEMP TABLE ladder AS
WITH kind AS (
    SELECT DISTINCT
        locale,
        product,
        strftime(recorded_at::TIMESTAMP, '%G-W%V') AS week,
        bucket(sound_ms) AS length,
        padded(sound_ms) AS padded_ms,
        sample_rate_hz AS rate,
        channels
    FROM batch
),
shown AS (
    SELECT
        *,
        CASE WHEN rung >= 6 THEN split_part(locale, '-', 1) ELSE locale END AS shown_locale,
        CASE WHEN rung >= 4 THEN 'other' ELSE product END AS shown_product,
        CASE
            WHEN rung >= 2 THEN week[:4] || '-W01'
            WHEN rung >= 1 THEN week[:6] || lpad(((least(week[7:]::INTEGER, 52) - 1) // 4 * 4 + 1)::VARCHAR, 2, '0')
            ELSE week
        END AS shown_week,
        CASE WHEN rung >= 5 THEN padded_ms END AS shown_padded_ms,
        CASE WHEN rung >= 5 AND padded_ms IS NOT NULL THEN bucket(padded_ms) ELSE length END AS shown_length,
        CASE WHEN rung >= 7 THEN least(rate, 8000) WHEN rung >= 3 THEN least(rate, 16000) ELSE rate END AS shown_rate,
        CASE WHEN rung >= 3 THEN 1 ELSE channels END AS shown_channels
    FROM kind
    CROSS JOIN (SELECT unnest(range(8)) AS rung)
)
SELECT
    dense_rank() OVER (ORDER BY locale, product, week, length, padded_ms, rate, channels)::INTEGER AS kind,
    dense_rank() OVER (
        ORDER BY shown_locale, shown_product, shown_week, shown_length, shown_rate, shown_channels
    )::INTEGER AS shown,
    *
FROM shown
