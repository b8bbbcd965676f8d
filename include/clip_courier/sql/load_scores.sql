INSERT INTO scores BY NAME SELECT * EXCLUDE (speaker_keys, is_overlap, is_withheld) FROM scored
