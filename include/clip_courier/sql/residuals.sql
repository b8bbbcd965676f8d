-- The ratio of each cell and arm, and what each set of persons leaves of it, enlarged by what it pulled the ratio towards
-- itself; a person that is the whole cell leaves nothing to compare it with. Reads: sums.
CREATE OR REPLACE TEMP VIEW residuals AS
WITH total AS (
    SELECT cell, arm, sum(sign * wx) / nullif(sum(sign * wy), 0) AS ratio, nullif(sum(sign * wy), 0) AS wy
    FROM sums
    GROUP BY cell, arm
)
SELECT
    s.*,
    t.ratio,
    s.wy / t.wy AS share,
    (s.wx - t.ratio * s.wy) / t.wy / sqrt(CASE WHEN s.wy < t.wy THEN 1 - s.wy / t.wy END) AS residual
FROM sums s
JOIN total t ON t.cell = s.cell AND t.arm = s.arm
