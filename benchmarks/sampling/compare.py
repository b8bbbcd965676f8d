"""How far two samples are the same: prints the clips that only one of them chose, and how far probabilities differ."""

import json
import sys

import duckdb

# Both files hold clip_id, inclusion_probability.
_COMPARED = """
    SELECT
        count(*) FILTER (a.clip_id IS NULL OR b.clip_id IS NULL) AS clips_of_one,
        coalesce(max(abs(a.inclusion_probability / b.inclusion_probability - 1)), 0) AS largest_difference
    FROM read_parquet($ours) a
    FULL JOIN read_parquet($theirs) b ON a.clip_id = b.clip_id
"""


if __name__ == "__main__":
    [found] = duckdb.execute(_COMPARED, {"ours": sys.argv[1], "theirs": sys.argv[2]}).fetchall()
    print(json.dumps(dict(zip(("clips_of_one", "largest_difference"), found, strict=True))))
