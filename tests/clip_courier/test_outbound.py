"""Delivery against real gpg and a real SFTP server, with consent withdrawn and processes killed at every point."""

import hashlib
import io
import json
import os
import random
import shutil
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clip_courier import batch_files, outbound, sftp
from clip_courier.courier import Courier
from clip_courier.errors import (
    AudioStoreDown,
    ConnectionInvalid,
    ConnectionMissing,
    CourierError,
    CrosswalkMissing,
    HostKeyMismatch,
    KeyUnusable,
    LoginRefused,
    NotSentAgain,
    RemoteConflict,
    ServerUnreachable,
    TransferFailed,
)
from clip_courier.ledger import Batch, Ledger
from clip_courier.model import MANIFEST
from clip_courier.recalls import recalled_refs
from clip_courier.settings import load_settings
from clip_courier_demo.keys import make_key
from clip_courier_demo.sftp_server import new_account
from clip_courier_demo.stage import Stage, write_vendor
from conftest import NIGHT, NOW
from snapshots import (
    LATER,
    MakeCourier,
    crosswalk_of,
    deliver_elsewhere,
    delivered,
    landing_copy,
    manifested,
    persons_of,
    refs_with,
    withdraw,
)

AURORA, BOREALIS = "aurora-20261120-001", "borealis-20261120-001"


class Crash(Exception):
    """Stands for the end of the process: nothing of ours catches it."""


def _ledger(stage: Stage) -> Ledger:
    return Ledger(f"sqlite:///{stage.root / 'ledger.sqlite'}")


def _batch(stage: Stage, batch_id: str) -> Batch:
    return _ledger(stage).require(batch_id)


def _outbound(stage: Stage, vendor: str = "aurora") -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (stage.vendors[vendor].home / "outbound").iterdir()}


def _withheld(stage: Stage, batch_id: str) -> dict[str, str]:
    path = stage.root / "nights" / NIGHT.isoformat() / "batches" / batch_id / "withheld.parquet"
    return {row["clip_key"]: row["reason"] for row in pq.read_table(path).to_pylist()} if path.exists() else {}


def _refs(members: Mapping[str, bytes]) -> set[str]:
    return set(pq.read_table(io.BytesIO(members["manifest.parquet"]))["clip_ref"].to_pylist())


def _environ(stage: Stage, landing: Path) -> dict[str, str]:
    return {**stage.environ, "CLIP_COURIER_LANDING": str(landing)}


def _check_delivered(stage: Stage, batch_id: str, vendor: str = "aurora") -> dict[str, bytes]:
    """One file and one ready file lie there, right by hash, by the ledger and by the vendor's own gpg."""
    lying, batch = _outbound(stage, vendor), _batch(stage, batch_id)
    signature = {f"{batch_id}.tar.pgp.sig"} if vendor == "borealis" else set()
    assert set(lying) == {f"{batch_id}.tar.pgp", f"{batch_id}.ready.json"} | signature
    sealed = lying[f"{batch_id}.tar.pgp"]
    digest = hashlib.sha256(sealed).hexdigest()
    assert json.loads(lying[f"{batch_id}.ready.json"]) == {
        "schema_version": "1",
        "batch_id": batch_id,
        "size_bytes": len(sealed),
        "sha256": digest,
        "clip_count": batch.clip_count,
        "signer_fingerprint": stage.our_key.fingerprint,
        "due_at": batch.due_at,
    }
    assert (batch.state, batch.sha256, batch.size_bytes) == ("DELIVERED", digest, len(sealed))
    assert [p for p in (stage.root / "sealed").iterdir() if p.name.lstrip(".").startswith(f"{vendor}-")] == []
    members = stage.vendors[vendor].take(batch_id)
    assert len(_refs(members)) == batch.clip_count
    return members


# -- what the vendor opens -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("vendor", "batch_id"), [("aurora", AURORA), ("borealis", BOREALIS)])
def test_deliver_a_drop_that_is_exactly_the_contract(
    stage: Stage, make_courier: MakeCourier, vendor: str, batch_id: str, canaries: list[str]
) -> None:
    delivered(stage, make_courier)
    members = _check_delivered(stage, batch_id, vendor)
    table = pq.read_table(io.BytesIO(members["manifest.parquet"]))
    assert table.schema.equals(MANIFEST)
    assert not table.schema.metadata
    rows = table.to_pylist()
    audio_files = {row["audio_file"] for row in rows}
    assert audio_files == {f"audio/{row['clip_ref']}.flac" for row in rows}
    assert set(members) == {"manifest.parquet", "manifest.json", "README.txt"} | audio_files
    header = json.loads(members["manifest.json"])
    assert {name: header[name] for name in ("schema_version", "batch_id", "vendor", "night", "clip_count")} == {
        "schema_version": "1",
        "batch_id": batch_id,
        "vendor": vendor,
        "night": NIGHT.isoformat(),
        "clip_count": len(rows),
    }
    assert header["audio_ms"] == sum(row["duration_ms"] for row in rows)
    assert header["instructions_version"] == outbound.INSTRUCTIONS_VERSION
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in members.items()}
    assert header["sha256"] == {name: digest for name, digest in hashes.items() if name != "manifest.json"}
    assert {row["audio_file"]: row["audio_sha256"] for row in rows} == {name: hashes[name] for name in audio_files}
    for name in audio_files:
        assert _flac_blocks(members[name]) <= {"STREAMINFO", "VORBIS_COMMENT", "SEEKTABLE", "PADDING"}
        assert _flac_tags(members[name]) == []
    everything = b"\n".join(members.values()) + batch_id.encode()
    assert [canary for canary in canaries if canary.encode() in everything] == []


def _blocks(flac: bytes) -> Iterator[tuple[int, bytes]]:
    """Metadata blocks of a FLAC file (RFC 9639 §8)."""
    assert flac[:4] == b"fLaC"
    place, is_last = 4, False
    while not is_last:
        is_last, kind = bool(flac[place] & 0x80), flac[place] & 0x7F
        size = int.from_bytes(flac[place + 1 : place + 4], "big")
        yield kind, flac[place + 4 : place + 4 + size]
        place += 4 + size


def _flac_blocks(flac: bytes) -> set[str]:
    names = {0: "STREAMINFO", 1: "PADDING", 3: "SEEKTABLE", 4: "VORBIS_COMMENT"}
    return {names.get(kind, f"block {kind}") for kind, _ in _blocks(flac)}


def _flac_tags(flac: bytes) -> list[bytes]:
    tags = []
    for kind, block in _blocks(flac):
        if kind == 4:
            place = 4 + int.from_bytes(block[:4], "little")
            count = int.from_bytes(block[place : place + 4], "little")
            tags += [block[place + 4 :]] * count
    return tags


def test_deliver_signs_inside_or_beside_as_agreed(stage: Stage, make_courier: MakeCourier) -> None:
    delivered(stage, make_courier)
    assert f"{AURORA}.tar.pgp.sig" not in _outbound(stage)
    assert f"{BOREALIS}.tar.pgp.sig" in _outbound(stage, "borealis")
    # DemoVendor.take runs plain gpg and demands VALIDSIG of our key, inside or beside.
    for vendor, batch_id in (("aurora", AURORA), ("borealis", BOREALIS)):
        assert stage.vendors[vendor].take(batch_id)


def test_deliver_puts_the_ready_file_last(stage: Stage, make_courier: MakeCourier) -> None:
    delivered(stage, make_courier)
    for vendor, batch_id in (("aurora", AURORA), ("borealis", BOREALIS)):
        times = {p.name: p.stat().st_mtime_ns for p in (stage.vendors[vendor].home / "outbound").iterdir()}
        assert max(times, key=lambda name: times[name]) == f"{batch_id}.ready.json"


def test_deliver_twice_sends_nothing_again(stage: Stage, make_courier: MakeCourier) -> None:
    courier = delivered(stage, make_courier)
    before = _outbound(stage)
    outcome = courier.deliver(NIGHT)
    assert not outcome.is_new
    assert _outbound(stage) == before


# -- consent ---------------------------------------------------------------------------------------------------


def test_deliver_after_a_withdrawal_leaves_the_clips_out(
    stage: Stage, make_courier: MakeCourier, tmp_path: Path
) -> None:
    manifested(stage, make_courier)
    crosswalk = crosswalk_of(stage, AURORA)
    person = min(persons_of(crosswalk, set(crosswalk["clip_ref"].to_pylist()[:1])))
    gone = refs_with(crosswalk, {person})
    landing = landing_copy(stage, tmp_path)
    withdraw(landing, {person}, LATER)
    make_courier(stage, LATER, CLIP_COURIER_LANDING=str(landing)).deliver(NIGHT, "aurora")
    assert _refs(_check_delivered(stage, AURORA)) == set(crosswalk["clip_ref"].to_pylist()) - gone
    keys = {row["clip_key"] for row in crosswalk.to_pylist() if row["clip_ref"] in gone}
    assert _withheld(stage, AURORA) == dict.fromkeys(keys, "withdrawn")


def test_deliver_asks_again_between_sealing_and_rename(
    stage: Stage, make_courier: MakeCourier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The withdrawal arrives while the ciphertext is on its way: real landing files, a real half-sent upload."""
    manifested(stage, make_courier)
    crosswalk = crosswalk_of(stage, AURORA)
    gone = set(crosswalk["clip_ref"].to_pylist()[:2])
    persons = persons_of(crosswalk, gone)
    gone = refs_with(crosswalk, persons)
    landing = landing_copy(stage, tmp_path)
    seen_by_vendor: list[set[str]] = []
    upload = sftp.Drop.upload

    def upload_and_withdraw(drop: sftp.Drop, *given: Any, **options: Any) -> int:
        start = upload(drop, *given, **options)
        if not seen_by_vendor:
            seen_by_vendor.append({p for p in _outbound(stage) if not p.endswith(".part")})
            withdraw(landing, persons, LATER)
        return start

    monkeypatch.setattr(sftp.Drop, "upload", upload_and_withdraw)
    make_courier(stage, LATER, CLIP_COURIER_LANDING=str(landing)).deliver(NIGHT, "aurora")
    assert seen_by_vendor == [set()]
    assert _refs(_check_delivered(stage, AURORA)) == set(crosswalk["clip_ref"].to_pylist()) - gone
    assert set(_withheld(stage, AURORA).values()) == {"withdrawn"}


@pytest.mark.parametrize(("vendor", "batch_id"), [("aurora", AURORA), ("borealis", BOREALIS)])
def test_deliver_cancels_when_nobody_is_left(
    stage: Stage, make_courier: MakeCourier, tmp_path: Path, vendor: str, batch_id: str
) -> None:
    """Also what a killed run has left on the server is taken away: the vendor could open it."""
    manifested(stage, make_courier)
    crosswalk = crosswalk_of(stage, batch_id)
    with _crashing_at(sftp.Drop, "publish"), pytest.raises(Crash):
        make_courier(stage).deliver(NIGHT, vendor)
    home = stage.vendors[vendor].home / "outbound"
    assert [p.suffix for p in home.iterdir() if ".sig" not in p.name] == [".part"]
    landing = landing_copy(stage, tmp_path)
    withdraw(landing, persons_of(crosswalk, set(crosswalk["clip_ref"].to_pylist())), LATER)
    outcome = make_courier(stage, LATER, CLIP_COURIER_LANDING=str(landing)).deliver(NIGHT, vendor)
    assert outcome.counts["cancelled"] == 1
    assert _outbound(stage, vendor) == {}
    assert _batch(stage, batch_id).state == "CANCELLED"
    assert len(_withheld(stage, batch_id)) == crosswalk.num_rows
    assert not list((stage.root / "sealed").iterdir())


def test_deliver_keeps_back_what_the_vendor_may_not_have_any_more(stage: Stage, make_courier: MakeCourier) -> None:
    manifested(stage, make_courier)
    rows = crosswalk_of(stage, AURORA).select(["clip_ref", "country"]).to_pylist()
    allowed = {row["clip_ref"] for row in rows if row["country"] == "GB"}
    assert 0 < len(allowed) < len(rows)
    write_vendor(stage.folder / "vendors", "aurora", stage.vendors["aurora"].key, NIGHT, clip_countries=["GB"])
    make_courier(stage).deliver(NIGHT, "aurora")
    assert _refs(_check_delivered(stage, AURORA)) == allowed
    assert set(_withheld(stage, AURORA).values()) == {"no_lawful_vendor"}


def test_deliver_without_recordings_that_are_gone_or_changed(
    stage: Stage, make_courier: MakeCourier, tmp_path: Path
) -> None:
    manifested(stage, make_courier)
    rows = crosswalk_of(stage, AURORA).to_pylist()
    landing = landing_copy(stage, tmp_path)
    uses = {row["clip_ref"]: row["audio_uri"] for row in rows}
    lone = [row for row in rows if list(uses.values()).count(row["audio_uri"]) == 1]
    hashed = next(row for row in lone if row["audio_sha256"])
    removed = next(row for row in lone if row is not hashed)
    (landing / "audio" / removed["audio_uri"]).unlink()
    changed = landing / "audio" / hashed["audio_uri"]
    content = changed.read_bytes()
    changed.unlink()
    changed.write_bytes(content[:-1])
    make_courier(stage, CLIP_COURIER_LANDING=str(landing)).deliver(NIGHT, "aurora")
    left = _refs(_check_delivered(stage, AURORA))
    assert left == set(uses) - {removed["clip_ref"], hashed["clip_ref"]}
    assert _withheld(stage, AURORA) == {
        removed["clip_key"]: "audio_missing",
        hashed["clip_key"]: "audio_hash_mismatch",
    }


# -- crashes ---------------------------------------------------------------------------------------------------


@contextmanager
def _crashing_at(owner: Any, name: str, *, after: bool = False, times: int = 1) -> Iterator[None]:
    """End the work at the nth call of a step, before it is taken or just after."""
    step, left = getattr(owner, name), [times]

    def crash(*arguments: Any, **options: Any) -> Any:
        left[0] -= 1
        if left[0] == 0 and not after:
            raise Crash
        result = step(*arguments, **options)
        if left[0] == 0:
            raise Crash
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, crash)
        yield


# Every step that leaves a trace: on our disk, in the ledger, on the server; the nth call of it in one delivery.
STEPS = [
    *[(sftp.Drop, "remove", n) for n in (1, 2)],
    *[(Ledger, "move", n) for n in (1, 2, 3)],
    *[(sftp.Drop, "_write", n) for n in (1, 2)],
    (outbound._Sending, "_check_lawful", 2),
    *[(sftp.Drop, "_rename", n) for n in (1, 2)],
    (outbound._Sending, "_forget_spool", 1),
]


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(("owner", "step", "times"), STEPS)
def test_deliver_after_a_crash_at_any_step(
    stage: Stage, make_courier: MakeCourier, owner: Any, step: str, times: int, after: bool
) -> None:
    courier = manifested(stage, make_courier)
    with _crashing_at(owner, step, after=after, times=times), pytest.raises(Crash):
        courier.deliver(NIGHT, "aurora")
    visible = {name for name in _outbound(stage) if not name.endswith(".part")}
    assert visible in (set(), {f"{AURORA}.tar.pgp"}, {f"{AURORA}.tar.pgp", f"{AURORA}.ready.json"})
    first = _outbound(stage).get(f"{AURORA}.tar.pgp")
    make_courier(stage).deliver(NIGHT, "aurora")
    _check_delivered(stage, AURORA)
    if first is not None:
        assert _outbound(stage)[f"{AURORA}.tar.pgp"] == first
    _ledger(stage).verify_chain()


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("file", [1, 2, 3])
def test_deliver_after_a_crash_while_a_clip_is_withheld(
    stage: Stage, make_courier: MakeCourier, tmp_path: Path, file: int, after: bool
) -> None:
    """The reason, the manifest and the crosswalk are three files: after a crash between them nothing is lost."""
    manifested(stage, make_courier)
    crosswalk = crosswalk_of(stage, AURORA)
    persons = persons_of(crosswalk, set(crosswalk["clip_ref"].to_pylist()[:1]))
    gone = refs_with(crosswalk, persons)
    landing = landing_copy(stage, tmp_path)
    withdraw(landing, persons, LATER)
    courier = make_courier(stage, LATER, CLIP_COURIER_LANDING=str(landing))
    with _crashing_at(batch_files, "write_parquet", after=after, times=file), pytest.raises(Crash):
        courier.deliver(NIGHT, "aurora")
    courier.deliver(NIGHT, "aurora")
    left = set(crosswalk["clip_ref"].to_pylist()) - gone
    assert _refs(_check_delivered(stage, AURORA)) == left
    assert set(crosswalk_of(stage, AURORA)["clip_ref"].to_pylist()) == left
    assert len(_withheld(stage, AURORA)) == len(gone)
    assert courier.verify().counts["clips"]


def _kills(stage: Stage, vendor: str, kills: int) -> list[tuple[int, float]]:
    """So many ends: two thirds at boundaries spread over the whole delivery, the others at random instants."""
    process, told = deliver_elsewhere(stage, vendor)
    boundaries = told.recv()
    process.join()
    at_boundaries = kills * 2 // 3
    chance = random.Random(20261120)
    spread = [1 + boundaries * n // at_boundaries for n in range(at_boundaries)]
    return [(n, 0) for n in spread] + [(0, chance.uniform(0, 0.9)) for _ in range(kills - at_boundaries)]


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("vendor", "batch_id"), [("aurora", AURORA), ("borealis", BOREALIS)])
def test_deliver_killed_anywhere(
    stage: Stage, make_courier: MakeCourier, vendor: str, batch_id: str, record_property: Callable[[str, object], None]
) -> None:
    """kill -9 of a real process at every kind of boundary and at random instants; then the vendor gets it once.

    KILLS says how many in all. A vendor that is quick takes a drop as soon as it sees it.
    """
    manifested(stage, make_courier)
    home, inbox = stage.vendors[vendor].home / "outbound", stage.vendors[vendor].home / "taken"
    states: Counter[str] = Counter()
    kills = _kills(stage, vendor, int(os.environ.get("KILLS", "30")) // 2)
    for number, (boundary, instant) in enumerate(kills):
        shutil.rmtree(inbox, ignore_errors=True)
        inbox.mkdir()
        _fresh(stage, make_courier)
        process, _ = deliver_elsewhere(stage, vendor, boundary)
        if not boundary:
            time.sleep(instant)
            process.kill()
        process.join(60)
        state = _batch(stage, batch_id).state
        states[f"{state}{' (through)' if process.exitcode == 0 else ''}"] += 1
        assert process.exitcode == -signal.SIGKILL or state == "DELIVERED"
        _check_nothing_half(stage)
        if number % 3 == 0:
            for path in home.iterdir():
                if not path.name.endswith(".part"):
                    path.rename(inbox / path.name)
        assert not make_courier(stage).deliver(NIGHT, vendor).failures
        again = [path for path in home.iterdir() if (inbox / path.name).exists() and path.suffix == ".pgp"]
        assert again == [], "the same batch has appeared twice"
        for path in inbox.iterdir():
            path.rename(home / path.name)
        _check_delivered(stage, batch_id, vendor)
        _ledger(stage).verify_chain()
    shutil.rmtree(inbox)
    record_property("states", dict(states))
    print(f"killed at: {dict(states)}")
    assert len(states) > 2


def _fresh(stage: Stage, make_courier: MakeCourier) -> None:
    shutil.rmtree(stage.root, ignore_errors=True)
    for vendor in stage.vendors.values():
        for path in (vendor.home / "outbound").iterdir():
            path.unlink()
    manifested(stage, make_courier)


def _check_nothing_half(stage: Stage) -> None:
    for vendor, batch_id in (("aurora", AURORA), ("borealis", BOREALIS)):
        lying, batch = _outbound(stage, vendor), _batch(stage, batch_id)
        sealed, ready = lying.get(f"{batch_id}.tar.pgp"), lying.get(f"{batch_id}.ready.json")
        if sealed is not None:
            assert hashlib.sha256(sealed).hexdigest() == batch.sha256
        if ready is not None:
            assert sealed is not None
            assert json.loads(ready)["sha256"] == batch.sha256
        if batch.state == "DELIVERED":
            assert ready is not None


def test_deliver_does_not_send_again_what_the_vendor_took_before_its_ready_file(
    stage: Stage, make_courier: MakeCourier, caplog: pytest.LogCaptureFixture
) -> None:
    """The vendor is quicker than our ready file, and we crash in between."""
    manifested(stage, make_courier)
    with _crashing_at(sftp.Drop, "put_bytes"), pytest.raises(Crash):
        make_courier(stage).deliver(NIGHT, "aurora")
    assert _batch(stage, AURORA).state == "RELEASED"
    home = stage.vendors["aurora"].home / "outbound"
    taken = (home / f"{AURORA}.tar.pgp").read_bytes()
    (home / f"{AURORA}.tar.pgp").unlink()
    make_courier(stage).deliver(NIGHT, "aurora")
    assert set(_outbound(stage)) == {f"{AURORA}.ready.json"}
    assert json.loads(_outbound(stage)[f"{AURORA}.ready.json"])["sha256"] == hashlib.sha256(taken).hexdigest()
    assert _batch(stage, AURORA).state == "DELIVERED"
    assert f"batch {AURORA} was taken by vendor aurora before it was announced" in caplog.text
    assert not make_courier(stage).deliver(NIGHT, "aurora").is_new


def test_deliver_announces_the_same_whenever_it_does(stage: Stage, make_courier: MakeCourier) -> None:
    """The due date is that of the release, so that a ready file that is written again is the same file."""
    manifested(stage, make_courier)
    with _crashing_at(Ledger, "move", times=3), pytest.raises(Crash):
        make_courier(stage).deliver(NIGHT, "aurora")
    before = _outbound(stage)
    assert f"{AURORA}.ready.json" in before
    make_courier(stage, NOW + timedelta(days=2)).deliver(NIGHT, "aurora")
    assert _outbound(stage) == before
    _check_delivered(stage, AURORA)


def test_deliver_while_the_audio_store_is_down_leaves_no_clip_out(
    stage: Stage, make_courier: MakeCourier, tmp_path: Path
) -> None:
    manifested(stage, make_courier)
    landing = landing_copy(stage, tmp_path)
    (landing / "audio").rename(landing / "elsewhere")
    (landing / "audio").mkdir()  # as a mount point that nothing is mounted on
    courier = make_courier(stage, CLIP_COURIER_LANDING=str(landing))
    with pytest.raises(AudioStoreDown):
        courier.deliver(NIGHT, "aurora")
    assert _outbound(stage) == {}
    assert _batch(stage, AURORA).state == "MANIFESTED"
    assert [type(failed) for failed in courier.deliver(NIGHT).failures] == [AudioStoreDown, AudioStoreDown]
    (landing / "audio").rmdir()
    (landing / "elsewhere").rename(landing / "audio")
    courier.deliver(NIGHT, "aurora")
    assert _refs(_check_delivered(stage, AURORA)) == set(crosswalk_of(stage, AURORA)["clip_ref"].to_pylist())
    assert _withheld(stage, AURORA) == {}


def _many_batches(stage: Stage, make_courier: MakeCourier, *vendors: str) -> list[str]:
    """The same night in small batches, waiting to be sealed; those of aurora."""
    for name in vendors or ("aurora",):
        write_vendor(stage.folder / "vendors", name, stage.vendors[name].key, NIGHT, batch_max_bytes=300_000)
    courier = make_courier(stage)
    for verb in (courier.select, courier.validate, courier.manifest):
        verb(NIGHT)
    return [batch.batch_id for batch in _ledger(stage).batches(vendor="aurora")]


def _shares(courier: Courier) -> list[tuple[object, object]]:
    return [(share["worker"], share["workers"]) for share in courier.workers(NIGHT) if share["vendor"] == "aurora"]


def _events(stage: Stage) -> Counter[tuple[str, str]]:
    """How often each batch took each step, by the audit chain."""
    with sqlite3.connect(stage.root / "ledger.sqlite") as connection:
        return Counter(connection.execute("SELECT subject, event FROM events"))


def test_deliver_by_four_processes_takes_each_batch_once(stage: Stage, make_courier: MakeCourier) -> None:
    """One of them is killed on the way: what it had in hand is done by the others."""
    batches = _many_batches(stage, make_courier)
    assert len(batches) > 8
    # A worker for each connection that the vendor gives us; one where that cannot be told, which then says why.
    for connections, n in ((1, 1), (3, 3), (0, 1)):
        shares = _shares(make_courier(stage, **_connection(stage, extra={"max_connections": connections})))
        assert shares == [(worker, n) for worker in range(1, n + 1)]
    workers = [deliver_elsewhere(stage, "aurora", kill_at) for kill_at in (0, 0, 0, 40)]
    for process, _ in workers:
        process.join(100)
    assert [process.exitcode for process, _ in workers] == [0, 0, 0, -signal.SIGKILL]
    assert [batch.state for batch in _ledger(stage).batches(vendor="aurora")] == ["DELIVERED"] * len(batches)
    lying = _outbound(stage)
    assert {name for name in lying if not name.endswith(".part")} == {
        f"{batch_id}.{suffix}" for batch_id in batches for suffix in ("tar.pgp", "ready.json")
    }
    refs: list[str] = []
    for batch_id in batches:
        batch = _batch(stage, batch_id)
        assert hashlib.sha256(lying[f"{batch_id}.tar.pgp"]).hexdigest() == batch.sha256
        refs += _refs(stage.vendors["aurora"].take(batch_id))
    assert len(refs) == len(set(refs))
    events = _events(stage)
    assert {events[batch_id, "DELIVERED"] for batch_id in batches} == {1}
    assert _shares(make_courier(stage)) == [(1, 1)]
    # The killed one may have left one batch sealed and not recorded, or recorded; nobody else sealed one twice.
    assert sum(events[batch_id, "SEALED"] for batch_id in batches) <= len(batches) + 1
    _ledger(stage).verify_chain()


def test_deliver_shared_out_keeps_to_each_vendors_limit_of_connections(stage: Stage, make_courier: MakeCourier) -> None:
    """As the server sees it: two vendors at once, with the workers that Airflow would start and one too many."""
    _many_batches(stage, make_courier, "aurora", "borealis")
    limits = {"aurora": 2, "borealis": 1}
    environ = dict(stage.environ)
    for vendor, limit in limits.items():
        fields = json.loads(environ[f"AIRFLOW_CONN_SFTP_{vendor.upper()}"])
        fields["extra"]["max_connections"] = limit
        environ[f"AIRFLOW_CONN_SFTP_{vendor.upper()}"] = json.dumps(fields)
    limited = replace(stage, environ=environ)
    shares = make_courier(limited).workers(NIGHT)
    assert Counter(share["vendor"] for share in shares) == limits
    # The one too many takes the whole vendor for its own: two connections.
    wanted = [(str(share["vendor"]), int(str(share["workers"]))) for share in shares] + [("aurora", 1)]
    workers = [(vendor, *deliver_elsewhere(limited, vendor, workers=n)) for vendor, n in wanted]
    most, before, known = Counter[str](), set[Any](), {vendor: set[Any]() for vendor in limits}
    while any(process.is_alive() for _, process, _ in workers):
        now = _connections(stage)
        for vendor in limits:
            known[vendor] |= _called_by({process.pid for name, process, _ in workers if name == vendor}, stage)
            # What two looks show was there between them; one look takes its time.
            most[vendor] = max(most[vendor], len(now & before & known[vendor]))
        before = now
        time.sleep(0.01)
    assert [process.exitcode for _, process, _ in workers] == [0] * 4
    assert most == limits
    batches = _ledger(stage).batches()
    assert {batch.state for batch in batches} == {"DELIVERED"}
    assert min(Counter(batch.vendor for batch in batches).values()) > 3
    events = _events(stage)
    for batch in batches:
        assert (events[batch.batch_id, "SEALED"], events[batch.batch_id, "DELIVERED"]) == (1, 1)
        sealed = _outbound(stage, batch.vendor)[f"{batch.batch_id}.tar.pgp"]
        assert hashlib.sha256(sealed).hexdigest() == batch.sha256
    _ledger(stage).verify_chain()


def _called_by(pids: set[int | None], stage: Stage) -> set[Any]:
    """The addresses from which these processes call the vendors' server."""
    held = (c for c in psutil.net_connections("tcp4") if c.pid in pids and c.raddr)
    return {c.laddr for c in held if c.raddr.port == stage.server.port}


def _connections(stage: Stage) -> set[Any]:
    """Those that the vendors' server has, by the caller's address; also one that the caller has left already."""
    held = (c for c in psutil.net_connections("tcp4") if c.status in ("ESTABLISHED", "CLOSE_WAIT") and c.raddr)
    return {c.raddr for c in held if c.laddr.port == stage.server.port}


@pytest.mark.parametrize("limit", ["0", "17", "many", -1])
def test_deliver_refuses_a_limit_that_is_none(stage: Stage, make_courier: MakeCourier, limit: object) -> None:
    manifested(stage, make_courier)
    with pytest.raises(ConnectionInvalid, match="max_connections"):
        make_courier(stage, **_connection(stage, extra={"max_connections": limit})).deliver(NIGHT, "aurora")
    with pytest.raises(ConnectionInvalid, match="read_back"):
        make_courier(stage, **_connection(stage, extra={"read_back": "perhaps"})).deliver(NIGHT, "aurora")


def test_deliver_when_the_spool_is_lost_or_damaged(stage: Stage, make_courier: MakeCourier) -> None:
    manifested(stage, make_courier)
    spoils: list[tuple[str, str, Callable[[Path], object]]] = [
        ("aurora", AURORA, lambda path: path.write_bytes(path.read_bytes()[:-1])),
        ("borealis", BOREALIS, lambda path: path.with_name(f"{path.name}.sig").unlink()),
    ]
    for vendor, batch_id, spoil in spoils:
        with _crashing_at(sftp.Drop, "upload"), pytest.raises(Crash):
            make_courier(stage).deliver(NIGHT, vendor)
        assert _batch(stage, batch_id).state == "SEALED"
        spoil(stage.root / "sealed" / f"{batch_id}.tar.pgp")
        make_courier(stage).deliver(NIGHT, vendor)
        _check_delivered(stage, batch_id, vendor)


def test_deliver_seals_again_when_the_pinned_key_changed(stage: Stage, make_courier: MakeCourier) -> None:
    """A key may be exchanged because the old one is lost to somebody else."""
    manifested(stage, make_courier)
    with _crashing_at(sftp.Drop, "upload"), pytest.raises(Crash):
        make_courier(stage).deliver(NIGHT, "aurora")
    old = _batch(stage, AURORA).sha256
    new_key = make_key("aurora, new", made_at=NOW - timedelta(days=5))
    write_vendor(stage.folder / "vendors", "aurora", new_key, NIGHT)
    make_courier(stage).deliver(NIGHT, "aurora")
    assert _batch(stage, AURORA).sha256 != old
    members = replace(stage.vendors["aurora"], key=new_key).take(AURORA)
    assert len(_refs(members)) == _batch(stage, AURORA).clip_count


def test_deliver_takes_no_batch_of_a_night_that_is_half_cut(stage: Stage, make_courier: MakeCourier) -> None:
    """`manifest` may write its batches again, which must not happen to one that has left."""
    courier = manifested(stage, make_courier)
    (stage.root / "nights" / NIGHT.isoformat() / "batches" / "aurora.json").unlink()
    assert not courier.deliver(NIGHT, "aurora").is_new
    assert _outbound(stage) == {}
    courier.manifest(NIGHT)
    courier.deliver(NIGHT, "aurora")
    _check_delivered(stage, AURORA)


def test_deliver_sweeps_ciphertext_that_nobody_waits_for(stage: Stage, make_courier: MakeCourier) -> None:
    courier = delivered(stage, make_courier)
    for name in (f"{AURORA}.tar.pgp", f".{AURORA}.tar.pgp.part", f"{AURORA}.tar.pgp.sig"):
        (stage.root / "sealed" / name).write_bytes(b"of a killed run")
    other = stage.root / "sealed" / f"{BOREALIS}.tar.pgp"
    other.write_bytes(b"another vendor's")
    courier.deliver(NIGHT, "aurora")
    assert list((stage.root / "sealed").iterdir()) == [other]


# -- once more, for a vendor that has lost it -----------------------------------------------------------------------


def _lose(stage: Stage, vendor: str) -> None:
    for path in (stage.vendors[vendor].home / "outbound").iterdir():
        path.unlink()


@pytest.mark.parametrize(("vendor", "batch_id"), [("aurora", AURORA), ("borealis", BOREALIS)])
def test_deliver_again_what_a_vendor_has_lost(
    stage: Stage, make_courier: MakeCourier, tmp_path: Path, vendor: str, batch_id: str
) -> None:
    """Without those who have withdrawn since, who are recalled: the vendor has had them."""
    courier = delivered(stage, make_courier)
    first, before = _outbound(stage, vendor), crosswalk_of(stage, batch_id)
    outcome = courier.deliver_again(batch_id)
    assert not outcome.is_new
    assert _outbound(stage, vendor) == first
    (stage.vendors[vendor].home / "outbound" / f"{batch_id}.ready.json").unlink()
    assert not courier.deliver_again(batch_id).is_new
    assert _outbound(stage, vendor) == first
    _lose(stage, vendor)
    person = min(persons_of(before, set(before["clip_ref"].to_pylist()[:1])))
    gone = refs_with(before, {person})
    landing = landing_copy(stage, tmp_path)
    withdraw(landing, {person}, LATER)
    later = make_courier(stage, LATER, CLIP_COURIER_LANDING=str(landing))
    counts = later.deliver_again(batch_id).counts
    assert (counts["delivered"], counts["withheld"]) == (1, before.num_rows - int(str(counts["clips"])))
    members = _check_again(stage, vendor, batch_id)
    missing = set(before["clip_ref"].to_pylist()) - gone - _refs(members)
    # Whom nobody is like any more is left out as well.
    assert _alone(before, gone) <= missing
    assert len(gone | missing) == counts["withheld"]
    assert recalled_refs(load_settings(stage.environ).root, batch_id) == gone
    assert later.recall().is_new
    assert set(crosswalk_of(stage, batch_id)["clip_ref"].to_pylist()) == set(before["clip_ref"].to_pylist()) - gone
    later.verify()
    second = _outbound(stage, vendor)
    assert not later.deliver_again(batch_id).is_new
    assert not later.deliver(NIGHT, vendor).is_new
    assert _outbound(stage, vendor) == second


def _alone(crosswalk: pa.Table, gone: set[str]) -> set[str]:
    """Whoever is the only one left of a language has no group any more."""
    rows = [row for row in crosswalk.to_pylist() if row["clip_ref"] not in gone]
    speakers = {row["locale"][:2]: set[str]() for row in rows}
    for row in rows:
        speakers[row["locale"][:2]] |= set(row["person_ids"])
    return {row["clip_ref"] for row in rows if len(speakers[row["locale"][:2]]) < 2}


def _check_again(stage: Stage, vendor: str, batch_id: str) -> dict[str, bytes]:
    """As `_check_delivered`, but the ledger counts what the vendor has had."""
    lying, batch = _outbound(stage, vendor), _batch(stage, batch_id)
    assert set(lying) - {f"{batch_id}.tar.pgp.sig"} == {f"{batch_id}.tar.pgp", f"{batch_id}.ready.json"}
    members = stage.vendors[vendor].take(batch_id)
    ready, digest = (
        json.loads(lying[f"{batch_id}.ready.json"]),
        hashlib.sha256(lying[f"{batch_id}.tar.pgp"]).hexdigest(),
    )
    assert (ready["sha256"], ready["size_bytes"]) == (digest, len(lying[f"{batch_id}.tar.pgp"]))
    assert (batch.state, batch.sha256, batch.size_bytes, batch.due_at) == (
        "DELIVERED",
        digest,
        ready["size_bytes"],
        ready["due_at"],
    )
    assert ready["clip_count"] == len(_refs(members))
    assert list((stage.root / "sealed").iterdir()) == []
    _ledger(stage).verify_chain()
    return members


@pytest.mark.parametrize(
    ("owner", "step", "is_taken"),
    [
        (sftp.Drop, "upload", False),
        (Ledger, "note", False),
        (sftp.Drop, "publish", False),
        (sftp.Drop, "publish", True),
        (sftp.Drop, "put_bytes", True),
        (Ledger, "move", False),
    ],
)
def test_deliver_again_after_a_crash(
    stage: Stage, make_courier: MakeCourier, owner: Any, step: str, is_taken: bool
) -> None:
    """Run again it lies there once, and what a quick vendor took before the crash is not sent a third time."""
    courier = delivered(stage, make_courier)
    _lose(stage, "aurora")
    with _crashing_at(owner, step, after=True), pytest.raises(Crash):
        courier.deliver_again(AURORA)
    drop = stage.vendors["aurora"].home / "outbound" / f"{AURORA}.tar.pgp"
    taken = drop.read_bytes() if is_taken else b""
    if is_taken:
        drop.unlink()
    make_courier(stage).deliver_again(AURORA)
    if is_taken:
        assert not drop.exists(), "the same batch has appeared twice"
        drop.write_bytes(taken)
    _check_again(stage, "aurora", AURORA)


def test_deliver_again_asks_again_before_the_rename(
    stage: Stage, make_courier: MakeCourier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    delivered(stage, make_courier)
    before = crosswalk_of(stage, AURORA)
    persons = persons_of(before, set(before["clip_ref"].to_pylist()[:1]))
    gone, landing, upload = refs_with(before, persons), landing_copy(stage, tmp_path), sftp.Drop.upload
    _lose(stage, "aurora")

    def upload_and_withdraw(drop: sftp.Drop, *given: Any, **options: Any) -> int:
        start = upload(drop, *given, **options)
        withdraw(landing, persons, LATER)
        return start

    monkeypatch.setattr(sftp.Drop, "upload", upload_and_withdraw)
    make_courier(stage, LATER, CLIP_COURIER_LANDING=str(landing)).deliver_again(AURORA)
    assert not _refs(_check_again(stage, "aurora", AURORA)) & gone
    assert recalled_refs(load_settings(stage.environ).root, AURORA) == gone


def test_deliver_again_refuses_what_is_not_lost(stage: Stage, make_courier: MakeCourier) -> None:
    courier = manifested(stage, make_courier)
    for batch_id in (AURORA, "aurora-20261120-099"):
        with pytest.raises(NotSentAgain):
            courier.deliver_again(batch_id)
    courier.deliver(NIGHT, "aurora")
    theirs = stage.vendors["aurora"].home / "outbound" / f"{AURORA}.tar.pgp"
    theirs.write_bytes(b"not ours")
    with pytest.raises(RemoteConflict):
        courier.deliver_again(AURORA)
    assert theirs.read_bytes() == b"not ours"


# -- the other side --------------------------------------------------------------------------------------------


def test_deliver_overwrites_no_file_that_is_not_ours(stage: Stage, make_courier: MakeCourier) -> None:
    courier = manifested(stage, make_courier)
    theirs = stage.vendors["aurora"].home / "outbound" / f"{AURORA}.tar.pgp"
    theirs.write_bytes(b"not ours")
    outcome = courier.deliver(NIGHT)
    assert [type(failed) for failed in outcome.failures] == [RemoteConflict]
    assert set(_outbound(stage)) == {theirs.name}
    assert theirs.read_bytes() == b"not ours"
    _check_delivered(stage, BOREALIS, "borealis")
    theirs.unlink()
    assert not make_courier(stage).deliver(NIGHT).failures
    _check_delivered(stage, AURORA)


def _connection(stage: Stage, **changes: Any) -> dict[str, str]:
    fields = json.loads(stage.environ["AIRFLOW_CONN_SFTP_AURORA"])
    extra = {**fields["extra"], **changes.pop("extra", {})}
    return {"AIRFLOW_CONN_SFTP_AURORA": json.dumps({**fields, **changes, "extra": extra})}


def _wrong_port(stage: Stage, folder: Path) -> dict[str, str]:
    return _connection(stage, port=1)


def _refused_login(stage: Stage, folder: Path) -> dict[str, str]:
    return _connection(stage, extra={"private_key": new_account("nobody", folder).private_key})


def _wrong_host_key(stage: Stage, folder: Path) -> dict[str, str]:
    return _connection(stage, extra={"host_key": new_account("nobody", folder).public_key})


def _expired_key(stage: Stage, folder: Path) -> dict[str, str]:
    key = make_key("aurora, expired", expires="30d", made_at=NOW - timedelta(days=60))
    write_vendor(stage.folder / "vendors", "aurora", key, NIGHT)
    return {}


FAULTS: list[tuple[Callable[[Stage, Path], dict[str, str]], type[CourierError]]] = [
    (_wrong_port, ServerUnreachable),
    (_refused_login, LoginRefused),
    (_wrong_host_key, HostKeyMismatch),
    (_expired_key, KeyUnusable),
]


@pytest.mark.parametrize(("fault", "error"), FAULTS)
def test_deliver_when_one_vendor_fails_reaches_the_other(
    stage: Stage,
    make_courier: MakeCourier,
    tmp_path: Path,
    fault: Callable[[Stage, Path], dict[str, str]],
    error: type[CourierError],
) -> None:
    manifested(stage, make_courier)
    courier = make_courier(stage, **fault(stage, tmp_path))
    outcome = courier.deliver(NIGHT)
    assert [type(failed) for failed in outcome.failures] == [error]
    assert _outbound(stage) == {}
    assert _batch(stage, AURORA).state in ("MANIFESTED", "SEALED")
    _check_delivered(stage, BOREALIS, "borealis")
    with pytest.raises(error):
        courier.deliver(NIGHT, "aurora")


def test_deliver_without_a_connection_of_one_vendor(stage: Stage, make_courier: MakeCourier) -> None:
    manifested(stage, make_courier)
    from clip_courier.settings import credentials_from

    environ = {name: value for name, value in stage.environ.items() if name != "AIRFLOW_CONN_SFTP_AURORA"}
    courier = Courier(load_settings(environ), lambda name: credentials_from(environ, name), lambda: NOW)
    assert [type(failed) for failed in courier.deliver(NIGHT).failures] == [ConnectionMissing]
    _check_delivered(stage, BOREALIS, "borealis")


def test_deliver_closes_the_gate_for_a_lapsed_agreement(stage: Stage, make_courier: MakeCourier) -> None:
    manifested(stage, make_courier)
    lapsed, holds = ({"from": "2020-01-01", "until": until} for until in ("2020-12-31", "2030-12-31"))
    agreements = {"nda": lapsed, "dpa": holds, "staff_training": holds}
    write_vendor(stage.folder / "vendors", "aurora", stage.vendors["aurora"].key, NIGHT, agreements=agreements)
    outcome = make_courier(stage).deliver(NIGHT)
    assert not outcome.failures
    assert [line for line in outcome.lines if "gate closed for vendor aurora: nda" in line]
    assert _outbound(stage) == {}
    _check_delivered(stage, BOREALIS, "borealis")


def test_deliver_when_the_server_goes_away_in_the_middle(
    stage: Stage, make_courier: MakeCourier, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifested(stage, make_courier)
    write = sftp.Drop._write

    def cut_off(drop: sftp.Drop, *given: Any) -> None:
        drop._wire._channel.close()
        write(drop, *given)

    with monkeypatch.context() as patch:
        patch.setattr(sftp.Drop, "_write", cut_off)
        with pytest.raises(TransferFailed):
            make_courier(stage).deliver(NIGHT, "aurora")
    assert not [name for name in _outbound(stage) if not name.endswith(".part")]
    make_courier(stage).deliver(NIGHT, "aurora")
    _check_delivered(stage, AURORA)


@pytest.mark.parametrize("what", ["manifest", "crosswalk"])
def test_deliver_a_batch_whose_files_are_damaged(stage: Stage, make_courier: MakeCourier, what: str) -> None:
    courier = manifested(stage, make_courier)
    night = NIGHT.isoformat()
    path = {
        "manifest": stage.root / "nights" / night / "batches" / AURORA / "manifest.parquet",
        "crosswalk": stage.root / "crosswalk" / night / f"{AURORA}.crosswalk.parquet",
    }[what]
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    assert [type(failed) for failed in courier.deliver(NIGHT).failures] == [CrosswalkMissing]
    rows = pq.read_table(io.BytesIO(whole))
    if what == "crosswalk":  # a row that nobody could ask about or recall must not leave
        pq.write_table(rows.slice(1), path)
        assert [type(failed) for failed in courier.deliver(NIGHT).failures] == [CrosswalkMissing]
    assert _outbound(stage) == {}
    path.write_bytes(whole)
    assert not courier.deliver(NIGHT).failures
    _check_delivered(stage, AURORA)


# -- withdraw --------------------------------------------------------------------------------------------------


def test_recall_takes_clips_out_before_they_are_sealed(stage: Stage, make_courier: MakeCourier, tmp_path: Path) -> None:
    manifested(stage, make_courier)
    crosswalk = crosswalk_of(stage, AURORA)
    persons = persons_of(crosswalk, set(crosswalk["clip_ref"].to_pylist()[:1]))
    landing = landing_copy(stage, tmp_path)
    withdraw(landing, persons, LATER)
    courier = make_courier(stage, LATER, CLIP_COURIER_LANDING=str(landing))
    assert courier.recall().is_new
    left = set(crosswalk["clip_ref"].to_pylist()) - refs_with(crosswalk, persons)
    assert set(crosswalk_of(stage, AURORA)["clip_ref"].to_pylist()) == left
    assert not courier.recall().is_new
    courier.deliver(NIGHT, "aurora")
    assert _refs(_check_delivered(stage, AURORA)) == left


def test_recall_during_a_delivery_leaves_the_batch_to_it(
    stage: Stage, make_courier: MakeCourier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was just sent must stay in the crosswalk, or nobody could recall it."""
    manifested(stage, make_courier)
    before = crosswalk_of(stage, AURORA)
    persons = persons_of(before, set(before["clip_ref"].to_pylist()[:1]))
    landing = landing_copy(stage, tmp_path)
    rename = sftp.Drop._rename

    def rename_then_recall(drop: sftp.Drop, part: str, final: str, replace: bool) -> None:
        rename(drop, part, final, replace)
        if final.endswith(".tar.pgp"):
            withdraw(landing, persons, LATER)
            make_courier(stage, LATER, CLIP_COURIER_LANDING=str(landing)).recall()
            assert crosswalk_of(stage, AURORA).num_rows == before.num_rows

    with monkeypatch.context() as patch:
        patch.setattr(sftp.Drop, "_rename", rename_then_recall)
        make_courier(stage, NOW, CLIP_COURIER_LANDING=str(landing)).deliver(NIGHT, "aurora")
    courier = make_courier(stage, LATER, CLIP_COURIER_LANDING=str(landing))
    courier.recall()
    (recall,) = _ledger(stage).recalls("aurora")
    assert recall.clip_count == len(refs_with(before, persons))
    assert courier.verify().counts["clips"]
