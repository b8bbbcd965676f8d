-- A clip whose best hypothesis is uncertain weighs more: 1 + $uncertainty_weight × (1 − its confidence, in tenths).
-- Without a hypothesis or a confidence nothing is certain. Reads: clips.
CREATE TEMP TABLE weight AS
SELECT
    clip_id,
    max(
        1 + $uncertainty_weight
            * (1 - coalesce(round(least(1, greatest(0, list_sort(list_filter(hypotheses, lambda h: h.rank IS NOT NULL), 'ASC')[1].confidence)), 1), 0))
    ) AS weight
FROM clips
WHERE $uncertainty_weight > 0 AND clip_id IS NOT NULL
GROUP BY clip_id
