INSERT INTO scores BY NAME SELECT * FROM scored ORDER BY clip_key
