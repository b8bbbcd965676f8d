-- How many persons share each product of the drawable clips in the window: exactly where there may be few.
-- Reads: drawable, naming, verdict.
CREATE TEMP TABLE product AS
WITH rough AS (
    SELECT n.product, r.persons
    FROM (SELECT product_no, approx_count_distinct(mark1) AS persons FROM drawable GROUP BY product_no) r
    JOIN (SELECT DISTINCT product_no, product FROM naming) n ON n.product_no = r.product_no
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
