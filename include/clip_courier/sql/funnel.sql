-- How many clips of the window each reason kept out; the reason is null for the eligible. Reads: ruled, considered.
SELECT reason, sum(clips)::BIGINT AS clips
FROM (
    SELECT reason, count(*) AS clips FROM ruled WHERE reason IS NOT NULL GROUP BY reason
    UNION ALL
    SELECT CASE WHEN standing IN ('recalled', 'already_delivered') THEN standing END, count(*)
    FROM considered
    GROUP BY standing
)
GROUP BY reason
