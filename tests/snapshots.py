"""Starting points that many tests share: made once a session, copied for each test.

The other side stays real: what a snapshot holds was selected, cut, sealed and sent by the courier itself.
"""

import itertools
import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from clip_courier import model
from clip_courier.courier import Courier
from clip_courier.ledger import Ledger
from clip_courier.model import CONSENT_EVENTS
from clip_courier.settings import credentials_from, load_settings
from clip_courier.sftp_wire import Wire
from clip_courier_demo.stage import Stage
from conftest import NIGHT, NOW

LATER = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
MakeCourier = Callable[..., Courier]


def manifested(stage: Stage, make_courier: MakeCourier) -> Courier:
    """A courier whose night is cut into batches, none of them sealed."""

    def night(courier: Courier) -> None:
        courier.select(NIGHT)
        courier.validate(NIGHT)
        courier.manifest(NIGHT)

    return _restored("manifested", stage, make_courier, night)


def delivered(stage: Stage, make_courier: MakeCourier) -> Courier:
    """A courier whose night lies on the vendors' servers; nothing has come back."""

    def night(courier: Courier) -> None:
        assert not courier.night(NIGHT).failures

    return _restored("delivered", stage, make_courier, night)


def returned(stage: Stage, make_courier: MakeCourier, truth: Mapping[str, str]) -> Courier:
    """A courier that has collected what both vendors returned, and not loaded it."""

    def night(courier: Courier) -> None:
        assert not courier.night(NIGHT).failures
        for vendor in stage.vendors.values():
            vendor.work(truth, NOW)
        assert not courier.collect().failures

    return _restored("returned", stage, make_courier, night)


def _restored(name: str, stage: Stage, make_courier: MakeCourier, night: Callable[[Courier], None]) -> Courier:
    kept = stage.folder / "snapshots" / name
    places = {"root": stage.root, **{vendor.name: vendor.home for vendor in stage.vendors.values()}}
    if not kept.exists():
        night(make_courier(stage))
        for label, place in places.items():
            shutil.copytree(place, kept / label)
    for label, place in places.items():
        shutil.copytree(kept / label, place, dirs_exist_ok=True)
    return make_courier(stage)


def deliver_night(
    environ: dict[str, str], told: Connection, vendor: str | None = None, kill_at: int = 0, workers: int = 1
) -> None:
    """What a process of its own does, that a test may kill; with `kill_at` it kills itself at its nth boundary.

    When it comes to its end it tells how many boundaries there were.
    """
    courier = Courier(load_settings(environ), lambda conn_id: credentials_from(environ, conn_id), lambda: NOW)
    passed = _killed_at(kill_at)
    told.send("begins")
    courier.deliver(NIGHT, vendor, workers)
    told.send(passed())


# Everything by which a delivery can be seen from outside: before and after each of these it may be killed.
BOUNDARIES: list[tuple[Any, str]] = [
    (Ledger, "move"),
    (Ledger, "note"),
    (Ledger, "_take"),
    (Ledger, "_give_back"),
    (Path, "replace"),
    (Path, "unlink"),
    (Path, "touch"),
    (model, "_sync"),
    (Wire, "_transmit"),
    (Wire, "_receive"),
]


def _killed_at(nth: int) -> Callable[[], int]:
    """Count boundaries from here on, in this process alone, and end it at the nth. Gives the count."""
    numbers = itertools.count(1)
    last = [0]

    def pass_one() -> None:
        last[0] = next(numbers)
        if last[0] == nth:
            os.kill(os.getpid(), signal.SIGKILL)

    for owner, name in BOUNDARIES:
        step = getattr(owner, name)

        def around(*given: Any, step: Callable[..., Any] = step, **options: Any) -> Any:
            pass_one()
            result = step(*given, **options)
            pass_one()
            return result

        setattr(owner, name, around)
    return lambda: last[0]


def deliver_elsewhere(
    stage: Stage, vendor: str | None = None, kill_at: int = 0, workers: int = 1
) -> tuple[BaseProcess, Connection]:
    """A process of its own that delivers, and where it tells; it has begun when this returns."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["clip_courier.courier"])
    here, there = context.Pipe()
    process = context.Process(target=deliver_night, args=(dict(stage.environ), there, vendor, kill_at, workers))
    process.start()
    there.close()
    assert here.recv() == "begins"
    return process, here


def landing_copy(stage: Stage, folder: Path) -> Path:
    """A landing zone that a test may change; the recordings are linked."""
    source = stage.folder / "world" / "landing"
    for name in ("clips", "consent_events", "persons"):
        shutil.copytree(source / name, folder / name)
    shutil.copytree(source / "audio", folder / "audio", copy_function=lambda a, b: Path(b).hardlink_to(a))
    return folder


def withdraw(landing: Path, persons: Collection[str], at: datetime = NOW) -> None:
    """Append the persons' withdrawals, as the consent service does: another file."""
    events = [
        {
            "record_id": f"withdrawal-{number}-{at:%H%M%S}",
            "person_id": person,
            "purpose": "human_review",
            "decision": "withdrawn",
            "notice_version": "2026-02",
            "language": "en",
            "country": "GB",
            "occurred_at": at,
            "received_at": at,
        }
        for number, person in enumerate(sorted(persons))
    ]
    place = landing / "consent_events" / f"late-{len(list((landing / 'consent_events').iterdir()))}.parquet"
    pq.write_table(pa.Table.from_pylist(events, CONSENT_EVENTS), place)


def crosswalk_of(stage: Stage, batch_id: str) -> pa.Table:
    return pq.read_table(stage.root / "crosswalk" / NIGHT.isoformat() / f"{batch_id}.crosswalk.parquet")


def persons_of(crosswalk: pa.Table, refs: Collection[str]) -> set[str]:
    """Everybody who is audible in the clips of these refs."""
    rows = crosswalk.select(["clip_ref", "person_ids"]).to_pylist()
    return {person for row in rows if row["clip_ref"] in refs for person in row["person_ids"]}


def refs_with(crosswalk: pa.Table, persons: Collection[str]) -> set[str]:
    """The refs of all clips in which one of the persons is audible."""
    rows = crosswalk.select(["clip_ref", "person_ids"]).to_pylist()
    return {row["clip_ref"] for row in rows if set(row["person_ids"]) & set(persons)}


def files_under(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())
