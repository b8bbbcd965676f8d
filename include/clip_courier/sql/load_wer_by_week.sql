INSERT INTO wer_by_week
SELECT cell, estimate, ci_low, ci_high, clips, speakers, effective_clips, hours, hours_needed
FROM estimated
WHERE measure = 'week'
ORDER BY cell
