-- The clips that may be drawn. Reads: considered.
CREATE TEMP VIEW drawable AS
SELECT
    rowid AS clip_no,
    clip_id,
    stratum_no,
    product_no,
    duration_ms,
    billed_ms,
    weight,
    more,
    mark1,
    mark2
FROM considered
WHERE standing IS NULL
