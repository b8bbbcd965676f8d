-- The ratio of each cell and arm, and by how much each set of persons moves it: what the ratio of everybody is over that
-- of all others. A person that is the whole cell leaves no others. Reads: sums.
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
    (s.wx - t.ratio * s.wy) / CASE WHEN s.wy < t.wy THEN t.wy - s.wy END AS residual
FROM sums s
JOIN total t ON t.cell = s.cell AND t.arm = s.arm
