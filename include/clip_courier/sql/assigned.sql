-- Which vendor gets a clip: of those that may lawfully take it the one whose lot is lowest, as far as its hours reach.
-- A clip that another night took since it was selected is left out. Reads: validated, taken (clip_id), lawful (vendor, country, locale), capacity (vendor, capacity_ms). Null vendor: `reason` says why.
WITH lot AS (
    SELECT
        v.clip_id,
        v.duration_ms,
        l.vendor,
        md5(l.vendor || ':' || v.clip_key) AS lot
    FROM validated v
    JOIN lawful l ON l.country = v.country AND l.locale = v.locale
    WHERE v.clip_id NOT IN (SELECT clip_id FROM taken)
),
taker AS (
    SELECT * FROM lot QUALIFY row_number() OVER (PARTITION BY clip_id ORDER BY lot) = 1
),
given AS (
    SELECT
        t.clip_id,
        t.vendor,
        sum(t.duration_ms) OVER (PARTITION BY t.vendor ORDER BY t.lot ROWS UNBOUNDED PRECEDING) <= c.capacity_ms AS fits
    FROM taker t
    JOIN capacity c ON c.vendor = t.vendor
)
SELECT
    v.*,
    CASE WHEN g.fits THEN g.vendor END AS vendor,
    CASE
        WHEN v.clip_id IN (SELECT clip_id FROM taken) THEN 'already_delivered'
        WHEN g.clip_id IS NULL THEN 'no_lawful_vendor'
        WHEN NOT g.fits THEN 'no_capacity'
    END AS reason
FROM validated v
LEFT JOIN given g ON g.clip_id = v.clip_id
ORDER BY v.clip_id
