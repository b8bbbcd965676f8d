-- Reads: wer_by_stratum, wer_by_product, wer_by_locale, wer_by_week. All that is published, not one night alone.
SELECT 'stratum' AS kind, * RENAME (stratum AS name) FROM wer_by_stratum
UNION ALL BY NAME
SELECT 'product' AS kind, * RENAME (product AS name) FROM wer_by_product
UNION ALL BY NAME
SELECT 'locale' AS kind, * RENAME (locale AS name) FROM wer_by_locale
UNION ALL BY NAME
SELECT 'week' AS kind, * RENAME (recorded_week AS name) FROM wer_by_week
ORDER BY kind, name
