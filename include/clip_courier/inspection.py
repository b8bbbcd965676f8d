"""Every row of the landing window, judged by the rules of rules.py: which rows break which, and how many do.

One statement reads each file once. What it found of a partition is kept until the partition, the rules or our key
changes, so that a night costs what is new: the rows that break a rule, and of every row a hash of its id (64 bits,
under a secret of ours), 8 bytes in the order of the rows. Whether an id stands twice is asked of all hashes of the
window each night, in memory and by sorting; so an answer never depends on what was judged when. Two ids of one hash
would be taken for one, both rows rejected: among ten million ids that is one night in 370,000.

What is written for others holds keys, codes and counts, and never a value.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any, Final

import langcodes
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pycountry

from clip_courier.landing import Landing, LandingFile
from clip_courier.model import NightFolder, Progress, Root, locked, whole_file, write_parquet
from clip_courier.pseudonyms import OURSELVES, Pseudonyms
from clip_courier.rules import BITS, COLUMNS, DUPLICATE, LANDING_RULES, SHARED_FACTS, Over, broken_rules, digest
from clip_courier.tables import Tables

# A row's key is that of its clip where the id is there and stands once, else that of its place in its file.
REJECTED: Final = pa.schema([("row_key", pa.string()), ("reasons", pa.list_(pa.string()))])
# Rows of a partition that break a rule; without a reason, all its rows. No date: partitions whose name is none.
COUNTS: Final = pa.schema([("partition", pa.date32()), ("reason", pa.string()), ("rows", pa.int64())])
# What is kept of a partition, for each row in order: the mask of the rules that it breaks, and, if any, its key.
_KEPT: Final = pa.schema([("id_hash", pa.uint64()), ("broken", pa.uint32()), ("clip_key", pa.string())])

# How much Parquet one statement reads: a million rows or so, of which 24 bytes each come back.
_BYTES_AT_ONCE: Final = 128 * 1024 * 1024
# How many hashes are sorted at once; a larger window is sorted in so many parts.
_HASHES_AT_ONCE: Final = 20_000_000
_ROWS_AT_ONCE: Final = 100_000
# Most rows are sorted out by a few bits of the hash.
_FEW_BITS: Final = np.uint64((1 << 20) - 1)
# No subtag of one letter: what follows it (`x-` above all) is anybody's to fill, and a registry says nothing about it.
_TAG: Final = re.compile(r"[A-Za-z]{2,8}(-[A-Za-z0-9]{2,8})*", re.ASCII)

Numbers = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Inspected:
    """Counts of the window. `broken`: reason → partition → rows; a row may break several rules."""

    rows: int
    partitions: int
    judged_now: int
    rejected: int
    broken: Mapping[str, Mapping[date | None, int]]

    def of(self, reason: str) -> int:
        return sum(self.broken.get(reason, {}).values())

    def most_in(self, reason: str) -> date | None:
        """The partition with most of them."""
        found = self.broken[reason]
        return max(found, key=lambda day: (found[day], day or date.min))


@dataclass(frozen=True)
class _Partition:
    """`stem` changes with all that the judgement of its rows depends on."""

    files: Sequence[LandingFile]
    stem: str
    folder: Path = field(repr=False)

    @property
    def day(self) -> date | None:
        return self.files[0].partition

    @property
    def kept(self) -> Path:
        return self.folder / f"{self.stem}.parquet"

    def is_judged(self) -> bool:
        # A store that does not say when a file was changed may have changed it.
        return all(f.changed_ns is not None for f in self.files) and self.kept.exists()

    def hashes(self) -> Hashes:
        return np.asarray(pq.read_table(self.kept, columns=["id_hash"])["id_hash"].to_numpy(), np.uint64)


def inspect(
    folder: NightFolder,
    landing: Landing,
    oldest: date,
    over: Mapping[str, Over],
    pseudonyms: Pseudonyms,
    progress: Progress,
) -> Inspected:
    """Judge the window from the partition of `oldest` on; write the night's `landing_rejected` and `landing_counts`.

    Raises:
        LandingMissing, LandingUnreadable, LandingSchemaBroken: nothing of the night was written.
    """
    with locked(folder.root.lock("landing")):
        partitions = _partitions(folder.root, landing.clip_files(oldest), _salt(pseudonyms))
        new = [one for one in partitions if not one.is_judged()]
        for done, group in enumerate(groups := list(_groups(new)), start=1):
            _judge(group, landing, pseudonyms)
            progress("judging the landing zone", done, len(groups))
        inspected = _settle(folder, partitions, len(new), over, pseudonyms)
        for kept in set(folder.root.inspected.iterdir()) - {one.kept for one in partitions}:
            kept.unlink()
    return inspected


def teach(tables: Tables, locales: pa.Array) -> None:
    """What the rules' statements call by name: their expressions, and of `locales` those that are registered."""
    known = sorted(locale for locale in locales.to_pylist() if locale is not None and _is_tag(locale))
    tables.register("known_locales", pa.table({"known_locale": pa.array(known, pa.string())}))
    countries = sorted(country.alpha_2 for country in pycountry.countries)
    tables.register("known_countries", pa.table({"known_country": countries}))
    tables.macro("broken_rules", COLUMNS, broken_rules())
    for fact, (columns, holds) in SHARED_FACTS.items():
        tables.macro(fact, columns, holds)


def _is_tag(locale: str) -> bool:
    """Well-formed BCP 47, and every subtag registered."""
    return bool(_TAG.fullmatch(locale)) and bool(langcodes.tag_is_valid(locale))


def _salt(pseudonyms: Pseudonyms) -> str:
    return pseudonyms.refs(OURSELVES, "landing", [""])[0]


def _partitions(root: Root, files: Sequence[LandingFile], salt: str) -> list[_Partition]:
    """In the order of their places; of equal files under the same rules the stem is the same."""
    by_folder: dict[str, list[LandingFile]] = {}
    for file in files:
        by_folder.setdefault(file.place.rpartition("/")[0], []).append(file)
    rules, found = digest(), []
    for mine in by_folder.values():
        told = json.dumps([rules, salt, [(f.place, f.size, f.changed_ns) for f in mine]])
        found.append(_Partition(mine, hashlib.sha256(told.encode()).hexdigest(), root.inspected))
    return found


def _groups(partitions: Sequence[_Partition]) -> Iterator[Sequence[_Partition]]:
    group: list[_Partition] = []
    for one in partitions:
        if group and sum(f.size for p in [*group, one] for f in p.files) > _BYTES_AT_ONCE:
            yield group
            group = []
        group.append(one)
    if group:
        yield group


# -- the rows --------------------------------------------------------------------------------------------------


def _judge(partitions: Sequence[_Partition], landing: Landing, pseudonyms: Pseudonyms) -> None:
    """Read the rows of some partitions, and keep what was found of each."""
    readings = landing.readings([file for one in partitions for file in one.files])
    rows_of = {file: rows for reading in readings for file, rows in reading.files}
    first_row: dict[LandingFile, int] = {}
    total = 0
    for one in partitions:
        for file in one.files:
            first_row[file] = total
            total += rows_of[file]
    kept: list[npt.NDArray[Any]] = [
        np.zeros(total, np.uint64),
        np.zeros(total, np.uint32),
        np.full(total, None, object),
    ]
    with Tables() as tables:
        for reading in readings:
            with landing.attached_clips(tables, reading):
                teach(tables, tables.run("locales")["locale"])
                tables.register("files", _files(first_row, [file for file, _ in reading.files]))
                found = tables.run("inspected", {"salt": _salt(pseudonyms)})
            for column, values in zip(kept, _kept(found, pseudonyms), strict=True):
                column[found["row"].to_numpy()] = values
    for one in partitions:
        rows = [rows_of[file] for file in one.files]
        mine = slice(first_row[one.files[0]], first_row[one.files[0]] + sum(rows))
        told = pa.table([pa.array(column[mine], f.type) for column, f in zip(kept, _KEPT, strict=True)], schema=_KEPT)
        with whole_file(one.kept) as partial:
            # Hashes do not compress.
            pq.write_table(
                told.replace_schema_metadata({"rows": json.dumps(rows)}),
                partial,
                compression={"id_hash": "none", "broken": "zstd", "clip_key": "zstd"},
                use_dictionary=["broken"],
            )


def _files(first_row: Mapping[LandingFile, int], files: Sequence[LandingFile]) -> pa.Table:
    """With the day of slack that reading the window has; no bounds where the partition's name is no date."""

    def at(file: LandingFile, days: int) -> datetime | None:
        day = file.partition
        return datetime.combine(day, time.min, UTC) + timedelta(days=days) if day else None

    moment = pa.timestamp("us", tz="UTC")
    return pa.table(
        {
            "filename": [file.path for file in files],
            "first_row": [first_row[file] for file in files],
            "earliest_at": pa.array([at(file, -1) for file in files], moment),
            "latest_at": pa.array([at(file, 2) for file in files], moment),
        }
    )


def _kept(found: pa.Table, pseudonyms: Pseudonyms) -> Sequence[npt.NDArray[Any]]:
    """Rows of sql/inspected.sql as columns of _KEPT: a key in the place of the id, none where there is no id."""
    keys = np.full(found.num_rows, None, object)
    is_there = pc.not_equal(found["clip_id"].fill_null(""), "")
    refs = pseudonyms.refs(OURSELVES, "clip", found["clip_id"].filter(is_there).to_pylist())
    keys[is_there.to_numpy()] = refs
    return found["id_hash"].to_numpy(), found["broken"].to_numpy(), keys


# -- the window ------------------------------------------------------------------------------------------------


def _settle(
    folder: NightFolder,
    partitions: Sequence[_Partition],
    judged_now: int,
    over: Mapping[str, Over],
    pseudonyms: Pseudonyms,
) -> Inspected:
    """Put together what was found of each partition, and what stands twice in all of them."""
    refusing = sum(BITS[rule.reason] for rule in LANDING_RULES if over[rule.reason].action != "warn")
    twice = _twice(partitions)
    broken: dict[str, Counter[date | None]] = {rule.reason: Counter() for rule in LANDING_RULES}
    rows: Counter[date | None] = Counter()
    rejected = 0
    with (
        whole_file(folder.landing_rejected) as partial,
        pq.ParquetWriter(partial, REJECTED, compression="zstd") as writer,
    ):
        waiting: list[pa.Table] = []
        for one in partitions:
            found = _Found.of(one, twice)
            rows[one.day] += sum(found.rows)
            for reason, bit in BITS.items():
                if count := int(np.count_nonzero(found.broken & bit)):
                    broken[reason][one.day] += count
            waiting.append(found.rejected(refusing, pseudonyms))
            rejected += waiting[-1].num_rows
            if sum(table.num_rows for table in waiting) >= _ROWS_AT_ONCE:
                writer.write_table(pa.concat_tables(waiting))
                waiting = []
        writer.write_table(pa.concat_tables([REJECTED.empty_table(), *waiting]))
    write_parquet(_counted(rows, broken), folder.landing_counts)
    return Inspected(sum(rows.values()), len(partitions), judged_now, rejected, broken)


def _counted(rows: Mapping[date | None, int], broken: Mapping[str, Mapping[date | None, int]]) -> pa.Table:
    told: list[dict[str, Any]] = []
    for day in sorted(rows, key=lambda d: d or date.min):
        told.append({"partition": day, "reason": None, "rows": rows[day]})
        told += [
            {"partition": day, "reason": reason, "rows": found[day]} for reason, found in broken.items() if found[day]
        ]
    return pa.Table.from_pylist(told, COUNTS)


def _twice(partitions: Sequence[_Partition]) -> Hashes:
    """The hashes that stand more than once in the window, each once and in order."""
    parts = sum(pq.read_metadata(one.kept).num_rows for one in partitions) // _HASHES_AT_ONCE + 1
    found = []
    for part in range(parts):
        some = np.concatenate([_nth(one.hashes(), part, parts) for one in partitions])
        some.sort()
        found.append(some[1:][some[1:] == some[:-1]])
    return np.unique(np.concatenate(found))


def _nth(hashes: Hashes, part: int, parts: int) -> Hashes:
    return hashes if parts == 1 else hashes[hashes % np.uint64(parts) == part]


@dataclass(frozen=True)
class _Found:
    """The rows of a partition that break a rule, in order: their places in it, the masks of rules, and keys or None.

    `rows`: of each file.
    """

    files: Sequence[LandingFile]
    rows: Sequence[int]
    places: Numbers
    broken: Numbers
    clip_keys: pa.Array

    @staticmethod
    def of(one: _Partition, twice: Hashes) -> "_Found":
        kept = pq.read_table(one.kept)
        masks = kept["broken"].to_numpy().astype(np.int64)
        doubled = _places_of(twice, kept["id_hash"].to_numpy())
        # Rows without an id have one hash, too.
        doubled = doubled[(masks[doubled] & BITS["missing_clip_id"]) == 0]
        masks[doubled] |= BITS[DUPLICATE]
        places = np.flatnonzero(masks)
        # A clip's key is nobody's when two rows have it.
        keys = kept["clip_key"].take(pa.array(places)).to_numpy()
        keys[(masks[places] & BITS[DUPLICATE]) != 0] = None
        rows = json.loads(kept.schema.metadata[b"rows"])
        return _Found(one.files, rows, places, masks[places], pa.array(keys, pa.string()))

    def rejected(self, refusing: int, pseudonyms: Pseudonyms) -> pa.Table:
        """Columns of REJECTED: the rows that break a rule of the mask, and which of these they break."""
        is_refused = (self.broken & refusing) != 0
        masks, which = np.unique(self.broken[is_refused] & refusing, return_inverse=True)
        codes = [[reason for reason, bit in BITS.items() if mask & bit] for mask in masks.tolist()]
        keys = self.clip_keys.filter(pa.array(is_refused))
        by_place = pseudonyms.refs(
            OURSELVES, "row", self._named(self.places[is_refused][keys.is_null().to_numpy(False)])
        )
        keys = pc.replace_with_mask(keys, keys.is_null(), pa.array(by_place, pa.string()))
        return pa.table([keys, pa.array(codes, REJECTED.field("reasons").type).take(pa.array(which))], schema=REJECTED)

    def _named(self, places: Numbers) -> Iterator[str]:
        """Each row by its file and its number in it."""
        ends = np.cumsum(self.rows)
        files = np.searchsorted(ends, places, side="right")
        for place, file in zip(places.tolist(), files.tolist(), strict=True):
            yield f"{self.files[file].place}:{place - int(ends[file]) + self.rows[file]}"


def _places_of(twice: Hashes, hashes: Hashes) -> Numbers:
    if not len(twice):
        return np.empty(0, np.int64)
    is_near = np.zeros(int(_FEW_BITS) + 1, bool)
    is_near[twice & _FEW_BITS] = True
    maybe = np.flatnonzero(is_near[hashes & _FEW_BITS])
    nearest = np.minimum(np.searchsorted(twice, hashes[maybe]), len(twice) - 1)
    return np.asarray(maybe[twice[nearest] == hashes[maybe]], np.int64)
