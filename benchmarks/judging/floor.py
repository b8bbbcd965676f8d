"""One hand-written pass: every row judged in DuckDB, ids unique, a quarantine table with each row's reasons.

It is what a data engineer would write who knows the engine: one scan for the rules, with a mask in the place of a list;
a second one of the ids alone to count them, and a third to find the rows of the few that stand twice. (One hash of each
id in the place of the id itself came to the same.)
"""

import json
import sys
from pathlib import Path

import duckdb
import langcodes
import pyarrow as pa
import pycountry

RULES = {
    "missing_clip_id": "clip_id <> ''",
    "bad_product": "regexp_full_match(product, '[a-z][a-z0-9_-]{1,31}')",
    "bad_activation": "activation IN ('call', 'button', 'wake_word', 'accidental')",
    "bad_locale": "locale IN (SELECT known FROM locales)",
    "bad_country": "country IN (SELECT known FROM countries)",
    "bad_recorded_at": "isfinite(recorded_at)",
    "wrong_partition": "recorded_at >= earliest AND recorded_at < latest",
    "bad_duration": "duration_ms BETWEEN 1 AND 2147483647",
    "bad_sample_rate": "sample_rate_hz BETWEEN 4000 AND 192000",
    "bad_channels": "channels BETWEEN 1 AND 8",
    "bad_audio_uri": "audio_uri <> ''",
    "bad_audio_sha256": "audio_sha256 IS NULL OR regexp_full_match(audio_sha256, '[0-9a-fA-F]{64}')",
    "bad_participant": """participants IS NULL
        OR len(list_filter(participants, lambda p: p.person_id IS NULL OR p.person_id = '')) = 0""",
    "bad_hypothesis_rank": """hypotheses IS NULL
        OR len(list_filter(hypotheses, lambda h: h.rank IS NULL OR h.rank < 1)) = 0
        AND CASE len(hypotheses) WHEN 1 THEN TRUE WHEN 2 THEN hypotheses[1].rank <> hypotheses[2].rank
            ELSE len(list_distinct(list_transform(hypotheses, lambda h: h.rank))) = len(hypotheses) END""",
    "bad_hypothesis_text": "hypotheses IS NULL OR len(list_filter(hypotheses, lambda h: h.text IS NULL)) = 0",
    "bad_confidence": """hypotheses IS NULL
        OR len(list_filter(hypotheses, lambda h: h.confidence IS NULL OR NOT h.confidence BETWEEN 0 AND 1)) = 0""",
    "bad_word_timing": """words IS NULL OR len(list_filter(words, lambda w: w.word IS NULL OR w.start_ms IS NULL
        OR w.end_ms IS NULL OR w.start_ms < 0 OR w.end_ms < w.start_ms)) = 0""",
}
TWICE = len(RULES)


def connected(world: Path) -> duckdb.DuckDBPyConnection:
    """A session with the relations that the rules read: clips, locales, countries."""
    session = duckdb.connect(config={"preserve_insertion_order": False, "threads": 2})
    session.execute("SET TimeZone = 'UTC'")
    files = [str(path) for path in sorted((world / "clips").glob("*/*.parquet"))]
    session.read_parquet(files, hive_partitioning=False, filename=True, file_row_number=True).create_view("rows")
    session.register("files", pa.table({"filename": files, "day": [Path(file).parent.name[-10:] for file in files]}))
    session.execute("""
        CREATE VIEW clips AS
        SELECT rows.*, d.earliest, d.latest
        FROM rows
        JOIN (
            SELECT filename, (day::TIMESTAMP - INTERVAL 1 DAY)::TIMESTAMPTZ AS earliest,
                (day::TIMESTAMP + INTERVAL 2 DAY)::TIMESTAMPTZ AS latest
            FROM files
        ) d USING (filename)
    """)
    found = [locale for (locale,) in session.execute("SELECT DISTINCT locale FROM rows").fetchall()]
    session.register("locales", pa.table({"known": [tag for tag in found if tag and langcodes.tag_is_valid(tag)]}))
    session.register("countries", pa.table({"known": sorted(country.alpha_2 for country in pycountry.countries)}))
    return session


def main() -> None:
    session = connected(Path(sys.argv[1]))
    bits = " | ".join(f"CASE WHEN {rule} THEN 0 ELSE {1 << n} END" for n, rule in enumerate(RULES.values()))
    session.execute(f"""
        CREATE TABLE bad AS
        SELECT * FROM (SELECT filename, file_row_number, ({bits})::BIGINT AS mask FROM clips) WHERE mask <> 0
    """)
    session.execute("CREATE TABLE twice AS SELECT clip_id FROM rows GROUP BY clip_id HAVING count(*) > 1")
    codes = ", ".join(
        f"CASE WHEN mask & {1 << n} <> 0 THEN '{code}' END" for n, code in enumerate([*RULES, "duplicate_clip_id"])
    )
    session.execute(f"""
        CREATE TABLE quarantine AS
        SELECT filename, file_row_number, list_filter([{codes}], lambda code: code IS NOT NULL) AS reasons
        FROM (
            SELECT filename, file_row_number, sum(mask)::BIGINT AS mask
            FROM (
                FROM bad
                UNION ALL
                SELECT filename, file_row_number, {1 << TWICE} FROM rows WHERE clip_id IN (SELECT clip_id FROM twice)
            )
            GROUP BY ALL
        )
    """)
    session.table("quarantine").write_parquet(sys.argv[2], compression="zstd")
    counts = session.execute("SELECT unnest(reasons) AS code, count(*) FROM quarantine GROUP BY code").fetchall()
    print(json.dumps({"library": f"duckdb {duckdb.__version__}", "counts": dict(counts)}))


if __name__ == "__main__":
    main()
