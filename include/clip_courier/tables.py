"""A DuckDB session over named relations: the statements in sql/*.sql read relations by name and values by $name."""

import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from importlib.abc import MetaPathFinder
from pathlib import Path
from types import TracebackType
from typing import Self

import duckdb
import pyarrow as pa

from clip_courier.errors import QueryFailed
from clip_courier.scratch import scratch_folder

_STATEMENTS = Path(__file__).parent / "sql"


class _NoPandas(MetaPathFinder):
    """As if it were not installed."""

    def find_spec(self, name: str, path: object, target: object = None) -> None:
        if name == "pandas":
            raise ModuleNotFoundError(name=name)


def _leave_pandas_out() -> None:
    """Let Arrow do without pandas until something is to become a data frame: 40 to 80 MiB and 0.2 to 0.3 CPU s less.

    It imports pandas at the first array that is made of Python values, only to see whether they are a Series or its NA,
    of which we have none. Where it finds none it does not look again before `to_pandas`. A process that has pandas
    already keeps it.
    """
    if "pandas" in sys.modules:
        return
    absent = _NoPandas()
    sys.meta_path.insert(0, absent)
    try:
        pa.array([0])  # of values whose type it must find out: it looks in two places
    finally:
        sys.meta_path.remove(absent)


_leave_pandas_out()


class Tables:
    """An in-memory database, or one file when `path` is given. Use as a context manager."""

    def __init__(self, path: Path | None = None, *, threads: int | None = None, is_read_only: bool = False) -> None:
        # The order of rows means nothing here, and keeping it costs memory.
        config: dict[str, str | bool | int | float | list[str]] = {"preserve_insertion_order": False}
        config["threads"] = threads or len(os.sched_getaffinity(0))
        # What does not fit into memory goes to disk: to a folder that only we can read and that goes with the session,
        # not to `.tmp` wherever the process was started.
        self._scratch = ExitStack()
        config["temp_directory"] = str(self._scratch.enter_context(scratch_folder("overflow")))
        self._connection = duckdb.connect(str(path) if path else ":memory:", config=config, read_only=is_read_only)
        # Weeks and years are read in UTC, whatever the machine's zone.
        self._connection.execute("SET TimeZone = 'UTC'")
        # How many rows a dataset behind a URL has is not known: DuckDB takes it for a small one, and would compare
        # every clip with every consent event.
        self._connection.execute("SET asof_loop_join_threshold = 0")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._connection.close()
        self._scratch.close()

    def register(self, name: str, rows: pa.Table) -> None:
        """Let statements read an Arrow table (or dataset) under `name`."""
        self._connection.register(name, rows)

    def view(
        self, name: str, files: Sequence[Path | str], columns: Sequence[str] = ("*",), *, is_numbered: bool = False
    ) -> None:
        """Let statements read Parquet files, columns matched by name, under `name`.

        `is_numbered`: with each row's `filename` and `file_row_number`; no file may have columns of these names.
        """
        try:
            # A name is a name, also when it holds a character that DuckDB would expand.
            names = [re.sub(r"[*?\[]", r"[\g<0>]", str(f)) for f in files]
            relation = self._connection.read_parquet(
                names,
                union_by_name=True,
                hive_partitioning=False,
                filename=is_numbered,
                file_row_number=is_numbered,
            )
            relation.project(", ".join(columns)).create_view(name, replace=True)
        except duckdb.Error as error:
            raise QueryFailed(f"relation {name}: {_safe(error)}") from None

    def macro(self, name: str, columns: Sequence[str], expression: str) -> None:
        """Let statements call an expression of ours, over columns, by name."""
        self._connection.execute(f"CREATE OR REPLACE TEMP MACRO {name}({', '.join(columns)}) AS {expression}")

    @staticmethod
    def version(statements: Sequence[str]) -> str:
        """What the answers of these statements follow from: their texts, and DuckDB."""
        return "\n".join([duckdb.__version__, *(_text(statement) for statement in statements)])

    def run(self, statement: str, values: Mapping[str, object] | None = None) -> pa.Table:
        """Run sql/<statement>.sql and return its rows; an error never carries a value of a row.

        Raises:
            QueryFailed: the statement did not run; the message names it and the kind of failure.
        """
        text = _text(statement)
        try:
            # A statement is given the values that it names.
            asked = set(re.findall(r"\$(\w+)", text))
            named = {name: value for name, value in (values or {}).items() if name in asked}
            relation = self._connection.sql(text, params=named)
            return pa.table({}) if relation is None else relation.to_arrow_table()
        except duckdb.Error as error:
            # DuckDB quotes the value that it could not use, so neither its text nor the cause goes on.
            raise QueryFailed(f"statement {statement}: {_safe(error)}") from None

    def contents(self) -> Iterator[tuple[str, pa.RecordBatch]]:
        """Every row of every table of the database, a batch at a time.

        Raises:
            QueryFailed: a table cannot be read.
        """
        try:
            for schema, name in self._connection.sql("SELECT schema_name, table_name FROM duckdb_tables()").fetchall():
                yield from ((name, batch) for batch in self._connection.table(f'"{schema}"."{name}"').to_arrow_reader())
        except duckdb.Error as error:
            raise QueryFailed(f"the tables of a database: {_safe(error)}") from None


def _text(statement: str) -> str:
    return (_STATEMENTS / f"{statement}.sql").read_text(encoding="utf-8")


def _safe(error: duckdb.Error) -> str:
    return type(error).__name__
