-- Every clip of the landing window with the first reason that keeps it out, contracts §2; no reason means eligible.
-- Reads: clips, consent_events, persons, notices (those that disclose human review and vendors), taken (once a clip).
-- The order of the CASE is the documented order of refusals (selection.REFUSALS). `personal_reason` is what a participant
-- has against it, also where an earlier reason holds: a withdrawal must be seen when the clip has grown too old as well.
CREATE TEMP TABLE judged AS
WITH basic AS (
    SELECT
        row_number() OVER () AS row_id,
        clip_id,
        product,
        locale,
        recorded_at::TIMESTAMPTZ AS recorded_at,
        duration_ms,
        list_sort(list_distinct(list_transform(participants, lambda p: p.person_id))) AS person_ids,
        CASE
            WHEN clip_id IS NULL OR product IS NULL OR activation IS NULL OR locale IS NULL OR country IS NULL
                OR recorded_at IS NULL OR duration_ms IS NULL THEN 'malformed'
            WHEN coalesce(len(participants), 0) = 0
                OR len(list_filter(participants, lambda p: p.person_id IS NULL)) > 0 THEN 'unknown_participant'
            WHEN activation = 'accidental' THEN 'accidental'
            WHEN recorded_at::TIMESTAMPTZ > $now THEN 'future'
            WHEN recorded_at::TIMESTAMPTZ < $oldest THEN 'too_old'
            WHEN duration_ms < $min_duration_ms THEN 'too_short'
            WHEN duration_ms > $max_duration_ms THEN 'too_long'
        END AS basic_reason
    FROM clips
),
heard AS (
    SELECT row_id, recorded_at, unnest(person_ids) AS person_id
    FROM basic
    WHERE coalesce(basic_reason, '') NOT IN ('malformed', 'unknown_participant')
),
listener AS (
    SELECT DISTINCT person_id FROM heard
),
-- Several rows about one person: the strictest reading of them.
person AS (
    SELECT
        person_id,
        bool_or(coalesce(is_restricted, FALSE)) AS is_restricted,
        max(birth_year) AS birth_year,
        bool_or(birth_year IS NULL) AS lacks_birth_year,
        bool_and(coalesce(has_guardian_consent, FALSE)) AS has_guardian_consent
    FROM persons
    WHERE person_id IN (FROM listener)
    GROUP BY person_id
),
-- Only a grant grants: any other decision counts as a withdrawal. A withdrawal without its time holds for good.
event AS (
    SELECT
        e.person_id,
        e.decision IS NOT DISTINCT FROM 'granted' AS is_grant,
        coalesce(e.occurred_at::TIMESTAMPTZ, 'infinity'::TIMESTAMPTZ) AS occurred_at,
        coalesce(n.effective_from <= e.occurred_at::TIMESTAMPTZ, FALSE) AS is_disclosed
    FROM consent_events e
    LEFT JOIN notices n ON n.notice_version = e.notice_version
    WHERE e.purpose = $purpose
        AND e.person_id IN (FROM listener)
        AND CASE
            WHEN e.decision IS NOT DISTINCT FROM 'granted'
                THEN e.received_at::TIMESTAMPTZ <= $now AND e.occurred_at IS NOT NULL
            ELSE coalesce(e.received_at::TIMESTAMPTZ <= $now, TRUE)
        END
),
-- What a person said at one instant. Grants that were given at once must all be under a notice that discloses.
instant AS (
    SELECT
        person_id,
        occurred_at,
        bool_or(is_grant) AND bool_and(is_disclosed) FILTER (is_grant) AS is_granted
    FROM event
    GROUP BY person_id, occurred_at
),
last_withdrawal AS (
    SELECT person_id, max(occurred_at) AS occurred_at FROM event WHERE NOT is_grant GROUP BY person_id
),
latest AS (
    SELECT h.row_id, h.person_id, h.recorded_at, i.occurred_at, coalesce(i.is_granted, FALSE) AS is_granted
    FROM heard h
    ASOF LEFT JOIN instant i ON h.person_id = i.person_id AND h.recorded_at >= i.occurred_at
),
verdict AS (
    SELECT
        l.row_id,
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
    LEFT JOIN person p ON p.person_id = l.person_id
    LEFT JOIN last_withdrawal w ON w.person_id = l.person_id
    GROUP BY l.row_id
),
personal AS (
    SELECT
        row_id,
        CASE
            WHEN is_restricted THEN 'restricted'
            WHEN is_minor THEN 'minor'
            WHEN NOT is_granted THEN 'not_consented'
            WHEN is_withdrawn THEN 'withdrawn'
        END AS personal_reason
    FROM verdict
)
SELECT
    b.clip_id,
    b.product,
    b.locale,
    b.recorded_at,
    b.duration_ms,
    b.person_ids,
    p.personal_reason,
    CASE
        WHEN b.basic_reason IS NOT NULL THEN b.basic_reason
        WHEN p.personal_reason IS NOT NULL THEN p.personal_reason
        WHEN t.is_recalled THEN 'recalled'
        WHEN t.clip_id IS NOT NULL THEN 'already_delivered'
    END AS reason
FROM basic b
LEFT JOIN personal p ON p.row_id = b.row_id
LEFT JOIN taken t ON t.clip_id = b.clip_id
