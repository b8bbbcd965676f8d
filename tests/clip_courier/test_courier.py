"""The façade on real parts: every verb, and every verb again."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clip_courier.courier import Courier
from clip_courier.errors import AuditBroken, CrosswalkMissing, StageMissing, VendorUnknown
from clip_courier.ledger import Ledger
from clip_courier.model import Outcome, locked
from clip_courier_demo.stage import Stage
from conftest import NIGHT, NOW
from snapshots import (
    LATER,
    MakeCourier,
    crosswalk_of,
    delivered,
    files_under,
    landing_copy,
    manifested,
    persons_of,
    returned,
    withdraw,
)

AURORA = "aurora-20261120-001"

# In the order of a night: what is done, and by whom before it.
VERBS: list[tuple[str, Callable[[Courier], Outcome]]] = [
    ("select", lambda courier: courier.select(NIGHT)),
    ("validate", lambda courier: courier.validate(NIGHT)),
    ("manifest", lambda courier: courier.manifest(NIGHT)),
    ("deliver", lambda courier: courier.deliver(NIGHT)),
    ("collect", lambda courier: courier.collect()),
    ("load", lambda courier: courier.load()),
    ("recall", lambda courier: courier.recall()),
    ("recall", lambda courier: courier.recall()),
    ("load", lambda courier: courier.load()),
]


def _state(stage: Stage) -> dict[Path, bytes]:
    """Everything that was written, here and on the vendors' servers; the ledger by what it says."""
    ledger = Ledger(f"sqlite:///{stage.root / 'ledger.sqlite'}")
    said = repr([ledger.batches(), ledger.returns(), ledger.recalls(), ledger.verify_chain()])
    places = [stage.root, *(vendor.home for vendor in stage.vendors.values())]
    files = {path: path.read_bytes() for place in places for path in files_under(place) if "ledger" not in path.name}
    return {**files, Path("ledger"): said.encode()}


def test_every_verb_twice_is_safe(
    stage: Stage, make_courier: MakeCourier, truth: dict[str, str], tmp_path: Path
) -> None:
    """The second time finds it done, says so, and changes no byte anywhere."""
    landing = landing_copy(stage, tmp_path)
    courier = make_courier(stage, CLIP_COURIER_LANDING=str(landing))
    done: list[str] = []
    for name, verb in VERBS:
        if name == "collect":
            for vendor in stage.vendors.values():
                vendor.work(truth, NOW)
        if name == "recall":
            if "recall" not in done:
                crosswalk = crosswalk_of(stage, AURORA)
                withdraw(landing, persons_of(crosswalk, set(crosswalk["clip_ref"].to_pylist()[:1])), LATER)
            else:
                stage.vendors["aurora"].work(truth, LATER)
            courier = make_courier(stage, LATER, CLIP_COURIER_LANDING=str(landing))
        assert verb(courier).is_new, name
        before = _state(stage)
        for again in (courier, make_courier(stage, LATER, CLIP_COURIER_LANDING=str(landing))):
            outcome = verb(again)
            assert not outcome.is_new, name
            assert not outcome.failures, name
            assert outcome.lines, name
            assert _state(stage) == before, name
        done.append(name)
    # And the whole way again, from the start.
    before = _state(stage)
    assert not courier.night(NIGHT).is_new
    assert not courier.returns().is_new
    assert not courier.recall().is_new
    assert _state(stage) == before
    assert courier.verify().counts["batches"] == 2


def test_night_takes_nothing_that_another_night_has(stage: Stage, make_courier: MakeCourier) -> None:
    from datetime import timedelta

    delivered(stage, make_courier)
    tomorrow = make_courier(stage, NOW + timedelta(days=1))
    tomorrow.night(NIGHT + timedelta(days=1))
    ledger = Ledger(f"sqlite:///{stage.root / 'ledger.sqlite'}")
    held = [
        clip_id
        for batch in ledger.batches()
        for clip_id in _crosswalk(stage, batch.night, batch.batch_id)["clip_id"].to_pylist()
    ]
    assert len(held) == len(set(held))
    # Neither by another name: what a vendor hears is there once.
    for vendor in stage.vendors.values():
        names = [name for path in (vendor.home / "outbound").glob("*.tar.pgp") for name in vendor.take(path.name[:-8])]
        recordings = [name for name in names if name.startswith("audio/")]
        assert len(recordings) == len(set(recordings))


def _crosswalk(stage: Stage, night: str, batch_id: str) -> Any:
    import pyarrow.parquet as pq

    return pq.read_table(stage.root / "crosswalk" / night / f"{batch_id}.crosswalk.parquet")


def test_deliver_before_the_night_is_cut(stage: Stage, courier: Courier) -> None:
    with pytest.raises(StageMissing):
        courier.deliver(NIGHT)


@pytest.mark.parametrize("verb", ["collect", "recall", "returns"])
def test_any_verb_for_a_vendor_of_nobodys(stage: Stage, courier: Courier, verb: str) -> None:
    with pytest.raises(VendorUnknown):
        getattr(courier, verb)("nobody")


def test_verify_finds_a_clip_that_cannot_be_named(stage: Stage, make_courier: MakeCourier) -> None:
    import pyarrow.parquet as pq

    courier = delivered(stage, make_courier)
    assert courier.verify().counts["clips"]
    place = stage.root / "crosswalk" / NIGHT.isoformat() / f"{AURORA}.crosswalk.parquet"
    pq.write_table(crosswalk_of(stage, AURORA).slice(1), place)
    with pytest.raises(CrosswalkMissing):
        courier.verify()
    place.unlink()
    with pytest.raises(CrosswalkMissing):
        courier.verify()


def test_verify_finds_a_batch_that_was_moved_by_hand(stage: Stage, make_courier: MakeCourier) -> None:
    import sqlite3

    courier = delivered(stage, make_courier)
    connection = sqlite3.connect(stage.root / "ledger.sqlite")
    with connection:
        connection.execute("UPDATE batches SET state = 'SEALED'")
    connection.close()
    with pytest.raises(AuditBroken):
        courier.verify()


@pytest.mark.parametrize("work", ["collect-aurora", "load", "recall", f"night-{NIGHT}"])
def test_work_waits_for_the_same_work(
    stage: Stage, make_courier: MakeCourier, truth: dict[str, str], work: str
) -> None:
    courier = returned(stage, make_courier, truth)
    verbs: dict[str, Callable[[], Outcome]] = {
        "collect-aurora": lambda: courier.collect("aurora"),
        "load": courier.load,
        "recall": courier.recall,
        f"night-{NIGHT}": lambda: courier.select(NIGHT),
    }
    with locked(stage.root / "locks" / work):
        thread = threading.Thread(target=verbs[work])
        thread.start()
        thread.join(0.5)
        assert thread.is_alive()
    thread.join(30)
    assert not thread.is_alive()


def test_deliver_waits_for_a_batch_that_another_worker_has(stage: Stage, make_courier: MakeCourier) -> None:
    courier = manifested(stage, make_courier)
    ledger = Ledger(f"sqlite:///{stage.root / 'ledger.sqlite'}")
    with ledger.lease(AURORA) as lease:
        assert lease
        thread = threading.Thread(target=courier.deliver, args=(NIGHT, "aurora"))
        thread.start()
        thread.join(1)
        assert thread.is_alive()
        assert ledger.require(AURORA).state == "MANIFESTED"
    thread.join(30)
    assert not thread.is_alive()
    assert ledger.require(AURORA).state == "DELIVERED"


def test_recall_does_not_wait_for_a_delivery(stage: Stage, make_courier: MakeCourier) -> None:
    courier = manifested(stage, make_courier)
    ledger = Ledger(f"sqlite:///{stage.root / 'ledger.sqlite'}")
    with ledger.lease(AURORA):
        assert not courier.recall().failures
