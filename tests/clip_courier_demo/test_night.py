"""What `make demo` does, on a smaller world: the DAGs in a real Airflow, and nothing personal in what it wrote.

The demonstration itself looks for the canaries (`leaks`), so the search is proven here first.
"""

import io
import json
import shutil
import sqlite3
import urllib.error
import urllib.request
from base64 import b64decode
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from clip_courier.leaks import files_under
from clip_courier_demo import leaks
from clip_courier_demo.airflow import Airflow, standalone
from clip_courier_demo.night import play_night
from clip_courier_demo.stage import secret_of

CANARY = "Quorvanthistle"


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of a demonstration that was played, and what it printed."""
    folder = tmp_path_factory.mktemp("demo") / "demo"
    console = Console(file=io.StringIO(), width=160, highlight=False)
    play_night(folder, clips=90, seed=3, console=console)
    assert isinstance(console.file, io.StringIO)
    return folder, console.file.getvalue()


def test_play_night_runs_every_dag_to_success(played: tuple[Path, str]) -> None:
    with sqlite3.connect(played[0] / "airflow" / "airflow.db") as metadata:
        runs = metadata.execute("SELECT dag_id, state FROM dag_run WHERE run_type <> 'backfill'").fetchall()
    ended = {dag_id for dag_id, state in runs if state == "success"}
    assert ended == {"nightly_outbound", "collect_returns", "load_warehouse", "honour_withdrawals"}


def test_play_night_keeps_rows_and_values_out_of_airflows_database(played: tuple[Path, str]) -> None:
    """Only counts, vendors' names and reasons are kept by Airflow: nothing in it is a list of rows."""
    with sqlite3.connect(played[0] / "airflow" / "airflow.db") as metadata:
        kept = metadata.execute("SELECT value FROM xcom WHERE key = 'return_value'").fetchall()
        arguments = [row for (row,) in metadata.execute("SELECT rendered_fields FROM rendered_task_instance_fields")]
    assert kept
    assert all(len(json.dumps(json.loads(value))) < 2_000 for (value,) in kept)
    assert all("clip_ref" not in str(fields) for fields in arguments)


def test_play_night_tells_what_came_of_it(played: tuple[Path, str]) -> None:
    folder, told = played
    assert "RECEIPTED" in told
    assert "0 found" in told
    with duckdb.connect(str(folder / "var" / "warehouse" / "clip_courier.duckdb"), read_only=True) as warehouse:
        assert warehouse.sql("SELECT count(*) FROM transcripts").fetchall()[0][0] > 0


def test_play_night_writes_no_key_of_the_pseudonyms(played: tuple[Path, str]) -> None:
    """Not in a log, an XCom, a rendered field, a task's argument or a file: nowhere under the demonstration."""
    folder, told = played
    text = secret_of(3, "pseudonyms")
    key = b64decode(text)
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    assert any(path.name == "airflow.db" for path in files)
    assert any(path.suffix == ".log" for path in files)
    for form in (key, key.hex().encode(), text.encode(), repr(key).encode(), json.dumps(text)[1:-1].encode()):
        assert [path for path in files if form in path.read_bytes()] == []
        assert form not in told.encode()


def test_play_night_leaves_no_canary_outside_the_private_places(played: tuple[Path, str]) -> None:
    folder, told = played
    canaries = leaks.read_canaries(folder / "world")
    assert len(list(files_under(folder, leaks.PRIVATE))) > 50
    assert leaks.find_leaks(canaries, {"what was printed": told}, folder) == {}


def test_play_night_stops_all_that_it_started(played: tuple[Path, str]) -> None:
    folder = str(played[0]).encode()
    running = [path for path in Path("/proc").glob("[0-9]*/cmdline") if folder in _read(path)]
    assert running == []


def test_standalone_shows_its_pages_to_nobody_who_is_not_logged_in(played: tuple[Path, str], tmp_path: Path) -> None:
    environ = {"CLIP_COURIER_ROOT": str(played[0] / "var"), "CLIP_COURIER_VENDORS": str(played[0] / "vendors")}
    night = next((played[0] / "var" / "nights").iterdir()).name
    docs = f"data-docs/{night}/index.html"
    with standalone(tmp_path / "airflow", environ) as airflow:
        login = {"Authorization": f"Bearer {airflow.token}"}
        assert [page(airflow, name, {})[0] for name in ("status", docs, "reports/2026-W47.html")] == [401] * 3
        assert "aurora" in page(airflow, "status", login)[1]
        assert "validations" in page(airflow, docs, login)[1]
        assert page(airflow, f"data-docs/{night}/..%2f..%2fledger.sqlite", login)[0] == 404


def page(airflow: Airflow, name: str, headers: dict[str, str]) -> tuple[int, str]:
    request = urllib.request.Request(f"{airflow.address}/clip-courier/{name}", headers=headers)  # noqa: S310
    try:
        with urllib.request.urlopen(request) as answer:  # noqa: S310
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refused:
        return refused.code, ""


@pytest.mark.parametrize("name", ["plain.log", "rows.parquet", "tables.duckdb"])
def test_find_leaks_sees_a_canary_in_packed_files(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    rows = pa.table({"text": [f"my name is {CANARY.lower()}"]})
    if name.endswith(".parquet"):
        pq.write_table(rows, path, compression="zstd")
    elif name.endswith(".duckdb"):
        with duckdb.connect(str(path)) as connection:
            connection.register("rows", rows)
            connection.execute("CREATE TABLE kept AS SELECT * FROM rows")
    else:
        path.write_text(f"INFO {CANARY.upper()} spoke", encoding="utf-8")
    assert set(leaks.find_leaks([CANARY], {}, tmp_path)) == {name}
    assert leaks.find_leaks([CANARY[::-1]], {}, tmp_path) == {}


@pytest.mark.parametrize(
    ("table", "column"),
    [("xcom", "value"), ("rendered_task_instance_fields", "rendered_fields"), ("log", "extra"), ("dag_run", "conf")],
)
def test_find_leaks_sees_a_canary_in_airflows_database(
    played: tuple[Path, str], tmp_path: Path, table: str, column: str
) -> None:
    shutil.copy(played[0] / "airflow" / "airflow.db", tmp_path / "airflow.db")
    told = json.dumps({"clip": f"{CANARY[:-1]}\u00e9"}) + "".join(f"\\u{ord(letter):04x}" for letter in CANARY)
    with sqlite3.connect(tmp_path / "airflow.db") as metadata:
        assert metadata.execute(f"UPDATE {table} SET {column} = ?", (told,)).rowcount > 0
    assert "airflow.db" in leaks.find_leaks([CANARY], {}, tmp_path)


def test_find_leaks_sees_a_canary_in_a_file_name(tmp_path: Path) -> None:
    (tmp_path / f"{CANARY}.txt").touch()
    assert len(leaks.find_leaks([CANARY], {}, tmp_path)) == 1


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
