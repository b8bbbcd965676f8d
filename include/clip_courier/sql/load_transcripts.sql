INSERT INTO transcripts
SELECT clip_key, batch_id, vendor, status, text, chosen_rank, annotator_key, submitted_at, revision, note
FROM masked_transcripts ORDER BY clip_key
