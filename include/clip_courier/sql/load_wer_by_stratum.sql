-- Ratio of weighted totals (Hájek 1971) with the linearised variance of a ratio and persons as clusters
-- (Särndal, Swensson and Wretman 1992, §5.5 and §5.6); 95 % by the normal quantile.
INSERT INTO wer_by_stratum
WITH pair AS (
    SELECT
        c.stratum,
        c.speaker_key,
        1 / c.inclusion_probability AS weight,
        s.words,
        s.substitutions + s.deletions + s.insertions AS errors
    FROM scores s
    JOIN clips c ON c.clip_key = s.clip_key AND c.batch_id = s.batch_id
),
total AS (
    SELECT
        stratum,
        sum(weight * errors) / nullif(sum(weight * words), 0) AS estimate,
        sum(weight * words) AS weighted_words,
        count(*) AS clips,
        count(DISTINCT speaker_key) AS speakers
    FROM pair
    GROUP BY stratum
),
person AS (
    SELECT p.stratum, p.speaker_key, sum(p.weight * (p.errors - t.estimate * p.words)) / any_value(t.weighted_words) AS residual
    FROM pair p
    JOIN total t ON t.stratum = p.stratum
    GROUP BY p.stratum, p.speaker_key
),
spread AS (
    SELECT stratum, sqrt(count(*) / nullif(count(*) - 1, 0) * sum(residual * residual)) AS standard_error
    FROM person
    GROUP BY stratum
)
SELECT
    t.stratum,
    t.estimate,
    -- `greatest` alone would take 0 for unknown.
    CASE WHEN s.standard_error IS NOT NULL THEN greatest(0, t.estimate - 1.959964 * s.standard_error) END,
    t.estimate + 1.959964 * s.standard_error,
    t.clips,
    t.speakers
FROM total t
JOIN spread s ON s.stratum = t.stratum
ORDER BY t.stratum
