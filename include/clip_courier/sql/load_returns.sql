-- Reads: ledger_returns, ledger_rows.
INSERT INTO returns
SELECT
    f.batch_id,
    f.n,
    f.vendor,
    f.received_at,
    f.state,
    f.reason,
    coalesce(r.received_rows, 0),
    coalesce(r.rejected_rows, 0),
    coalesce(r.loaded_rows, 0),
    coalesce(r.superseded_rows, 0),
    coalesce(r.forgotten_rows, 0),
    coalesce(r.sensitive_rows, 0),
    coalesce(r.distress_rows, 0),
    coalesce(r.breach_rows, 0)
FROM ledger_returns f
LEFT JOIN ledger_rows r ON r.vendor = f.vendor AND r.batch_id = f.batch_id AND r.n = f.n
ORDER BY f.batch_id, f.n, f.vendor
