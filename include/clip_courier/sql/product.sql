-- How many persons each product of the sample has: exactly where there may be few. Reads: drawn, looked, listener.
CREATE TEMP TABLE product AS
WITH drawn_of AS (
    SELECT DISTINCT product FROM looked WHERE clip_id IN (SELECT clip_id FROM drawn)
),
rough AS (
    SELECT product, approx_count_distinct(n1) AS persons
    FROM looked
    WHERE product IN (SELECT product FROM drawn_of)
    GROUP BY product
),
few AS MATERIALIZED (
    SELECT * FROM looked WHERE product IN (SELECT product FROM rough WHERE persons < 1000)
),
exact AS (
    SELECT product, count(DISTINCT person_no) AS persons
    FROM (
        SELECT product, unnest([n1, n2]) AS person_no FROM few
        UNION ALL
        SELECT m.product, l.rowid
        FROM (SELECT product, unnest(more) AS person_id FROM few WHERE more IS NOT NULL) m
        JOIN listener l ON l.person_id = m.person_id
    )
    GROUP BY product
)
SELECT r.product, coalesce(e.persons, r.persons) AS persons FROM rough r LEFT JOIN exact e ON e.product = r.product
