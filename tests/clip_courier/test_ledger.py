"""The ledger on a real SQLite file: its steps, its transactions and its chain."""

import json
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from itertools import product
from pathlib import Path

import pytest

from clip_courier import ledger as ledgers
from clip_courier.errors import AuditBroken, IllegalTransition, LeaseLost, LedgerUnavailable
from clip_courier.ledger import STEPS, Batch, Lease, Ledger, Return, states_diagram
from clip_courier.processes import identity, is_gone

AT = datetime(2026, 11, 20, 2, 0, tzinfo=UTC)
BATCH = Batch("aurora-20261120-001", "aurora", "2026-11-20", "MANIFESTED", 3, 9000)
RETURN = Return(BATCH.batch_id, 1, "aurora", "0" * 64, "ACCEPTED", None, 3, 0, "2026-11-20T02:00:00Z")
INCLUDE = Path(ledgers.__file__).parents[1]

# How to bring a new batch to each state by legal steps.
WAYS = {
    "MANIFESTED": [],
    "SEALED": ["SEALED"],
    "RELEASED": ["SEALED", "RELEASED"],
    "DELIVERED": ["SEALED", "RELEASED", "DELIVERED"],
    "RETURNED": ["SEALED", "RELEASED", "DELIVERED", "RETURNED"],
    "LOADED": ["SEALED", "RELEASED", "DELIVERED", "RETURNED", "LOADED"],
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
    ledger.move(BATCH.batch_id, "SEALED", "RELEASED", AT)
    with pytest.raises(IllegalTransition):
        ledger.add_return(RETURN, AT)
    ledger.move(BATCH.batch_id, "RELEASED", "DELIVERED", AT)
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
        "DELETE FROM events WHERE seq = 4",
        "DELETE FROM events",
        "INSERT INTO events SELECT 5, at, subject, event, detail, hash, hash FROM events WHERE seq = 4",
        "UPDATE audit_head SET seq = 2, hash = (SELECT hash FROM events WHERE seq = 2)",
        "DELETE FROM audit_head",
        "UPDATE batches SET state = 'MANIFESTED'",
        "DELETE FROM batches",
    ],
)
def test_verify_chain_finds_tampering(ledger: Ledger, path: Path, tampering: str) -> None:
    _bring_to(ledger, "DELIVERED")
    assert ledger.verify_chain() == 4
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
    assert [event for event, _ in rows] == ["MANIFESTED", "SEALED", "RELEASED", "DELIVERED", "RETURNED"]
    told = [json.loads(detail) for _, detail in rows]
    assert told == [{"clips": 3}, {}, {}, {}, {"n": 1, "accepted": 3, "rejected": 0}]


# -- leases ------------------------------------------------------------------------------------------------------------


def _elsewhere(ledger: Ledger, monkeypatch: pytest.MonkeyPatch, name: str, for_s: float) -> Lease:
    """A lease of a worker on a machine that we cannot look into, which then fell silent."""
    with monkeypatch.context() as patch:
        patch.setattr(ledgers, "identity", lambda: "another-boot/pid:[1] 4711 99 abcdef")
        other = Lease(name, ledgers.identity())
        assert ledger._take(other, for_s)
    return other


def test_lease_is_one_workers_until_it_is_given_back(ledger: Ledger) -> None:
    with ledger.lease("b") as mine, ledger.lease("b") as second, ledger.lease("c") as other:
        assert mine
        assert other
        assert second is None
        assert mine.attempt.isalnum()
        assert mine.attempt != other.attempt
    with ledger.lease("b") as again:
        assert again


def test_lease_of_a_silent_worker_runs_out(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    _bring_to(ledger, "MANIFESTED")
    other = _elsewhere(ledger, monkeypatch, BATCH.batch_id, 0.5)
    with ledger.lease(BATCH.batch_id) as refused:
        assert refused is None
    ledger.move(BATCH.batch_id, "MANIFESTED", "SEALED", AT, lease=other)
    time.sleep(0.6)
    # Nobody has taken it: it may still go on.
    ledger.check_lease(other)
    with ledger.lease(BATCH.batch_id) as mine:
        assert mine
        # It wakes up, and cannot take a step any more.
        with pytest.raises(LeaseLost):
            ledger.move(BATCH.batch_id, "SEALED", "RELEASED", AT, lease=other)
        with pytest.raises(LeaseLost):
            ledger.check_lease(other)
        ledger._give_back(other)
        ledger.move(BATCH.batch_id, "SEALED", "RELEASED", AT, lease=mine)


def test_lease_is_renewed_while_the_work_goes_on(ledger: Ledger) -> None:
    with ledger.lease("b", for_s=0.4) as mine:
        time.sleep(1.0)
        with ledger.lease("b") as second:
            assert second is None
        assert mine
        ledger.check_lease(mine)


def test_lease_of_a_killed_process_is_free_at_once(ledger: Ledger, path: Path) -> None:
    program = (
        "import sys, time; from clip_courier.ledger import Ledger\n"
        "with Ledger(sys.argv[1]).lease('b') as lease: print(bool(lease), flush=True); time.sleep(60)"
    )
    worker = subprocess.Popen(
        [sys.executable, "-c", program, f"sqlite:///{path}"],
        stdout=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": str(INCLUDE)},
    )
    assert worker.stdout
    assert worker.stdout.readline() == "True\n"
    with ledger.lease("b") as refused:
        assert refused is None
    worker.kill()
    worker.wait()
    with ledger.lease("b") as mine:
        assert mine


def test_any_lease_waits_for_a_place(ledger: Ledger) -> None:
    with ledger.any_lease(["a", "b"], wait_s=0) as first, ledger.any_lease(["a", "b"], wait_s=0) as second:
        assert (first and first.name, second and second.name) == ("a", "b")
        begin = time.monotonic()
        with ledger.any_lease(["a", "b"], wait_s=0.5) as third:
            assert third is None
        assert 0.5 < time.monotonic() - begin < 3
    with ledger.any_lease(["a", "b"], wait_s=0) as free:
        assert free


@pytest.mark.parametrize("spoilt", ["", "x", "another-boot/pid:[1] 1 2 3", "a b c d e"])
def test_is_gone_only_of_processes_that_can_be_seen(spoilt: str) -> None:
    assert not is_gone(identity())
    assert not is_gone(spoilt)
    place, pid, started, chance = identity().split(" ")
    assert is_gone(f"{place} {pid} {int(started) - 1} {chance}")
    assert is_gone(f"{place} 4194305 {started} {chance}")


def test_open_a_ledger_of_the_first_version(ledger: Ledger, path: Path) -> None:
    """Its batches go on where they were."""
    _bring_to(ledger, "SEALED")
    for table in ("leases", "ledger_version"):
        _execute(path, f"DROP TABLE {table}")
    again = Ledger(f"sqlite:///{path}")
    with again.lease(BATCH.batch_id) as lease:
        again.move(BATCH.batch_id, "SEALED", "RELEASED", AT, lease=lease)
    assert again.verify_chain() == 3
    assert sqlite3.connect(path).execute("SELECT version FROM ledger_version").fetchall() == [(ledgers.VERSION,)]


def test_open_a_ledger_of_a_newer_version(ledger: Ledger, path: Path) -> None:
    _execute(path, f"UPDATE ledger_version SET version = {ledgers.VERSION + 1}")
    with pytest.raises(LedgerUnavailable, match="update it"):
        Ledger(f"sqlite:///{path}")


def test_states_diagram_is_fresh() -> None:
    page = Path(__file__).parents[2] / "docs" / "states.md"
    assert page.read_text(encoding="utf-8") == states_diagram()
    for came_from, onward in STEPS.items():
        for to in onward:
            assert f"    {came_from} --> {to}\n" in states_diagram()
