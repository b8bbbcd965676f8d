-- What a transcriber found too hard to read on is shown to nobody else, not even that it is there.
INSERT INTO transcripts BY NAME SELECT * FROM masked_transcripts WHERE status NOT IN ('sensitive', 'distress')
