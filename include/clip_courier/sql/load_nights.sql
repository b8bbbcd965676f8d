-- Reads: funnel (night, step, reason, clips: select and validate), ledger_batches.
INSERT INTO nights
SELECT night, step, reason, clips FROM funnel
UNION ALL
SELECT night, 'manifested', NULL, sum(clip_count) FROM ledger_batches GROUP BY night
UNION ALL
SELECT night, 'delivered', NULL, sum(clip_count) FROM ledger_batches WHERE delivered_at IS NOT NULL GROUP BY night
