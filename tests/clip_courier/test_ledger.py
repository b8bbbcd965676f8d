"""The ledger on a real SQLite file: its steps, its transactions and its chain."""

import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from itertools import product
from pathlib import Path

import pytest

from clip_courier import ledger as ledgers
from clip_courier.errors import AuditBroken, IllegalTransition, LedgerUnavailable
from clip_courier.ledger import STEPS, Batch, Ledger, Return, states_diagram

AT = datetime(2026, 11, 20, 2, 0, tzinfo=UTC)
BATCH = Batch("aurora-20261120-001", "aurora", "2026-11-20", "MANIFESTED", 3, 9000)
RETURN = Return(BATCH.batch_id, 1, "aurora", "0" * 64, "ACCEPTED", None, 3, 0, "2026-11-20T02:00:00Z")
INCLUDE = Path(ledgers.__file__).parents[1]

# How to bring a new batch to each state by legal steps.
WAYS = {
    "MANIFESTED": [],
    "SEALED": ["SEALED"],
    "DELIVERED": ["SEALED", "DELIVERED"],
    "RETURNED": ["SEALED", "DELIVERED", "RETURNED"],
    "LOADED": ["SEALED", "DELIVERED", "RETURNED", "LOADED"],
    "CANCELLED": ["CANCELLED"],
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


@pytest.fixture
def ledger(path: Path) -> Ledger:
    return Ledger(f"sqlite:///{path}")


def _bring_to(ledger: Ledger, state: str, batch: Batch = BATCH) -> None:
    ledger.add_batch(batch, AT)
    at = "MANIFESTED"
    for step in WAYS[state]:
        ledger.move(batch.batch_id, at, step, AT)
        at = step


def _execute(path: Path, statement: str) -> None:
    connection = sqlite3.connect(path)
    with connection:
        connection.execute(statement)
    connection.close()


@pytest.mark.parametrize(("came_from", "to"), list(product(STEPS, STEPS)))
def test_move_only_the_steps_of_the_table(ledger: Ledger, came_from: str, to: str) -> None:
    _bring_to(ledger, came_from)
    events = ledger.verify_chain()
    if to in STEPS[came_from]:
        ledger.move(BATCH.batch_id, came_from, to, AT)
        assert ledger.require(BATCH.batch_id).state == to
        assert ledger.verify_chain() == events + 1
    else:
        with pytest.raises(IllegalTransition):
            ledger.move(BATCH.batch_id, came_from, to, AT)
        assert ledger.require(BATCH.batch_id).state == came_from
        assert ledger.verify_chain() == events


def test_move_from_where_the_batch_is_not(ledger: Ledger) -> None:
    _bring_to(ledger, "MANIFESTED")
    with pytest.raises(IllegalTransition):
        ledger.move(BATCH.batch_id, "SEALED", "DELIVERED", AT)
    with pytest.raises(IllegalTransition):
        ledger.move("aurora-20261120-002", "MANIFESTED", "SEALED", AT)
    assert ledger.verify_chain() == 1


def test_move_by_many_processes_lets_one_win(ledger: Ledger, path: Path) -> None:
    _bring_to(ledger, "MANIFESTED")
    program = """
import sys
from datetime import UTC, datetime
from clip_courier.errors import IllegalTransition
from clip_courier.ledger import Ledger
ledger, at = Ledger(sys.argv[1]), datetime(2026, 11, 20, tzinfo=UTC)
print("here", flush=True)
sys.stdin.readline()
try:
    ledger.move(sys.argv[2], "MANIFESTED", "SEALED", at, size_bytes=int(sys.argv[3]))
    print("won")
except IllegalTransition:
    print("lost")
for _ in range(20):
    ledger.note(sys.argv[2], "NOTED", {"by": sys.argv[3]}, at)
"""
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", program, f"sqlite:///{path}", BATCH.batch_id, str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={"PYTHONPATH": str(INCLUDE)},
        )
        for number in range(3)
    ]
    for worker in workers:
        assert worker.stdout
        assert worker.stdout.readline() == "here\n"
    for worker in workers:
        assert worker.stdin
        worker.stdin.write("go\n")
        worker.stdin.flush()
    told = [worker.communicate(timeout=60)[0].strip() for worker in workers]
    assert sorted(told) == ["lost", "lost", "won"]
    assert ledger.require(BATCH.batch_id).size_bytes == told.index("won")
    # None of the 60 notes of three writers at once broke the chain or was lost.
    assert ledger.verify_chain() == 2 + 60


def test_add_batch_twice_is_once(ledger: Ledger) -> None:
    assert ledger.add_batch(BATCH, AT)
    ledger.move(BATCH.batch_id, "MANIFESTED", "SEALED", AT, sha256="a" * 64)
    assert not ledger.add_batch(replace(BATCH, clip_count=99), AT)
    assert ledger.require(BATCH.batch_id).state == "SEALED"
    assert ledger.require(BATCH.batch_id).clip_count == 3
    assert ledger.verify_chain() == 2


def test_add_return_moves_the_batch_or_nothing(ledger: Ledger) -> None:
    _bring_to(ledger, "SEALED")
    with pytest.raises(IllegalTransition):
        ledger.add_return(RETURN, AT)
    assert ledger.returns() == []
    ledger.move(BATCH.batch_id, "SEALED", "DELIVERED", AT)
    ledger.add_return(RETURN, AT)
    assert ledger.returns() == [RETURN]
    assert ledger.require(BATCH.batch_id).state == "RETURNED"
    ledger.verify_chain()


def test_add_return_of_another_vendor_takes_no_place(ledger: Ledger) -> None:
    _bring_to(ledger, "DELIVERED")
    ledger.add_return(RETURN, AT)
    refused = replace(RETURN, vendor="borealis", state="REFUSED", reason="not_your_batch", accepted_rows=0)
    ledger.add_return(refused, AT)
    assert ledger.returns("aurora") == [RETURN]
    assert ledger.returns("borealis") == [refused]
    with pytest.raises(IllegalTransition):
        ledger.add_return(replace(refused, state="ACCEPTED", reason=None), AT)
    assert ledger.returns("borealis") == [refused]


def test_add_return_never_replaces_an_accepted_one(ledger: Ledger) -> None:
    _bring_to(ledger, "DELIVERED")
    refused = replace(RETURN, state="REFUSED", reason="bad_format", accepted_rows=0)
    ledger.add_return(refused, AT)
    ledger.add_return(RETURN, AT)
    with pytest.raises(IllegalTransition):
        ledger.add_return(refused, AT)
    assert ledger.returns() == [RETURN]


def test_add_recall_and_its_steps(ledger: Ledger) -> None:
    _bring_to(ledger, "DELIVERED")
    assert ledger.add_recall(BATCH.batch_id, 1, "aurora", 2, AT)
    assert not ledger.add_recall(BATCH.batch_id, 1, "aurora", 2, AT)
    with pytest.raises(IllegalTransition):
        ledger.move_recall(BATCH.batch_id, 1, "RECEIPTED", AT)
    ledger.move_recall(BATCH.batch_id, 1, "NOTICED", AT)
    ledger.move_recall(BATCH.batch_id, 1, "RECEIPTED", AT)
    (recall,) = ledger.recalls("aurora")
    assert (recall.state, recall.noticed_at, recall.receipted_at) == ("RECEIPTED", *["2026-11-20T02:00:00Z"] * 2)
    assert ledger.recalls("borealis") == []
    ledger.verify_chain()


@pytest.mark.parametrize(
    "tampering",
    [
        "UPDATE events SET detail = '{\"clips\": 4}' WHERE seq = 1",
        "UPDATE events SET at = '2026-11-21T02:00:00Z' WHERE seq = 1",
        "UPDATE events SET subject = 'aurora-20261120-002' WHERE seq = 3",
        "DELETE FROM events WHERE seq = 2",
        "DELETE FROM events WHERE seq = 3",
        "DELETE FROM events",
        "INSERT INTO events SELECT 4, at, subject, event, detail, hash, hash FROM events WHERE seq = 3",
        "UPDATE audit_head SET seq = 2, hash = (SELECT hash FROM events WHERE seq = 2)",
        "DELETE FROM audit_head",
        "UPDATE batches SET state = 'MANIFESTED'",
        "DELETE FROM batches",
    ],
)
def test_verify_chain_finds_tampering(ledger: Ledger, path: Path, tampering: str) -> None:
    _bring_to(ledger, "DELIVERED")
    assert ledger.verify_chain() == 3
    _execute(path, tampering)
    with pytest.raises(AuditBroken):
        ledger.verify_chain()


def test_verify_chain_finds_an_event_forged_with_its_right_hash(ledger: Ledger, path: Path) -> None:
    _bring_to(ledger, "SEALED")
    connection = sqlite3.connect(path)
    (last,) = connection.execute("SELECT hash FROM events WHERE seq = 2").fetchone()
    content = (3, "2026-11-20T02:00:00Z", BATCH.batch_id, "DELIVERED", "{}")
    with connection:
        row = (*content, last, ledgers._hash(last, content))
        connection.execute("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?)", row)
    connection.close()
    with pytest.raises(AuditBroken):
        ledger.verify_chain()


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg2://courier:hunter2@127.0.0.1:1/ledger",
        "postgresql+nodriver://courier:hunter2@127.0.0.1/ledger",
        "mysql+pymysql://courier:hunter2@127.0.0.1/ledger",
        "courier:hunter2@nowhere",
        "postgresql://courier:hunter2@127.0.0.1:hunter2/ledger",
        "sqlite:////proc/hunter2/ledger.sqlite",
    ],
)
def test_open_what_is_not_there_keeps_the_password(url: str) -> None:
    with pytest.raises(LedgerUnavailable) as caught:
        Ledger(url)
    told: BaseException | None = caught.value
    assert "hunter2" not in f"{told} {told!r}"
    # What a traceback would show.
    assert told.__cause__ is None
    assert told.__suppress_context__


def test_open_a_file_that_is_no_database(path: Path) -> None:
    path.write_bytes(b"not a database, but long enough to look at" * 50)
    with pytest.raises(LedgerUnavailable):
        Ledger(f"sqlite:///{path}")


def _reads(ledger: Ledger) -> object:
    return ledger.batches()


def _writes(ledger: Ledger) -> object:
    return ledger.add_batch(BATCH, AT)


def test_write_while_another_holds_the_lock(path: Path) -> None:
    ledger = Ledger(f"sqlite:///{path}", wait_s=0.1)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    assert _reads(ledger) == []
    with pytest.raises(LedgerUnavailable):
        _writes(ledger)
    other.execute("ROLLBACK")
    other.close()
    assert _writes(ledger) is True


def test_write_to_a_database_that_cannot_be_written(path: Path) -> None:
    Ledger(f"sqlite:///{path}").close()
    read_only = Ledger(f"sqlite:///file:{path}?mode=ro&uri=true")
    assert _reads(read_only) == []
    with pytest.raises(LedgerUnavailable):
        _writes(read_only)


@pytest.mark.parametrize("work", [_reads, _writes])
def test_work_when_a_table_is_gone_in_the_middle(ledger: Ledger, path: Path, work: Callable[[Ledger], object]) -> None:
    for table in ("batches", "events"):
        _execute(path, f"ALTER TABLE {table} RENAME TO {table}_lost")
    with pytest.raises(LedgerUnavailable) as caught:
        work(ledger)
    assert "SELECT" not in str(caught.value)


def test_write_that_fails_at_its_event_leaves_nothing(ledger: Ledger, path: Path) -> None:
    _execute(path, "ALTER TABLE events RENAME TO lost")
    with pytest.raises(LedgerUnavailable):
        _writes(ledger)
    _execute(path, "ALTER TABLE lost RENAME TO events")
    assert ledger.batch(BATCH.batch_id) is None
    assert ledger.verify_chain() == 0


def test_events_hold_nothing_but_ids_and_counts(ledger: Ledger, path: Path) -> None:
    _bring_to(ledger, "DELIVERED")
    ledger.add_return(RETURN, AT)
    rows = sqlite3.connect(path).execute("SELECT event, detail FROM events ORDER BY seq").fetchall()
    assert [event for event, _ in rows] == ["MANIFESTED", "SEALED", "DELIVERED", "RETURNED"]
    assert [json.loads(detail) for _, detail in rows] == [{"clips": 3}, {}, {}, {"n": 1, "accepted": 3, "rejected": 0}]


def test_states_diagram_is_fresh() -> None:
    page = Path(__file__).parents[2] / "docs" / "states.md"
    assert page.read_text(encoding="utf-8") == states_diagram()
    for came_from, onward in STEPS.items():
        for to in onward:
            assert f"    {came_from} --> {to}\n" in states_diagram()
