-- The strata and products of the clips in the window, a row for each combination of values: numbers are quicker to carry
-- and to compare than names, and stand in the order of the names. Reads: anew, part.
CREATE TEMP TABLE naming AS
SELECT
    *,
    concat_ws(
        ' × ',
        CASE WHEN $by_product THEN product END,
        CASE WHEN $by_locale THEN locale END,
        CASE WHEN $by_country THEN country END,
        CASE WHEN $by_activation THEN activation END
    ) AS stratum,
    dense_rank() OVER (ORDER BY stratum)::INTEGER AS stratum_no,
    dense_rank() OVER (ORDER BY product)::INTEGER AS product_no
FROM (
    SELECT DISTINCT
        product,
        CASE WHEN $by_locale THEN locale ELSE '' END AS locale,
        CASE WHEN $by_country THEN country ELSE '' END AS country,
        CASE WHEN $by_activation THEN activation ELSE '' END AS activation
    FROM (
        SELECT product, locale, country, activation, flaw FROM anew
        UNION ALL
        SELECT product, locale, country, activation, flaw FROM part
    )
    WHERE flaw IS NULL
)
