"""Sessions over named relations: errors without values, names without patterns, and nothing left on the disk."""

import os
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from clip_courier import tables as tables_module
from clip_courier.errors import QueryFailed
from clip_courier.tables import Tables

CANARY = "canary-quorvanthistle"


@pytest.fixture
def statements(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of statements that a test writes itself."""
    folder = tmp_path / "sql"
    folder.mkdir()
    monkeypatch.setattr(tables_module, "_STATEMENTS", folder)
    return folder


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the system's temporary folder is for the test: short, as it must be."""
    folder = Path(tempfile.mkdtemp(prefix="t", dir="/tmp"))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_run_reads_relations_by_name_and_values_by_name(statements: Path) -> None:
    (statements / "above.sql").write_text("SELECT n FROM numbers WHERE n > $least ORDER BY n", "utf-8")
    with Tables() as tables:
        tables.register("numbers", pa.table({"n": [3, 1, 2]}))
        assert tables.run("above", {"least": 1}).to_pydict() == {"n": [2, 3]}


def test_run_tells_the_kind_of_failure_and_no_value(statements: Path) -> None:
    """DuckDB's own text quotes the value, and its exception would be shown as the cause."""
    (statements / "cast.sql").write_text("SELECT word::INTEGER AS n FROM words", "utf-8")
    with Tables() as tables:
        tables.register("words", pa.table({"word": [CANARY]}))
        with pytest.raises(QueryFailed, match=r"^statement cast: ConversionException$") as failed:
            tables.run("cast")
    assert failed.value.__cause__ is None
    assert failed.value.__suppress_context__


def test_run_reads_years_in_utc_whatever_the_machine_says(statements: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Pacific/Kiritimati")
    (statements / "year.sql").write_text("SELECT year(at_) AS year FROM moments", "utf-8")
    last = datetime(2026, 12, 31, 23, 59, tzinfo=UTC)
    with Tables() as tables:
        tables.register("moments", pa.table({"at_": pa.array([last], pa.timestamp("us", tz="UTC"))}))
        assert tables.run("year").to_pydict() == {"year": [2026]}


@pytest.mark.parametrize(
    "name", ["a[1].parquet", "*.parquet", "?.parquet", "{a,b}.parquet", "[!a].parquet", "a'b.parquet"]
)
def test_view_reads_the_named_file_alone(statements: Path, tmp_path: Path, name: str) -> None:
    (statements / "all.sql").write_text("SELECT n FROM numbers", "utf-8")
    for number, other in enumerate(["a1.parquet", "a.parquet", "b.parquet", name]):
        pq.write_table(pa.table({"n": [number]}), tmp_path / other)
    with Tables() as tables:
        tables.view("numbers", [tmp_path / name])
        assert tables.run("all").to_pydict() == {"n": [3]}


def test_view_matches_columns_by_name_and_takes_none_from_a_folder(statements: Path, tmp_path: Path) -> None:
    (statements / "all.sql").write_text("SELECT * FROM numbers ORDER BY n", "utf-8")
    folder = tmp_path / "day=7"
    folder.mkdir()
    pq.write_table(pa.table({"n": [1], "m": [10]}), folder / "a.parquet")
    pq.write_table(pa.table({"m": [20], "n": [2]}), folder / "b.parquet")
    pq.write_table(pa.table({"n": [3]}), folder / "c.parquet")
    with Tables() as tables:
        tables.view("numbers", sorted(folder.iterdir()))
        assert tables.run("all").to_pydict() == {"n": [1, 2, 3], "m": [10, 20, None]}


@pytest.mark.parametrize("content", [None, b"", b"not parquet"])
def test_view_of_a_file_that_is_none_fails_by_name(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / f"{CANARY}.parquet"
    if content is not None:
        path.write_bytes(content)
    with Tables() as tables, pytest.raises(QueryFailed, match=r"^relation numbers: \w+Exception$"):
        tables.view("numbers", [path])


def test_run_writes_what_does_not_fit_into_a_private_folder_that_goes(
    statements: Path, scratch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By default DuckDB would write it to `.tmp` in the folder that the process happens to stand in."""
    (statements / "limit.sql").write_text("SET memory_limit = '60MB'", "utf-8")
    (statements / "large.sql").write_text(
        "CREATE TEMP TABLE large AS SELECT i, repeat('canary' || i, 9) AS text FROM range(1500000) t(i)", "utf-8"
    )
    standing = tmp_path / "standing"
    standing.mkdir()
    monkeypatch.chdir(standing)
    with Tables(threads=1) as tables:
        tables.run("limit")
        tables.run("large")
        (folder,) = scratch.iterdir()
        assert sum(path.stat().st_size for path in folder.iterdir()) > 1_000_000
        assert folder.stat().st_mode & 0o777 == 0o700
    assert not list(scratch.iterdir())
    assert not list(standing.iterdir())
    scratch.rmdir()


def test_run_after_an_error_in_the_block_leaves_no_folder(scratch: Path) -> None:
    with pytest.raises(ZeroDivisionError), Tables() as tables:
        tables.register("numbers", pa.table({"n": [1]}))
        raise ZeroDivisionError
    assert not list(scratch.iterdir())
    scratch.rmdir()


def test_run_does_not_compare_everything_with_everything_behind_a_url(statements: Path, tmp_path: Path) -> None:
    """DuckDB does not know how many rows a dataset has, took it for a small one, and made a loop of the join."""
    for name in ("clips", "events"):
        pq.write_table(pa.table({"person": ["a"] * 100, "at_": list(range(100))}), tmp_path / f"{name}.parquet")
    (statements / "plan.sql").write_text(
        "EXPLAIN SELECT c.at_, e.at_ FROM (SELECT unnest([person]) AS person, at_ FROM clips) c"
        " ASOF LEFT JOIN (SELECT person, at_ FROM events GROUP BY ALL) e ON c.person = e.person AND c.at_ >= e.at_",
        "utf-8",
    )
    with Tables() as tables:
        for name in ("clips", "events"):
            tables.register(name, ds.dataset(tmp_path / f"{name}.parquet"))
        plan = str(tables.run("plan").to_pylist())
    assert "asof" in plan.lower()
    assert "nested loop join" not in plan.lower()


def test_pandas_comes_only_with_a_data_frame() -> None:
    """Arrow brings it along with its first array otherwise; a process of its own, since others here have it already."""
    script = """
import sys
from clip_courier.tables import Tables
import pyarrow as pa
import pyarrow.dataset
rows = pa.table({"n": pa.array([1, 2], pa.int64()), "word": ["a", None]})
with Tables() as tables:
    tables.register("rows", pyarrow.dataset.dataset(rows))
assert rows["n"].to_numpy().sum() == 3
assert "pandas" not in sys.modules
assert pa.default_memory_pool().backend_name == "system"
frame = rows.to_pandas()
assert type(frame).__module__.startswith("pandas"), type(frame)
assert pa.array(frame["word"], from_pandas=True).null_count == 1
assert pa.Table.from_pandas(frame).num_rows == 2
"""
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", script], check=True, env=environ)
