-- The clips of one day: those numbered first_clip to first_clip + day_clips - 1. Reads: names; variables first_clip,
-- day_clips, day, persons. Every draw is a hash of the number and a letter; hash() of several arguments would correlate.
-- One clip in 100,000 stands twice, and one in 10,000 each lacks its country, its participants or one's id, or carries
-- a recording time two days ahead.
WITH numbered AS (
    SELECT CASE WHEN n % 99991 = 7 THEN n - 1 ELSE n END AS n
    FROM (
        SELECT getvariable('first_clip') + k AS n FROM (SELECT unnest(range(getvariable('day_clips'))) AS k)
    )
),
dealt AS (
    SELECT
        n,
        names.*,
        'c' || left(md5('clip' || n), 16) AS clip_id,
        floor(getvariable('persons') * pow(share(n || 'a'), 3))::BIGINT AS first_person,
        floor(getvariable('persons') * pow(share(n || 'b'), 3))::BIGINT AS second_person,
        share(n || 'c') AS u_second,
        share(n || 'd') AS u_abroad,
        share(n || 'e') AS u_locale,
        share(n || 'f') AS u_product,
        share(n || 'g') AS u_duration,
        share(n || 'h') AS u_confidence,
        share(n || 'i') AS u_activation,
        share(n || 'j') AS u_odd,
        hash(n || 'k') AS talk
    FROM numbered, names
),
placed AS (
    SELECT
        *,
        -- Most people speak their own language, and at home.
        1 + floor(60 * pow(
            CASE WHEN u_abroad < 0.9 THEN share(first_person || 'l') ELSE u_locale END, 1.5
        ))::BIGINT AS locale_number,
        1 + floor(5 * pow(u_product, 1.5))::BIGINT AS product_number,
        list_transform([0, 6, 12, 18, 24, 30, 36], lambda s: words[1 + ((talk >> s) & 63)::INTEGER]) AS spoken
    FROM dealt
)
SELECT
    clip_id,
    CASE WHEN activations[product_number] = 'call' THEN 'k' || left(md5('call' || n // 4), 12) END AS call_id,
    products[product_number] AS product,
    CASE WHEN u_activation < 0.03 THEN 'accidental' ELSE activations[product_number] END AS activation,
    locales[locale_number] AS locale,
    CASE
        WHEN u_odd < 0.0001 THEN NULL
        WHEN u_abroad BETWEEN 0.45 AND 0.5 THEN locales[1 + ((talk >> 42) % 60)::INTEGER][-2:]
        ELSE locales[locale_number][-2:]
    END AS country,
    (
        getvariable('day')::TIMESTAMP
        + to_microseconds(((n - getvariable('first_clip') + u_locale) * 86400000000 / getvariable('day_clips'))::BIGINT)
        + CASE WHEN u_odd BETWEEN 0.0001 AND 0.0002 THEN INTERVAL 2 DAY ELSE INTERVAL 0 DAY END
    )::TIMESTAMPTZ AS recorded_at,
    (300 + 31700 * pow(u_duration, 1.5))::INTEGER AS duration_ms,
    CASE WHEN activations[product_number] = 'call' THEN 8000 ELSE 16000 END::INTEGER AS sample_rate_hz,
    1::TINYINT AS channels,
    strftime(getvariable('day')::DATE, '%Y-%m-%d') || '/' || clip_id || '.flac' AS audio_uri,
    sha256(clip_id) AS audio_sha256,
    CASE
        WHEN u_odd BETWEEN 0.0002 AND 0.0003 THEN NULL
        WHEN u_odd BETWEEN 0.0003 AND 0.0004 THEN [{'person_id': NULL::VARCHAR, 'role': 'speaker'}]
        WHEN u_second < 0.4 THEN [
            {'person_id': 'p' || left(md5('person' || first_person), 12), 'role': 'speaker'},
            {'person_id': 'p' || left(md5('person' || second_person), 12), 'role': 'listener'}
        ]
        ELSE [{'person_id': 'p' || left(md5('person' || first_person), 12), 'role': 'speaker'}]
    END AS participants,
    CASE
        WHEN u_confidence < 0.5 THEN [
            {
                'rank': 1::TINYINT,
                'text': array_to_string(spoken[:2 + (talk % 6)::INTEGER], ' '),
                'confidence': 0.3 + 1.2 * u_confidence,
                'engine': 'e7'
            },
            {
                'rank': 2::TINYINT,
                'text': array_to_string(spoken[2:2 + (talk % 6)::INTEGER], ' '),
                'confidence': 0.2 + u_confidence,
                'engine': 'e7'
            }
        ]
        ELSE [
            {
                'rank': 1::TINYINT,
                'text': array_to_string(spoken[:2 + (talk % 6)::INTEGER], ' '),
                'confidence': u_confidence,
                'engine': 'e7'
            }
        ]
    END AS hypotheses,
    NULL::STRUCT(word VARCHAR, start_ms INTEGER, end_ms INTEGER)[] AS words
FROM placed
