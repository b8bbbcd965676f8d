"""The facts: rows by person, merged and erased file by file, and what a killed run leaves."""

import os
import secrets
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clip_courier import facts
from clip_courier.model import Root

ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"


@pytest.fixture
def root(tmp_path: Path) -> Root:
    return Root(tmp_path, str(tmp_path / "landing"))


def _rows(batch_id: str, persons: dict[str, int]) -> tuple[pa.Table, pa.Array]:
    """Clips of each person, each with text that no compression makes smaller; and their buckets."""
    speakers = [person for person, clips in persons.items() for _ in range(clips)]
    table = pa.table(
        {
            "clip_key": [f"{batch_id}/{person}/{n}" for person, clips in persons.items() for n in range(clips)],
            "batch_id": [batch_id] * len(speakers),
            "text": [secrets.token_hex(24) for _ in speakers],
        }
    )
    return table, facts.bucket_of(pa.chunked_array([speakers], pa.string()))


def _load(root: Root, batch_id: str, persons: dict[str, int], kind: str = "scored") -> pa.Table:
    rows, buckets = _rows(batch_id, persons)
    facts.spool(root, kind, rows, buckets, batch_id)
    facts.settle(root, [batch_id])
    return rows


def _held(root: Root, kind: str = "scored") -> list[dict[str, object]]:
    return sorted(
        (row for path in facts.files(root, kind) for row in pq.read_table(path).to_pylist()),
        key=lambda row: str(row["clip_key"]),
    )


def test_bucket_of_every_letter_is_one_of_sixteen() -> None:
    buckets = facts.bucket_of(pa.chunked_array([[f"{letter}xyz" for letter in ALPHABET] + [None]])).to_pylist()
    assert sorted(set(buckets)) == list("0123456789abcdef")
    assert all(buckets.count(bucket) == 2 for bucket in set(buckets) - {"0"})


def test_settle_replaces_a_batch_and_keeps_the_others(root: Root) -> None:
    first = _load(root, "b1", {"a1": 2, "z1": 1})
    second = _load(root, "b2", {"a1": 1, "m1": 3})
    again = _load(root, "b1", {"q1": 2})
    wanted = sorted([*second.to_pylist(), *again.to_pylist()], key=lambda row: str(row["clip_key"]))
    assert _held(root) == wanted
    assert not set(first["text"].to_pylist()) & {row["text"] for row in _held(root)}


def test_settle_a_batch_whose_rows_have_other_columns(root: Root) -> None:
    _load(root, "b1", {"a1": 2})
    rows, buckets = _rows("b1", {"a1": 1})
    facts.spool(root, "scored", rows.append_column("more", pa.array([1])), buckets, "b1")
    facts.settle(root, ["b1"])
    assert [row["more"] for row in _held(root)] == [1]


def _plainly(table: pa.Table, path: Path) -> None:
    """So that every text stands in the file byte by byte."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, compression="none", use_dictionary=False)


def test_forget_writes_one_file_of_each_kind(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts, "write_parquet", _plainly)
    rows = {}
    for kind in facts.KINDS:
        rows[kind], buckets = _rows("b1", {f"{letter}1": 3 for letter in ALPHABET})
        facts.spool(root, kind, rows[kind], buckets, "b1")
    facts.settle(root, ["b1"])
    before = {path: path.stat().st_mtime_ns for kind in facts.KINDS for path in facts.files(root, kind)}
    keys = [f"b1/c1/{n}" for n in range(3)]
    tombstone = pa.table({"clip_key": keys, "bucket": facts.bucket_of(pa.chunked_array([["c1"] * 3]))})
    assert facts.forget(root, {"b1.1": tombstone}) == 3 * len(facts.KINDS)
    after = {path: path.stat().st_mtime_ns for kind in facts.KINDS for path in facts.files(root, kind)}
    changed = {path for path, written in before.items() if after[path] != written}
    assert len(changed) == len(facts.KINDS)
    assert {path.name for path in changed} == {"1.parquet"}
    erased = [text for kind in facts.KINDS for key, text in _texts(rows[kind]) if key in keys]
    raw = b"".join(path.read_bytes() for path in root.facts.rglob("*") if path.is_file())
    assert len(erased) == 3 * len(facts.KINDS)
    assert [text for text in erased if text.encode() in raw] == []
    kept = [text for kind in facts.KINDS for key, text in _texts(rows[kind]) if key not in keys]
    assert all(text.encode() in raw for text in kept)
    # Applied once; nothing is read again for it.
    assert facts.forget(root, {"b1.1": tombstone}) == 0


def _texts(rows: pa.Table) -> list[tuple[str, str]]:
    return list(zip(rows["clip_key"].to_pylist(), rows["text"].to_pylist(), strict=True))


def test_forget_by_a_tombstone_that_names_no_bucket(root: Root) -> None:
    _load(root, "b1", {"a1": 1, "z1": 1})
    old = pa.table({"clip_key": ["b1/z1/0"], "bucket": pa.nulls(1, pa.string())})
    assert facts.forget(root, {"b1.1": old}) == 1
    assert [row["clip_key"] for row in _held(root)] == ["b1/a1/0"]


@pytest.mark.parametrize("dies_at", [1, 3, 5])
def test_settle_killed_in_the_middle(root: Root, dies_at: int) -> None:
    """What was spooled is gone with the next run, and the batch is made again whole."""
    _load(root, "b0", {f"{letter}1": 1 for letter in ALPHABET})
    program = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from clip_courier import facts
from clip_courier.model import Root
from test_facts import ALPHABET, _rows
write, left = facts.write_parquet, [int(sys.argv[3])]
def die(*arguments):
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
    write(*arguments)
facts.write_parquet = die
root = Root(Path(sys.argv[1]), "")
rows, buckets = _rows("b1", {f"{letter}2": 2 for letter in ALPHABET})
facts.spool(root, "scored", rows, buckets, "b1")
facts.settle(root, ["b1"])
"""
    environ = {**os.environ, "PYTHONPATH": str(Path(facts.__file__).parents[1])}
    command = [sys.executable, "-c", program, str(root.path), str(Path(__file__).parent), str(dies_at)]
    assert subprocess.run(command, env=environ).returncode == -signal.SIGKILL
    assert list(root.facts.rglob(".*.part"))
    facts.begin(root)
    assert not list(root.facts.rglob(".*.part"))
    again = _load(root, "b1", {f"{letter}2": 2 for letter in ALPHABET})
    held = _held(root)
    assert len(held) == 3 * len(ALPHABET)
    assert [row for row in held if row["batch_id"] == "b1"] == sorted(again.to_pylist(), key=lambda r: r["clip_key"])
