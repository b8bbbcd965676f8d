-- What is known about those who are audible; several rows about one person stay several. Reads: persons, listener.
CREATE TEMP TABLE person AS
SELECT
    l.rowid AS person_no,
    coalesce(p.is_restricted, FALSE) AS is_restricted,
    p.birth_year::INTEGER AS birth_year,
    coalesce(p.has_guardian_consent, FALSE) AS has_guardian_consent
FROM persons p
JOIN listener l ON l.person_id = p.person_id
