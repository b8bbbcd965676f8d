-- Reads: nights. The sampling plan of the nights from $first to $last, one row a stratum.
SELECT
    stratum,
    (sum(clips) FILTER (step = 'stratum_eligible'))::BIGINT AS eligible_clips,
    sum(hours) FILTER (step = 'stratum_eligible') AS eligible_hours,
    sum(hours) FILTER (step = 'stratum_wanted') AS wanted_hours,
    sum(hours) FILTER (step = 'stratum_budget') AS budget_hours,
    (sum(clips) FILTER (step = 'stratum_chosen'))::BIGINT AS chosen_clips,
    sum(hours) FILTER (step = 'stratum_chosen') AS chosen_hours,
    string_agg(DISTINCT reason, ', ' ORDER BY reason) FILTER (step = 'stratum_budget') AS limited_by
FROM nights
WHERE night BETWEEN $first AND $last AND stratum IS NOT NULL
GROUP BY stratum
ORDER BY chosen_hours DESC, stratum
