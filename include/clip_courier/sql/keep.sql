-- The verdicts about the clips of one file. Lengths before texts, and dictionaries only of what is few, are quick to write and to
-- read, and as small as if they were compressed. Reads: anew.
COPY (SELECT * EXCLUDE (file_no) FROM anew WHERE file_no = $file_no) TO $path (FORMAT parquet, COMPRESSION uncompressed, PARQUET_VERSION v2, DICTIONARY_SIZE_LIMIT 1000)
