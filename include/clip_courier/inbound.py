"""Stage 5, `collect`: what a vendor sends back, believed only after its signature, its form and its refs are checked.

A file counts once its ready file stands beside it. Rows are judged one by one against the crosswalk of that vendor's
batch; a file is refused whole only when it cannot be opened or trusted. Either way the vendor gets a report.
"""

import io
import json
import logging
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from clip_courier.batch_files import overdue, read_crosswalk, read_own
from clip_courier.confined import read_confined
from clip_courier.errors import CourierError, ReturnRefused, ReturnUnreadable, ReturnUntrusted, TransferFailed
from clip_courier.ledger import (
    ACCEPTED,
    REFUSED,
    RELEASED,
    SEALED,
    WITH_VENDOR,
    Batch,
    Ledger,
    Return,
    RowCounts,
    Sizes,
)
from clip_courier.model import (
    BATCH_ID,
    SCHEMA_VERSION,
    STATUSES,
    NightFolder,
    Outcome,
    Progress,
    Root,
    stamp,
    write_parquet,
)
from clip_courier.pgp import Keyring
from clip_courier.returned_files import FORMATS, TOOL_FORMATS
from clip_courier.returned_rows import MAX_CHARACTERS, MAX_ROW_BYTES
from clip_courier.settings import Vendor
from clip_courier.sftp import Drop, RemoteFile
from clip_courier.tables import Tables

log = logging.getLogger("clip_courier")

# Code of a refused row → what the vendor should do about it.
ROW_CODES: Final = {
    "unreadable_row": "send the row again in the file's format",
    "not_utf8": "the row holds bytes that are not UTF-8; save the file as UTF-8",
    "row_too_long": f"a row must be shorter than {MAX_ROW_BYTES >> 20} MiB",
    "bad_clip_ref": f"clip_ref must be text of at most {MAX_CHARACTERS['clip_ref']} characters",
    "unknown_ref": "the clip_ref is not in this batch",
    "other_batch": "the clip_ref is of another of your batches; return it under the name of that batch",
    "bad_status": f"status must be one of {', '.join(STATUSES)}",
    "bad_text": "text must be text of at most 20,000 characters",
    "missing_text": "a transcribed clip needs its text",
    "bad_annotator_ref": f"annotator_ref must be text of at most {MAX_CHARACTERS['annotator_ref']} characters",
    "missing_annotator": "annotator_ref is required",
    "bad_submitted_at": "submitted_at must be RFC 3339 with an offset",
    "bad_chosen_rank": "chosen_rank must be the rank of one of the clip's hypotheses, or be left out",
    "bad_revision": "revision must be a whole number from 0",
    "bad_note": "note must be text of at most 20,000 characters",
    "duplicate": "this revision of the clip was taken before; raise the revision to replace it",
    "recalled": "the clip was recalled and must be deleted",
}
# Why a file was refused whole → what the vendor should do about it.
FILE_FIXES: Final = {
    "not_your_batch": "name the file after a batch that was delivered to you",
    "hash_mismatch": "write the ready file again, with the size and SHA-256 of the file as it lies there",
    "too_large": "split the rows over several files, each with the next number",
    "too_many_rows": "split the rows over several files, each with the next number",
    "bad_format": "send a whole file of the format that its name says, with the contract's columns",
    "unsigned": "sign the file with your pinned key",
    "wrong_signer": "sign the file with your pinned key and no other",
    "bad_signature": "sign the file once, with SHA-256 or better, and do not change it afterwards",
    "expired_signer": "send us your new public key, and sign with it once we have confirmed it",
    "revoked_signer": "send us your new public key, and sign with it once we have confirmed it",
    "not_encrypted": "encrypt the file to our key",
    "not_for_us": "encrypt the file to our key",
    "damaged": "send the file again, whole and integrity protected",
    "not_openpgp": "send an OpenPGP message: signed by your pinned key, encrypted to ours",
}
REJECTED_ROWS: Final = pa.schema(
    [("row_number", pa.int64()), ("clip_ref", pa.string()), ("clip_key", pa.string()), ("code", pa.string())]
)
# A return is text; what is larger than this is something else.
MAX_SEALED_BYTES: Final = 64 * 1024 * 1024
MAX_OPENED_BYTES: Final = 256 * 1024 * 1024
_MAX_READY_BYTES: Final = 64 * 1024
# A report lists so many refused rows; all are counted by code.
_MAX_LISTED: Final = 10_000
_FORMAT = "|".join(map(re.escape, (*FORMATS, *TOOL_FORMATS)))
_NAME = re.compile(
    rf"^(?P<batch_id>{BATCH_ID.pattern.strip('^$')})\.(?P<n>[1-9]\d{{0,5}})\.(?P<format>{_FORMAT})\.pgp$"
)
_SHA256 = re.compile(r"^[0-9a-f]{64}$")


@dataclass(frozen=True)
class Collection:
    """What `collect` needs for one vendor."""

    root: Root
    ledger: Ledger
    keyring: Keyring
    # Batch → its recalled refs, each with the number of its recall.
    recalled: Callable[[str], Mapping[str, int]]
    # Looks through content that is about to leave under a name, about a night; raises LeakFound.
    leaving: Callable[[bytes, str, NightFolder], None]
    progress: Progress


@dataclass(frozen=True)
class _Ready:
    """A returned file with what its ready file says of it."""

    file: RemoteFile
    announced_by: RemoteFile
    batch_id: str
    n: int
    file_format: str
    size_bytes: int
    sha256: str


def collect(vendor: Vendor, now: datetime, drop: Drop, given: Collection) -> Outcome:
    """Take every complete return of the vendor that was not taken before.

    A file that cannot be taken now is a failure of the outcome, and stays for the next run; the others are taken.
    Not for two processes at once: the caller holds the vendor's lock.
    """
    outcome = Outcome(
        "collect", {"vendor": vendor.name, "files": 0, "accepted": 0, "rejected": 0, "refused_files": 0}, is_new=False
    )
    complete = _not_taken(_complete(vendor, drop, given.ledger, outcome), given.ledger.returns(vendor.name), outcome)
    for place, ready in enumerate(complete, start=1):
        try:
            result, rows = _take(vendor, ready, now, drop, given)
        except CourierError as failed:
            log.error("return %s of %s: %s: %s", ready.file.name, vendor.name, type(failed).__name__, failed)
            outcome.failures.append(failed)
            continue
        outcome.is_new = True
        outcome.count("files")
        outcome.count("accepted", result.accepted_rows)
        outcome.count("rejected", result.rejected_rows)
        outcome.count("refused_files", int(result.state == REFUSED))
        for name in ("sensitive", "distress", "breach") if rows else ():
            if found := getattr(rows, f"{name}_rows"):
                outcome.count(name, found)
                outcome.say(f"collect: {ready.file.name}: ALERT: {found} {name} rows")
        told = f"refused whole: {result.reason}" if result.reason else f"{result.accepted_rows} rows accepted"
        outcome.say(f"collect: {ready.file.name}: {told}, {result.rejected_rows} rejected")
        given.progress(f"collecting from {vendor.name}", place, len(complete))
    if not outcome.is_new:
        outcome.say(f"collect: vendor {vendor.name}: no new return")
    for batch, owed in overdue(given.root, given.ledger, now, vendor.name):
        outcome.count("overdue")
        told = f"batch {batch.batch_id} of vendor {vendor.name} was due at {batch.due_at}: {owed} clips are owed"
        log.warning("%s", told)
        outcome.say(f"collect: {told}")
    return outcome


def _not_taken(complete: list[_Ready], taken: list[Return], outcome: Outcome) -> list[_Ready]:
    """What is new, and what was refused and has been replaced since. What was accepted is not taken a second time."""
    known = {(r.batch_id, r.n): r for r in taken}
    new = []
    for ready in complete:
        before = known.get((ready.batch_id, ready.n))
        if before is None or (before.state == REFUSED and before.sha256 != ready.sha256):
            new.append(ready)
        elif before.sha256 != ready.sha256:
            outcome.say(
                f"collect: {ready.file.name} was changed after it was taken; a correction needs the next number"
            )
    return new


def _complete(vendor: Vendor, drop: Drop, ledger: Ledger, outcome: Outcome) -> list[_Ready]:
    """The returns that count, in the order of their numbers: well named, announced, and as long as announced.

    What was accepted, and lies there as long as it was then, is left out without a look at its ready file.
    """
    files = {file.name: file for file in drop.list("returns")}
    matches = [match for match in map(_NAME.match, sorted(files)) if match]
    announced = Counter(_ready_name(match) for match in matches)
    # The vendor may see its drop a moment before we have it on record: between the ready file and the ledger.
    early = {b.batch_id for b in ledger.batches(vendor=vendor.name, states=[SEALED, RELEASED])}
    known = {(one.batch_id, one.n): (one.size_bytes, one.ready_size_bytes) for one in ledger.sizes(vendor.name)}
    found, waiting = [], 0
    for match in matches:
        file, ready = files[match[0]], files.get(_ready_name(match))
        is_alone = announced[_ready_name(match)] == 1
        if ready and is_alone and known.get(_key(match)) == (file.size_bytes, ready.size_bytes):
            continue
        facts = None
        # Two files under one number are announced by one ready file: nobody knows which is meant.
        if ready and is_alone and match["batch_id"] not in early:
            facts = _announcement(drop, ready, outcome)
        if ready is None or facts is None or facts[0] != file.size_bytes:
            waiting += 1
            continue
        found.append(_Ready(file, ready, *_key(match), match["format"], *facts))
    if waiting:
        outcome.counts["unfinished"] = waiting
        outcome.say(f"collect: {waiting} files are not (rightly) announced by their ready file yet")
    others = len(files) - len(matches) - sum(name in files for name in announced)
    if others:
        outcome.counts["other_files"] = others
        outcome.say(f"collect: {others} files have names that no return has; they are left alone")
    return sorted(found, key=lambda ready: (ready.batch_id, ready.n))


def _key(match: re.Match[str]) -> tuple[str, int]:
    return match["batch_id"], int(match["n"])


def _ready_name(match: re.Match[str]) -> str:
    return f"{match['batch_id']}.{match['n']}.ready.json"


def _announcement(drop: Drop, file: RemoteFile, outcome: Outcome) -> tuple[int, str] | None:
    """What a ready file says: size in bytes and SHA-256 in hex; None when that is not what it says."""
    if file.size_bytes > _MAX_READY_BYTES:
        return None
    sink = io.BytesIO()
    try:
        drop.get("returns", file.name, sink, max_bytes=_MAX_READY_BYTES)
        ready = json.loads(sink.getvalue())
        size, digest = ready["size_bytes"], str(ready["sha256"]).lower()
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    except TransferFailed as failed:
        outcome.failures.append(failed)
        return None
    return (size, digest) if isinstance(size, int) and _SHA256.match(digest) else None


def _take(
    vendor: Vendor, ready: _Ready, now: datetime, drop: Drop, given: Collection
) -> tuple[Return, RowCounts | None]:
    """One file: its rows on the private side, its rejections, the report, and last the ledger."""
    try:
        batch = _batch_of(vendor, ready, given.ledger)
        rows = _rows(vendor, ready, now, drop, given.keyring)
        judged = _judge(rows, batch, given)
    except ReturnRefused as refused:
        log.warning("return %s of %s refused whole: %s", ready.file.name, vendor.name, refused.reason)
        result = Return(ready.batch_id, ready.n, vendor.name, ready.sha256, REFUSED, refused.reason, 0, 0, stamp(now))
        _report(drop, ready, result, REJECTED_ROWS.empty_table(), given)
        given.ledger.add_return(result, now)
        return result, None
    is_good = pc.is_null(judged["code"])
    good, bad = judged.filter(is_good), judged.filter(pc.invert(is_good))
    rejected = bad.select(REJECTED_ROWS.names).cast(REJECTED_ROWS)
    write_parquet(_numbered(good.drop_columns(["code"]), ready), given.root.returned(ready.batch_id, ready.n))
    write_parquet(_numbered(rejected, ready), given.root.returned_rejections(ready.batch_id, ready.n))
    result = Return(
        ready.batch_id, ready.n, vendor.name, ready.sha256, ACCEPTED, None, good.num_rows, bad.num_rows, stamp(now)
    )
    counts = RowCounts(
        vendor.name,
        ready.batch_id,
        ready.n,
        received_rows=judged.num_rows,
        rejected_rows=bad.num_rows,
        sensitive_rows=_how_many(good["status"], ["sensitive"]),
        distress_rows=_how_many(good["status"], ["distress"]),
        breach_rows=_how_many(bad.filter(pc.equal(bad["code"], "recalled"))["clip_ref"], _told_to_delete(batch, given)),
    )
    _report(drop, ready, result, rejected, given)
    sizes = Sizes(
        vendor.name,
        ready.batch_id,
        ready.n,
        size_bytes=ready.size_bytes,
        ready_size_bytes=ready.announced_by.size_bytes,
    )
    given.ledger.add_return(result, now, counts, sizes)
    _alert(ready, vendor, counts)
    return result, counts


def _how_many(values: pa.ChunkedArray, wanted: list[str]) -> int:
    return int(pc.sum(pc.is_in(values, pa.array(wanted, pa.string()))).as_py() or 0)


def _told_to_delete(batch: Batch, given: Collection) -> list[str]:
    """Refs whose notice of recall lies with the vendor, or was answered by it."""
    told = {r.n for r in given.ledger.recalls(batch.vendor) if r.batch_id == batch.batch_id and r.state != "OPEN"}
    return [ref for ref, n in given.recalled(batch.batch_id).items() if n in told]


def _alert(ready: _Ready, vendor: Vendor, counts: RowCounts) -> None:
    """What somebody must look at today."""
    where = f"return {ready.file.name} of {vendor.name}"
    if counts.distress_rows:
        log.error("%s: %d rows say that a person is in distress; see to it now", where, counts.distress_rows)
    if counts.sensitive_rows:
        log.warning("%s: %d rows are marked sensitive; analysts do not see them", where, counts.sensitive_rows)
    if counts.breach_rows:
        log.error("%s: %d rows are of clips that it was told to delete: a breach", where, counts.breach_rows)


def _numbered(rows: pa.Table, ready: _Ready) -> pa.Table:
    rows = rows.append_column("batch_id", pa.array([ready.batch_id] * rows.num_rows, pa.string()))
    return rows.append_column("n", pa.array([ready.n] * rows.num_rows, pa.int64()))


def _batch_of(vendor: Vendor, ready: _Ready, ledger: Ledger) -> Batch:
    batch = ledger.batch(ready.batch_id)
    if batch is None or batch.vendor != vendor.name or batch.state not in WITH_VENDOR:
        raise ReturnUntrusted("not_your_batch", "the file is for a batch that this vendor does not have")
    return batch


def _rows(vendor: Vendor, ready: _Ready, now: datetime, drop: Drop, keyring: Keyring) -> pa.Table:
    if ready.size_bytes > MAX_SEALED_BYTES:
        raise ReturnUnreadable("too_large", "the file is larger than a return can be")
    sealed = io.BytesIO()
    _, digest = drop.get("returns", ready.file.name, sealed, max_bytes=MAX_SEALED_BYTES)
    if digest != ready.sha256:
        raise ReturnUntrusted("hash_mismatch", "the file is not the one that its ready file announces")
    signers = {vendor.signer_fingerprint}
    opened = keyring.open_bytes(sealed.getvalue(), signers=signers, max_bytes=MAX_OPENED_BYTES)
    return read_confined(opened, ready.file_format, now)


def _judge(rows: pa.Table, batch: Batch, given: Collection) -> pa.Table:
    """Each row with its code, or null when it is good."""
    crosswalk = read_crosswalk(given.root.night(batch.night_date), batch.batch_id)
    # What a run that broke off wrote is not on record, and will be judged again.
    taken = [r for r in given.ledger.returns(batch.vendor) if r.batch_id == batch.batch_id and r.state == ACCEPTED]
    files = [read_own(given.root.returned(r.batch_id, r.n), f"return {r.n} of batch {r.batch_id}") for r in taken]
    earlier = [file.select(["clip_ref", "revision"]) for file in files]
    none = pa.table({"clip_ref": pa.array([], pa.string()), "revision": pa.array([], pa.int64())})
    with Tables() as tables:
        tables.register("returned", rows)
        tables.register("batch", crosswalk.select(["clip_ref", "clip_key", "shown_hypotheses"]))
        tables.register("earlier", pa.concat_tables([none, *earlier]))
        tables.register("known_status", pa.table({"status": list(STATUSES)}))
        tables.register("others", _refs_of_others(rows, crosswalk, batch, given))
        recalled = pa.array(sorted(given.recalled(batch.batch_id)), pa.string())
        tables.register("recalled", pa.table({"clip_ref": recalled}))
        return tables.run("matched")


def _refs_of_others(rows: pa.Table, crosswalk: pa.Table, batch: Batch, given: Collection) -> pa.Table:
    """Refs of the vendor's other batches, looked up only when a row names one that is not of this batch."""
    refs = [pa.table({"clip_ref": pa.array([], pa.string())})]
    if pc.any(pc.invert(pc.is_in(rows["clip_ref"], crosswalk["clip_ref"].combine_chunks()))).as_py():
        others = given.ledger.batches(vendor=batch.vendor, states=WITH_VENDOR)
        refs += [
            read_crosswalk(given.root.night(other.night_date), other.batch_id).select(["clip_ref"])
            for other in others
            if other.batch_id != batch.batch_id
        ]
    return pa.concat_tables(refs)


def _report(drop: Drop, ready: _Ready, result: Return, rejected: pa.Table, given: Collection) -> None:
    """Tell the vendor what was taken and what was not, by row number and ref, never by what a row said.

    Raises:
        LeakFound: it would tell the vendor what identifies, such as an id that a row names in the place of a ref.
    """
    listed = rejected.slice(0, _MAX_LISTED).drop_columns(["clip_key"]).to_pylist()
    by_code = rejected.group_by("code").aggregate([([], "count_all")]).sort_by("code").to_pylist()
    report = {
        "schema_version": SCHEMA_VERSION,
        "batch_id": ready.batch_id,
        "n": ready.n,
        "file": ready.file.name,
        "sha256": ready.sha256,
        "state": result.state.lower(),
        "reason": result.reason,
        "fix": FILE_FIXES[result.reason] if result.reason else None,
        "received_rows": result.accepted_rows + result.rejected_rows,
        "accepted_rows": result.accepted_rows,
        "rejected_rows": result.rejected_rows,
        "rejected_by_code": {row["code"]: row["count_all"] for row in by_code},
        "not_listed_rows": rejected.num_rows - len(listed),
        "rejected": [{**row, "fix": ROW_CODES[str(row["code"])]} for row in listed],
    }
    content = (json.dumps(report, indent=2) + "\n").encode("utf-8")
    name = f"{ready.batch_id}.{ready.n}.json"
    # Of a batch that we never made it holds nothing but what the vendor called its file.
    if batch := given.ledger.batch(ready.batch_id):
        given.leaving(content, name, given.root.night(batch.night_date))
    drop.put_bytes("reports", name, content, replace=True)
