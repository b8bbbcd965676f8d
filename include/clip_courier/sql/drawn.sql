-- The sample: within each person a keyed order cut at the cap, then within each stratum a keyed order cut at the budget.
-- Reads: judged. The order is HMAC-SHA-256 of the clip id under the sampling key ($inner and $outer are the padded keys),
-- so it depends on nothing but the key and the ids. The two orders are independent.
CREATE TEMP TABLE drawn AS
WITH eligible AS (
    SELECT
        clip_id,
        product || ' × ' || locale AS stratum,
        duration_ms,
        person_ids,
        sha256($outer::BLOB || unhex(sha256($inner::BLOB || encode('person:' || clip_id)))) AS person_order,
        sha256($outer::BLOB || unhex(sha256($inner::BLOB || encode('stratum:' || clip_id)))) AS stratum_order
    FROM judged
    WHERE reason IS NULL
    QUALIFY row_number() OVER (PARTITION BY clip_id ORDER BY recorded_at, duration_ms) = 1
),
rank_of AS (
    SELECT
        clip_id,
        row_number() OVER (PARTITION BY person_id ORDER BY person_order) AS place,
        count(*) OVER (PARTITION BY person_id) AS clips
    FROM (SELECT clip_id, person_order, unnest(person_ids) AS person_id FROM eligible)
),
thinned AS (
    SELECT e.*, r.probability AS person_probability
    FROM eligible e
    JOIN (
        SELECT clip_id, max(place) AS place, least(1.0, $clips_per_person / max(clips)) AS probability
        FROM rank_of
        GROUP BY clip_id
    ) r ON r.clip_id = e.clip_id
    WHERE r.place <= $clips_per_person
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
