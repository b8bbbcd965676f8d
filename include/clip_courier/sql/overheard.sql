-- Clips that are longer than what may still be heard of one of their participants. Reads: heard.
CREATE TEMP TABLE overheard AS
SELECT DISTINCT clip_no FROM heard WHERE duration_ms > left_ms
