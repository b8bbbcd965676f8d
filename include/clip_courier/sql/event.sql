-- What those who are audible said about being heard. A listener's number is its rowid. What arrives after $now
-- (`is_known`) decides nothing yet.
-- Only a grant grants: any other decision counts as a withdrawal. A withdrawal without its time holds for good.
-- Reads: consent_events, notices (those that disclose human review and vendors), listener.
CREATE TEMP TABLE event AS
SELECT
    l.rowid AS person_no,
    e.decision IS NOT DISTINCT FROM 'granted' AS is_grant,
    coalesce(e.occurred_at::TIMESTAMPTZ, 'infinity'::TIMESTAMPTZ) AS occurred_at,
    coalesce(n.effective_from <= e.occurred_at::TIMESTAMPTZ, FALSE) AS is_disclosed,
    coalesce(e.received_at::TIMESTAMPTZ <= $now, TRUE) AS is_known
FROM consent_events e
JOIN listener l ON l.person_id = e.person_id
LEFT JOIN notices n ON n.notice_version = e.notice_version
WHERE e.purpose = $purpose
    AND (
        e.decision IS DISTINCT FROM 'granted'
        OR (e.received_at IS NOT NULL AND e.occurred_at IS NOT NULL)
    )
