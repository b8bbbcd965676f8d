-- The clips that are judged anew, with what the rules look at: of participants the ids p1 and p2, and where there are more
-- than two the list of all. Reads: fresh, stale (verdicts.FOUND).
CREATE TEMP VIEW voice AS
SELECT
    file_no,
    row_no,
    clip_id,
    product,
    activation,
    locale,
    country,
    recorded_at::TIMESTAMPTZ AS recorded_at,
    duration_ms::BIGINT AS duration_ms,
    coalesce(len(participants), 0) AS people,
    participants[1].person_id AS p1,
    participants[2].person_id AS p2,
    CASE WHEN len(participants) > 2 THEN list_transform(participants, lambda p: p.person_id) END AS more
FROM fresh
UNION ALL
SELECT NULL, NULL, clip_id, product, activation, locale, country, recorded_at, duration_ms, people, p1, p2, more
FROM stale
