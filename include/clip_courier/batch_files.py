"""The files of one batch: its manifest, which may leave, and its crosswalk, which may not."""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from clip_courier.errors import CrosswalkMissing
from clip_courier.model import MANIFEST, NightFolder, write_parquet

WITHHELD = pa.schema([("clip_key", pa.string()), ("reason", pa.string())])


def read_crosswalk(
    folder: NightFolder, batch_id: str, columns: list[str] | None = None, since: datetime | None = None
) -> pa.Table:
    """What joins the refs of a batch to clips and persons; only some columns, only recordings from `since` on.

    Raises:
        CrosswalkMissing: without it nothing can be matched or recalled.
    """
    filters = [("recorded_at", ">=", since)] if since else None
    return read_own(folder.crosswalk(batch_id), f"the crosswalk of batch {batch_id}", columns, filters)


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


def _by_ref(rows: pa.Table) -> pa.Table:
    return rows.take(pc.sort_indices(rows["clip_ref"]))


def read_own(
    path: Path, what: str, columns: list[str] | None = None, filters: list[tuple[str, str, Any]] | None = None
) -> pa.Table:
    """A private file of ours.

    Raises:
        CrosswalkMissing: it is not there, or is damaged.
    """
    try:
        if filters is None:  # read_table, like sort_by, would bring pandas along: 60 MiB a worker
            with pq.ParquetFile(path) as file:
                return file.read(columns)
        return pq.read_table(path, columns=columns, filters=filters)
    except FileNotFoundError:
        raise CrosswalkMissing(f"{what} is not there") from None
    except (OSError, pa.ArrowException):
        raise CrosswalkMissing(f"{what} cannot be read") from None


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
