"""Stage 7, `recall`: what a withdrawal does to clips that a vendor already has.

The vendor gets a signed notice of the refs to delete and answers with a signed receipt; our own copies of those rows
are rewritten away. What stays is a tombstone: the refs of the recall and the clips that must never be sampled again.
"""

import hashlib
import io
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from clip_courier import facts, verdicts
from clip_courier.batch_files import count_returned, forget_rows, read_crosswalk, read_own, rows_except
from clip_courier.errors import CrosswalkMissing, LeakFound, ReturnRefused, ScanIncomplete, TransferFailed
from clip_courier.ledger import WITH_VENDOR, Batch, Ledger, Recall
from clip_courier.model import (
    SCHEMA_VERSION,
    Clock,
    NightFolder,
    Outcome,
    Refusals,
    Root,
    stamp,
    write_parquet,
    write_text,
)
from clip_courier.pgp import Keyring
from clip_courier.settings import Vendor
from clip_courier.sftp import Drop

log = logging.getLogger("clip_courier")

# Of the reasons that keep a clip out, those by which a clip that was heard must be forgotten.
FORGOTTEN_FOR: Final = frozenset({"withdrawn", "not_consented", "restricted", "minor"})
# It names recordings and no persons. The clip's own id is what keeps it from being sampled again for good: a keyed one
# would be forgotten with its key. It stays on the private side.
# `bucket` says in which file of the facts the clip's rows lie.
TOMBSTONE: Final = pa.schema(
    [("clip_id", pa.string()), ("clip_ref", pa.string()), ("clip_key", pa.string()), ("bucket", pa.string())]
)
# What was left out of a night, as `load` reads it.
_LEFT_OUT: Final = pa.schema([("clip_key", pa.string()), ("vendor", pa.string()), ("reason", pa.string())])
# What the vendor's contract gives it to delete and answer.
_DELETE_WITHIN: Final = timedelta(days=3)
_MAX_RECEIPT_BYTES: Final = 1024 * 1024
# Why a receipt was refused → what the vendor should do about it.
RECEIPT_FIXES: Final = {
    "bad_receipt": "send JSON with batch_id, n and clip_refs, as the guide to recalls shows",
    "other_recall": "batch_id and n must be those of the notice",
    "incomplete": "delete the clips that are missing here as well, and name every clip of the notice",
}
FILE_FIX: Final = "sign the receipt with your pinned key, encrypt it to ours, and send it whole"


class LeakCheck(Protocol):
    def __call__(self, content: bytes, name: str, *folders: NightFolder) -> None: ...


@dataclass(frozen=True)
class Recalling:
    """What telling one vendor takes."""

    root: Root
    ledger: Ledger
    keyring: Keyring
    open_drop: Callable[[], AbstractContextManager[Drop]]
    # Looks through content that is about to leave under a name, about some nights; raises LeakFound.
    leaving: LeakCheck
    clock: Clock

    def night(self, batch_id: str) -> NightFolder:
        """The night that a batch is of."""
        batch = self.ledger.batch(batch_id)
        if batch is None:
            raise CrosswalkMissing(f"batch {batch_id} is not on record")
        return self.root.night(batch.night_date)


def tombstones(root: Root) -> pa.Table:
    """Everything that was ever recalled."""
    return pa.concat_tables([TOMBSTONE.empty_table(), *(_read_tombstone(path) for path, _, _ in _tombstones(root))])


def recalled_refs(root: Root, batch_id: str) -> frozenset[str]:
    return frozenset(recalls_by_ref(root, batch_id))


def recalls_by_ref(root: Root, batch_id: str) -> dict[str, int]:
    """Every ref of a batch that was recalled, with the number of its recall."""
    found = [(n, _read_tombstone(path)) for path, of, n in _tombstones(root) if of == batch_id]
    return {ref: n for n, table in found for ref in table["clip_ref"].to_pylist()}


def _tombstones(root: Root) -> list[tuple[Path, str, int]]:
    """Each with its batch and its number."""
    named = ((path, *path.stem.rpartition(".")) for path in sorted(root.recalled.glob("*.parquet")))
    return [(path, batch_id, int(n)) for path, batch_id, _, n in named]


def _read_tombstone(path: Path) -> pa.Table:
    table = read_own(path, f"tombstone {path.name}")
    if "bucket" not in table.column_names:
        table = table.append_column("bucket", pa.nulls(table.num_rows, pa.string()))
    return table.cast(TOMBSTONE)


def open_recalls(root: Root, ledger: Ledger, refusals: Refusals, now: datetime, vendor: str | None = None) -> Outcome:
    """Open a recall for every batch that left with clips whose consent is gone by now. Needs no vendor to answer."""
    outcome = Outcome("open_recalls", {"recalled": 0}, is_new=False)
    for batch in ledger.batches(vendor=vendor, states=WITH_VENDOR):
        clips = _open_recall(batch, root, refusals)
        _record(batch, root, ledger, now)
        if clips:
            outcome.is_new = True
            outcome.count("recalled", clips)
            outcome.say(f"recall: {clips} clips of batch {batch.batch_id} are recalled")
    return outcome


def _open_recall(batch: Batch, root: Root, refusals: Refusals) -> int:
    """The tombstone, first of all: from here on the clips are recalled, whatever crashes."""
    private = read_crosswalk(root.night(batch.night_date), batch.batch_id)
    private = rows_except(private, "clip_ref", pa.array(sorted(recalled_refs(root, batch.batch_id)), pa.string()))
    gone = [ref for ref, reason in refusals(private).items() if reason in FORGOTTEN_FOR]
    if not gone:
        return 0
    forgotten = private.filter(pc.is_in(private["clip_ref"], pa.array(gone, pa.string())))
    verdicts.erase(root, pc.unique(pc.list_flatten(forgotten["person_ids"])).to_pylist())
    forgotten = forgotten.append_column("bucket", facts.bucket_of(forgotten["speaker_key"]))
    n = 1 + max((n for _, batch_id, n in _tombstones(root) if batch_id == batch.batch_id), default=0)
    write_parquet(forgotten.select(TOMBSTONE.names).cast(TOMBSTONE), root.tombstone(batch.batch_id, n))
    return int(forgotten.num_rows)


def _record(batch: Batch, root: Root, ledger: Ledger, now: datetime) -> None:
    """Every tombstone in the ledger, also those of a run that broke off."""
    on_record = {(r.batch_id, r.n) for r in ledger.recalls(batch.vendor)}
    for path, batch_id, n in _tombstones(root):
        if batch_id == batch.batch_id and (batch_id, n) not in on_record:
            ledger.add_recall(batch_id, n, batch.vendor, _read_tombstone(path).num_rows, now)


def notify(vendor: Vendor, given: Recalling) -> Outcome:
    """Bring the notices of open recalls to the vendor, and take its receipts.

    What would tell the vendor anything that identifies does not leave, and is a failure (LeakFound); the others do.
    """
    outcome = Outcome("notify", {"vendor": vendor.name, "notices": 0, "receipts": 0}, is_new=False)
    with given.open_drop() as drop:
        opened = [one for one in given.ledger.recalls(vendor.name) if one.state == "OPEN"]
        # All nights at once, so that landing is read once.
        nights = [given.night(batch_id) for batch_id in sorted({one.batch_id for one in opened})]
        notices: dict[str, bytes] = {}
        due = []
        for one in opened:
            with _told(outcome):
                notices.update([_notice(vendor, one.batch_id, one.n, given, nights)])
                due.append(one)
        drop.put_many("recalls", notices)
        for one in due:
            given.ledger.move_recall(one.batch_id, one.n, "NOTICED", given.clock())
            outcome.is_new = True
            outcome.count("notices")
            outcome.say(f"recall: notice {one.batch_id}.{one.n} lies with vendor {vendor.name}")
        _take_receipts(vendor, drop, given, outcome)
    return outcome


@contextmanager
def _told(outcome: Outcome) -> Iterator[None]:
    """What identifies somebody does not leave; what else there is to tell does."""
    try:
        yield
    except (LeakFound, ScanIncomplete) as leak:
        log.error("recall: %s: %s", type(leak).__name__, leak)
        outcome.failures.append(leak)


def _notice(
    vendor: Vendor, batch_id: str, n: int, given: Recalling, nights: Sequence[NightFolder]
) -> tuple[str, bytes]:
    """Its name and its sealed content. Raises LeakFound."""
    now = given.clock()
    notice = {
        "schema_version": SCHEMA_VERSION,
        "batch_id": batch_id,
        "n": n,
        "clip_refs": _refs(given.root, batch_id, n),
        "delete_by": stamp(now + _DELETE_WITHIN),
        "receipt": f"receipts/{batch_id}.{n}.json.pgp",
    }
    name, content = f"{batch_id}.{n}.json.pgp", json.dumps(notice, indent=2).encode()
    given.leaving(content, name, *nights)
    return name, given.keyring.seal_bytes(content, recipient=vendor.recipient_fingerprint, at=now)


def _refs(root: Root, batch_id: str, n: int) -> list[str]:
    return sorted(_read_tombstone(root.tombstone(batch_id, n))["clip_ref"].to_pylist())


def _take_receipts(vendor: Vendor, drop: Drop, given: Recalling, outcome: Outcome) -> None:
    there = {file.name for file in drop.list("receipts")}
    for one in given.ledger.recalls(vendor.name):
        name = f"{one.batch_id}.{one.n}.json.pgp"
        if one.state != "NOTICED" or name not in there:
            continue
        sealed = io.BytesIO()
        try:
            drop.get("receipts", name, sealed, max_bytes=_MAX_RECEIPT_BYTES)
        except TransferFailed as failed:
            outcome.failures.append(failed)
            continue
        refusal = _refusal(sealed.getvalue(), vendor, one, given)
        if refusal is None:
            with _told(outcome):
                _answer(one, sealed.getvalue(), None, drop, given)
                given.ledger.move_recall(one.batch_id, one.n, "RECEIPTED", given.clock())
                outcome.is_new = True
                outcome.count("receipts")
                outcome.say(f"recall: vendor {vendor.name} has deleted the clips of recall {one.batch_id}.{one.n}")
            continue
        outcome.count("refused_receipts")
        told = f"receipt {name} of {vendor.name} is not accepted: {refusal.reason}"
        outcome.say(f"recall: {told}")
        # The same receipt is refused, and reported, once.
        marker = given.root.refused_receipt(one.batch_id, one.n)
        digest = hashlib.sha256(sealed.getvalue()).hexdigest()
        if not marker.exists() or marker.read_text(encoding="ascii") != digest:
            outcome.is_new = True
            log.warning("%s", told)
            with _told(outcome):
                _answer(one, sealed.getvalue(), refusal, drop, given)
                given.ledger.note(
                    one.batch_id, "RECEIPT_REFUSED", {"n": one.n, "reason": refusal.reason}, given.clock()
                )
                write_text(digest, marker)


@dataclass(frozen=True)
class _Refusal:
    """Why a receipt is not accepted; the refs of the recall that it does not name."""

    reason: str
    missing: list[str]


def _refusal(sealed: bytes, vendor: Vendor, one: Recall, given: Recalling) -> _Refusal | None:
    """None when the vendor signed that every clip of the recall is deleted."""
    signers = {vendor.signer_fingerprint}
    wanted = _refs(given.root, one.batch_id, one.n)
    try:
        receipt = json.loads(given.keyring.open_bytes(sealed, signers=signers, max_bytes=_MAX_RECEIPT_BYTES))
        deleted = set(receipt["clip_refs"])
        is_ours = receipt["batch_id"] == one.batch_id and receipt["n"] == one.n
    except ReturnRefused as refused:
        return _Refusal(refused.reason, [])
    except (ValueError, KeyError, TypeError, RecursionError):
        return _Refusal("bad_receipt", [])
    if not is_ours:
        return _Refusal("other_recall", [])
    missing = [ref for ref in wanted if ref not in deleted]
    return _Refusal("incomplete", missing) if missing else None


def _answer(one: Recall, sealed: bytes, refusal: _Refusal | None, drop: Drop, given: Recalling) -> None:
    """Tell the vendor what became of its receipt. Raises LeakFound."""
    report = {
        "schema_version": SCHEMA_VERSION,
        "batch_id": one.batch_id,
        "recall": one.n,
        "file": f"{one.batch_id}.{one.n}.json.pgp",
        "sha256": hashlib.sha256(sealed).hexdigest(),
        "state": "refused" if refusal else "accepted",
        "reason": refusal.reason if refusal else None,
        "fix": RECEIPT_FIXES.get(refusal.reason, FILE_FIX) if refusal else None,
        "missing_clip_refs": refusal.missing if refusal else [],
    }
    content = (json.dumps(report, indent=2) + "\n").encode("utf-8")
    name = f"{one.batch_id}.recall-{one.n}.json"
    given.leaving(content, name, given.night(one.batch_id))
    drop.put_bytes("reports", name, content, replace=True)


def forget(root: Root, ledger: Ledger, refusals: Refusals, now: datetime) -> Outcome:
    """Rewrite our own files without the clips that were recalled, or whose consent is gone before they were sent.

    The old bytes go with the old file. Pseudonymous row keys stay where a rejection keeps its reason. Not while `load`
    runs: the caller holds its lock.
    """
    outcome = Outcome("forget", {"rows": 0}, is_new=False)
    recalled = tombstones(root)
    outcome.count("rows", facts.forget(root, {path.stem: _read_tombstone(path) for path, _, _ in _tombstones(root)}))
    touched = []
    for batch in ledger.batches(states=WITH_VENDOR):
        refs = pa.array(sorted(recalled_refs(root, batch.batch_id)), pa.string())
        if len(refs):
            touched.append(batch.batch_id)
            outcome.count("rows", forget_rows(root.night(batch.night_date), batch.batch_id, refs))
            for path in sorted(root.returns.glob(f"{batch.batch_id}.*.parquet")):
                outcome.count("rows", _rewrite(path, "clip_ref", refs))
    count_returned(root, ledger, touched, now)
    for folder in root.nights():
        outcome.count("rows", _forget_sample(folder, frozenset(recalled["clip_id"].to_pylist()), refusals))
    if outcome.counts["rows"]:
        outcome.is_new = True
        outcome.say(f"recall: {outcome.counts['rows']} rows of ours were forgotten")
    return outcome


def _forget_sample(folder: NightFolder, recalled: frozenset[str], refusals: Refusals) -> int:
    """The night's raw rows, without those that were recalled and those whose consent is gone before they were sent."""
    if not folder.selected.exists():
        return 0
    sample = read_own(folder.selected, f"the sample of night {folder.night}")
    refused = refusals(sample.append_column("clip_ref", sample["clip_key"]))
    # What a batch holds is the business of `withdraw`, `deliver` and the recalls.
    held = {clip_id for path in folder.private.glob("*.crosswalk.parquet") for clip_id in _clip_ids(path)}
    gone = {
        clip_id: clip_key
        for clip_id, clip_key in zip(sample["clip_id"].to_pylist(), sample["clip_key"].to_pylist(), strict=True)
        if refused.get(clip_key) in FORGOTTEN_FOR and clip_id not in held and clip_id not in recalled
    }
    if gone:
        of_these = pc.is_in(sample["clip_id"], pa.array(list(gone), pa.string()))
        verdicts.erase(folder.root, pc.unique(pc.list_flatten(sample.filter(of_these)["person_ids"])).to_pylist())
    _note(folder, {clip_key: refused[clip_key] for clip_key in gone.values()})
    ids = pa.array([*recalled, *gone], pa.string())
    # The sample last: it is what the reasons were found by, should this break off.
    files = (*folder.all_shown(), folder.assigned, folder.validated, folder.selected)
    return sum(_rewrite(path, "clip_id", ids) for path in files)


def _note(folder: NightFolder, reasons: Mapping[str, str]) -> None:
    """Keep the reason of what leaves the sample, unless an earlier gate has kept one."""
    place = folder.left_out("withdrawn")
    kept = [
        folder.rejected,
        *folder.left_out("*").parent.glob("*.parquet"),
        *folder.public.glob("batches/*/withheld.*"),
    ]
    known = {key for path in kept if path.exists() for key in read_own(path, path.name)["clip_key"].to_pylist()}
    new = [{"clip_key": key, "reason": reason} for key, reason in reasons.items() if key not in known]
    if new:
        earlier = read_own(place, place.name).to_pylist() if place.exists() else []
        write_parquet(pa.Table.from_pylist([*earlier, *new], _LEFT_OUT), place)


def _rewrite(path: Path, column: str, gone: pa.Array) -> int:
    """The file without the rows whose `column` is among `gone`; returns how many went."""
    if not path.exists():
        return 0
    rows = read_own(path, path.name)
    kept = rows_except(rows, column, gone)
    if kept.num_rows < rows.num_rows:
        write_parquet(kept, path)
    return int(rows.num_rows - kept.num_rows)


def _clip_ids(path: Path) -> list[str]:
    return list(read_own(path, path.name)["clip_id"].to_pylist())
