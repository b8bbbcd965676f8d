INSERT INTO rejections BY NAME SELECT * FROM refused ORDER BY night, stage, reason, clip_key
