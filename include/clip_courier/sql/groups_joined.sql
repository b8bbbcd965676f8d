-- Groups that are too small and have larger ones beneath them, with the clips that come up to fill them: as few as are
-- missing from the largest group beneath, when it can spare them; else the whole of the smallest. Reads: clip, held,
-- ladder, size.
CREATE OR REPLACE TEMP TABLE joined AS
WITH node AS (
    SELECT shown AS node, persons AS there FROM size WHERE persons < $k
),
-- Clips with a group that would show the same on this rung.
beneath AS MATERIALIZED (
    SELECT n.*, c.clip_ref, c.persons, c.shown
    FROM clip c
    JOIN ladder l ON l.kind = c.kind AND l.rung = $rung
    JOIN node n ON n.node = l.shown
    WHERE c.rung IS NOT NULL AND c.shown <> n.node
),
largest AS (
    SELECT node, there, shown, count(DISTINCT person) AS persons
    FROM (SELECT * EXCLUDE (persons), unnest(persons) AS person FROM beneath)
    GROUP BY node, there, shown
    QUALIFY row_number() OVER (PARTITION BY node ORDER BY count(DISTINCT person) DESC, shown) = 1
),
known AS (
    SELECT DISTINCT n.node, unnest(v.persons) AS person
    FROM node n
    JOIN (
        SELECT shown, persons FROM clip WHERE rung IS NOT NULL OR least_rung <= $rung
        UNION ALL
        SELECT shown, persons FROM held
    ) v ON v.shown = n.node
),
-- Each clip that brings somebody new, in the order of the refs; one person is brought once.
brings AS (
    SELECT DISTINCT node, clip_ref
    FROM (
        SELECT node, person, min(clip_ref) AS clip_ref
        FROM (SELECT node, clip_ref, unnest(persons) AS person FROM beneath SEMI JOIN largest USING (node, shown))
        ANTI JOIN known USING (node, person)
        GROUP BY node, person
    )
),
spared AS (
    SELECT b.*, g.there, g.persons
    FROM (SELECT *, row_number() OVER (PARTITION BY node ORDER BY clip_ref) AS place FROM brings) b
    JOIN largest g USING (node)
    WHERE b.place <= $k - g.there
),
able AS (
    SELECT s.node
    FROM (SELECT s.* EXCLUDE (persons), s.persons AS of, unnest(c.persons) AS person FROM spared s JOIN clip c USING (clip_ref)) s
    GROUP BY s.node, s.there, s.of
    HAVING max(s.place) = $k - s.there AND s.of - count(DISTINCT s.person) >= $k
),
-- What the vendor has stays what it was, so a group that needs it cannot come along.
whole AS (
    SELECT b.node, b.there, b.shown, count(*) AS clips
    FROM beneath b
    ANTI JOIN able USING (node)
    GROUP BY b.node, b.there, b.shown
),
new AS (
    SELECT node, shown, count(*) AS persons
    FROM (SELECT DISTINCT node, shown, unnest(persons) AS person FROM beneath)
    ANTI JOIN known USING (node, person)
    GROUP BY node, shown
),
smallest AS (
    SELECT w.node, w.shown
    FROM whole w
    JOIN new n USING (node, shown)
    WHERE w.there + n.persons >= $k
    QUALIFY row_number() OVER (PARTITION BY w.node ORDER BY w.clips, w.shown) = 1
),
filled AS (
    SELECT node FROM able
    UNION ALL
    SELECT node FROM smallest
)
SELECT clip_ref, node AS shown FROM spared SEMI JOIN able USING (node)
UNION ALL
SELECT clip_ref, node AS shown FROM beneath SEMI JOIN smallest USING (node, shown)
UNION ALL
SELECT c.clip_ref, c.shown
FROM clip c
JOIN filled f ON f.node = c.shown
WHERE c.rung IS NULL AND c.least_rung <= $rung
