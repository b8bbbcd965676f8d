-- Most people have only ever granted, are grown up and not restricted. Nothing can be held against a recording of
-- them from `clear_from` on, the first grant or the year in which they are surely 18; for the others it is null, and
-- `weighed` looks at each of their clips. This changes no answer, it only spares most clips the long way.
-- Reads: listener, event, person.
CREATE TEMP TABLE clear AS
WITH known AS (
    SELECT person_no, is_grant AND is_disclosed AS is_plain, occurred_at, NULL::TIMESTAMPTZ AS adult_from
    FROM event
    WHERE is_known
    UNION ALL
    SELECT
        person_no,
        NOT is_restricted AND birth_year IS NOT NULL,
        NULL,
        make_timestamptz(greatest(coalesce(birth_year, 0) + 19, 1), 1, 1, 0, 0, 0.0)
    FROM person
),
plain AS (
    SELECT person_no, greatest(min(occurred_at), max(adult_from)) AS clear_from
    FROM known
    GROUP BY person_no
    HAVING bool_and(is_plain) AND count(occurred_at) > 0 AND count(adult_from) > 0
)
SELECT l.person_id, l.rowid AS person_no, p.clear_from
FROM listener l
LEFT JOIN plain p ON p.person_no = l.rowid
