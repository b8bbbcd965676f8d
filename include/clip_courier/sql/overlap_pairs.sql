-- What two vendors made of the same clip. Reads: overlapped (the current rows of clips that more than one vendor has).
SELECT
    one.clip_key,
    one.batch_id,
    one.vendor,
    other.vendor AS other_vendor,
    one.locale,
    one.status,
    other.status AS other_status,
    CASE WHEN one.status = 'transcribed' AND other.status = 'transcribed' THEN one.text END AS text,
    CASE WHEN one.status = 'transcribed' AND other.status = 'transcribed' THEN other.text END AS other_text
FROM overlapped one
JOIN overlapped other ON other.clip_key = one.clip_key AND other.vendor > one.vendor
ORDER BY one.clip_key, one.vendor, other.vendor
