INSERT INTO wer_by_stratum
SELECT cell, estimate, ci_low, ci_high, clips, speakers, effective_clips, hours, hours_needed
FROM estimated
WHERE measure = 'stratum'
ORDER BY cell
