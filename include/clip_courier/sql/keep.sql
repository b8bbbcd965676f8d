-- The verdicts about the clips of one file. Reads: anew.
COPY (SELECT * EXCLUDE (file_no) FROM anew WHERE file_no = $file_no) TO $path (FORMAT parquet, COMPRESSION lz4_raw)
