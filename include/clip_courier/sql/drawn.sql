-- The sample: within each person a keyed order cut at the cap, then within each stratum a keyed order cut at the budget.
-- The order is HMAC-SHA-256 of the clip id under the sampling key ($inner and $outer are the padded keys), so it depends
-- on nothing but the key and the ids. The two orders are independent. Reads: judged, set_aside (clip_id).
CREATE TEMP TABLE drawn AS
WITH eligible AS (
    SELECT clip_id, product || ' × ' || locale AS stratum, duration_ms, person_ids
    FROM judged
    WHERE reason IS NULL AND clip_id NOT IN (SELECT clip_id FROM set_aside)
    -- Validation refuses an id that stands twice; until then any of its rows will do, but always the same.
    QUALIFY row_number() OVER (
        PARTITION BY clip_id ORDER BY recorded_at, duration_ms, product, locale, person_ids
    ) = 1
),
ordered AS (
    SELECT
        clip_id,
        person_ids,
        sha256($outer::BLOB || unhex(sha256($inner::BLOB || encode('person:' || clip_id)))) AS person_order
    FROM eligible
),
rank_of AS (
    SELECT
        clip_id,
        row_number() OVER (PARTITION BY person_id ORDER BY person_order, clip_id) AS place,
        count(*) OVER (PARTITION BY person_id) AS clips
    FROM (SELECT clip_id, person_order, unnest(person_ids) AS person_id FROM ordered)
),
kept AS (
    SELECT clip_id, least(1.0, $clips_per_person / max(clips)) AS person_probability
    FROM rank_of
    GROUP BY clip_id
    HAVING max(place) <= $clips_per_person
),
thinned AS (
    SELECT
        e.clip_id,
        e.stratum,
        e.duration_ms,
        k.person_probability,
        sha256($outer::BLOB || unhex(sha256($inner::BLOB || encode('stratum:' || e.clip_id)))) AS stratum_order
    FROM eligible e
    JOIN kept k ON k.clip_id = e.clip_id
)
SELECT
    clip_id,
    stratum,
    person_probability
        * least(1.0, $budget_ms / sum(duration_ms) OVER (PARTITION BY stratum)) AS inclusion_probability
FROM thinned
QUALIFY sum(duration_ms) OVER (
    PARTITION BY stratum ORDER BY stratum_order, clip_id ROWS UNBOUNDED PRECEDING
) <= $budget_ms
