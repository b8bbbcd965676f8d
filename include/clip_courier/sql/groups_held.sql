-- What the vendor has from earlier and shows what a clip here may come to show. Reads: before, ladder.
CREATE TEMP TABLE held AS
SELECT list_transform(b.person_ids, lambda p: hash(p)) AS persons, l.shown
FROM before b
JOIN (
    SELECT DISTINCT shown, shown_locale, shown_product, shown_week, shown_length, shown_rate, shown_channels FROM ladder
) l
    ON l.shown_locale = b.shown_locale AND l.shown_product = b.shown_product AND l.shown_week = b.shown_week
    AND l.shown_length = bucket(b.shown_duration_ms) AND l.shown_rate = b.shown_sample_rate_hz
    AND l.shown_channels = b.shown_channels
