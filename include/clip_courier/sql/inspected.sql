-- Every row of some files of landing: its place among them, a hash of its id, and the rules that it breaks. Two rows of
-- one id have one hash; ids themselves are given for rows that break a rule, for their keys.
-- Reads: clips (with filename and file_row_number), files (filename, first_row, earliest_at, latest_at), known_locales,
-- known_countries, and broken_rules of rules.py.
SELECT row, id_hash, broken, CASE WHEN broken <> 0 THEN clip_id END AS clip_id
FROM (
    SELECT
        (f.first_row + c.file_row_number)::UINTEGER AS row,
        c.clip_id,
        hash($salt || c.clip_id) AS id_hash,
        broken_rules(
            c.activation, c.audio_sha256, c.audio_uri, c.channels, c.clip_id, c.country, c.duration_ms, f.earliest_at,
            c.hypotheses, f.latest_at, c.locale, c.participants, c.product, c.recorded_at, c.sample_rate_hz, c.words
        ) AS broken
    FROM clips c
    JOIN files f ON f.filename = c.filename
)
