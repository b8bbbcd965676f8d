-- The tables of which a clip stands twice in a batch. An index that forbids it would make the file three times as large
-- and as slow to build.
SELECT DISTINCT table_name
FROM (
    SELECT 'clips' AS table_name FROM clips GROUP BY clip_key, batch_id HAVING count(*) > 1
    UNION ALL
    SELECT 'transcripts' FROM transcripts GROUP BY clip_key, batch_id HAVING count(*) > 1
    UNION ALL
    SELECT 'scores' FROM scores GROUP BY clip_key, batch_id HAVING count(*) > 1
)
