-- What a transcriber found too hard to read on is shown to nobody else, not even that it is there.
INSERT INTO transcripts
SELECT clip_key, batch_id, vendor, status, text, chosen_rank, annotator_key, submitted_at, revision, note
FROM masked_transcripts
WHERE status NOT IN ('sensitive', 'distress')
