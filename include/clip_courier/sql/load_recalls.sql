INSERT INTO recalls BY NAME SELECT * FROM ledger_recalls ORDER BY batch_id, n
