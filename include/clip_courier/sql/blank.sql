-- A part without what it tells of the clips in which somebody of `gone` is audible; written as `keep` writes it.
-- Reads: part, gone (person_id).
COPY (
    WITH told AS (
        SELECT
            *,
            coalesce(p1 IN (FROM gone), FALSE)
                OR coalesce(p2 IN (FROM gone), FALSE)
                OR coalesce(list_has_any(more, (SELECT list(person_id) FROM gone)), FALSE) AS is_gone
        FROM part
    )
    SELECT * EXCLUDE (is_gone) FROM told WHERE NOT is_gone
    UNION ALL BY NAME
    SELECT row_no, 'erased' AS flaw FROM told WHERE is_gone
) TO $path (FORMAT parquet, COMPRESSION uncompressed, PARQUET_VERSION v2, DICTIONARY_SIZE_LIMIT 1000)
