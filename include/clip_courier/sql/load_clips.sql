INSERT INTO clips BY NAME SELECT * FROM delivered_clips
