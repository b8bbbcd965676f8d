-- What those participants who are not clear have against a clip, the first reason of: restricted, minor,
-- not_consented, withdrawn; also of clips that are refused for another reason, as a withdrawal must be seen when a clip
-- has grown too old as well. `clip_no` is the rowid in looked. Reads: looked, audible, event, person.
CREATE TEMP TABLE weighed AS
WITH heard AS (
    SELECT a.clip_no, l.recorded_at, a.person_no
    FROM audible a
    JOIN looked l ON l.rowid = a.clip_no
    WHERE NOT l.is_unknown AND l.flaw IS DISTINCT FROM 'malformed'
),
looked_at AS (
    SELECT DISTINCT person_no FROM heard
),
-- Several rows about one person: the strictest reading of them.
strictest AS (
    SELECT
        person_no,
        bool_or(is_restricted) AS is_restricted,
        max(birth_year) AS birth_year,
        bool_or(birth_year IS NULL) AS lacks_birth_year,
        bool_and(has_guardian_consent) AS has_guardian_consent
    FROM person
    WHERE person_no IN (FROM looked_at)
    GROUP BY person_no
),
said AS (
    SELECT * FROM event WHERE is_known AND person_no IN (FROM looked_at)
),
-- What a person said at one instant. Grants that were given at once must all be under a notice that discloses.
instant AS (
    SELECT
        person_no,
        occurred_at,
        bool_or(is_grant) AND bool_and(is_disclosed) FILTER (is_grant) AS is_granted
    FROM said
    GROUP BY person_no, occurred_at
),
last_withdrawal AS (
    SELECT person_no, max(occurred_at) AS occurred_at FROM said WHERE NOT is_grant GROUP BY person_no
),
latest AS (
    SELECT h.clip_no, h.person_no, h.recorded_at, i.occurred_at, coalesce(i.is_granted, FALSE) AS is_granted
    FROM heard h
    ASOF LEFT JOIN instant i ON h.person_no = i.person_no AND h.recorded_at >= i.occurred_at
),
verdict AS (
    SELECT
        l.clip_no,
        bool_or(coalesce(p.is_restricted, FALSE)) AS is_restricted,
        -- A birth year alone: the person may still be a year younger than the difference of the years.
        bool_or(
            NOT coalesce(p.has_guardian_consent, FALSE)
            AND (
                coalesce(year(l.recorded_at) - p.birth_year <= 18, FALSE)
                OR ($birth_year_required AND coalesce(p.lacks_birth_year, TRUE))
            )
        ) AS is_minor,
        bool_and(l.is_granted) AS is_granted,
        bool_or(l.is_granted AND coalesce(w.occurred_at >= l.occurred_at, FALSE)) AS is_withdrawn
    FROM latest l
    LEFT JOIN strictest p ON p.person_no = l.person_no
    LEFT JOIN last_withdrawal w ON w.person_no = l.person_no
    GROUP BY l.clip_no
)
SELECT
    clip_no,
    CASE
        WHEN is_restricted THEN 'restricted'
        WHEN is_minor THEN 'minor'
        WHEN NOT is_granted THEN 'not_consented'
        WHEN is_withdrawn THEN 'withdrawn'
    END AS reason
FROM verdict
WHERE reason IS NOT NULL
