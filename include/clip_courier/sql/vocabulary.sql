-- Words of the recogniser's hypotheses that at least $k distinct persons said in the landing window, by language.
-- Only clips of one person count: of a conversation nobody can say who spoke the word. Reads: clips.
SELECT lower(split_part(locale, '-', 1)) AS language, word
FROM (
    SELECT locale, person_id, unnest(regexp_extract_all(lower(text), '[\p{L}\p{M}]+(?:[''’][\p{L}\p{M}]+)*')) AS word
    FROM (
        SELECT
            locale,
            participants[1].person_id AS person_id,
            unnest(list_transform(hypotheses, lambda h: h.text)) AS text
        FROM clips
        WHERE len(participants) = 1
    )
    WHERE person_id IS NOT NULL
)
GROUP BY 1, 2
HAVING count(DISTINCT person_id) >= $k
