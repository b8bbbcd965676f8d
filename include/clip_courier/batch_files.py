"""The files of one batch: its manifest, which may leave, and its crosswalk, which may not."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from clip_courier.errors import CrosswalkMissing
from clip_courier.ledger import ACCEPTED, LOADED, WITH_VENDOR, Batch, Ledger, RowCounts, parse_stamp
from clip_courier.model import MANIFEST, Manifest, NightFolder, Root, write_parquet
from clip_courier.tables import Tables

# What the gate reads of the crosswalk's rows.
_LEAVES = [
    *("clip_ref", "speaker_refs", "shown_locale", "shown_product", "shown_week", "shown_duration_ms"),
    *("shown_sample_rate_hz", "shown_channels", "flac_sha256", "shown_hypotheses"),
]
_INSTANT = pa.timestamp("us", tz="UTC")
WITHHELD = pa.schema([("clip_key", pa.string()), ("reason", pa.string())])


def read_crosswalk(
    folder: NightFolder, batch_id: str, columns: list[str] | None = None, since: datetime | None = None
) -> pa.Table:
    """What joins the refs of a batch to clips and persons; only some columns, only recordings from `since` on.

    Raises:
        CrosswalkMissing: without it nothing can be matched or recalled.
    """
    what = f"the crosswalk of batch {batch_id}"
    if since is None or columns is None:
        return read_own(folder.crosswalk(batch_id), what, columns)
    rows = read_own(folder.crosswalk(batch_id), what, [*columns, *{"recorded_at"}.difference(columns)])
    return rows.filter(pc.greater_equal(rows["recorded_at"], pa.scalar(since, _INSTANT))).select(columns)


def current(folder: NightFolder, batch_id: str) -> tuple[pa.Table, pa.Table]:
    """Of a batch that has not left: its manifest's rows and its crosswalk's, both in the order of the refs.

    Raises:
        CrosswalkMissing: a row could not be asked about, sealed with its sound, or recalled.
    """
    manifest = read_own(folder.manifest(batch_id), f"the manifest of batch {batch_id}")
    rows = _by_ref(manifest.cast(MANIFEST).replace_schema_metadata(None))
    everything = read_crosswalk(folder, batch_id)
    private = _by_ref(everything.filter(pc.is_in(everything["clip_ref"], rows["clip_ref"])))
    if not private["clip_ref"].equals(rows["clip_ref"]):
        raise CrosswalkMissing(f"batch {batch_id}: {rows.num_rows} clips, of which {private.num_rows} can be named")
    if everything.num_rows > private.num_rows:
        # A `withhold` broke off before its last file: what never leaves must not look as if it had.
        write_parquet(private, folder.crosswalk(batch_id))
    return rows, private


def manifest_of(batch_id: str, vendor: str, folder: NightFolder, private: pa.Table) -> Manifest:
    """The manifest of the crosswalk's rows of one batch: nothing passes but what the contract names."""
    with Tables() as tables:
        tables.register("batch", private.select(_LEAVES))
        rows = tables.run("manifest").cast(MANIFEST)
    return Manifest(batch_id, vendor, folder.night, rows.replace_schema_metadata(None))


def _by_ref(rows: pa.Table) -> pa.Table:
    return rows.take(pc.sort_indices(rows["clip_ref"]))


def read_own(path: Path, what: str, columns: list[str] | None = None) -> pa.Table:
    """A private file of ours.

    Raises:
        CrosswalkMissing: it is not there, or is damaged.
    """
    try:
        # Not read_table, which brings the machinery for whole datasets along.
        with pq.ParquetFile(path) as file:
            return file.read(columns)
    except FileNotFoundError:
        raise CrosswalkMissing(f"{what} is not there") from None
    except (OSError, pa.ArrowException):
        raise CrosswalkMissing(f"{what} cannot be read") from None


def overdue(root: Root, ledger: Ledger, now: datetime, vendor: str | None = None) -> Iterator[tuple[Batch, int]]:
    """Every batch that is past its due time, with how many of its clips are owed; what was recalled is owed no more."""
    accepted: defaultdict[str, list[int]] = defaultdict(list)
    for one in ledger.returns(vendor):
        if one.state == ACCEPTED:
            accepted[one.batch_id].append(one.n)
    # Of what is loaded the ledger knows enough: old batches are not read again for ever.
    settled: Counter[str] = Counter()
    for rows in ledger.row_counts(vendor):
        settled[rows.batch_id] += rows.loaded_rows
    for recall in ledger.recalls(vendor):
        settled[recall.batch_id] += recall.clip_count
    for batch in ledger.batches(vendor=vendor, states=WITH_VENDOR):
        is_whole = batch.state == LOADED and settled[batch.batch_id] >= batch.clip_count
        if not is_whole and batch.due_at is not None and parse_stamp(batch.due_at) < now:
            owed = _owed_clips(root, batch, accepted[batch.batch_id])
            if owed:
                yield batch, owed


def _owed_clips(root: Root, batch: Batch, files: Iterable[int]) -> int:
    """Clips of a batch that no accepted file of these numbers answers; all of them when nobody can say."""
    try:
        refs = read_crosswalk(root.night(batch.night_date), batch.batch_id)["clip_ref"]
        returned = [read_own(root.returned(batch.batch_id, n), f"return {n}")["clip_ref"] for n in files]
    except CrosswalkMissing:
        return batch.clip_count
    answered = pa.chunked_array([chunk for column in returned for chunk in column.chunks], pa.string())
    return int(refs.filter(pc.invert(pc.is_in(refs, answered))).length())


def count_returned(root: Root, ledger: Ledger, batch_ids: Collection[str], at: datetime) -> None:
    """Enter into the ledger what became of the rows of these batches' accepted files."""
    known = {(c.vendor, c.batch_id, c.n): c for c in ledger.row_counts()}
    files = [one for one in ledger.returns() if one.state == ACCEPTED and one.batch_id in batch_ids]
    if not files:
        return
    with Tables() as tables:
        tables.view("returned", [root.returned(one.batch_id, one.n) for one in files])
        found = {(row["batch_id"], row["n"]): row for row in tables.run("row_counts").to_pylist()}
    counts = []
    for one in files:
        row = found.get((one.batch_id, one.n), {"rows": 0, "current_rows": 0})
        before = known.get((one.vendor, one.batch_id, one.n)) or RowCounts(
            one.vendor, one.batch_id, one.n, one.accepted_rows + one.rejected_rows, one.rejected_rows
        )
        counts.append(
            replace(
                before,
                loaded_rows=row["current_rows"],
                superseded_rows=row["rows"] - row["current_rows"],
                forgotten_rows=one.accepted_rows - row["rows"],
            )
        )
    ledger.count_rows(counts, at)


def withhold(folder: NightFolder, batch_id: str, reasons: Mapping[str, str]) -> None:
    """Cut a batch that was not seen by anyone again, without these refs; each is kept as a row key with its reason."""
    rows, private = current(folder, batch_id)
    refs = pa.array(list(reasons), pa.string())
    gone = private.filter(pc.is_in(private["clip_ref"], refs))
    codes = pa.array([reasons[ref] for ref in gone["clip_ref"].to_pylist()], pa.string())
    noted = pa.table({"clip_key": gone["clip_key"], "reason": codes}).cast(WITHHELD)
    # The reason first: after a crash between two of these files it is noted again, but never lost.
    if folder.withheld(batch_id).exists():
        earlier = pq.read_table(folder.withheld(batch_id))
        noted = pa.concat_tables([rows_except(earlier, "clip_key", noted["clip_key"]), noted])
    write_parquet(noted, folder.withheld(batch_id))
    write_parquet(rows_except(rows, "clip_ref", refs), folder.manifest(batch_id))
    write_parquet(rows_except(private, "clip_ref", refs), folder.crosswalk(batch_id))


def forget_rows(folder: NightFolder, batch_id: str, refs: pa.Array) -> int:
    """Rewrite the files of a batch that has left without these refs; returns how many rows of the crosswalk went."""
    gone = 0
    for path in (folder.manifest(batch_id), folder.crosswalk(batch_id)):
        rows = read_own(path, f"a file of batch {batch_id}")
        kept = rows_except(rows, "clip_ref", refs)
        gone = rows.num_rows - kept.num_rows
        if gone:
            write_parquet(kept, path)
    return gone


def rows_except(table: pa.Table, column: str, values: pa.Array | pa.ChunkedArray) -> pa.Table:
    """The rows whose `column` is not among `values`."""
    return table.filter(pc.invert(pc.is_in(table[column], values)))
