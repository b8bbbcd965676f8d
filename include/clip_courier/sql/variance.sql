-- How far the thinning's outcome varies, in each stratum: the variance of the length and of the number of clips that are
-- expected to be taken once it is known who survived. Of a cell one clip survives, so its clips exclude each other; what
-- clips of several cells have in common beyond that is left out. Whole numbers (billionths of a billed step and of a clip), so
-- that the order of summation does not matter. Reads: rival, stratum, level (stratum, level).
WITH part AS (
    SELECT
        r.stratum_no,
        r.cell,
        r.rivals,
        least(1, l.level * r.weight * r.rivals) AS q,
        r.billed_ms // $step_ms AS steps
    FROM rival r
    JOIN stratum s ON s.stratum_no = r.stratum_no
    JOIN level l ON l.stratum = s.stratum
),
of_cell AS (
    SELECT
        stratum_no,
        sum((q * steps * q * steps / rivals * 1e9)::BIGINT) * 1000000000 AS steps_squared,
        sum((q * steps / rivals * 1e9)::BIGINT) AS steps,
        sum((q * q / rivals * 1e18)::BIGINT) AS clips_squared,
        sum((q / rivals * 1e9)::BIGINT) AS clips
    FROM part
    GROUP BY stratum_no, cell
)
SELECT
    s.stratum,
    sum(greatest(steps_squared - steps * steps, 0))::DOUBLE / 1e18 * $step_ms * $step_ms AS billed,
    sum(greatest(clips_squared - clips * clips, 0))::DOUBLE / 1e18 AS clips
FROM of_cell
JOIN stratum s ON s.stratum_no = of_cell.stratum_no
GROUP BY s.stratum
