-- The clips that are judged anew, with the first of the flaws that nothing mends; a participant is clear when nothing can be
-- held against the clip on their part. n1 and n2 are the participants' numbers. Reads: voice, clear.
CREATE TEMP TABLE looked AS
SELECT
    v.* EXCLUDE (people),
    v.people::INTEGER AS people,
    a.person_no AS n1,
    b.person_no AS n2,
    v.people = 0 OR v.p1 IS NULL OR (v.people > 1 AND v.p2 IS NULL)
        OR coalesce(len(v.more) > len(list_filter(v.more, lambda p: p IS NOT NULL)), FALSE) AS is_unknown,
    CASE
        WHEN v.clip_id IS NULL OR v.product IS NULL OR v.activation IS NULL OR v.locale IS NULL OR v.country IS NULL
            OR v.recorded_at IS NULL OR v.duration_ms IS NULL THEN 'malformed'
        WHEN is_unknown THEN 'unknown_participant'
        WHEN v.activation = 'accidental' THEN 'accidental'
    END AS flaw,
    coalesce(v.recorded_at >= a.clear_from, FALSE) AS is_clear1,
    coalesce(v.recorded_at >= b.clear_from, FALSE) AS is_clear2
FROM voice v
LEFT JOIN clear a ON a.person_id = v.p1
LEFT JOIN clear b ON b.person_id = v.p2
