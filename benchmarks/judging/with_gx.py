"""Great Expectations over all rows, as a user would have it: `duckdb`, over a view through SQLAlchemy, or `pandas`.

The same rules: what its expectations have no words for (lists, patterns on DuckDB) is a column of the view. COMPLETE
results, as a quarantine needs them; on SQL it names 20 rows for each expectation at most all the same.

DuckDB does not work with it as it is: it reads a result after the connection was given back, and duckdb-engine's
cursors share one connection, whose rollback wipes the result. `_keep_results` is what mends it.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import great_expectations as gx
import great_expectations.expectations as gxe
from great_expectations.data_context.types.base import ProgressBarsConfig

from judging.floor import RULES, connected

# Rules that a built-in expectation says of a plain column.
SETS = {"bad_activation": ("activation", ["call", "button", "wake_word", "accidental"])}
RANGES = {
    "bad_duration": ("duration_ms", 1, 2**31 - 1),
    "bad_sample_rate": ("sample_rate_hz", 4_000, 192_000),
    "bad_channels": ("channels", 1, 8),
}
NOT_NULL = {"missing_clip_id": "clip_id", "bad_recorded_at": "recorded_at", "bad_audio_uri": "audio_uri"}
PLAIN = ["clip_id", "activation", "duration_ms", "sample_rate_hz", "channels", "recorded_at", "audio_uri"]


def expectations() -> list[Any]:
    made = [gxe.ExpectColumnValuesToBeUnique(column="clip_id", meta={"code": "duplicate_clip_id"})]
    made += [gxe.ExpectColumnValuesToNotBeNull(column=c, meta={"code": code}) for code, c in NOT_NULL.items()]
    made += [
        gxe.ExpectColumnValuesToBeInSet(column=column, value_set=values, meta={"code": code})
        for code, (column, values) in SETS.items()
    ]
    made += [
        gxe.ExpectColumnValuesToBeBetween(column=column, min_value=least, max_value=most, meta={"code": code})
        for code, (column, least, most) in RANGES.items()
    ]
    made += [
        gxe.ExpectColumnValuesToBeInSet(column=code, value_set=[1], meta={"code": code})
        for code in RULES
        if code not in {*SETS, *RANGES, *NOT_NULL}
    ]
    return made


def facts() -> str:
    others = [code for code in RULES if code not in {*SETS, *RANGES, *NOT_NULL}]
    columns = ", ".join(f"CASE WHEN {RULES[code]} THEN 1 ELSE 0 END AS {code}" for code in others)
    return f"SELECT {', '.join(PLAIN)}, {columns} FROM clips"


def _keep_results() -> None:
    import duckdb_engine

    class Kept(duckdb_engine.CursorWrapper):
        """Every row is fetched as soon as a statement is run."""

        def execute(self, statement: str, parameters: Any = None, context: Any = None) -> None:
            super().execute(statement, parameters, context)
            self._told = super().__getattr__("description")
            self._rows = super().__getattr__("fetchall")() if self._told else []

        @property
        def description(self) -> Any:
            return self._told

        def fetchall(self) -> list[Any]:
            rows, self._rows = self._rows, []
            return rows

        def fetchone(self) -> Any:
            return self._rows.pop(0) if self._rows else None

        def fetchmany(self, size: int | None = None) -> list[Any]:
            rows, self._rows = self._rows[: size or 1], self._rows[size or 1 :]
            return rows

    duckdb_engine.CursorWrapper = Kept


def main() -> None:
    kind, world = sys.argv[1], Path(sys.argv[2])
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    parameters: dict[str, Any] = {}
    session = connected(world)
    with tempfile.TemporaryDirectory() as folder:
        if kind == "duckdb":
            _keep_results()
            # A view that GX's own session can read: the small tables go along with it.
            file = Path(folder) / "clips.duckdb"
            _write_view(session, file)
            source = context.data_sources.add_sql(
                "clips", connection_string=f"duckdb:///{file}", create_temp_table=False
            )
            batches = source.add_table_asset("clips", table_name="facts").add_batch_definition_whole_table("all")
        else:
            parameters = {"dataframe": session.sql(facts()).df()}
            batches = context.data_sources.add_pandas("clips").add_dataframe_asset("clips")
            batches = batches.add_batch_definition_whole_dataframe("all")
        session.close()
        suite = context.suites.add(gx.ExpectationSuite(name="clips", expectations=expectations()))
        definition = context.validation_definitions.add(
            gx.ValidationDefinition(name="clips", data=batches, suite=suite)
        )
        wanted = {
            "result_format": "COMPLETE",
            "unexpected_index_column_names": ["clip_id"],
            "exclude_unexpected_values": True,
            "return_unexpected_index_query": False,
        }
        result = definition.run(batch_parameters=parameters or None, result_format=wanted)
    counts, problems = {}, []
    for one in result.results:
        code = one.expectation_config.meta["code"]
        if one.exception_info.get("raised_exception") or "unexpected_count" not in one.result:
            problems.append(code)
        elif one.result["unexpected_count"]:
            counts[code] = one.result["unexpected_count"]
    print(json.dumps({"library": f"great_expectations {gx.__version__}", "counts": counts, "not_judged": problems}))


def _write_view(session: Any, file: Path) -> None:
    """The view over the Parquet files, in a file of its own, with the tables of names that it reads."""
    session.execute(f"ATTACH '{file}' AS kept")
    for name in ("locales", "countries", "files"):
        session.execute(f"CREATE TABLE kept.{name} AS FROM {name}")
    files = [name for (name,) in session.execute("SELECT filename FROM files").fetchall()]
    listed = ", ".join(f"'{name}'" for name in files)
    session.execute("USE kept")
    session.execute(
        f"CREATE VIEW kept.rows AS FROM read_parquet([{listed}], filename = true, hive_partitioning = false)"
    )
    session.execute("""
        CREATE VIEW kept.clips AS
        SELECT rows.*, (day::TIMESTAMP - INTERVAL 1 DAY)::TIMESTAMPTZ AS earliest,
            (day::TIMESTAMP + INTERVAL 2 DAY)::TIMESTAMPTZ AS latest
        FROM kept.rows JOIN kept.files USING (filename)
    """)
    session.execute(f"CREATE VIEW kept.facts AS {facts()}")
    session.execute("USE memory")
    session.execute("DETACH kept")


if __name__ == "__main__":
    main()
