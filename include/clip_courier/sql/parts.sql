-- What estimates are made of, one row a cell and arm. Reads: residuals, observed.
WITH spread AS (
    SELECT
        cell,
        arm,
        any_value(ratio) AS ratio,
        sum(sign * residual * residual) AS variance,
        sum(sign * share * share) AS shares,
        sum(sign * share * share / nullif(1 - share, 0)) AS pulls,
        sum(sign * (share * share / nullif(1 - share, 0)) ** 2) AS squared_pulls,
        count(*) FILTER (is_person) AS speakers
    FROM residuals
    GROUP BY cell, arm
),
moment AS (
    SELECT
        cell,
        arm,
        count(*) AS clips,
        sum(duration_ms)::DOUBLE AS audio_ms,
        sum(weight) AS w,
        sum(weight * denominator) AS wy,
        sum(weight * numerator * numerator) AS wxx,
        sum(weight * numerator * denominator) AS wxy,
        sum(weight * denominator * denominator) AS wyy
    FROM observed
    WHERE measure = $measure
    GROUP BY cell, arm
)
SELECT s.*, m.* EXCLUDE (cell, arm)
FROM spread s
JOIN moment m ON m.cell = s.cell AND m.arm = s.arm
ORDER BY s.cell, s.arm
