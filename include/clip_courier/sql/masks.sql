-- How many masks of each kind stand in the hypotheses that leave. Reads: manifest.
SELECT mask[2:-2] AS kind, count(*) AS masks
FROM (
    SELECT unnest(regexp_extract_all(text, '‹[A-Z_]+›')) AS mask
    FROM (SELECT unnest(list_transform(hypotheses, lambda h: h.text)) AS text FROM manifest)
)
GROUP BY kind
ORDER BY kind
