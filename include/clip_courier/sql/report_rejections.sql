-- Reads: rejections. Of the nights from $first to $last, by stage, vendor and reason.
SELECT stage, vendor, reason, count(*) AS rows
FROM rejections
WHERE night BETWEEN $first AND $last
GROUP BY stage, vendor, reason
ORDER BY stage, vendor NULLS FIRST, rows DESC, reason
