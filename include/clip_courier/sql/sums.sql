-- What estimates are made of: sums over each set of up to three persons who are heard together in a clip, so that two
-- clips of one person are known for it. Of more persons the first three, in the order of their keys.
-- Reads: observed (measure, cell, weight, numerator, denominator, duration_ms, persons: sorted keys).
WITH part AS (
    SELECT
        measure,
        cell,
        unnest(CASE least(len(persons), 3)
            WHEN 1 THEN [persons]
            WHEN 2 THEN [[persons[1]], [persons[2]], persons]
            ELSE [
                [persons[1]], [persons[2]], [persons[3]],
                [persons[1], persons[2]], [persons[1], persons[3]], [persons[2], persons[3]],
                persons[:3]
            ]
        END) AS together,
        duration_ms,
        weight AS w,
        weight * numerator AS wx,
        weight * denominator AS wy,
        weight * numerator * numerator AS wxx,
        weight * numerator * denominator AS wxy,
        weight * denominator * denominator AS wyy
    FROM observed
    WHERE weight IS NOT NULL
)
SELECT
    measure,
    cell,
    array_to_string(together, ' ') AS together,
    any_value(len(together)) AS persons,
    count(*) AS clips,
    sum(duration_ms)::DOUBLE AS audio_ms,
    sum(w) AS w,
    sum(wx) AS wx,
    sum(wy) AS wy,
    sum(wxx) AS wxx,
    sum(wxy) AS wxy,
    sum(wyy) AS wyy
FROM part
GROUP BY ALL
-- The sums of floating numbers depend on their order.
ORDER BY measure, cell, together
