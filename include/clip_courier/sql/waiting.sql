-- Whose event has not arrived yet. Reads: event, listener.
SELECT DISTINCT l.person_id FROM event e JOIN listener l ON l.rowid = e.person_no WHERE NOT e.is_known
