"""Stage 7, `recall`: what a withdrawal does to clips that a vendor already has.

The vendor gets a signed notice of the refs to delete and answers with a signed receipt; our own copies of those rows are
rewritten away. What stays is a tombstone: the refs of the recall and the ids that must never be sampled again.
"""

import io
import json
import logging
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from clip_courier.batch_files import read_crosswalk, rows_except
from clip_courier.errors import ReturnRefused
from clip_courier.ledger import WITH_VENDOR, Batch, Ledger
from clip_courier.model import SCHEMA_VERSION, Clock, Outcome, Refusals, Root, stamp, write_parquet
from clip_courier.pgp import Keyring
from clip_courier.settings import Vendor
from clip_courier.sftp import Drop

log = logging.getLogger("clip_courier")

# Of the reasons that keep a clip out, those by which a clip that was heard must be forgotten.
FORGOTTEN_FOR: Final = frozenset({"withdrawn", "not_consented", "restricted", "minor"})
TOMBSTONE: Final = pa.schema([("clip_id", pa.string()), ("clip_ref", pa.string()), ("clip_key", pa.string())])
# What the vendor's contract gives it to delete and answer.
_DELETE_WITHIN: Final = timedelta(days=3)
_MAX_RECEIPT_BYTES: Final = 1024 * 1024


@dataclass(frozen=True)
class Recalling:
    """What `recall` needs for one vendor."""

    root: Root
    ledger: Ledger
    keyring: Keyring
    open_drop: Callable[[], AbstractContextManager[Drop]]
    refusals: Refusals
    clock: Clock


def recall(vendor: Vendor, given: Recalling) -> Outcome:
    """Open recalls for clips whose consent is gone, bring the notices to the vendor, forget our copies, take receipts."""
    outcome = Outcome("recall", {"vendor": vendor.name, "recalled": 0, "receipts": 0}, is_new=False)
    for batch in given.ledger.batches(vendor=vendor.name, states=WITH_VENDOR):
        clips = _open_recall(batch, given)
        if clips:
            outcome.is_new = True
            outcome.counts["recalled"] = int(str(outcome.counts["recalled"])) + clips
            outcome.say(f"recall: {clips} clips of batch {batch.batch_id} are recalled")
    unanswered = [r for r in given.ledger.recalls(vendor.name) if r.state != "RECEIPTED"]
    if unanswered:
        with given.open_drop() as drop:
            for one in unanswered:
                if one.state == "OPEN":
                    _notify(vendor, one.batch_id, one.n, drop, given)
            receipts = _take_receipts(vendor, drop, given)
        outcome.counts["receipts"] = receipts
        outcome.is_new = outcome.is_new or receipts > 0
    if not outcome.is_new:
        outcome.say(f"recall: vendor {vendor.name}: nothing to recall")
    return outcome


def tombstones(root: Root) -> pa.Table:
    """Everything that was ever recalled."""
    return pa.concat_tables(
        [TOMBSTONE.empty_table(), *(pq.read_table(p) for p in sorted(root.recalled.glob("*.parquet")))]
    )


def recalled_refs(root: Root, batch_id: str) -> frozenset[str]:
    found = (pq.read_table(p) for p in root.recalled.glob(f"{batch_id}.*.parquet"))
    return frozenset(ref for table in found for ref in table["clip_ref"].to_pylist())


def _open_recall(batch: Batch, given: Recalling) -> int:
    private = read_crosswalk(given.root.night(batch.night_date), batch.batch_id)
    known = pa.array(sorted(recalled_refs(given.root, batch.batch_id)), pa.string())
    private = rows_except(private, "clip_ref", known)
    gone = [ref for ref, reason in given.refusals(private).items() if reason in FORGOTTEN_FOR]
    if not gone:
        return 0
    rest = rows_except(private, "clip_ref", pa.array(gone, pa.string()))["clip_ref"]
    forgotten = rows_except(private, "clip_ref", rest).select(TOMBSTONE.names).cast(TOMBSTONE)
    numbers = [r.n for r in given.ledger.recalls() if r.batch_id == batch.batch_id]
    # A run that broke off between the ledger and the tombstone left a number to use up.
    unused = [n for n in numbers if not given.root.tombstone(batch.batch_id, n).exists()]
    now = given.clock()
    n = unused[0] if unused else given.ledger.add_recall(batch.batch_id, batch.vendor, forgotten.num_rows, now)
    write_parquet(forgotten, given.root.tombstone(batch.batch_id, n))
    return int(forgotten.num_rows)


def _notify(vendor: Vendor, batch_id: str, n: int, drop: Drop, given: Recalling) -> None:
    path = given.root.tombstone(batch_id, n)
    if not path.exists():
        return
    now = given.clock()
    notice = {
        "schema_version": SCHEMA_VERSION,
        "batch_id": batch_id,
        "n": n,
        "clip_refs": sorted(pq.read_table(path)["clip_ref"].to_pylist()),
        "delete_by": stamp(now + _DELETE_WITHIN),
        "receipt": f"receipts/{batch_id}.{n}.json.pgp",
    }
    sealed = given.keyring.seal_bytes(
        json.dumps(notice, indent=2).encode(), recipient=vendor.recipient_fingerprint, at=now
    )
    drop.put_bytes("recalls", f"{batch_id}.{n}.json.pgp", sealed, replace=True)
    given.ledger.move_recall(batch_id, n, "NOTICED", now)


def _take_receipts(vendor: Vendor, drop: Drop, given: Recalling) -> int:
    there = {file.name for file in drop.list("receipts")}
    taken = 0
    for one in given.ledger.recalls(vendor.name):
        name = f"{one.batch_id}.{one.n}.json.pgp"
        if one.state != "NOTICED" or name not in there:
            continue
        sink = io.BytesIO()
        drop.get("receipts", name, sink, max_bytes=_MAX_RECEIPT_BYTES)
        if _confirms(sink.getvalue(), vendor, one.batch_id, one.n, given):
            given.ledger.move_recall(one.batch_id, one.n, "RECEIPTED", given.clock())
            taken += 1
        else:
            log.warning(
                "receipt %s of %s is not accepted: unsigned, or not for all clips of the recall", name, vendor.name
            )
    return taken


def _confirms(sealed: bytes, vendor: Vendor, batch_id: str, n: int, given: Recalling) -> bool:
    """Whether the vendor signed that every clip of the recall is deleted."""
    signers = {vendor.signer_fingerprint}
    try:
        receipt = json.loads(given.keyring.open_bytes(sealed, signers=signers, max_bytes=_MAX_RECEIPT_BYTES))
        deleted = set(receipt["clip_refs"])
        is_ours = receipt["batch_id"] == batch_id and receipt["n"] == n
    except (ReturnRefused, ValueError, KeyError, TypeError):
        return False
    return is_ours and set(pq.read_table(given.root.tombstone(batch_id, n))["clip_ref"].to_pylist()) <= deleted


def forget(root: Root, refusals: Refusals) -> Outcome:
    """Rewrite our own files without the clips that were recalled, or whose consent is gone before they were sent.

    The old bytes go with the old file.
    """
    gone = pa.concat_tables(
        [tombstones(root).select(["clip_id", "clip_ref"]), _withdrawn_before_sending(root, refusals)]
    )
    outcome = Outcome("forget", {"rows": 0}, is_new=False)
    for path in private_files(root) if gone.num_rows else ():
        table = pq.read_table(path)
        column = "clip_id" if "clip_id" in table.column_names else "clip_ref"
        kept = rows_except(table, column, gone[column].drop_null())
        if kept.num_rows < table.num_rows:
            write_parquet(kept, path)
            outcome.is_new = True
            outcome.counts["rows"] = int(str(outcome.counts["rows"])) + table.num_rows - kept.num_rows
    if outcome.is_new:
        outcome.say(f"recall: {outcome.counts['rows']} rows of ours were forgotten")
    return outcome


def _withdrawn_before_sending(root: Root, refusals: Refusals) -> pa.Table:
    """Clips of the nights' samples whose consent is gone; those that a vendor has are the business of a recall."""
    samples = [pq.read_table(folder.selected) for folder in root.nights() if folder.selected.exists()]
    if not samples:
        return TOMBSTONE.empty_table().select(["clip_id", "clip_ref"])
    sample = pa.concat_tables(samples, promote_options="permissive")
    asked = sample.append_column("clip_ref", sample["clip_key"])
    refused = [key for key, reason in refusals(asked).items() if reason in FORGOTTEN_FOR]
    held = {clip_id for path in root.crosswalk.rglob("*.crosswalk.parquet") for clip_id in _clip_ids(path)}
    gone = sample.filter(pc.is_in(sample["clip_key"], pa.array(refused, pa.string())))
    ids = [clip_id for clip_id in gone["clip_id"].to_pylist() if clip_id not in held]
    return pa.table({"clip_id": pa.array(ids, pa.string()), "clip_ref": pa.nulls(len(ids), pa.string())})


def _clip_ids(path: Path) -> list[str]:
    return list(pq.read_table(path, columns=["clip_id"])["clip_id"].to_pylist())


def private_files(root: Root) -> Iterable[Path]:
    """The Parquet files that hold rows of clips, but for the tombstones."""
    yield from sorted(p for p in root.crosswalk.rglob("*.parquet") if p.parent != root.recalled)
