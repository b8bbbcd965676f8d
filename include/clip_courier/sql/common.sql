-- What the two arms of each cell have in common, for a person may be in both. Reads: residuals.
SELECT one.cell, sum(one.sign * one.residual * other.residual) AS covariance
FROM residuals one
JOIN residuals other ON other.cell = one.cell AND other.together = one.together AND other.arm > one.arm
GROUP BY one.cell
ORDER BY one.cell
