-- So many rows of the newest partitions, with what `select` adds. Reads: clips.
SELECT
    row_number() OVER () AS row,
    * EXCLUDE (words),
    list_transform(participants, lambda p: p.person_id) AS person_ids,
    product || ' × ' || locale AS stratum,
    0.5 AS inclusion_probability,
    FALSE AS is_for_two,
    FALSE AS is_withheld,
    1::BIGINT AS copies,
    1000::BIGINT AS product_persons,
    md5(clip_id) AS clip_key
FROM clips
WHERE activation <> 'accidental' AND country IS NOT NULL
LIMIT $rows
