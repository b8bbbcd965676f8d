"""The ledger: what happened to every batch, return and recall; the only mutable state, in one relational database.

A batch moves only along `STEPS`, compared and set in one transaction together with an audit event. Each event holds the
hash of the one before it, so that an altered, removed or added event shows (`verify_chain`). No row names a clip or a
person.

Whoever works at something holds a lease of it: a row with an end, renewed while the work goes on, and asked for in the
transaction of every step. A worker that stood still and lost its lease cannot take one.
"""

import hashlib
import json
import threading
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.exc import SQLAlchemyError

from clip_courier.errors import AuditBroken, IllegalTransition, LeaseLost, LedgerUnavailable
from clip_courier.model import stamp
from clip_courier.processes import identity, is_gone

MANIFESTED: Final = "MANIFESTED"
SEALED: Final = "SEALED"
RELEASED: Final = "RELEASED"
DELIVERED: Final = "DELIVERED"
RETURNED: Final = "RETURNED"
LOADED: Final = "LOADED"
CANCELLED: Final = "CANCELLED"

# From → to → when. docs/states.md is generated from this table.
STEPS: Final[Mapping[str, Mapping[str, str]]] = {
    MANIFESTED: {
        SEALED: "signed, encrypted and checked; the ciphertext waits here",
        CANCELLED: "nothing in it may leave any more",
    },
    SEALED: {
        RELEASED: "all of it lies on the vendor's server under its unfinished name; consent is asked for the last time",
        MANIFESTED: "a clip may not leave any more, or the ciphertext is lost or for another key: it is sealed again",
    },
    RELEASED: {
        DELIVERED: "the ready file lies on the vendor's server",
        SEALED: "it did not get its final name: a clip may not leave any more, or the server refused",
    },
    DELIVERED: {
        RETURNED: "a trusted return was matched",
        DELIVERED: "the vendor had lost it: sealed anew without what may not leave any more, it lies there once more",
    },
    RETURNED: {RETURNED: "another return was matched", LOADED: "its transcripts are in the warehouse"},
    LOADED: {RETURNED: "another return was matched"},
    CANCELLED: {},
}
WAITING: Final = (MANIFESTED, SEALED, RELEASED)
# Notes on the way of a batch that is sent again, which stays DELIVERED: all of it lies there, and it is held back.
RELEASED_AGAIN: Final = "RELEASED_AGAIN"
HELD_AGAIN: Final = "HELD_AGAIN"
WITH_VENDOR: Final = (DELIVERED, RETURNED, LOADED)

ACCEPTED: Final = "ACCEPTED"
REFUSED: Final = "REFUSED"

_METADATA = sa.MetaData()
_BATCHES = sa.Table(
    "batches",
    _METADATA,
    sa.Column("batch_id", sa.String(64), primary_key=True),
    sa.Column("vendor", sa.String(32), nullable=False),
    sa.Column("night", sa.String(10), nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("clip_count", sa.Integer, nullable=False),
    sa.Column("audio_ms", sa.BigInteger, nullable=False),
    sa.Column("size_bytes", sa.BigInteger),
    sa.Column("sha256", sa.String(64)),
    sa.Column("contents_sha256", sa.String(64)),
    sa.Column("manifested_at", sa.String(20), nullable=False),
    sa.Column("delivered_at", sa.String(20)),
    sa.Column("due_at", sa.String(20)),
)
_RETURNS = sa.Table(
    "returns",
    _METADATA,
    # The vendor first: a file of one vendor may carry the name of another's batch, and must not take its place.
    sa.Column("vendor", sa.String(32), primary_key=True),
    sa.Column("batch_id", sa.String(64), primary_key=True),
    sa.Column("n", sa.Integer, primary_key=True),
    sa.Column("sha256", sa.String(64), nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("reason", sa.String(32)),
    sa.Column("accepted_rows", sa.Integer, nullable=False),
    sa.Column("rejected_rows", sa.Integer, nullable=False),
    sa.Column("received_at", sa.String(20), nullable=False),
)
# How long an accepted file and its ready file were: a listing of the server then says that they were taken.
_SIZES = sa.Table(
    "return_sizes",
    _METADATA,
    sa.Column("vendor", sa.String(32), primary_key=True),
    sa.Column("batch_id", sa.String(64), primary_key=True),
    sa.Column("n", sa.Integer, primary_key=True),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("ready_size_bytes", sa.BigInteger, nullable=False),
)
# What became of the rows of an accepted file.
_ROWS = sa.Table(
    "return_rows",
    _METADATA,
    sa.Column("vendor", sa.String(32), primary_key=True),
    sa.Column("batch_id", sa.String(64), primary_key=True),
    sa.Column("n", sa.Integer, primary_key=True),
    sa.Column("received_rows", sa.Integer, nullable=False),
    sa.Column("rejected_rows", sa.Integer, nullable=False),
    sa.Column("loaded_rows", sa.Integer, nullable=False),
    sa.Column("superseded_rows", sa.Integer, nullable=False),
    sa.Column("forgotten_rows", sa.Integer, nullable=False),
    sa.Column("sensitive_rows", sa.Integer, nullable=False),
    sa.Column("distress_rows", sa.Integer, nullable=False),
    sa.Column("breach_rows", sa.Integer, nullable=False),
)
_RECALLS = sa.Table(
    "recalls",
    _METADATA,
    sa.Column("batch_id", sa.String(64), primary_key=True),
    sa.Column("n", sa.Integer, primary_key=True),
    sa.Column("vendor", sa.String(32), nullable=False),
    sa.Column("clip_count", sa.Integer, nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("created_at", sa.String(20), nullable=False),
    sa.Column("noticed_at", sa.String(20)),
    sa.Column("receipted_at", sa.String(20)),
)
_EVENTS = sa.Table(
    "events",
    _METADATA,
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("at", sa.String(20), nullable=False),
    sa.Column("subject", sa.String(80), nullable=False),
    sa.Column("event", sa.String(32), nullable=False),
    sa.Column("detail", sa.Text, nullable=False),
    sa.Column("previous_hash", sa.String(64), nullable=False),
    sa.Column("hash", sa.String(64), nullable=False),
)
# One row: its lock makes the chain a chain also where several workers write.
_HEAD = sa.Table(
    "audit_head",
    _METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("seq", sa.Integer, nullable=False),
    sa.Column("hash", sa.String(64), nullable=False),
)
_GENESIS: Final = "0" * 64
# Who works at what, until when by the clock of the database: the one clock that all workers share. In milliseconds.
_LEASES = sa.Table(
    "leases",
    _METADATA,
    sa.Column("name", sa.String(80), primary_key=True),
    sa.Column("holder", sa.String(160), nullable=False),
    sa.Column("until_ms", sa.BigInteger, nullable=False),
)
# One row. 1: as the first ledgers were, which have no such table. 2: leases, and RELEASED between SEALED and DELIVERED.
_VERSION = sa.Table("ledger_version", _METADATA, sa.Column("version", sa.Integer, primary_key=True))
VERSION: Final = 2

LEASE_S: Final = 120.0
_CLOCKS: Final = {
    "sqlite": "SELECT CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)",
    "postgresql": "SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)",
}


@dataclass(frozen=True)
class Lease:
    """The right to work at something of that name, for as long as nobody else has taken it."""

    name: str
    holder: str

    @property
    def attempt(self) -> str:
        """A short word of its own for this piece of work."""
        return self.holder.rpartition(" ")[2]


@dataclass(frozen=True)
class Batch:
    """One batch as the ledger has it. Times are RFC 3339 in UTC.

    `sha256` is of the sealed file, `contents_sha256` of what was sealed in it and for which key.
    """

    batch_id: str
    vendor: str
    night: str
    state: str
    clip_count: int
    audio_ms: int
    size_bytes: int | None = None
    sha256: str | None = None
    contents_sha256: str | None = None
    manifested_at: str = ""
    delivered_at: str | None = None
    due_at: str | None = None

    @property
    def night_date(self) -> date:
        return date.fromisoformat(self.night)


@dataclass(frozen=True)
class Return:
    """One returned file: taken in (with rows accepted and rejected) or refused whole (with its reason)."""

    batch_id: str
    n: int
    vendor: str
    sha256: str
    state: str
    reason: str | None
    accepted_rows: int
    rejected_rows: int
    received_at: str


@dataclass(frozen=True)
class Sizes:
    """Of an accepted file and of its ready file, in bytes."""

    vendor: str
    batch_id: str
    n: int
    size_bytes: int
    ready_size_bytes: int


@dataclass(frozen=True)
class RowCounts:
    """What became of the rows of an accepted file: none is lost.

    Once it is loaded, received = rejected + loaded + superseded (by a higher revision) + forgotten (recalled since).
    Of the accepted ones some are marked sensitive or distress; breaches are those of the rejected ones whose clips the
    vendor had been told to delete.
    """

    vendor: str
    batch_id: str
    n: int
    received_rows: int
    rejected_rows: int
    loaded_rows: int = 0
    superseded_rows: int = 0
    forgotten_rows: int = 0
    sensitive_rows: int = 0
    distress_rows: int = 0
    breach_rows: int = 0


@dataclass(frozen=True)
class Recall:
    """One notice that clips of a batch must be deleted: OPEN → NOTICED (it lies with the vendor) → RECEIPTED."""

    batch_id: str
    n: int
    vendor: str
    clip_count: int
    state: str
    created_at: str
    noticed_at: str | None
    receipted_at: str | None


class Ledger:
    """Opens the database at a SQLAlchemy URL and makes its tables when they are missing."""

    def __init__(self, url: str, *, wait_s: float = 60) -> None:
        try:
            self._engine = sa.create_engine(url, pool_pre_ping=True)
            if self._engine.dialect.name == "sqlite":
                _serialise_sqlite(self._engine, wait_s)
        except (SQLAlchemyError, ImportError, ValueError, TypeError, AttributeError) as error:
            # The URL, which the cause quotes, may hold a password.
            raise LedgerUnavailable(f"the ledger's database cannot be opened ({type(error).__name__})") from None
        try:
            self._make_tables()
        except LedgerUnavailable:
            if self._engine.dialect.name == "sqlite":
                raise
            # On a server two that begin at once may both try to make them; then they are there for the second try.
            self._make_tables()

    def _make_tables(self) -> None:
        with self._transaction() as connection:
            _METADATA.create_all(connection)
            if connection.execute(sa.select(_HEAD.c.id)).first() is None:
                connection.execute(_HEAD.insert().values(id=1, seq=0, hash=_GENESIS))
            found = connection.execute(sa.select(_VERSION.c.version)).scalar() or 1
            if found > VERSION:
                raise LedgerUnavailable(f"the ledger is of version {found}, this program knows {VERSION}: update it")
            # From 1 to 2 the table that was missing is all there is to do, and is done.
            if found < VERSION:
                connection.execute(_VERSION.delete())
                connection.execute(_VERSION.insert().values(version=VERSION))

    def close(self) -> None:
        self._engine.dispose()

    # -- batches ---------------------------------------------------------------------------------------------

    def add_batch(self, batch: Batch, at: datetime) -> bool:
        """Record a batch as MANIFESTED; False when it stands there already."""
        with self._writing() as connection:
            if connection.execute(sa.select(_BATCHES.c.batch_id).where(_BATCHES.c.batch_id == batch.batch_id)).first():
                return False
            values = {**batch.__dict__, "state": MANIFESTED, "manifested_at": stamp(at)}
            connection.execute(_BATCHES.insert().values(**values))
            self._write_event(connection, at, batch.batch_id, MANIFESTED, {"clips": batch.clip_count})
            return True

    def move(
        self, batch_id: str, came_from: str, to: str, at: datetime, *, lease: Lease | None = None, **fields: object
    ) -> None:
        """Take one step of the life cycle, with the facts that belong to it.

        Raises:
            IllegalTransition: the table has no such step, or the batch is not (any more) where it would start.
            LeaseLost: somebody else has taken the lease that was given.
        """
        if to not in STEPS.get(came_from, {}):
            raise IllegalTransition(f"batch {batch_id}: there is no step from {came_from} to {to}")
        with self._writing() as connection:
            if lease is not None:
                _check_held(connection, lease)
            here = (_BATCHES.c.batch_id == batch_id) & (_BATCHES.c.state == came_from)
            if connection.execute(_BATCHES.update().where(here).values(state=to, **fields)).rowcount != 1:
                raise IllegalTransition(f"batch {batch_id} is not {came_from}")
            self._write_event(connection, at, batch_id, to, fields)

    def batch(self, batch_id: str) -> Batch | None:
        found = self._read(sa.select(_BATCHES).where(_BATCHES.c.batch_id == batch_id))
        return Batch(**found[0]) if found else None

    def require(self, batch_id: str) -> Batch:
        batch = self.batch(batch_id)
        if batch is None:
            raise IllegalTransition(f"batch {batch_id} is not in the ledger")
        return batch

    def batches(
        self, *, vendor: str | None = None, night: date | None = None, states: Iterable[str] | None = None
    ) -> list[Batch]:
        """Batches by id, narrowed by what is given."""
        query = sa.select(_BATCHES).order_by(_BATCHES.c.batch_id)
        if vendor is not None:
            query = query.where(_BATCHES.c.vendor == vendor)
        if night is not None:
            query = query.where(_BATCHES.c.night == night.isoformat())
        if states is not None:
            query = query.where(_BATCHES.c.state.in_(list(states)))
        return [Batch(**row) for row in self._read(query)]

    # -- leases ----------------------------------------------------------------------------------------------

    @contextmanager
    def lease(self, name: str, *, for_s: float = LEASE_S) -> Iterator[Lease | None]:
        """Take the lease of that name for the block, renewing it meanwhile; None, at once, when it is another's.

        One that has run out, or whose holder is known to be dead, is free.
        """
        mine = Lease(name, identity())
        if not self._take(mine, for_s):
            yield None
            return
        over = threading.Event()
        renewing = threading.Thread(target=self._renew, args=(mine, for_s, over), name=f"lease {name}", daemon=True)
        renewing.start()
        try:
            yield mine
        finally:
            over.set()
            renewing.join()
            with suppress(LedgerUnavailable):  # it ends by itself
                self._give_back(mine)

    @contextmanager
    def any_lease(self, names: Sequence[str], *, wait_s: float, for_s: float = LEASE_S) -> Iterator[Lease | None]:
        """The first of these leases that is free, waiting for one; None when none is after `wait_s`."""
        deadline = time.monotonic() + wait_s
        while True:
            for name in names:
                with self.lease(name, for_s=for_s) as mine:
                    if mine is not None:
                        yield mine
                        return
            if time.monotonic() > deadline:
                yield None
                return
            time.sleep(0.2)

    def check_lease(self, lease: Lease) -> None:
        """Raises LeaseLost when somebody else has taken it."""
        with self._transaction(only_reads=True) as connection:
            _check_held(connection, lease)

    def _take(self, mine: Lease, for_s: float) -> bool:
        with self._writing() as connection:
            now_ms = self._now_ms(connection)
            until_ms = now_ms + int(for_s * 1000)
            here = _LEASES.c.name == mine.name
            found = connection.execute(sa.select(_LEASES.c.holder, _LEASES.c.until_ms).where(here)).first()
            if found is not None and found.until_ms > now_ms and not is_gone(found.holder):
                return False
            connection.execute(_LEASES.delete().where(here))
            connection.execute(_LEASES.insert().values(name=mine.name, holder=mine.holder, until_ms=until_ms))
            return True

    def _renew(self, mine: Lease, for_s: float, over: threading.Event) -> None:
        here = (_LEASES.c.name == mine.name) & (_LEASES.c.holder == mine.holder)
        while not over.wait(for_s / 4):
            # A database that is away for a moment may be back for the next time; if not, no step can be taken anyway.
            with suppress(LedgerUnavailable, AuditBroken), self._writing() as connection:
                until_ms = self._now_ms(connection) + int(for_s * 1000)
                if connection.execute(_LEASES.update().where(here).values(until_ms=until_ms)).rowcount != 1:
                    return

    def _give_back(self, mine: Lease) -> None:
        with self._writing() as connection:
            here = (_LEASES.c.name == mine.name) & (_LEASES.c.holder == mine.holder)
            connection.execute(_LEASES.delete().where(here))

    def _now_ms(self, connection: sa.Connection) -> int:
        return int(connection.execute(sa.text(_CLOCKS[self._engine.dialect.name])).scalar_one())

    # -- returns ---------------------------------------------------------------------------------------------

    def add_return(
        self, returned: Return, at: datetime, rows: RowCounts | None = None, sizes: Sizes | None = None
    ) -> None:
        """Record what became of a returned file; an accepted one moves its batch to RETURNED in the same transaction.

        `rows` are counted in it as well; what among them must alert somebody is an event of its own. `sizes` are those
        by which it is known again.

        Raises:
            IllegalTransition: the file was accepted before, or it is accepted for a batch that is not with its vendor.
        """
        key = (_RETURNS.c.vendor == returned.vendor) & (_RETURNS.c.batch_id == returned.batch_id)
        key &= _RETURNS.c.n == returned.n
        with self._writing() as connection:
            if connection.execute(sa.select(_RETURNS.c.n).where(key & (_RETURNS.c.state == ACCEPTED))).first():
                raise IllegalTransition(f"return {returned.n} of batch {returned.batch_id} was accepted before")
            connection.execute(_RETURNS.delete().where(key))
            connection.execute(_RETURNS.insert().values(**returned.__dict__))
            detail = {"n": returned.n, "accepted": returned.accepted_rows, "rejected": returned.rejected_rows}
            if returned.state == ACCEPTED:
                states = [state for state, steps in STEPS.items() if RETURNED in steps]
                here = (_BATCHES.c.batch_id == returned.batch_id) & _BATCHES.c.state.in_(states)
                here &= _BATCHES.c.vendor == returned.vendor
                if connection.execute(_BATCHES.update().where(here).values(state=RETURNED)).rowcount != 1:
                    raise IllegalTransition(f"batch {returned.batch_id} is not with its vendor")
                self._write_event(connection, at, returned.batch_id, RETURNED, detail)
                if rows is not None:
                    self._add_rows(connection, rows, at)
                if sizes is not None:
                    connection.execute(_SIZES.insert().values(**sizes.__dict__))
            else:
                self._write_event(
                    connection, at, returned.batch_id, "RETURN_REFUSED", {**detail, "reason": returned.reason}
                )

    def _add_rows(self, connection: sa.Connection, rows: RowCounts, at: datetime) -> None:
        connection.execute(_ROWS.insert().values(**rows.__dict__))
        if rows.sensitive_rows or rows.distress_rows:
            detail = {"n": rows.n, "sensitive": rows.sensitive_rows, "distress": rows.distress_rows}
            self._write_event(connection, at, rows.batch_id, "ALERTED", detail)
        if rows.breach_rows:
            detail = {"n": rows.n, "rows": rows.breach_rows}
            self._write_event(connection, at, rows.batch_id, "RECALL_BREACHED", detail)

    def count_rows(self, counts: Iterable[RowCounts], at: datetime) -> None:
        """Replace the counts of files by what is true now; those that stand as they are write nothing."""
        known = {(r.vendor, r.batch_id, r.n): r for r in self.row_counts()}
        changed = [c for c in counts if known.get((c.vendor, c.batch_id, c.n)) != c]
        if not changed:
            return
        with self._writing() as connection:
            for one in changed:
                here = (_ROWS.c.vendor == one.vendor) & (_ROWS.c.batch_id == one.batch_id) & (_ROWS.c.n == one.n)
                connection.execute(_ROWS.delete().where(here))
                connection.execute(_ROWS.insert().values(**one.__dict__))
                names = ("n", "loaded_rows", "superseded_rows", "forgotten_rows")
                self._write_event(
                    connection, at, one.batch_id, "ROWS_COUNTED", {name: getattr(one, name) for name in names}
                )

    def row_counts(self, vendor: str | None = None) -> list[RowCounts]:
        query = sa.select(_ROWS).order_by(_ROWS.c.batch_id, _ROWS.c.n, _ROWS.c.vendor)
        return [
            RowCounts(**row) for row in self._read(query if vendor is None else query.where(_ROWS.c.vendor == vendor))
        ]

    def returns(self, vendor: str | None = None) -> list[Return]:
        query = sa.select(_RETURNS).order_by(_RETURNS.c.batch_id, _RETURNS.c.n, _RETURNS.c.vendor)
        return [
            Return(**row) for row in self._read(query if vendor is None else query.where(_RETURNS.c.vendor == vendor))
        ]

    def sizes(self, vendor: str) -> list[Sizes]:
        return [Sizes(**row) for row in self._read(sa.select(_SIZES).where(_SIZES.c.vendor == vendor))]

    # -- recalls ---------------------------------------------------------------------------------------------

    def add_recall(self, batch_id: str, n: int, vendor: str, clip_count: int, at: datetime) -> bool:
        """Record a batch's nth recall as OPEN; False when it stands there already."""
        key = (_RECALLS.c.batch_id == batch_id) & (_RECALLS.c.n == n)
        with self._writing() as connection:
            if connection.execute(sa.select(_RECALLS.c.n).where(key)).first():
                return False
            values = {"batch_id": batch_id, "n": n, "vendor": vendor, "clip_count": clip_count}
            connection.execute(_RECALLS.insert().values(**values, state="OPEN", created_at=stamp(at)))
            self._write_event(connection, at, batch_id, "RECALLED", {"n": n, "clips": clip_count})
            return True

    def move_recall(self, batch_id: str, n: int, to: str, at: datetime) -> None:
        """OPEN → NOTICED → RECEIPTED, with the time of the step."""
        came_from, column = {"NOTICED": ("OPEN", "noticed_at"), "RECEIPTED": ("NOTICED", "receipted_at")}[to]
        here = (_RECALLS.c.batch_id == batch_id) & (_RECALLS.c.n == n) & (_RECALLS.c.state == came_from)
        with self._writing() as connection:
            done = connection.execute(_RECALLS.update().where(here).values({"state": to, column: stamp(at)}))
            if done.rowcount != 1:
                raise IllegalTransition(f"recall {n} of batch {batch_id} is not {came_from}")
            self._write_event(connection, at, batch_id, f"RECALL_{to}", {"n": n})

    def recalls(self, vendor: str | None = None) -> list[Recall]:
        query = sa.select(_RECALLS).order_by(_RECALLS.c.batch_id, _RECALLS.c.n)
        return [
            Recall(**row) for row in self._read(query if vendor is None else query.where(_RECALLS.c.vendor == vendor))
        ]

    # -- audit -----------------------------------------------------------------------------------------------

    def note(self, subject: str, what: str, detail: Mapping[str, object], at: datetime) -> None:
        """Add an event that moves nothing."""
        with self._writing() as connection:
            self._write_event(connection, at, subject, what, detail)

    def latest(self, subject: str, events: Collection[str]) -> tuple[str, dict[str, Any]] | None:
        """The last of these events of a subject, with its detail."""
        here = (_EVENTS.c.subject == subject) & _EVENTS.c.event.in_(list(events))
        found = self._read(sa.select(_EVENTS).where(here).order_by(_EVENTS.c.seq.desc()).limit(1))
        return (found[0]["event"], json.loads(found[0]["detail"])) if found else None

    def verify_chain(self) -> int:
        """Recompute the chain, and hold the batches against it; returns how many events it holds.

        Raises:
            AuditBroken: an event was altered, removed or added, or a batch was moved without one.
        """
        # Nobody may write meanwhile: an event between two of these reads would look like a break.
        with self._writing() as connection:
            events = _rows(connection, sa.select(_EVENTS).order_by(_EVENTS.c.seq))
            states = connection.execute(sa.select(_BATCHES.c.batch_id, _BATCHES.c.state)).all()
            heads = _rows(connection, sa.select(_HEAD))
        previous, seq = _GENESIS, 0
        last_step: dict[str, str] = {}
        for row in events:
            seq += 1
            content = (row["seq"], row["at"], row["subject"], row["event"], row["detail"])
            if row["seq"] != seq or row["previous_hash"] != previous or row["hash"] != _hash(previous, content):
                raise AuditBroken(f"audit event {seq} is not what was written")
            previous = row["hash"]
            if row["event"] in STEPS:
                last_step[row["subject"]] = row["event"]
        if [(head["seq"], head["hash"]) for head in heads] != [(seq, previous)]:
            raise AuditBroken(f"{seq} audit events are there, and the last one is not the last that was written")
        if dict(states) != last_step:
            raise AuditBroken("a batch is not where its last audit event left it")
        return seq

    def _write_event(
        self, connection: sa.Connection, at: datetime, subject: str, what: str, detail: Mapping[str, object]
    ) -> None:
        head = connection.execute(sa.select(_HEAD.c.seq, _HEAD.c.hash)).one()
        content = (head.seq + 1, stamp(at), subject, what, json.dumps(detail, sort_keys=True))
        digest = _hash(head.hash, content)
        names = ("seq", "at", "subject", "event", "detail")
        values = dict(zip(names, content, strict=True))
        connection.execute(_EVENTS.insert().values(**values, previous_hash=head.hash, hash=digest))
        connection.execute(_HEAD.update().values(seq=content[0], hash=digest))

    @contextmanager
    def _writing(self) -> Iterator[sa.Connection]:
        """A transaction that is alone: whatever it reads still holds when it writes."""
        with self._transaction() as connection:
            if connection.execute(sa.select(_HEAD.c.id).with_for_update()).first() is None:
                raise AuditBroken("the head of the audit chain is gone")
            yield connection

    @contextmanager
    def _transaction(self, **options: Any) -> Iterator[sa.Connection]:
        """All or nothing; whatever the database says, also in the middle, becomes LedgerUnavailable."""
        try:
            with self._engine.connect().execution_options(**options) as connection, connection.begin():
                yield connection
        except SQLAlchemyError as error:
            # Its text quotes the statement with its values.
            raise LedgerUnavailable(f"the ledger's database does not answer ({type(error).__name__})") from None

    def _read(self, query: sa.Select[Any]) -> list[dict[str, Any]]:
        with self._transaction(only_reads=True) as connection:
            return _rows(connection, query)


def _check_held(connection: sa.Connection, lease: Lease) -> None:
    here = (_LEASES.c.name == lease.name) & (_LEASES.c.holder == lease.holder)
    if connection.execute(sa.select(_LEASES.c.name).where(here)).first() is None:
        raise LeaseLost(f"{lease.name}: the lease has run out and is another worker's")


def _rows(connection: sa.Connection, query: sa.Select[Any]) -> list[dict[str, Any]]:
    return [dict(row) for row in connection.execute(query).mappings()]


def _hash(previous: str, content: Sequence[object]) -> str:
    return hashlib.sha256((previous + json.dumps(list(content))).encode("utf-8")).hexdigest()


def _serialise_sqlite(engine: sa.Engine, wait_s: float) -> None:
    """Take the write lock at BEGIN and wait for it, so that two processes never act on the same old state."""

    @event.listens_for(engine, "connect")
    def _(connection: Any, _record: object) -> None:
        connection.isolation_level = None
        # Waiting comes first: the others may have to wait themselves.
        for pragma in (f"busy_timeout={wait_s * 1000:.0f}", "journal_mode=WAL", "synchronous=FULL"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _(connection: sa.Connection) -> None:
        only_reads = connection.get_execution_options().get("only_reads")
        connection.exec_driver_sql("BEGIN" if only_reads else "BEGIN IMMEDIATE")


def every_row(url: str) -> Iterator[tuple[str, list[str], list[sa.Row[Any]]]]:
    """Every row of every table of any database, a thousand at a time: table, columns, rows as the driver gives them.

    Raises:
        LedgerUnavailable: it cannot be opened, or not be read to its end.
    """
    try:
        engine = sa.create_engine(url)
        with engine.connect().execution_options(stream_results=True) as connection:
            for table in sa.inspect(connection).get_table_names():
                found = connection.execute(sa.select(sa.text("*")).select_from(sa.table(table)))
                while rows := list(found.fetchmany(1000)):
                    yield table, list(found.keys()), rows
        engine.dispose()
    except (SQLAlchemyError, ImportError, ValueError, TypeError, AttributeError) as error:
        raise LedgerUnavailable(f"a database cannot be read ({type(error).__name__})") from None


def states_diagram() -> str:
    """The life cycle as a Mermaid state diagram and a table, in Markdown."""
    steps = [(a, b, why) for a, onward in STEPS.items() for b, why in onward.items()]
    arrows = [f"    {a} --> {b}" for a, b, _ in steps]
    rows = [f"| {a} | {b} | {why} |" for a, b, why in steps]
    return "\n".join(
        [
            "# The life of a batch",
            "",
            "Generated from `STEPS` in `include/clip_courier/ledger.py`; a test keeps it fresh.",
            "",
            "```mermaid",
            "stateDiagram-v2",
            f"    [*] --> {MANIFESTED}",
            *arrows,
            "```",
            "",
            "| from | to | when |",
            "|---|---|---|",
            *rows,
            "",
        ]
    )


def parse_stamp(text: str) -> datetime:
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
