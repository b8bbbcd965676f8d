-- How many persons of a batch an attack links rightly to those of other manifests, for each way of attacking.
-- The attacker takes the rarest cell that a person's clips share with the others' and guesses one of the persons in it;
-- chance is a guess among all who speak the language, which the sound tells anyhow. Clips that both have are left out:
-- their sound is the same. Reads: batch, others.
WITH side AS (
    SELECT TRUE AS is_own, * FROM batch ANTI JOIN others USING (clip_id)
    UNION ALL BY NAME
    SELECT FALSE AS is_own, * FROM others ANTI JOIN batch USING (clip_id)
),
voice AS MATERIALIZED (
    SELECT
        is_own,
        hash(split_part(shown_locale, '-', 1)) AS language,
        hash(shown_locale, shown_product, shown_week) AS shown,
        hash(shown_locale, shown_product, shown_week, shown_sample_rate_hz, shown_channels) AS columns,
        hash(
            shown_locale, shown_product, shown_week, shown_sample_rate_hz, shown_channels, shown_duration_ms
        ) AS exact,
        unnest(person_ids) AS person
    FROM side
),
cell AS MATERIALIZED (
    SELECT DISTINCT is_own, way, cell, person
    FROM (UNPIVOT voice ON language, shown, columns, exact INTO NAME way VALUE cell)
),
rare AS (
    SELECT way, cell, count(*) AS persons
    FROM cell
    WHERE NOT is_own
    GROUP BY way, cell
),
guess AS (
    SELECT own.way, own.person, r.persons, (t.person IS NOT NULL)::INTEGER / r.persons AS success
    FROM cell own
    JOIN rare r USING (way, cell)
    LEFT JOIN cell t ON NOT t.is_own AND t.way = own.way AND t.cell = own.cell AND t.person = own.person
    WHERE own.is_own
),
best AS (
    SELECT way, person, avg(success) AS success
    FROM (SELECT * FROM guess QUALIFY persons = min(persons) OVER (PARTITION BY way, person))
    GROUP BY way, person
),
counts AS (
    SELECT
        (SELECT count(DISTINCT person) FROM voice WHERE is_own) AS persons,
        (SELECT count(DISTINCT person) FROM voice WHERE NOT is_own) AS against_persons,
        (SELECT count(*) FROM batch SEMI JOIN others USING (clip_id)) AS shared_clips
)
SELECT
    c.*,
    way,
    coalesce(sum(success), 0)::DOUBLE AS linked
FROM counts c
LEFT JOIN best ON TRUE
GROUP BY ALL
ORDER BY way
