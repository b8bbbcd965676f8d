-- Reads: funnel (night, step, reason, stratum, clips, hours: select and validate), ledger_batches.
INSERT INTO nights BY NAME
SELECT night, step, reason, stratum, clips, hours FROM funnel
UNION ALL BY NAME
SELECT night, 'manifested' AS step, sum(clip_count) AS clips FROM ledger_batches GROUP BY night
UNION ALL BY NAME
SELECT night, 'delivered' AS step, sum(clip_count) AS clips
FROM ledger_batches
WHERE delivered_at IS NOT NULL
GROUP BY night
