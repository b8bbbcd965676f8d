-- The current revision of every returned clip that was delivered, with what scoring needs. Of a clip in which something
-- was silenced, a hypothesis is what could still be heard of it.
-- Reads: returned, crosswalk, ledger_batches.
SELECT
    c.clip_key,
    c.batch_id,
    b.night,
    b.vendor,
    c.locale,
    r.status,
    r.text,
    r.chosen_rank,
    r.annotator_ref,
    r.submitted_at,
    r.revision,
    r.note,
    CASE
        WHEN c.audible_hypotheses IS NULL THEN list_filter(c.hypotheses, lambda h: h.rank = 1)[1].text
        ELSE list_filter(c.audible_hypotheses, lambda h: h.rank = 1)[1].text
    END AS hypothesis,
    CASE
        WHEN c.audible_hypotheses IS NULL THEN list_filter(c.hypotheses, lambda h: h.rank = r.chosen_rank)[1].text
        ELSE list_filter(c.audible_hypotheses, lambda h: h.rank = r.chosen_rank)[1].text
    END AS chosen_hypothesis
FROM returned r
JOIN crosswalk c ON c.batch_id = r.batch_id AND c.clip_ref = r.clip_ref
JOIN ledger_batches b ON b.batch_id = c.batch_id
QUALIFY row_number() OVER (
    PARTITION BY c.batch_id, c.clip_ref ORDER BY r.revision DESC, r.n DESC, r.row_number DESC
) = 1
ORDER BY c.clip_key, c.batch_id
