-- The persons numbered first_person to first_person + some_persons - 1; one in 200 has no row. 3 % are minors, of whom
-- a third has a guardian's consent; 2 % have no birth year; one in 200 is restricted.
SELECT
    'p' || left(md5('person' || n), 12) AS person_id,
    CASE
        WHEN u_age < 0.02 THEN NULL
        WHEN u_age < 0.05 THEN 2009 + n % 8
        ELSE 1940 + floor(65 * u_age)
    END::SMALLINT AS birth_year,
    CASE WHEN u_age < 0.03 THEN TRUE WHEN u_age < 0.5 THEN FALSE END AS has_guardian_consent,
    CASE WHEN u_restricted < 0.005 THEN TRUE WHEN u_restricted < 0.6 THEN FALSE END AS is_restricted
FROM (
    SELECT
        n,
        share(n || 'a') AS u_age,
        share(n || 'r') AS u_restricted
    FROM (SELECT getvariable('first_person') + k AS n FROM (SELECT unnest(range(getvariable('some_persons'))) AS k))
)
WHERE hash(n || 'x') % 200 <> 0
