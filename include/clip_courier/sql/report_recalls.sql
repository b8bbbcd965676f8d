-- Reads: recalls, deliveries. Of batches of the nights from $first to $last, by vendor and state.
SELECT recalls.vendor, recalls.state, count(*) AS recalls, sum(recalls.clip_count)::BIGINT AS clips
FROM recalls JOIN deliveries USING (batch_id)
WHERE deliveries.night BETWEEN $first AND $last
GROUP BY recalls.vendor, recalls.state
ORDER BY recalls.vendor, recalls.state
