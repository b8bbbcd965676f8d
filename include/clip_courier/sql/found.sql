-- What earlier nights found about the clips of the window; stale where somebody changed, and always where more than two
-- speak. Two persons may have one mark: then a clip is judged anew for nothing. Reads: part, changed.
CREATE TEMP VIEW found AS
SELECT
    *,
    more IS NOT NULL
        OR coalesce(mark1 IN (SELECT mark FROM changed), FALSE)
        OR coalesce(mark2 IN (SELECT mark FROM changed), FALSE) AS is_stale
FROM part
WHERE flaw IS DISTINCT FROM 'erased'
