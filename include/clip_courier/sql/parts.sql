-- What estimates are made of, one row a cell and arm. Reads: residuals.
SELECT
    cell,
    arm,
    any_value(ratio) AS ratio,
    sum(sign * residual * residual) AS variance,
    sum(sign * share * share) AS shares,
    sum(sign * share * share / nullif(1 - share, 0)) AS pulls,
    sum(sign * (share * share / nullif(1 - share, 0)) ** 2) AS squared_pulls,
    count(*) FILTER (is_person) AS speakers,
    sum(sign * clips)::BIGINT AS clips,
    sum(sign * audio_ms)::DOUBLE AS audio_ms,
    sum(sign * w) AS w,
    sum(sign * wy) AS wy,
    sum(sign * wxx) AS wxx,
    sum(sign * wxy) AS wxy,
    sum(sign * wyy) AS wyy
FROM residuals
GROUP BY cell, arm
ORDER BY cell, arm
