-- Every clip of the landing window with the first of the reasons that lie in the clip itself; a participant is clear when
-- nothing can be held against the clip on their part. `judged` adds the other reasons. Reads: clips, clear.
-- Participants stand by their numbers as n1 and n2, and where there are more as a list of all their ids.
CREATE TEMP TABLE looked AS
SELECT
    c.clip_id,
    c.product,
    CASE WHEN $by_locale THEN c.locale END AS locale,
    CASE WHEN $by_country THEN c.country END AS country,
    CASE WHEN $by_activation THEN c.activation END AS activation,
    c.recorded_at,
    c.duration_ms,
    a.person_no AS n1,
    b.person_no AS n2,
    c.more,
    c.people = 0 OR c.p1 IS NULL OR (c.people > 1 AND c.p2 IS NULL)
        OR coalesce(len(c.more) > len(list_filter(c.more, lambda p: p IS NOT NULL)), FALSE) AS is_unknown,
    CASE
        WHEN c.clip_id IS NULL OR c.product IS NULL OR c.activation IS NULL OR c.locale IS NULL OR c.country IS NULL
            OR c.recorded_at IS NULL OR c.duration_ms IS NULL THEN 'malformed'
        WHEN is_unknown THEN 'unknown_participant'
        WHEN c.activation = 'accidental' THEN 'accidental'
        WHEN c.recorded_at > $now THEN 'future'
        WHEN c.recorded_at < $oldest THEN 'too_old'
        WHEN c.duration_ms < $min_duration_ms THEN 'too_short'
        WHEN c.duration_ms > $max_duration_ms THEN 'too_long'
    END AS reason,
    coalesce(c.recorded_at >= a.clear_from, FALSE) AS is_clear1,
    coalesce(c.recorded_at >= b.clear_from, FALSE) AS is_clear2,
    coalesce(a.is_busy, FALSE) AS is_busy1,
    coalesce(b.is_busy, FALSE) AS is_busy2
FROM (
    SELECT
        clip_id,
        product,
        locale,
        country,
        activation,
        recorded_at::TIMESTAMPTZ AS recorded_at,
        duration_ms,
        coalesce(len(participants), 0) AS people,
        participants[1].person_id AS p1,
        participants[2].person_id AS p2,
        CASE WHEN len(participants) > 2 THEN list_transform(participants, lambda p: p.person_id) END AS more
    FROM clips
) c
LEFT JOIN clear a ON a.person_id = c.p1
LEFT JOIN clear b ON b.person_id = c.p2
