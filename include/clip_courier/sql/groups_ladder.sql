-- What each combination of locale, product and week shows at each rung, numbered so that equal ones have equal numbers.
-- A week is shown as the first of its four (W01, W05, …, W49), then as the first of its ISO year. Reads: batch.
CREATE TEMP TABLE ladder AS
WITH kind AS (
    SELECT DISTINCT locale, product, strftime(recorded_at::TIMESTAMP, '%G-W%V') AS week FROM batch
),
shown AS (
    SELECT
        *,
        CASE WHEN rung >= 5 THEN split_part(locale, '-', 1) ELSE locale END AS shown_locale,
        CASE WHEN rung >= 4 THEN 'other' ELSE product END AS shown_product,
        CASE
            WHEN rung >= 3 THEN week[:4] || '-W01'
            WHEN rung >= 2 THEN week[:6] || lpad(((least(week[7:]::INTEGER, 52) - 1) // 4 * 4 + 1)::VARCHAR, 2, '0')
            ELSE week
        END AS shown_week
    FROM kind
    CROSS JOIN (SELECT unnest(range(6)) AS rung)
)
SELECT
    dense_rank() OVER (ORDER BY locale, product, week)::INTEGER AS kind,
    dense_rank() OVER (ORDER BY shown_locale, shown_product, shown_week)::INTEGER AS shown,
    *
FROM shown
