-- Every returned row with the first code that keeps it out, or none. Reads: returned (one row a returned row, all text
-- already parsed), batch (the crosswalk's rows of that batch), earlier (clip_ref, revision: accepted before),
-- recalled (clip_ref), known_status (status).
-- The order of the CASE is the order of inbound.ROW_CODES.
WITH row_of AS (
    SELECT
        r.*,
        b.clip_key,
        row_number() OVER (PARTITION BY r.clip_ref, r.revision ORDER BY r.row_number) AS place_here
    FROM returned r
    LEFT JOIN batch b ON b.clip_ref = r.clip_ref
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
    CASE
        WHEN problem IS NOT NULL THEN problem
        WHEN row_of.clip_ref IN (SELECT clip_ref FROM recalled) THEN 'recalled'
        WHEN clip_key IS NULL THEN 'unknown_ref'
        WHEN status IS NULL OR status NOT IN (SELECT status FROM known_status) THEN 'bad_status'
        WHEN status = 'transcribed' AND coalesce(trim(text), '') = '' THEN 'missing_text'
        WHEN coalesce(trim(annotator_ref), '') = '' THEN 'missing_annotator'
        WHEN submitted_at IS NULL THEN 'bad_submitted_at'
        WHEN chosen_rank < 1 THEN 'bad_chosen_rank'
        WHEN revision < 0 THEN 'bad_revision'
        WHEN place_here > 1 THEN 'duplicate'
        WHEN EXISTS (FROM earlier e WHERE e.clip_ref = row_of.clip_ref AND e.revision = row_of.revision) THEN 'duplicate'
    END AS code
FROM row_of
ORDER BY row_number
