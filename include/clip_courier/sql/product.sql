-- How many persons each product of the sample has: exactly where there may be few. Reads: drawn, drawable, verdict.
CREATE TEMP TABLE product AS
WITH drawn_of AS (
    SELECT DISTINCT product FROM drawable WHERE clip_id IN (SELECT clip_id FROM drawn)
),
rough AS (
    SELECT product, approx_count_distinct(mark1) AS persons
    FROM verdict
    WHERE product IN (SELECT product FROM drawn_of)
    GROUP BY product
),
few AS (
    SELECT * FROM verdict WHERE product IN (SELECT product FROM rough WHERE persons < 1000)
),
exact AS (
    SELECT product, count(DISTINCT person_id) AS persons
    FROM (
        SELECT product, unnest([p1, p2]) AS person_id FROM few
        UNION ALL
        SELECT product, unnest(more) FROM few WHERE more IS NOT NULL
    )
    GROUP BY product
)
SELECT r.product, coalesce(e.persons, r.persons) AS persons FROM rough r LEFT JOIN exact e ON e.product = r.product
