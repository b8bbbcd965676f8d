-- The sample: of the survivors of each group the `hits` with the lowest keyed hash. Its order has nothing to do with the
-- one of the thinning. What the thinning let overflow is cut, in the same order, at the stratum's budget and the night's
-- number of clips. Reads: drawable, rival, stratum, hit (a group, hits, probability, reach), budget (stratum, budget_ms).
WITH wanted AS (
    SELECT n.stratum_no, h.billed_ms, h.weight, h.rivals, h.probability, h.hits, h.group_no, h.reach
    FROM hit h
    JOIN stratum n ON n.stratum = h.stratum
    WHERE h.hits > 0
),
survivor AS (
    SELECT
        d.clip_id, d.stratum_no, d.duration_ms, h.probability, h.hits, h.group_no, h.reach, md5_number($key || d.clip_id) AS lot
    FROM drawable d
    LEFT JOIN rival r ON r.clip_no = d.clip_no
    JOIN wanted h
        ON h.stratum_no = d.stratum_no AND h.billed_ms = d.billed_ms AND h.weight = d.weight
        AND h.rivals = coalesce(r.rivals, 1)
    WHERE coalesce(r.is_kept, TRUE)
),
-- Those below the bound that nearly always leaves enough are few to sort; of a group where it does not, all are sorted.
low AS MATERIALIZED (
    SELECT * FROM survivor WHERE lot::DOUBLE <= reach
),
scarce AS MATERIALIZED (
    SELECT h.group_no
    FROM wanted h
    LEFT JOIN (SELECT group_no, count(*) AS clips FROM low GROUP BY group_no) l ON l.group_no = h.group_no
    WHERE coalesce(l.clips, 0) < h.hits
),
near AS (
    SELECT * FROM low
    UNION ALL
    SELECT * FROM survivor WHERE lot::DOUBLE > reach AND group_no IN (SELECT group_no FROM scarce)
),
taken AS (
    SELECT * FROM near QUALIFY row_number() OVER (PARTITION BY group_no ORDER BY lot, duration_ms) <= hits
),
once AS (
    SELECT * FROM taken QUALIFY row_number() OVER (PARTITION BY clip_id ORDER BY stratum_no, duration_ms, group_no) = 1
),
within AS (
    SELECT
        t.*,
        n.stratum,
        sum(t.duration_ms) OVER (PARTITION BY t.stratum_no ORDER BY t.lot, t.clip_id ROWS UNBOUNDED PRECEDING) <= b.budget_ms
            AS is_within
    FROM once t
    JOIN stratum n ON n.stratum_no = t.stratum_no
    JOIN budget b ON b.stratum = n.stratum
)
SELECT clip_id, stratum, duration_ms, probability AS inclusion_probability
FROM within
WHERE is_within
QUALIFY row_number() OVER (ORDER BY lot, clip_id) <= $most_clips
