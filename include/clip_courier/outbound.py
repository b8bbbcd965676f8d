"""Stage 4, `deliver`: the batches of one vendor, sealed and put where the vendor finds them.

The order of steps is what keeps the promises: consent is asked, the batch is cut to what may still leave, sealed as one
stream, uploaded under a name that both sides ignore; consent is asked again in the same breath as the rename; the ready
file comes last. After a crash anywhere the next run finds out how far the batch got and goes on from there.

Several workers may do this at once, here and elsewhere: each batch is worked at by whoever holds its lease.
"""

import io
import json
import logging
import tarfile
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime, time, timedelta
from hashlib import sha256
from threading import Event, Lock
from typing import BinaryIO, Final

import pyarrow as pa
import pyarrow.parquet as pq

from clip_courier import masking
from clip_courier.batch_files import current, manifest_of, rows_except, withhold
from clip_courier.disclosure import SMALL_GROUP, Gate, attacked, evidence, grouped, sounding
from clip_courier.errors import (
    AudioUnusable,
    ConnectionLost,
    CourierError,
    CrosswalkMissing,
    LeakFound,
    LeaseLost,
    LinkageTooHigh,
    NotSentAgain,
    RemoteConflict,
    ScanIncomplete,
    SealFailed,
    TransferFailed,
)
from clip_courier.groups import Smallest
from clip_courier.landing import Landing
from clip_courier.leaks import LeakScan
from clip_courier.ledger import (
    CANCELLED,
    DELIVERED,
    HELD_AGAIN,
    MANIFESTED,
    RELEASED,
    RELEASED_AGAIN,
    SEALED,
    WAITING,
    Batch,
    Lease,
    Ledger,
)
from clip_courier.model import (
    KEY_NOTICE,
    SCHEMA_VERSION,
    Clock,
    Manifest,
    NightFolder,
    Outcome,
    Progress,
    Refusals,
    Root,
    stamp,
    write_parquet,
    write_text,
)
from clip_courier.pgp import KeyFacts, Keyring, Sealed
from clip_courier.settings import Vendor
from clip_courier.sftp import Drop

log = logging.getLogger("clip_courier")

INSTRUCTIONS_VERSION: Final = "3"
# Recordings are decoded and encoded by threads, a few ahead of the one that is written: libsndfile works outside of
# the interpreter's lock. More of them would only hold more sound in memory.
_ENCODERS: Final = 2
_AHEAD: Final = 3
# Of the crosswalk; a row without what is to be silenced is not sent.
_OF_SOUND: Final = ("clip_ref", "flac_sha256", *masking.OF_SOUND)
_HELD_POLL_S: Final = 0.3
_KEEPS_ONE_BACK: Final = (
    LeakFound,
    ScanIncomplete,
    LinkageTooHigh,
    RemoteConflict,
    SealFailed,
    CrosswalkMissing,
    LeaseLost,
)
_README: Final = f"""Clip Courier batch, instructions version {INSTRUCTIONS_VERSION}

manifest.parquet   one row a clip; manifest.json holds the counts and the SHA-256 of every other file here
audio/             one FLAC file a clip, named by its clip_ref

For every clip_ref return one row: clip_ref, status, text, chosen_rank, annotator_ref, submitted_at, revision, note.
status is one of: transcribed, unintelligible, no_speech, wrong_language, sensitive, distress. text is required when
transcribed. Write returns/<batch_id>.<n>.<format>.pgp (jsonl, csv or parquet; signed by your pinned key, encrypted to
ours) and then returns/<batch_id>.<n>.ready.json with its size_bytes and sha256.

The speakers are pseudonymous. Do not try to find out who they are. A mask such as ‹NAME› stands for a word that was
taken out of a hypothesis. A quiet tone of 1 kHz stands for words that were taken out of the sound: write [beep] once
for each tone, whatever you think was said there. Some recordings were made mono, given a lower sample rate or made
longer by silence at their end, so that they are like others.

When recalls/<batch_id>.<n>.json.pgp appears, delete the clips of its clip_refs (JSON, signed by us) and answer by its
delete_by with receipts/<batch_id>.<n>.json.pgp, signed and encrypted like a return, holding the JSON object
{{"batch_id": …, "n": …, "clip_refs": [every ref that you deleted], "deleted_at": RFC 3339}}.
"""


@dataclass(frozen=True)
class Delivery:
    """What `deliver` needs for one vendor: its keys, its server, and the question whether a clip may still be heard.

    `leak_scan` begins to look through a batch of a night for what must not be in it. `open_another` is a further
    connection, up to `connections`, if the vendor has one free; `is_read_back` has what lies on the server compared
    with what was sent.
    """

    root: Root
    ledger: Ledger
    landing: Landing
    open_keyring: Callable[[], AbstractContextManager[Keyring]]
    signer_fingerprint: str
    open_drop: Callable[[], AbstractContextManager[Drop]]
    open_another: Callable[[], AbstractContextManager[Drop]]
    connections: int
    is_read_back: bool
    refusals: Refusals
    gate: Gate
    leak_scan: Callable[[NightFolder], LeakScan]
    clock: Clock
    progress: Progress


class _Unfit(Exception):
    """Inside this module: clips of the batch that may not leave, by ref, each with its reason."""

    def __init__(self, reasons: Mapping[str, str]) -> None:
        super().__init__("clips may not leave")
        self.reasons = dict(reasons)


def deliver(vendor: Vendor, night: NightFolder, given: Delivery) -> Outcome:
    """Bring every waiting batch of the vendor, of this night or an earlier one, to DELIVERED or CANCELLED.

    What keeps one batch back (LeakFound, ScanIncomplete, LinkageTooHigh, RemoteConflict, SealFailed, CrosswalkMissing,
    LeaseLost) is a failure of the outcome; the next batch has its turn. A batch that another worker has in hand is
    waited for, and taken when that one dies.

    Raises:
        KeyUnusable: before any work, when the vendor's key cannot be encrypted to today.
        HostKeyMismatch, LoginRefused, ServerUnreachable, TransferFailed: no half file has a final name.
        AudioStoreDown: the recordings cannot be read; no clip is left out for that.
    """
    _sweep_spool(vendor.name, given)
    waiting = [b.batch_id for b in waiting_batches(vendor.name, night, given.ledger)]
    outcome = Outcome(
        "deliver",
        {"vendor": vendor.name, "delivered": 0, "cancelled": 0, "clips": 0, "withheld": 0},
        is_new=bool(waiting),
    )
    if not waiting:
        outcome.say(f"deliver: vendor {vendor.name}: nothing is waiting")
        return outcome
    with given.open_keyring() as keyring:
        _check_keys(vendor, keyring, given, outcome)
        with given.open_drop() as drop:
            _Round(vendor, waiting, given, outcome).run(keyring, drop)
    return outcome


def _check_keys(vendor: Vendor, keyring: Keyring, given: Delivery, outcome: Outcome) -> None:
    """Both keys must serve now; when they expire is kept for whoever looks, and told when it is soon."""
    now = given.clock()
    keys = {
        "theirs": keyring.check_key(vendor.recipient_fingerprint, at=now, can="encrypt"),
        "ours": keyring.check_key(given.signer_fingerprint, at=now, can="sign"),
    }
    for whose, key in keys.items():
        if key.expires_at and key.expires_at - now < KEY_NOTICE:
            owner = f"of vendor {vendor.name}" if whose == "theirs" else "of ours"
            told = f"deliver: key {key.fingerprint} {owner} expires on {key.expires_at:%Y-%m-%d}"
            log.warning("%s", told)
            outcome.say(told)
    write_text(json.dumps({whose: _key_seen(key) for whose, key in keys.items()}), given.root.keys(vendor.name))


def _key_seen(key: KeyFacts) -> dict[str, str | None]:
    return {"fingerprint": key.fingerprint, "expires_at": stamp(key.expires_at) if key.expires_at else None}


class _Round:
    """The waiting batches of one run, taken one by one by as many workers as the vendor has connections for us."""

    def __init__(self, vendor: Vendor, waiting: list[str], given: Delivery, outcome: Outcome) -> None:
        self._vendor, self._given, self._outcome = vendor, given, outcome
        self._left, self._total, self._done = deque(waiting), len(waiting), 0
        self._telling, self._over = Lock(), Event()

    def run(self, keyring: Keyring, drop: Drop) -> None:
        """Work through all of them; the first connection is there already, so that a refused login is tried once."""
        helpers = min(self._given.connections, self._total) - 1
        with ThreadPoolExecutor(max(helpers, 1), "deliver") as pool:
            helping = [pool.submit(self._help) for _ in range(helpers)]
            try:
                self._work(keyring, drop)
                for one in helping:
                    one.result()
            finally:
                self._over.set()

    def _help(self) -> None:
        with ExitStack() as opened:
            try:
                drop = opened.enter_context(self._given.open_another())
            except CourierError as refused:
                log.info("deliver: vendor %s: no further connection: %s", self._vendor.name, refused)
                return
            self._work(opened.enter_context(self._given.open_keyring()), drop)

    def _work(self, keyring: Keyring, drop: Drop) -> None:
        ledger = self._given.ledger
        while self._left and not self._over.is_set():
            try:
                batch_id = self._left.popleft()
            except IndexError:  # another one was quicker
                return
            with ledger.lease(batch_id) as lease:
                if lease is not None:
                    batch = ledger.require(batch_id)
                    if batch.state in WAITING:
                        self._one(_Sending(self._vendor, batch, lease, self._given, keyring, drop))
                    continue
            self._left.append(batch_id)
            self._over.wait(_HELD_POLL_S)

    def _one(self, sending: "_Sending") -> None:
        try:
            done = sending.run()
        except _KEEPS_ONE_BACK as failed:
            log.error("batch %s: %s: %s", sending.batch_id, type(failed).__name__, failed)
            with self._telling:
                self._outcome.failures.append(failed)
            return
        less = f", {sending.withheld} withheld" if sending.withheld else ""
        with self._telling:
            self._outcome.count(done.state.lower())
            self._outcome.count("clips", done.clip_count)
            self._outcome.count("withheld", sending.withheld)
            self._outcome.say(f"deliver: {done.batch_id} {done.state.lower()}, {done.clip_count} clips{less}")
            self._done += 1
            self._given.progress(f"delivering to {self._vendor.name}", self._done, self._total)


def deliver_again(vendor: Vendor, batch_id: str, given: Delivery, open_recalls: Callable[[], object]) -> Outcome:
    """Seal a delivered batch anew and put it where it was, for a vendor that has lost it.

    Without what was recalled and what may not leave any more; `open_recalls` sees to it that the latter is recalled as
    well, for the vendor has had it. What lies there still is not sent again. After a crash the same again goes on.

    Raises:
        NotSentAgain: it is not with the vendor, or something of it has come back, or another worker has it in hand.
    """
    outcome = Outcome("deliver", {"vendor": vendor.name, "delivered": 0, "clips": 0, "withheld": 0})
    left_out: dict[str, str] = {}
    done: Batch | None = None
    with given.open_keyring() as keyring, given.ledger.lease(batch_id) as lease:
        _check_keys(vendor, keyring, given, outcome)
        batch = given.ledger.require(batch_id)
        if lease is None or batch.state != DELIVERED:
            raise NotSentAgain(f"batch {batch_id} is {batch.state if lease else 'in the hands of another worker'}")
        with given.open_drop() as drop:
            while done is None:
                open_recalls()
                try:
                    done = _SendingAgain(vendor, batch, lease, given, keyring, drop, left_out).run()
                except _Unfit as unfit:
                    left_out.update(unfit.reasons)
    if not done.clip_count:
        outcome.say(f"deliver: of {batch_id} nothing may leave any more")
    elif done.sha256 == batch.sha256:
        outcome.is_new = False
        outcome.say(f"deliver: {batch_id} lies on the server of {vendor.name} as it was sent: nothing is sent again")
    else:
        outcome.count("delivered")
        outcome.count("clips", done.clip_count)
        outcome.count("withheld", batch.clip_count - done.clip_count)
        outcome.say(f"deliver: {batch_id} delivered again, {done.clip_count} of {batch.clip_count} clips")
    return outcome


def withdraw(vendor: str, root: Root, ledger: Ledger, refusals: Refusals, now: datetime) -> Outcome:
    """Cut batches that are not sealed yet again, without the clips that may not be heard any more.

    A sealed one may already lie on the server under its final name: `deliver` finds that out, and asks consent itself.
    So does one that is being delivered: what was just sent must stay in the crosswalk.
    """
    outcome = Outcome("withdraw", {"vendor": vendor, "withheld": 0}, is_new=False)
    for batch in (b for b in _cut(vendor, root, ledger) if b.state == MANIFESTED):
        with ledger.lease(batch.batch_id) as lease:
            if lease is None or ledger.require(batch.batch_id).state != MANIFESTED:
                continue
            folder = root.night(batch.night_date)
            _, private = current(folder, batch.batch_id)
            gone = refusals(private)
            if not gone:
                continue
            withhold(folder, batch.batch_id, gone)
            ledger.note(batch.batch_id, "WITHHELD", {"clips": len(gone)}, now)
        outcome.is_new = True
        outcome.count("withheld", len(gone))
        outcome.say(f"recall: {len(gone)} clips are taken out of batch {batch.batch_id} before it leaves")
    return outcome


def waiting_batches(vendor: str, night: NightFolder, ledger: Ledger) -> list[Batch]:
    """What `deliver` has to do on a night: the vendor's batches of it or of an earlier one that are not there yet."""
    return [b for b in _cut(vendor, night.root, ledger) if b.night_date <= night.night]


def _cut(vendor: str, root: Root, ledger: Ledger) -> list[Batch]:
    """Waiting batches of nights of which this vendor's are all cut; `manifest` may yet write the others again."""
    waiting = ledger.batches(vendor=vendor, states=WAITING)
    return [b for b in waiting if root.night(b.night_date).manifested(vendor).exists()]


def _sweep_spool(vendor: str, given: Delivery) -> None:
    """Ciphertext that waits for nothing any more, and what a killed run left half written."""
    found = [p for p in given.root.sealed.iterdir() if p.name.lstrip(".").startswith(f"{vendor}-")]
    for batch_id in {path.name.lstrip(".").split(".")[0] for path in found}:
        with given.ledger.lease(batch_id) as lease:
            if lease is None:
                continue
            batch, sealed = given.ledger.batch(batch_id), given.root.sealed_batch(batch_id)
            is_waiting = batch is not None and batch.state in (SEALED, RELEASED)
            wanted = {sealed.name, f"{sealed.name}.sig"} if is_waiting else set()
            for path in found:
                if path.name.lstrip(".").split(".")[0] == batch_id and path.name not in wanted:
                    path.unlink(missing_ok=True)


class _Sending:
    """One batch on its way out."""

    def __init__(
        self, vendor: Vendor, batch: Batch, lease: Lease, given: Delivery, keyring: Keyring, drop: Drop
    ) -> None:
        self._vendor, self._batch, self._lease, self._given = vendor, batch, lease, given
        self._keyring, self._drop = keyring, drop
        self._folder = given.root.night(batch.night_date)
        self._sealed = given.root.sealed_batch(batch.batch_id)
        self._signature = self._sealed.with_name(f"{self._sealed.name}.sig")
        self._is_detached = vendor.signature == "detached"
        self._evidence: dict[str, object] = {}
        self._leaks: LeakScan  # of what is being sealed: every byte of it that will be read by somebody
        self._is_fresh = False  # sealed by this very run, so that consent was asked a moment ago
        self.batch_id = batch.batch_id
        self.withheld = 0

    def run(self) -> Batch:
        steps = {MANIFESTED: self._seal, SEALED: self._send, RELEASED: self._settle}
        while self._batch.state in WAITING:
            try:
                steps[self._batch.state]()
            except _Unfit as unfit:
                self._withhold(unfit.reasons)
        return self._batch

    # -- MANIFESTED → SEALED -----------------------------------------------------------------------------------

    def _seal(self) -> None:
        self._clear_remote()
        rows, private = current(self._folder, self._batch.batch_id)
        self._check_lawful(private)
        if rows.num_rows == 0:
            self._forget_spool()
            self._move(MANIFESTED, CANCELLED, clip_count=0, audio_ms=0)
            return
        manifest, private, least = self._regrouped(rows, private)
        sealed = self._sealed_as(manifest, private, least)
        self._move(
            MANIFESTED,
            SEALED,
            clip_count=manifest.rows.num_rows,
            audio_ms=sum(manifest.rows["duration_ms"].to_pylist()),
            size_bytes=sealed.size_bytes,
            sha256=sealed.sha256,
            contents_sha256=self._contents(manifest.rows),
        )
        self._is_fresh = True

    def _sealed_as(self, manifest: Manifest, private: pa.Table, least: Smallest) -> Sealed:
        """The batch on our disk, sealed, once every gate let it through."""
        attack = attacked(self._folder, self._batch.batch_id, self._vendor.name, private, self._given.gate)
        self._leaks = self._given.leak_scan(self._folder)
        told = evidence(manifest, private, least, attack, self._given.gate)
        scan = self._leaks.result()
        write_text(json.dumps({**told, "leak_scan": scan}) + "\n", self._folder.evidence(self._batch.batch_id))
        # How much was looked for says how much stands in landing: that stays here.
        self._evidence = {**told, "leak_scan": {name: scan[name] for name in ("forms", "covers", "hits", "rules")}}
        sealed = self._keyring.seal(
            lambda sink: self._write_tar(sink, manifest, private),
            self._sealed,
            recipient=self._vendor.recipient_fingerprint,
            at=self._given.clock(),
            detached=self._is_detached,
        )
        if sealed.size_bytes > self._vendor.batch_max_bytes:
            raise SealFailed(f"batch {self._batch.batch_id} is larger sealed than the vendor takes")
        return sealed

    def _regrouped(self, rows: pa.Table, private: pa.Table) -> tuple[Manifest, pa.Table, Smallest]:
        """The batch as its groups allow it now: what was withdrawn since may have left others alone.

        A clip is never shown finer than it was cut. What finds no group any more makes the batch unfit.
        """
        batch_id, vendor = self._batch.batch_id, self._vendor.name
        kept, least = grouped(self._folder, batch_id, vendor, private, self._given.gate)
        if kept.num_rows < private.num_rows:
            refs = set(private["clip_ref"].to_pylist()) - set(kept["clip_ref"].to_pylist())
            raise _Unfit(dict.fromkeys(sorted(refs), SMALL_GROUP))
        kept, unusable = sounding(kept, private, self._given.landing.audio, self._given.progress)
        if unusable:
            raise _Unfit(unusable)
        manifest = manifest_of(batch_id, vendor, self._folder, kept)
        if manifest.rows.equals(rows):
            return manifest, kept, least
        # The crosswalk first: the manifest is made from it.
        write_parquet(kept, self._folder.crosswalk(batch_id))
        write_parquet(manifest.rows, self._folder.manifest(batch_id))
        return manifest, kept, least

    def _clear_remote(self) -> None:
        """What a killed run left beside the final name may hold a clip that is withdrawn by now."""
        name = self._sealed.name
        unfinished = [f"{name}.{attempt}.part" for attempt in self._drop.parts("outbound", name)]
        for leftover in (*unfinished, f"{name}.sig", f"{name}.sig.part"):
            self._drop.remove("outbound", leftover)

    def _contents(self, rows: pa.Table) -> str:
        """Of what is sealed and for whom: a batch that is not sealed so any more is sealed again."""
        sealed_as = (self._vendor.recipient_fingerprint, self._given.signer_fingerprint, self._vendor.signature)
        shown = rows.drop_columns(["speaker_refs", "hypotheses"]).to_pylist()
        return sha256(json.dumps([sealed_as, shown]).encode("ascii")).hexdigest()

    def _write_tar(self, sink: BinaryIO, manifest: Manifest, private: pa.Table) -> None:
        """The batch as a stream: the header, the manifest, and each recording made anew as its turn comes."""
        parquet = io.BytesIO()
        pq.write_table(manifest.rows, parquet, compression="zstd")
        small = {"manifest.parquet": parquet.getvalue(), "README.txt": _README.encode("utf-8")}
        header = json.dumps(self._header(manifest, small), indent=2).encode("utf-8")
        modified = datetime.combine(self._folder.night, time.min, UTC).timestamp()
        with ThreadPoolExecutor(_ENCODERS, "encode") as encoders:
            for name, content in {"manifest.json": header, **small}.items():
                self._add(sink, name, content, modified)
            columns = private.select([name for name in _OF_SOUND if name in private.column_names])
            sources = (row for some in columns.to_batches(max_chunksize=256) for row in some.to_pylist())
            unfit: dict[str, str] = {}
            for place, (source, encoding) in enumerate(_ahead(encoders, self._flac, sources), start=1):
                try:
                    flac = encoding.result()
                    if not unfit:
                        self._add(sink, f"audio/{source['clip_ref']}.flac", flac, modified)
                except AudioUnusable as unusable:
                    # The others are still looked at, so that the batch is cut and sealed again once and not for each.
                    unfit[source["clip_ref"]] = unusable.reason
                self._given.progress(f"sealing {self._batch.batch_id}", place, private.num_rows)
            if unfit:
                raise _Unfit(unfit)
        # The last gate: this raises while gpg waits for the end of its input, and then nothing is sealed.
        self._leaks.take_content(self._ready(), f"{self._batch.batch_id}.ready.json")
        self._leaks.check(f"batch {self._batch.batch_id}: ")
        sink.write(bytes(2 * tarfile.BLOCKSIZE))

    def _add(self, sink: BinaryIO, name: str, content: bytes, modified: float) -> None:
        """A member of the tar. `TarFile` itself would copy every byte several times, and remember every member."""
        self._leaks.take_content(content, name)
        member = tarfile.TarInfo(name)
        member.size, member.mtime, member.mode = len(content), int(modified), 0o644
        sink.write(member.tobuf(tarfile.USTAR_FORMAT))
        sink.write(content)
        sink.write(bytes(-len(content) % tarfile.BLOCKSIZE))

    def _flac(self, source: Mapping[str, str]) -> bytes:
        """The recording as the manifest describes it, without what may not be heard.

        Raises:
            AudioUnusable: it was removed or changed since.
        """
        flac = masking.leaving(self._given.landing.audio(source["audio_uri"]), source)
        if sha256(flac).hexdigest() != source["flac_sha256"]:
            raise AudioUnusable("audio_changed", "a recording is not the one that was cut into the batch")
        return flac

    def _header(self, manifest: Manifest, small: Mapping[str, bytes]) -> dict[str, object]:
        rows = manifest.rows
        recordings = zip(rows["audio_file"].to_pylist(), rows["audio_sha256"].to_pylist(), strict=True)
        return {
            "schema_version": SCHEMA_VERSION,
            "batch_id": manifest.batch_id,
            "vendor": manifest.vendor,
            "night": manifest.night.isoformat(),
            "clip_count": rows.num_rows,
            "audio_ms": sum(rows["duration_ms"].to_pylist()),
            "instructions_version": INSTRUCTIONS_VERSION,
            "evidence": self._evidence,
            "sha256": {**{name: sha256(content).hexdigest() for name, content in small.items()}, **dict(recordings)},
        }

    # -- SEALED → RELEASED → DELIVERED -------------------------------------------------------------------------

    def _send(self) -> None:
        """Upload, ask consent for the last time, and give it its name: the step after which the vendor may have it."""
        rows, private = current(self._folder, self._batch.batch_id)
        if self._contents(rows) != self._batch.contents_sha256 or not (self._is_fresh or self._is_spooled()):
            # The ciphertext is lost, or the batch is not sealed so any more; it was never seen, and is made again.
            self._unseal()
            return
        name, attempt = self._sealed.name, self._lease.attempt
        due_at = stamp(self._given.clock() + timedelta(days=self._vendor.due_days))
        if (there := self._drop.size("outbound", name)) is not None:
            self._check_ours(name, there)  # a worker that had lost its lease has come as far as this
            self._move(SEALED, RELEASED, due_at=due_at)
            self._announce()
            return
        if not self._is_fresh:
            self._check_lawful(private)
            if not self._regrouped(rows, private)[0].rows.equals(rows):
                self._unseal()
                return
        self._take_over(name)
        if self._is_detached:
            # First, so that what lies there is never unsigned.
            self._drop.put_bytes("outbound", self._signature.name, self._signature.read_bytes(), replace=True)
        self._given.ledger.check_lease(self._lease)
        with self._sealed.open("rb") as stream:
            size, read_back = self._sealed.stat().st_size, self._given.is_read_back
            self._drop.upload("outbound", name, stream, size, attempt=attempt, is_read_back=read_back)
        self._move(SEALED, RELEASED, due_at=due_at)
        try:
            self._check_lawful(private)
        except BaseException:
            self._hold()
            raise
        self._publish(name)
        self._announce()

    def _hold(self) -> None:
        """It does not get its name after all."""
        self._move(RELEASED, SEALED, due_at=None)

    def _publish(self, name: str) -> None:
        """The rename. When its answer is lost, nobody knows whether it took place: the batch stays RELEASED."""
        attempt = self._lease.attempt
        try:
            self._drop.publish("outbound", name, attempt=attempt)
        except ConnectionLost:
            raise
        except (RemoteConflict, TransferFailed):
            if (there := self._drop.size("outbound", name)) is not None and self._is_ours(name, there):
                return  # a server that links and then cannot unlink says no, and has done it
            self._hold()
            self._drop.remove("outbound", f"{name}.{attempt}.part")
            raise

    def _settle(self) -> None:
        """A run broke off around the rename: what lies there tells whether it took place."""
        name = self._sealed.name
        there = self._drop.size("outbound", name)
        if there is None and self._drop.parts("outbound", name):
            self._move(RELEASED, SEALED, due_at=None)
            return
        if there is None:
            # It was whole and had no other way to go than to its name and from there to the vendor. Sent once more it
            # would be the same clips twice.
            log.warning("batch %s was taken by vendor %s before it was announced", self.batch_id, self._vendor.name)
            self._given.ledger.note(self.batch_id, "TAKEN_EARLY", {}, self._given.clock())
        else:
            self._check_ours(name, there)
        self._announce()

    def _take_over(self, name: str) -> None:
        """What an earlier run has uploaded becomes ours, so that it is gone for a worker that only stood still."""
        mine, lying = self._lease.attempt, self._drop.parts("outbound", name)
        if lying and mine not in lying:
            self._drop.take_over("outbound", name, attempt=mine, other=lying.pop())
        for other in lying:
            if other != mine:
                self._drop.remove("outbound", f"{name}.{other}.part")

    def _announce(self) -> None:
        self._drop.put_bytes("outbound", f"{self._batch.batch_id}.ready.json", self._ready(), replace=True)
        self._move(RELEASED, DELIVERED, delivered_at=stamp(self._given.clock()))
        self._forget_spool()

    def _is_spooled(self) -> bool:
        needed = [self._sealed, *([self._signature] if self._is_detached else [])]
        if not all(path.exists() for path in needed):
            return False
        with self._sealed.open("rb") as stream:
            digest = sha256()
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
        return digest.hexdigest() == self._batch.sha256

    def _check_ours(self, name: str, size: int) -> None:
        """A file of that name lies there: ours from a run that broke off after the rename, or somebody else's."""
        if not self._is_ours(name, size):
            raise RemoteConflict(
                f"outbound/{name} lies on the server of {self._vendor.name} and is not what was sealed"
            )

    def _is_ours(self, name: str, size: int) -> bool:
        return size == self._batch.size_bytes and self._drop.sha256("outbound", name) == self._batch.sha256

    def _ready(self) -> bytes:
        ready = {
            "schema_version": SCHEMA_VERSION,
            "batch_id": self._batch.batch_id,
            "size_bytes": self._batch.size_bytes,
            "sha256": self._batch.sha256,
            "clip_count": self._batch.clip_count,
            "signer_fingerprint": self._given.signer_fingerprint,
            "due_at": self._batch.due_at,
        }
        return (json.dumps(ready, indent=2) + "\n").encode("utf-8")

    # -- what may not leave ------------------------------------------------------------------------------------

    def _check_lawful(self, private: pa.Table) -> None:
        """Ask again for every clip: what may not be heard any more, or not by this vendor, makes the batch unfit."""
        today = self._given.clock().date()
        where = zip(private["clip_ref"].to_pylist(), private["country"].to_pylist(), strict=True)
        refusals = {ref: "no_lawful_vendor" for ref, country in where if not self._vendor.may_receive(country, today)}
        refusals.update(self._given.refusals(private))
        if refusals:
            raise _Unfit(refusals)

    def _withhold(self, reasons: Mapping[str, str]) -> None:
        """Cut the batch again without these clips, and seal it again; they were never seen by anyone."""
        withhold(self._folder, self._batch.batch_id, reasons)
        self._given.ledger.note(self._batch.batch_id, "WITHHELD", {"clips": len(reasons)}, self._given.clock())
        self.withheld += len(reasons)
        if self._batch.state == SEALED:
            self._unseal()

    def _unseal(self) -> None:
        self._move(SEALED, MANIFESTED, size_bytes=None, sha256=None, contents_sha256=None)
        self._forget_spool()

    def _forget_spool(self) -> None:
        self._sealed.unlink(missing_ok=True)
        self._signature.unlink(missing_ok=True)

    def _move(self, came_from: str, to: str, **fields: object) -> None:
        now = self._given.clock()
        self._given.ledger.move(self._batch.batch_id, came_from, to, now, lease=self._lease, **fields)
        self._batch = self._given.ledger.require(self._batch.batch_id)


class _SendingAgain(_Sending):
    """A batch that was delivered and that its vendor has lost.

    It stays DELIVERED meanwhile, and its files here stay as they are: the vendor had all of it, so whatever is left out
    this time must be found by a recall at any moment. How far it got is told by notes in the audit chain.
    """

    def __init__(
        self,
        vendor: Vendor,
        batch: Batch,
        lease: Lease,
        given: Delivery,
        keyring: Keyring,
        drop: Drop,
        left_out: Collection[str],
    ) -> None:
        super().__init__(vendor, batch, lease, given, keyring, drop)
        self._left_out, self._ready_name = list(left_out), f"{batch.batch_id}.ready.json"

    def run(self) -> Batch:
        name, ledger = self._sealed.name, self._given.ledger
        there = self._drop.size("outbound", name)
        last = ledger.latest(self.batch_id, (RELEASED_AGAIN, HELD_AGAIN, DELIVERED))
        if (
            last is not None
            and last[0] == RELEASED_AGAIN
            and (there is not None or not self._drop.parts("outbound", name))
        ):
            # A run broke off after the rename: it is sent already, and the vendor may even have taken it.
            self._batch = replace(self._batch, **last[1])
            if there is not None:
                self._check_ours(name, there)
            self._announce()
        elif there is not None:
            self._check_ours(name, there)
            if self._drop.size("outbound", self._ready_name) is None:
                again = ledger.latest(self.batch_id, (RELEASED_AGAIN,))
                if again is not None and again[1]["sha256"] == self._batch.sha256:
                    self._batch = replace(self._batch, **again[1])
                self._drop.put_bytes("outbound", self._ready_name, self._ready())
            self._forget_spool()
        else:
            self._send_again(name)
        return self._batch

    def _send_again(self, name: str) -> None:
        self._clear_remote()
        manifest, private, least = self._what_may_leave()
        if manifest.rows.num_rows == 0:
            self._batch = replace(self._batch, clip_count=0)
            return
        due_at = stamp(self._given.clock() + timedelta(days=self._vendor.due_days))
        self._batch = replace(self._batch, clip_count=manifest.rows.num_rows, due_at=due_at)
        sealed = self._sealed_as(manifest, private, least)
        self._batch = replace(self._batch, size_bytes=sealed.size_bytes, sha256=sealed.sha256)
        if self._is_detached:
            self._drop.put_bytes("outbound", self._signature.name, self._signature.read_bytes(), replace=True)
        with self._sealed.open("rb") as stream:
            size, read_back = sealed.size_bytes, self._given.is_read_back
            self._drop.upload("outbound", name, stream, size, attempt=self._lease.attempt, is_read_back=read_back)
        self._given.ledger.check_lease(self._lease)
        told = {field: getattr(self._batch, field) for field in ("clip_count", "due_at", "size_bytes", "sha256")}
        self._given.ledger.note(self.batch_id, RELEASED_AGAIN, told, self._given.clock())
        try:
            self._check_lawful(private)
            # What announced the first one would announce this one by another hash.
            self._drop.remove("outbound", self._ready_name)
        except BaseException:
            self._hold()
            raise
        self._publish(name)
        self._announce()

    def _what_may_leave(self) -> tuple[Manifest, pa.Table, Smallest]:
        """Of what the vendor had: without what was recalled, may not be heard any more, or was found unfit by now."""
        _, private = current(self._folder, self.batch_id)
        private = rows_except(private, "clip_ref", self._given.gate.recalled()["clip_ref"])
        private = rows_except(private, "clip_ref", pa.array(self._left_out, pa.string()))
        self._check_lawful(private)
        kept, least = grouped(self._folder, self.batch_id, self._vendor.name, private, self._given.gate)
        return manifest_of(self.batch_id, self._vendor.name, self._folder, kept), kept, least

    def _hold(self) -> None:
        self._given.ledger.note(self.batch_id, HELD_AGAIN, {}, self._given.clock())
        self._drop.remove("outbound", f"{self._sealed.name}.{self._lease.attempt}.part")

    def _announce(self) -> None:
        self._drop.put_bytes("outbound", self._ready_name, self._ready(), replace=True)
        sent, clips = {f: getattr(self._batch, f) for f in ("due_at", "size_bytes", "sha256")}, self._batch.clip_count
        self._move(DELIVERED, DELIVERED, **sent)
        self._batch = replace(self._batch, clip_count=clips)
        self._forget_spool()


def _ahead(
    pool: ThreadPoolExecutor, work: Callable[[Mapping[str, str]], bytes], items: Iterable[Mapping[str, str]]
) -> Iterator[tuple[Mapping[str, str], Future[bytes]]]:
    """Each item with its work, in order; a few are under way before they are asked for."""
    under_way: deque[tuple[Mapping[str, str], Future[bytes]]] = deque()
    for item in items:
        under_way.append((item, pool.submit(work, item)))
        if len(under_way) > _AHEAD:
            yield under_way.popleft()
    yield from under_way
