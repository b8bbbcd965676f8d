-- The clips that look for a group. `shown`: what a clip shows by now; `rung`: where it has found its group, null before.
-- Reads: batch, ladder.
CREATE TEMP TABLE clip AS
SELECT
    b.clip_ref,
    list_transform(b.person_ids, lambda p: hash(p)) AS persons,
    b.sound_ms,
    l.kind,
    l.shown,
    coalesce(b.rung, 0) AS least_rung,
    NULL::TINYINT AS rung
FROM batch b
JOIN ladder l
    ON l.locale = b.locale AND l.product = b.product AND l.week = strftime(b.recorded_at::TIMESTAMP, '%G-W%V')
    AND l.length = bucket(b.sound_ms) AND l.padded_ms IS NOT DISTINCT FROM padded(b.sound_ms)
    AND l.rate = b.sample_rate_hz AND l.channels = b.channels AND l.rung = 0
