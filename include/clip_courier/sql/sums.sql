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
        weight * numerator AS wx,
        weight * denominator AS wy
    FROM observed
    WHERE measure = $measure
)
SELECT
    cell,
    arm,
    array_to_string(together, ' ') AS together,
    CASE WHEN any_value(len(together)) = 2 THEN -1 ELSE 1 END AS sign,
    any_value(len(together)) = 1 AS is_person,
    sum(wx) AS wx,
    sum(wy) AS wy
FROM part
GROUP BY cell, arm, together
