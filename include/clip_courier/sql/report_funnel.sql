-- Reads: nights. Steps of the nights from $first to $last, in clips.
SELECT step, reason, sum(clips)::BIGINT AS clips
FROM nights
WHERE night BETWEEN $first AND $last AND stratum IS NULL
GROUP BY step, reason
ORDER BY step, clips DESC, reason
