-- How many distinct persons show what a clip without a group shows now: of its like, of clips with a group, and of what
-- the vendor has. Reads: clip, held.
CREATE OR REPLACE TEMP TABLE size AS
WITH asked AS (
    SELECT DISTINCT shown FROM clip WHERE rung IS NULL AND least_rung <= $rung
),
voice AS (
    SELECT shown, persons FROM clip WHERE rung IS NOT NULL OR least_rung <= $rung
    UNION ALL
    SELECT shown, persons FROM held
),
-- Distinct first, so that what does not fit into memory can go to disk.
person AS (
    SELECT DISTINCT shown, unnest(persons) AS person FROM voice SEMI JOIN asked USING (shown)
)
SELECT shown, count(*) AS persons FROM person GROUP BY shown
