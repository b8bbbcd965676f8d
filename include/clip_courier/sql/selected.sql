-- The drawn clips with the contract's columns, how many rows of landing carry the same id, and how many persons the
-- same product: a name that few share may be somebody's. Reads: clips, drawn, product, short.
-- Lists are built anew from the fields that the contract names: another field inside them identifies, as a column does.
WITH chosen AS (
    SELECT
        c.clip_id,
        c.call_id,
        c.product,
        c.activation,
        c.locale,
        c.country,
        c.recorded_at::TIMESTAMPTZ AS recorded_at,
        c.duration_ms,
        c.sample_rate_hz,
        c.channels,
        c.audio_uri,
        c.audio_sha256,
        list_transform(c.participants, lambda p: {'person_id': p.person_id, 'role': p.role}) AS participants,
        list_sort(list_distinct(list_transform(c.participants, lambda p: p.person_id))) AS person_ids,
        list_transform(
            c.hypotheses,
            lambda h: {'rank': h.rank, 'text': h.text, 'confidence': h.confidence, 'engine': h.engine}
        ) AS hypotheses,
        list_transform(c.words, lambda w: {'word': w.word, 'start_ms': w.start_ms, 'end_ms': w.end_ms}) AS words,
        d.stratum,
        d.inclusion_probability,
        md5_number($overlap_key || c.clip_id) < $overlap_share::UHUGEINT
            AND NOT list_has_any(list_transform(person_ids, lambda p: hash(p)), (SELECT coalesce(list(mark), []) FROM short)) AS is_for_two,
        md5_number($withheld_key || c.clip_id) < $withheld_share::UHUGEINT AS is_withheld,
        count(*) OVER (PARTITION BY c.clip_id) AS copies,
        coalesce(p.persons, 0) AS product_persons
    FROM clips c
    JOIN drawn d ON d.clip_id = c.clip_id
    LEFT JOIN product p ON p.product = c.product
)
-- Rows of one id are ordered by all that may differ, so that the numbers are the same on every run.
SELECT row_number() OVER (ORDER BY clip_id, recorded_at, audio_uri, CASE WHEN copies > 1 THEN hash(chosen) END) AS row, *
FROM chosen
ORDER BY row
