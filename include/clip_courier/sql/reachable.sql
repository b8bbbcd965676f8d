-- Reads: overheard.
UPDATE considered SET standing = 'overheard' WHERE rowid IN (SELECT clip_no FROM overheard)
