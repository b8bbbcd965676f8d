-- The clips that look for a group. `shown`: what a clip shows by now; `rung`: where it has found its group, null before;
-- `sound`: bucket of the duration, sample rate and channels in one number. Reads: batch, ladder.
CREATE TEMP TABLE clip AS
SELECT
    b.clip_ref,
    list_transform(b.person_ids, lambda p: hash(p)) AS persons,
    l.kind,
    l.shown,
    (len(list_filter($bounds, lambda bound: bound <= b.duration_ms))::BIGINT << 48)
        + (b.sample_rate_hz::BIGINT << 8) + b.channels AS sound,
    coalesce(b.rung, 0) AS least_rung,
    NULL::TINYINT AS rung
FROM batch b
JOIN ladder l
    ON l.locale = b.locale AND l.product = b.product AND l.week = strftime(b.recorded_at::TIMESTAMP, '%G-W%V')
    AND l.rung = 0
