INSERT INTO wer_by_locale
SELECT cell, estimate, ci_low, ci_high, clips, speakers, effective_clips, hours, hours_needed
FROM estimated
WHERE measure = 'locale'
ORDER BY cell
