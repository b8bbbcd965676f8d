-- What the vendor has from earlier and shows what a clip here may come to show. Reads: before, ladder.
CREATE TEMP TABLE held AS
SELECT
    list_transform(b.person_ids, lambda p: hash(p)) AS persons,
    l.shown,
    (len(list_filter($bounds, lambda bound: bound <= b.duration_ms))::BIGINT << 48)
        + (b.sample_rate_hz::BIGINT << 8) + b.channels AS sound
FROM before b
JOIN (SELECT DISTINCT shown, shown_locale, shown_product, shown_week FROM ladder) l
    ON l.shown_locale = b.shown_locale AND l.shown_product = b.shown_product AND l.shown_week = b.shown_week
