"""Stage 5, `collect`: what a vendor sends back, believed only after its signature, its form and its refs are checked.

A file counts once its ready file stands beside it. Rows are judged one by one against the crosswalk of that vendor's
batch; a file is refused whole only when it cannot be opened or trusted. Either way the vendor gets a report.
"""

import io
import json
import logging
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from clip_courier.batch_files import read_crosswalk
from clip_courier.errors import ReturnRefused, ReturnUnreadable, ReturnUntrusted
from clip_courier.ledger import ACCEPTED, REFUSED, WITH_VENDOR, Batch, Ledger, Return
from clip_courier.model import BATCH_ID, SCHEMA_VERSION, STATUSES, Outcome, Progress, Root, stamp, write_parquet
from clip_courier.pgp import Keyring
from clip_courier.returned_files import FORMATS, read_returned
from clip_courier.settings import Vendor
from clip_courier.sftp import Drop, RemoteFile
from clip_courier.tables import Tables

log = logging.getLogger("clip_courier")

# Code of a refused row → what the vendor should do about it.
ROW_CODES: Final = {
    "unreadable_row": "send the row again in the file's format",
    "bad_clip_ref": "clip_ref must be text",
    "unknown_ref": "the clip_ref is not in this batch",
    "bad_status": f"status must be one of {', '.join(STATUSES)}",
    "bad_text": "text must be text of at most 20,000 characters",
    "missing_text": "a transcribed clip needs its text",
    "bad_annotator_ref": "annotator_ref must be text",
    "missing_annotator": "annotator_ref is required",
    "bad_submitted_at": "submitted_at must be RFC 3339 with an offset",
    "bad_chosen_rank": "chosen_rank must be a whole number from 1",
    "bad_revision": "revision must be a whole number from 0",
    "bad_note": "note must be text of at most 20,000 characters",
    "duplicate": "this revision of the clip was taken before; raise the revision to replace it",
    "recalled": "the clip was recalled and must be deleted",
}
REJECTED_ROWS: Final = pa.schema(
    [("row_number", pa.int64()), ("clip_ref", pa.string()), ("clip_key", pa.string()), ("code", pa.string())]
)
# A return is text; what is larger than this is something else.
MAX_SEALED_BYTES: Final = 64 * 1024 * 1024
MAX_OPENED_BYTES: Final = 512 * 1024 * 1024
_MAX_READY_BYTES: Final = 64 * 1024
_NAME = re.compile(rf"^(?P<batch_id>[a-z0-9_-]+)\.(?P<n>[1-9]\d{{0,5}})\.(?P<format>{'|'.join(FORMATS)})\.pgp$")
_SHA256 = re.compile(r"^[0-9a-f]{64}$")


@dataclass(frozen=True)
class Collection:
    """What `collect` needs for one vendor."""

    root: Root
    ledger: Ledger
    keyring: Keyring
    recalled_refs: Callable[[str], frozenset[str]]
    progress: Progress


@dataclass(frozen=True)
class _Ready:
    """A returned file with what its ready file says of it."""

    file: RemoteFile
    batch_id: str
    n: int
    file_format: str
    size_bytes: int
    sha256: str


def collect(vendor: Vendor, now: datetime, drop: Drop, given: Collection) -> Outcome:
    """Take every complete return of the vendor that was not taken before."""
    outcome = Outcome(
        "collect", {"vendor": vendor.name, "files": 0, "accepted": 0, "rejected": 0, "refused_files": 0}, is_new=False
    )
    complete = _not_taken(_complete(drop, outcome), given.ledger.returns(vendor.name), outcome)
    for place, ready in enumerate(complete, start=1):
        result = _take(vendor, ready, now, drop, given)
        outcome.is_new = True
        for name, value in (
            ("files", 1),
            ("accepted", result.accepted_rows),
            ("rejected", result.rejected_rows),
            ("refused_files", int(result.state == REFUSED)),
        ):
            outcome.counts[name] = int(str(outcome.counts[name])) + value
        told = f"refused whole: {result.reason}" if result.reason else f"{result.accepted_rows} rows accepted"
        outcome.say(f"collect: {ready.file.name}: {told}, {result.rejected_rows} rejected")
        given.progress(f"collecting from {vendor.name}", place, len(complete))
    if not outcome.is_new:
        outcome.say(f"collect: vendor {vendor.name}: no new return")
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


def _complete(drop: Drop, outcome: Outcome) -> list[_Ready]:
    """The returns that count: well named, announced, and as long as announced."""
    files = {file.name: file for file in drop.list("returns")}
    found, waiting = [], 0
    for name, file in sorted(files.items()):
        match = _NAME.match(name)
        if not match:
            continue
        announced = f"{match['batch_id']}.{match['n']}.ready.json"
        ready = _announcement(drop, announced) if announced in files else None
        if ready is None or ready[0] != file.size_bytes:
            waiting += 1
            continue
        found.append(_Ready(file, match["batch_id"], int(match["n"]), match["format"], *ready))
    if waiting:
        outcome.counts["unfinished"] = waiting
        outcome.say(f"collect: {waiting} files are not (rightly) announced by their ready file yet")
    return found


def _announcement(drop: Drop, name: str) -> tuple[int, str] | None:
    sink = io.BytesIO()
    drop.get("returns", name, sink, max_bytes=_MAX_READY_BYTES)
    try:
        ready = json.loads(sink.getvalue())
        size, digest = ready["size_bytes"], str(ready["sha256"]).lower()
    except (ValueError, KeyError, TypeError):
        return None
    return (size, digest) if isinstance(size, int) and _SHA256.match(digest) else None


def _take(vendor: Vendor, ready: _Ready, now: datetime, drop: Drop, given: Collection) -> Return:
    """One file: its rows on the private side, its rejections, the report, and last the ledger."""
    try:
        batch = _batch_of(vendor, ready, given.ledger)
        rows = _rows(vendor, ready, drop, given.keyring)
        judged = _judge(rows, batch, ready.n, given)
    except ReturnRefused as refused:
        log.warning("return %s of %s refused whole: %s", ready.file.name, vendor.name, refused.reason)
        result = Return(ready.batch_id, ready.n, vendor.name, ready.sha256, REFUSED, refused.reason, 0, 0, stamp(now))
        _report(drop, ready, result, [])
        given.ledger.add_return(result, now)
        return result
    is_good = pc.is_null(judged["code"])
    good, bad = judged.filter(is_good), judged.filter(pc.invert(is_good))
    rejected = bad.select(REJECTED_ROWS.names).cast(REJECTED_ROWS)
    write_parquet(_numbered(good.drop_columns(["code"]), ready), given.root.returned(ready.batch_id, ready.n))
    write_parquet(_numbered(rejected, ready), given.root.returned_rejections(ready.batch_id, ready.n))
    result = Return(
        ready.batch_id, ready.n, vendor.name, ready.sha256, ACCEPTED, None, good.num_rows, bad.num_rows, stamp(now)
    )
    _report(drop, ready, result, rejected.drop_columns(["clip_key"]).to_pylist())
    given.ledger.add_return(result, now)
    return result


def _numbered(rows: pa.Table, ready: _Ready) -> pa.Table:
    rows = rows.append_column("batch_id", pa.array([ready.batch_id] * rows.num_rows, pa.string()))
    return rows.append_column("n", pa.array([ready.n] * rows.num_rows, pa.int64()))


def _batch_of(vendor: Vendor, ready: _Ready, ledger: Ledger) -> Batch:
    batch = ledger.batch(ready.batch_id) if BATCH_ID.match(ready.batch_id) else None
    if batch is None or batch.vendor != vendor.name or batch.state not in WITH_VENDOR:
        raise ReturnUntrusted("not_your_batch", "the file is for a batch that this vendor does not have")
    return batch


def _rows(vendor: Vendor, ready: _Ready, drop: Drop, keyring: Keyring) -> pa.Table:
    if ready.size_bytes > MAX_SEALED_BYTES:
        raise ReturnUnreadable("too_large", "the file is larger than a return can be")
    with tempfile.TemporaryDirectory(prefix="return-") as folder:
        sealed, opened = Path(folder, "sealed"), Path(folder, "opened")
        with sealed.open("wb") as sink:
            _, digest = drop.get("returns", ready.file.name, sink, max_bytes=MAX_SEALED_BYTES)
        if digest != ready.sha256:
            raise ReturnUntrusted("hash_mismatch", "the file is not the one that its ready file announces")
        keyring.open(sealed, opened, signers={vendor.signer_fingerprint}, max_bytes=MAX_OPENED_BYTES)
        return read_returned(opened, ready.file_format)


def _judge(rows: pa.Table, batch: Batch, n: int, given: Collection) -> pa.Table:
    """Each row with its code, or null when it is good."""
    crosswalk = read_crosswalk(given.root.night(batch.night_date), batch.batch_id)
    # The pyarrow reader would take one file of another schema for all of them.
    earlier = [
        pq.read_table(path, columns=["clip_ref", "revision"])
        for path in sorted(given.root.returns.glob(f"{batch.batch_id}.*.parquet"))
        if path != given.root.returned(batch.batch_id, n)
    ]
    none = pa.table({"clip_ref": pa.array([], pa.string()), "revision": pa.array([], pa.int64())})
    with Tables() as tables:
        tables.register("returned", rows)
        tables.register("batch", crosswalk.select(["clip_ref", "clip_key"]))
        tables.register("earlier", pa.concat_tables([none, *earlier]))
        tables.register("known_status", pa.table({"status": list(STATUSES)}))
        recalled = pa.array(sorted(given.recalled_refs(batch.batch_id)), pa.string())
        tables.register("recalled", pa.table({"clip_ref": recalled}))
        return tables.run("matched")


def _report(drop: Drop, ready: _Ready, result: Return, rejected: list[dict[str, object]]) -> None:
    """Tell the vendor what was taken and what was not, by row number and ref, never by what a row said."""
    report = {
        "schema_version": SCHEMA_VERSION,
        "batch_id": ready.batch_id,
        "n": ready.n,
        "file": ready.file.name,
        "sha256": ready.sha256,
        "state": result.state.lower(),
        "reason": result.reason,
        "accepted_rows": result.accepted_rows,
        "rejected_rows": result.rejected_rows,
        "rejected": [{**row, "fix": ROW_CODES[str(row["code"])]} for row in rejected],
    }
    content = (json.dumps(report, indent=2) + "\n").encode("utf-8")
    drop.put_bytes("reports", f"{ready.batch_id}.{ready.n}.json", content, replace=True)
