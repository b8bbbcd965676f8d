-- How many distinct clips each clip competes with in its cells, itself among them, and whether it has the lowest keyed
-- hash in all of them: that happens with probability 1 / rivals, whoever the rivals compete with elsewhere.
-- A clip that shares k cells stands k times in their sum, so k − 1 are taken off: those are found over pairs of cells, as
-- few clips share two. A pair stands C(k, 2) times. Clips in the same cells are one row (`seat`) with a count.
-- Reads: cell.
CREATE TEMP TABLE rival AS
WITH keyed AS (
    SELECT * EXCLUDE (clip_id), md5_number($key || clip_id) AS lot FROM cell
),
competition AS (
    SELECT cell, count(*) AS clips, min(lot) AS lowest FROM keyed GROUP BY cell
),
faced AS (
    SELECT
        k.clip_no,
        any_value(k.stratum_no) AS stratum_no,
        any_value(k.duration_ms) AS duration_ms,
        any_value(k.billed_ms) AS billed_ms,
        any_value(k.weight) AS weight,
        arg_min(k.cell, k.place) AS cell,
        count(*) AS cells,
        sum(c.clips) AS clips,
        bool_and(k.lot = c.lowest) AS is_kept
    FROM keyed k
    JOIN competition c ON c.cell = k.cell
    GROUP BY k.clip_no
),
several AS (
    SELECT clip_no, list_sort(list(cell)) AS cells
    FROM cell
    WHERE clip_no IN (SELECT clip_no FROM faced WHERE cells > 1)
    GROUP BY clip_no
),
seat AS (
    SELECT cells, count(*) AS clips, row_number() OVER () AS seat_no FROM several GROUP BY cells
),
spread AS (
    SELECT seat_no, clips, cells, unnest(cells) AS one FROM seat
),
pair AS (
    SELECT seat_no, clips, one, other
    FROM (SELECT seat_no, clips, one, unnest(cells) AS other FROM spread)
    WHERE one < other
),
shared AS (
    SELECT a.seat_no, b.seat_no AS with_no, any_value(b.clips) AS clips, count(*) AS pairs
    FROM pair a
    JOIN pair b ON b.one = a.one AND b.other = a.other
    GROUP BY a.seat_no, b.seat_no
),
twice AS (
    SELECT seat_no, sum(clips * (((1 + sqrt(1 + 8 * pairs)) / 2)::BIGINT - 1)) AS clips FROM shared GROUP BY seat_no
)
SELECT
    f.* EXCLUDE (cells, clips),
    (f.clips - coalesce(t.clips, 0))::BIGINT AS rivals
FROM faced f
LEFT JOIN several v ON v.clip_no = f.clip_no
LEFT JOIN seat s ON s.cells = v.cells
LEFT JOIN twice t ON t.seat_no = s.seat_no
