"""What is known of every delivered clip, as Parquet: the truth from which the analysts' file is built.

Each kind of row lies in 16 files by the person whose clip it is, so that erasing one person writes one file of each
kind again and leaves no byte of the old one. (A conversation lies with one of its speakers.) New rows are spooled night
by night and merged file by file: memory is bounded by the largest file, whatever there is to load.

For one process at a time: the caller holds the lock of `load`.
"""

import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from clip_courier.batch_files import read_own, rows_except
from clip_courier.model import Root, write_parquet, write_text

KINDS: Final = ("delivered_clips", "masked_transcripts", "scored", "compared")
_DIGITS: Final = "0123456789abcdef"
# Two letters of the pseudonyms' alphabet (base32) a bucket: they are uniform, being of a keyed hash.
_BUCKET_OF_LETTER: Final = {
    letter: _DIGITS[place // 2] for place, letter in enumerate("abcdefghijklmnopqrstuvwxyz234567")
}


def bucket_of(speaker_keys: pa.ChunkedArray) -> pa.Array:
    """The bucket of each person, one hexadecimal digit; the first for what has no person."""
    letters = pc.index_in(pc.utf8_slice_codeunits(speaker_keys, 0, 1), pa.array(list(_BUCKET_OF_LETTER)))
    return pa.array(list(_BUCKET_OF_LETTER.values())).take(letters.fill_null(0).combine_chunks())


def files(root: Root, kind: str) -> list[Path]:
    """The files of a kind; none before the first load."""
    return sorted((root.facts / kind).glob("?.parquet"))


def begin(root: Root) -> None:
    """Remove what a run that broke off has spooled."""
    for leftover in root.facts.rglob(".*.part"):
        leftover.unlink()


def spool(root: Root, kind: str, rows: pa.Table, buckets: pa.Array, name: str) -> None:
    """Keep new rows until `settle`; `name` is of the batch or night that they belong to."""
    for bucket in pc.unique(buckets).to_pylist():
        part = root.facts / kind / f".{bucket}.{name}.part"
        part.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(rows.filter(pc.equal(buckets, bucket)), part)


def settle(root: Root, stale: Collection[str]) -> None:
    """Merge what was spooled into the files, in the place of every row of the `stale` batches."""
    batches = pa.array(sorted(stale), pa.string())
    for kind in KINDS:
        for bucket in _DIGITS:
            path = root.facts / kind / f"{bucket}.parquet"
            parts = sorted(path.parent.glob(f".{bucket}.*.part"))
            old = [read_own(path, f"facts {kind}/{bucket}")] if path.exists() else []
            kept = [rows_except(table, "batch_id", batches) for table in old]
            if parts or [table.num_rows for table in kept] != [table.num_rows for table in old]:
                # A file of which nothing stays may have had other columns.
                merged = [table for table in kept if table.num_rows or not parts]
                write_parquet(pa.concat_tables([*merged, *map(pq.read_table, parts)]), path)
            for part in parts:
                part.unlink()


def forget(root: Root, gone: Mapping[str, pa.Table]) -> int:
    """Erase the clips of tombstones (clip_key, bucket), by the tombstones' names; returns how many rows went.

    What `settle` merges is filtered by every tombstone that stands then, so one that was applied stays applied.
    """
    begin(root)
    applied = forgotten(root)
    new = {name: table for name, table in gone.items() if name not in applied}
    if not new:
        return 0
    rows = 0
    for bucket, keys in _by_bucket(pa.concat_tables(new.values())):
        for kind in KINDS:
            path = root.facts / kind / f"{bucket}.parquet"
            rows += _without(path, keys) if path.exists() else 0
    write_text(json.dumps(sorted(applied | set(new))), root.forgotten)
    return rows


def forgotten(root: Root) -> set[str]:
    """The names of the tombstones that were applied."""
    return set(json.loads(root.forgotten.read_text(encoding="utf-8"))) if root.forgotten.exists() else set()


def _by_bucket(tombstones: pa.Table) -> Iterator[tuple[str, pa.Array]]:
    """A tombstone of an older version names no bucket: its clip may lie in any."""
    for bucket in _DIGITS:
        is_here = pc.equal(tombstones["bucket"], bucket).fill_null(True)
        keys = tombstones["clip_key"].filter(is_here).combine_chunks()
        if len(keys):
            yield bucket, keys


def _without(path: Path, keys: pa.Array) -> int:
    """Rewrite a file without these clips, if any is in it."""
    if not pc.any(pc.is_in(pq.read_table(path, columns=["clip_key"])["clip_key"], keys)).as_py():
        return 0
    rows = read_own(path, f"facts {path.name}")
    kept = rows_except(rows, "clip_key", keys)
    write_parquet(kept, path)
    return int(rows.num_rows - kept.num_rows)
