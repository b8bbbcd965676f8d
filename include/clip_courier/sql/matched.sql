-- Every returned row with the first code that keeps it out, or none. Reads: returned (one row a returned row, all text
-- already parsed), batch (the crosswalk's rows of that batch), others (clip_ref: of the vendor's other batches), earlier
-- (clip_ref, revision: accepted before), recalled (clip_ref), known_status (status).
WITH judged AS (
    SELECT
        r.*,
        b.clip_key,
        CASE
            -- First, whatever else is wrong with it: the vendor should not have the clip any more.
            WHEN r.clip_ref IN (SELECT clip_ref FROM recalled) THEN 'recalled'
            WHEN r.problem IS NOT NULL THEN r.problem
            WHEN b.clip_key IS NULL AND r.clip_ref IN (SELECT clip_ref FROM others) THEN 'other_batch'
            WHEN b.clip_key IS NULL THEN 'unknown_ref'
            WHEN r.status IS NULL OR r.status NOT IN (SELECT status FROM known_status) THEN 'bad_status'
            WHEN r.status = 'transcribed' AND coalesce(trim(r.text), '') = '' THEN 'missing_text'
            WHEN coalesce(trim(r.annotator_ref), '') = '' THEN 'missing_annotator'
            WHEN r.submitted_at IS NULL THEN 'bad_submitted_at'
            WHEN r.chosen_rank IS NOT NULL AND NOT coalesce(
                list_contains(list_transform(b.shown_hypotheses, lambda h: h.rank), r.chosen_rank), FALSE
            ) THEN 'bad_chosen_rank'
            WHEN r.revision < 0 THEN 'bad_revision'
        END AS fault
    FROM returned r
    LEFT JOIN batch b ON b.clip_ref = r.clip_ref
),
-- Only a row that is good otherwise can take the place of another one.
placed AS (
    SELECT
        *,
        fault IS NULL AND (
            row_number() OVER (PARTITION BY clip_ref, revision, fault IS NULL ORDER BY row_number) > 1
            OR EXISTS (FROM earlier e WHERE e.clip_ref = judged.clip_ref AND e.revision = judged.revision)
        ) AS is_duplicate
    FROM judged
)
SELECT
    row_number,
    -- What does not look like a ref may be anything, also a name: it is not kept.
    CASE WHEN regexp_full_match(clip_ref, '[a-z2-7]{32}') THEN clip_ref END AS clip_ref,
    clip_key,
    status,
    text,
    chosen_rank,
    annotator_ref,
    submitted_at,
    revision,
    note,
    CASE WHEN is_duplicate THEN 'duplicate' ELSE fault END AS code
FROM placed
ORDER BY row_number
