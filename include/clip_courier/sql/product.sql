-- How many persons each product of the sample has: exactly where there may be few. Reads: drawn, looked.
CREATE TEMP TABLE product AS
WITH drawn_of AS (
    SELECT DISTINCT product FROM looked WHERE clip_id IN (SELECT clip_id FROM drawn)
),
rough AS (
    SELECT product, approx_count_distinct(p1) AS persons
    FROM looked
    WHERE product IN (SELECT product FROM drawn_of)
    GROUP BY product
),
exact AS (
    SELECT product, count(DISTINCT person_id) AS persons
    FROM (
        SELECT product, unnest(coalesce(more, [p1, p2])) AS person_id
        FROM looked
        WHERE product IN (SELECT product FROM rough WHERE persons < 1000)
    )
    GROUP BY product
)
SELECT r.product, coalesce(e.persons, r.persons) AS persons FROM rough r LEFT JOIN exact e ON e.product = r.product
