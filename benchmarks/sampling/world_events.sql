-- What those persons said about three purposes: 90 % granted, 15 % of these withdrew later, a third of those granted
-- again. Most grants are under the notice that discloses both, a few under older ones, an unlisted one, or too early.
-- Two in a hundred events arrive up to four days late. Variables first_person, some_persons, night.
WITH said AS (
    SELECT
        n,
        purpose,
        share(n || purpose || 'v') AS u_version,
        share(n || purpose || 'g') AS u_grant,
        share(n || purpose || 'w') AS u_withdraw,
        share(n || purpose || 't') AS t_grant,
        share(n || purpose || 'u') AS t_withdraw,
        share(n || purpose || 'x') AS t_again,
        hash(n || 'c') AS talk
    FROM (SELECT getvariable('first_person') + k AS n FROM (SELECT unnest(range(getvariable('some_persons'))) AS k)),
        (SELECT unnest(['human_review', 'product_improvement', 'marketing']) AS purpose)
    WHERE share(n || purpose || 'g') < 0.9
),
versioned AS (
    SELECT
        *,
        CASE
            WHEN u_version < 0.02 THEN '2025-03' WHEN u_version < 0.03 THEN '2024-01' WHEN u_version < 0.04 THEN '2023-09'
            ELSE '2026-02'
        END AS notice_version,
        -- Under the newest notice from five days before it took effect.
        CASE
            WHEN u_version < 0.02 THEN TIMESTAMP '2025-03-01' + t_grant * INTERVAL 330 DAY
            WHEN u_version < 0.04 THEN TIMESTAMP '2024-01-15' + t_grant * INTERVAL 400 DAY
            ELSE TIMESTAMP '2026-01-27' + t_grant * INTERVAL 294 DAY
        END AS granted_at
    FROM said
),
timed AS (
    SELECT *, granted_at + t_withdraw * (getvariable('night')::TIMESTAMP - granted_at) AS withdrawn_at
    FROM versioned
),
spoken AS (
    SELECT n, talk, purpose, 'granted' AS decision, notice_version, granted_at AS occurred_at FROM timed
    UNION ALL
    SELECT n, talk, purpose, 'withdrawn', notice_version, withdrawn_at FROM timed WHERE u_withdraw < 0.15
    UNION ALL
    SELECT
        n, talk, purpose, 'granted', '2026-02', withdrawn_at + t_again * (getvariable('night')::TIMESTAMP - withdrawn_at)
    FROM timed
    WHERE u_withdraw < 0.05
)
SELECT
    'r' || left(md5(n || purpose || decision || occurred_at), 16) AS record_id,
    'p' || left(md5('person' || n), 12) AS person_id,
    purpose,
    decision,
    notice_version,
    locale[:2] AS language,
    locale[-2:] AS country,
    occurred_at::TIMESTAMPTZ AS occurred_at,
    (
        date_trunc('second', occurred_at) + INTERVAL 2 SECOND
        + CASE
            WHEN hash(n || purpose || decision) % 50 = 0 THEN to_minutes((talk % 5760)::BIGINT)
            ELSE to_seconds((talk % 90)::BIGINT)
        END
    )::TIMESTAMPTZ AS received_at
FROM (SELECT *, locales[1 + (talk % 60)::INTEGER] AS locale FROM spoken, names)
