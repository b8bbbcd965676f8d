"""Stage 4, `deliver`: the batches of one vendor, sealed and put where the vendor finds them.

The order of steps is what keeps the promises: consent is asked, the batch is cut to what may still leave, sealed as one
stream, uploaded under a name that both sides ignore; consent is asked again in the same breath as the rename; the ready
file comes last. After a crash anywhere the next run finds out how far the batch got and goes on from there.
"""

import io
import json
import logging
import tarfile
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from hashlib import sha256
from typing import BinaryIO, Final

import pyarrow as pa
import pyarrow.parquet as pq

from clip_courier import audio
from clip_courier.batch_files import current, withhold
from clip_courier.errors import AudioUnusable, CrosswalkMissing, RemoteConflict, SealFailed
from clip_courier.landing import Landing
from clip_courier.ledger import CANCELLED, DELIVERED, MANIFESTED, SEALED, WAITING, Batch, Ledger
from clip_courier.model import (
    SCHEMA_VERSION,
    Clock,
    Manifest,
    NightFolder,
    Outcome,
    Progress,
    Refusals,
    Root,
    stamp,
)
from clip_courier.pgp import Keyring
from clip_courier.settings import Vendor
from clip_courier.sftp import Drop

log = logging.getLogger("clip_courier")

INSTRUCTIONS_VERSION: Final = "1"
_README: Final = f"""Clip Courier batch, instructions version {INSTRUCTIONS_VERSION}

manifest.parquet   one row a clip; manifest.json holds the counts and the SHA-256 of every other file here
audio/             one FLAC file a clip, named by its clip_ref

For every clip_ref return one row: clip_ref, status, text, chosen_rank, annotator_ref, submitted_at, revision, note.
status is one of: transcribed, unintelligible, no_speech, wrong_language, sensitive, distress. text is required when
transcribed. Write returns/<batch_id>.<n>.<format>.pgp (jsonl, csv or parquet; signed by your pinned key, encrypted to
ours) and then returns/<batch_id>.<n>.ready.json with its size_bytes and sha256.

The speakers are pseudonymous. Do not try to find out who they are. A mask such as ‹NAME› stands for a word that was
taken out of a hypothesis.

When recalls/<batch_id>.<n>.json.pgp appears, delete the clips of its clip_refs (JSON, signed by us) and answer by its
delete_by with receipts/<batch_id>.<n>.json.pgp, signed and encrypted like a return, holding the JSON object
{{"batch_id": …, "n": …, "clip_refs": [every ref that you deleted], "deleted_at": RFC 3339}}.
"""


@dataclass(frozen=True)
class Delivery:
    """What `deliver` needs for one vendor: its keys, its server, and the question whether a clip may still be heard."""

    root: Root
    ledger: Ledger
    landing: Landing
    keyring: Keyring
    signer_fingerprint: str
    open_drop: Callable[[], AbstractContextManager[Drop]]
    refusals: Refusals
    clock: Clock
    progress: Progress


class _Unfit(Exception):
    """Inside this module: clips of the batch that may not leave, by ref, each with its reason."""

    def __init__(self, reasons: Mapping[str, str]) -> None:
        super().__init__("clips may not leave")
        self.reasons = dict(reasons)


def deliver(vendor: Vendor, night: NightFolder, given: Delivery) -> Outcome:
    """Bring every waiting batch of the vendor, of this night or an earlier one, to DELIVERED or CANCELLED.

    What keeps one batch back (RemoteConflict, SealFailed, CrosswalkMissing) is a failure of the outcome; the next batch
    has its turn. Not for two processes at once: the caller holds the vendor's lock.

    Raises:
        KeyUnusable: before any work, when the vendor's key cannot be encrypted to today.
        HostKeyMismatch, LoginRefused, ServerUnreachable, TransferFailed: no half file has a final name.
    """
    _sweep_spool(vendor.name, given)
    waiting = [b for b in _cut(vendor.name, given.root, given.ledger) if b.night_date <= night.night]
    outcome = Outcome(
        "deliver",
        {"vendor": vendor.name, "delivered": 0, "cancelled": 0, "clips": 0, "withheld": 0},
        is_new=bool(waiting),
    )
    if not waiting:
        outcome.say(f"deliver: vendor {vendor.name}: nothing is waiting")
        return outcome
    key = given.keyring.check_key(vendor.recipient_fingerprint, at=given.clock(), can="encrypt")
    if key.expires_at and key.expires_at - given.clock() < timedelta(days=30):
        outcome.say(f"deliver: vendor {vendor.name}: key {key.fingerprint} expires on {key.expires_at:%Y-%m-%d}")
    with given.open_drop() as drop:
        for place, batch in enumerate(waiting, start=1):
            sending = _Sending(vendor, batch, given, drop)
            try:
                done = sending.run()
            except (RemoteConflict, SealFailed, CrosswalkMissing) as failed:
                log.error("batch %s: %s: %s", batch.batch_id, type(failed).__name__, failed)
                outcome.failures.append(failed)
                continue
            outcome.count(done.state.lower())
            outcome.count("clips", done.clip_count)
            outcome.count("withheld", sending.withheld)
            less = f", {sending.withheld} withheld" if sending.withheld else ""
            outcome.say(f"deliver: {done.batch_id} {done.state.lower()}, {done.clip_count} clips{less}")
            given.progress(f"delivering to {vendor.name}", place, len(waiting))
    return outcome


def withdraw(vendor: str, root: Root, ledger: Ledger, refusals: Refusals, now: datetime) -> Outcome:
    """Cut batches that are not sealed yet again, without the clips that may not be heard any more.

    A sealed one may already lie on the server under its final name: `deliver` finds that out, and asks consent itself.
    Not while `deliver` runs for the vendor: what it has just sent must stay in the crosswalk.
    """
    outcome = Outcome("withdraw", {"vendor": vendor, "withheld": 0}, is_new=False)
    for batch in (b for b in _cut(vendor, root, ledger) if b.state == MANIFESTED):
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


def _cut(vendor: str, root: Root, ledger: Ledger) -> list[Batch]:
    """Waiting batches of nights of which this vendor's are all cut; `manifest` may yet write the others again."""
    waiting = ledger.batches(vendor=vendor, states=WAITING)
    return [b for b in waiting if root.night(b.night_date).manifested(vendor).exists()]


def _sweep_spool(vendor: str, given: Delivery) -> None:
    """Ciphertext that waits for nothing any more, and what a killed run left half written."""
    waiting = {given.root.sealed_batch(b.batch_id) for b in given.ledger.batches(vendor=vendor, states=[SEALED])}
    wanted = {path.name for path in waiting} | {f"{path.name}.sig" for path in waiting}
    for path in given.root.sealed.iterdir():
        if path.name.lstrip(".").startswith(f"{vendor}-") and path.name not in wanted:
            path.unlink(missing_ok=True)


class _Sending:
    """One batch on its way out."""

    def __init__(self, vendor: Vendor, batch: Batch, given: Delivery, drop: Drop) -> None:
        self._vendor, self._batch, self._given, self._drop = vendor, batch, given, drop
        self._folder = given.root.night(batch.night_date)
        self._sealed = given.root.sealed_batch(batch.batch_id)
        self._signature = self._sealed.with_name(f"{self._sealed.name}.sig")
        self._is_detached = vendor.signature == "detached"
        self.withheld = 0

    def run(self) -> Batch:
        while self._batch.state in WAITING:
            try:
                if self._batch.state == MANIFESTED:
                    self._seal()
                else:
                    self._send()
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
        manifest = Manifest(self._batch.batch_id, self._vendor.name, self._folder.night, rows)
        sealed = self._given.keyring.seal(
            lambda sink: self._write_tar(sink, manifest, private),
            self._sealed,
            recipient=self._vendor.recipient_fingerprint,
            at=self._given.clock(),
            detached=self._is_detached,
        )
        if sealed.size_bytes > self._vendor.batch_max_bytes:
            raise SealFailed(f"batch {self._batch.batch_id} is larger sealed than the vendor takes")
        self._move(
            MANIFESTED,
            SEALED,
            clip_count=manifest.rows.num_rows,
            audio_ms=sum(manifest.rows["duration_ms"].to_pylist()),
            size_bytes=sealed.size_bytes,
            sha256=sealed.sha256,
            contents_sha256=self._contents(rows),
        )

    def _clear_remote(self) -> None:
        """What a killed run left beside the final name may hold a clip that is withdrawn by now."""
        name = self._sealed.name
        for leftover in (f"{name}.part", f"{name}.sig", f"{name}.sig.part"):
            self._drop.remove("outbound", leftover)

    def _contents(self, rows: pa.Table) -> str:
        """Of what is sealed and for whom: a batch that is not sealed so any more is sealed again."""
        sealed_as = (self._vendor.recipient_fingerprint, self._given.signer_fingerprint, self._vendor.signature)
        return sha256("\n".join([*sealed_as, *rows["clip_ref"].to_pylist()]).encode("ascii")).hexdigest()

    def _write_tar(self, sink: BinaryIO, manifest: Manifest, private: pa.Table) -> None:
        """The batch as a stream: the header, the manifest, and each recording made anew as its turn comes."""
        parquet = io.BytesIO()
        pq.write_table(manifest.rows, parquet, compression="zstd")
        small = {"manifest.parquet": parquet.getvalue(), "README.txt": _README.encode("utf-8")}
        header = json.dumps(self._header(manifest, small), indent=2).encode("utf-8")
        modified = datetime.combine(self._folder.night, time.min, UTC).timestamp()
        with tarfile.open(fileobj=sink, mode="w|", format=tarfile.USTAR_FORMAT) as tar:
            for name, content in {"manifest.json": header, **small}.items():
                _add(tar, name, content, modified)
            sources = private.select(["clip_ref", "audio_uri", "audio_sha256", "flac_sha256"]).to_pylist()
            unfit: dict[str, str] = {}
            for place, source in enumerate(sources, start=1):
                try:
                    flac = self._flac(source)
                    if not unfit:
                        _add(tar, f"audio/{source['clip_ref']}.flac", flac, modified)
                except AudioUnusable as unusable:
                    # The others are still looked at, so that the batch is cut and sealed again once and not for each.
                    unfit[source["clip_ref"]] = unusable.reason
                self._given.progress(f"sealing {self._batch.batch_id}", place, len(sources))
            if unfit:
                raise _Unfit(unfit)

    def _flac(self, source: Mapping[str, str]) -> bytes:
        """The recording as the manifest describes it.

        Raises:
            AudioUnusable: it was removed or changed since.
        """
        raw = self._given.landing.audio(source["audio_uri"])
        flac = audio.to_flac(audio.decode(raw, source["audio_sha256"]))
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
            "sha256": {**{name: sha256(content).hexdigest() for name, content in small.items()}, **dict(recordings)},
        }

    # -- SEALED → DELIVERED ------------------------------------------------------------------------------------

    def _send(self) -> None:
        name = self._sealed.name
        there = self._drop.size("outbound", name)
        if there is not None:
            self._check_ours(name, there)
        elif not self._upload(name):
            # The ciphertext is lost, or the batch is not sealed so any more; it was never seen, and is made again.
            self._unseal()
            return
        now = self._given.clock()
        due_at = stamp(now + timedelta(days=self._vendor.due_days))
        self._drop.put_bytes("outbound", f"{self._batch.batch_id}.ready.json", self._ready(due_at), replace=True)
        self._move(SEALED, DELIVERED, delivered_at=stamp(now), due_at=due_at)
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

    def _upload(self, name: str) -> bool:
        """Send the ciphertext, if it is there and holds what the batch holds now."""
        rows, private = current(self._folder, self._batch.batch_id)
        if self._contents(rows) != self._batch.contents_sha256 or not self._is_spooled():
            return False
        if self._is_detached:
            # First, so that what lies there is never unsigned.
            self._drop.put_bytes("outbound", self._signature.name, self._signature.read_bytes(), replace=True)
        with self._sealed.open("rb") as stream:
            size = self._sealed.stat().st_size
            self._drop.put("outbound", name, stream, size, before_rename=lambda: self._check_lawful(private))
        return True

    def _check_ours(self, name: str, size: int) -> None:
        """A file of that name lies there: ours from a run that broke off after the rename, or somebody else's."""
        if size != self._batch.size_bytes or self._drop.sha256("outbound", name) != self._batch.sha256:
            raise RemoteConflict(
                f"outbound/{name} lies on the server of {self._vendor.name} and is not what was sealed"
            )

    def _ready(self, due_at: str) -> bytes:
        ready = {
            "schema_version": SCHEMA_VERSION,
            "batch_id": self._batch.batch_id,
            "size_bytes": self._batch.size_bytes,
            "sha256": self._batch.sha256,
            "clip_count": self._batch.clip_count,
            "signer_fingerprint": self._given.signer_fingerprint,
            "due_at": due_at,
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
        self._given.ledger.move(self._batch.batch_id, came_from, to, self._given.clock(), **fields)
        self._batch = self._given.ledger.require(self._batch.batch_id)


def _add(tar: tarfile.TarFile, name: str, content: bytes, modified: float) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mtime, member.mode = len(content), int(modified), 0o644
    tar.addfile(member, io.BytesIO(content))
