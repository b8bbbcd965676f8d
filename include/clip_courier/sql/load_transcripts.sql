-- What a transcriber found too hard to read on is shown to nobody else, not even that it is there. A mask has one ‹ and
-- stands for a word or a run of them.
INSERT INTO transcripts BY NAME
SELECT
    *,
    1 + length(text) - length(replace(text, ' ', '')) AS words,
    length(text) - length(replace(text, '‹', '')) AS masks
FROM masked_transcripts
WHERE status NOT IN ('sensitive', 'distress')
