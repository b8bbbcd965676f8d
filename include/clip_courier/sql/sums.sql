-- Sums over each set of up to three persons who are heard together in a clip: sums over all sets of odd size less those
-- over all of even size have each clip once, and squares of these sums each two clips that share a person. Of more persons
-- the first three, in the order of their keys. Reads: observed.
CREATE OR REPLACE TEMP TABLE sums AS
WITH part AS (
    SELECT
        cell,
        arm,
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
    WHERE measure = $measure
)
SELECT
    cell,
    arm,
    array_to_string(together, ' ') AS together,
    CASE WHEN any_value(len(together)) = 2 THEN -1 ELSE 1 END AS sign,
    any_value(len(together)) = 1 AS is_person,
    count(*) AS clips,
    sum(duration_ms) AS audio_ms,
    sum(w) AS w,
    sum(wx) AS wx,
    sum(wy) AS wy,
    sum(wxx) AS wxx,
    sum(wxy) AS wxy,
    sum(wyy) AS wyy
FROM part
GROUP BY cell, arm, together
