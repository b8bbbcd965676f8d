"""What earlier nights found out about the clips of the landing window, so that a night judges only what is new.

Of each file of clips a part is kept: its rows with what the rules look at, the first flaw that lies in the clip, and
the first reason that lies with its participants. Such a verdict changes only when something new is known about a
participant, and landing's people are files that are added to. Whoever stands in a file that came since a part was made,
or had an event that had not arrived by then, has *changed*: their clips are judged anew, as those of new files are. All
else is read from the parts.

Nothing here is anybody's truth. A part counts only while its file, every file of people that it was judged by, the
policy, the statements and DuckDB are the same, and no earlier `now` is asked about; else it is made anew from landing.
It holds raw rows, so it lies on the private side. Of clips in which an erased person is audible it keeps the place in
the file and nothing else: these are judged anew every night.
"""

import hashlib
import json
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from clip_courier.errors import QueryFailed
from clip_courier.landing import Landed
from clip_courier.model import CLIPS, PURPOSE, Root, locked, utc, write_parquet, write_text
from clip_courier.tables import Tables

# What a part holds of each clip, in the session with whether it is to be judged anew.
FOUND: Final = pa.schema(
    [
        ("row_no", pa.int64()),
        *((name, pa.string()) for name in ("clip_id", "product", "activation", "locale", "country")),
        ("recorded_at", pa.timestamp("us", tz="UTC")),
        ("duration_ms", pa.int64()),
        ("people", pa.int32()),
        ("p1", pa.string()),
        ("p2", pa.string()),
        ("more", pa.list_(pa.string())),
        ("mark1", pa.uint64()),
        ("mark2", pa.uint64()),
        ("flaw", pa.string()),
        ("personal_reason", pa.string()),
        ("is_stale", pa.bool_()),
    ]
)
_REREAD: Final = pa.schema(
    CLIPS.field(name)
    for name in (
        *("clip_id", "product", "activation", "locale", "country"),
        *("recorded_at", "duration_ms", "participants"),
    )
)
_PERSON: Final = pa.schema([("person_id", pa.string())])
# The statements that a verdict follows from: other ones find other verdicts.
STATEMENTS: Final = ("voice", "listener", "event", "person", "clear", "looked", "audible", "weighed", "anew")


@dataclass(frozen=True)
class _Part:
    """Of one file of clips: what it was like, and the round in which it was judged; and the part's own file.

    `has_erased`: of some clips there is nothing but the place.
    """

    likeness: str
    round_no: int
    name: str
    digest: str
    has_erased: bool = False


@dataclass(frozen=True)
class _Round:
    """A night that judged something: as of when, and who had an event that had not arrived by then."""

    as_of: str
    name: str
    digest: str


@dataclass(frozen=True)
class _Index:
    """Everything that is kept. `people`: file → what it was like, and the first round that knew it."""

    basis: str = ""
    parts: Mapping[str, _Part] = field(default_factory=dict)
    people: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    rounds: Mapping[int, _Round] = field(default_factory=dict)

    @property
    def as_of(self) -> datetime | None:
        return max((datetime.fromisoformat(one.as_of) for one in self.rounds.values()), default=None)


class Verdicts:
    """One session's use of what is kept."""

    def __init__(self, folder: Path, index: _Index, landed: Landed, basis: str, now: datetime) -> None:
        self._folder, self._index, self._landed, self._basis, self._now = folder, index, landed, basis, now
        self._covered = {
            path: part
            for path, part in index.parts.items()
            if part.likeness == landed.clips.get(path) and self._is_whole(part)
        }
        self._fresh = [path for path in landed.clips if path not in self._covered]

    def attach(self, tables: Tables) -> None:
        """Make the relations `found`, from the parts that count, and `fresh`, from landing's other files and rows."""
        self._landed.attach_clips(tables, "arrived", self._fresh)
        if not self._covered:
            nothing_found(tables)
            tables.run("fresh")
            return
        since = min(part.round_no for part in self._covered.values())
        known = {path for path, (_, round_no) in self._index.people.items() if round_no <= since}
        self._landed.attach_people(tables, without=known)
        waiting = [self._folder / one.name for n, one in self._index.rounds.items() if n >= since]
        tables.view("waiting", waiting)
        tables.view("part", [self._folder / part.name for part in self._covered.values()])
        self._reread(tables)
        tables.run("fresh")
        tables.run("changed", {"purpose": PURPOSE})
        tables.run("found")
        tables.run("stale")

    def _reread(self, tables: Tables) -> None:
        """Make the relation `reread` from the files of landing of which a part has erased clips."""
        of = {path: part for path, part in self._covered.items() if part.has_erased}
        if not of:
            tables.register("reread", _REREAD.empty_table())
            return
        self._landed.attach_clips(tables, "again", list(of))
        columns = ["row_no", "flaw", "file_index AS file_no"]
        tables.view("erased", [self._folder / part.name for part in of.values()], columns)
        tables.run("reread")

    def keep(self, tables: Tables) -> None:
        """Add what this session judged to what is kept, and let go of what does not count any more."""
        round_no = max(self._index.rounds, default=0) + 1
        parts, rounds, landed = dict(self._covered), dict(self._index.rounds), self._landed
        if self._fresh:
            digests = self._written(tables, round_no)
            for number, path in enumerate(self._fresh):
                name = f"{round_no}.{number}.parquet"
                parts[path] = _Part(landed.clips[path], round_no, name, digests[name])
            waiting = f"{round_no}.waiting.parquet"
            rounds[round_no] = _Round(utc(self._now).isoformat(), waiting, digests[waiting])
        used = {part.round_no for part in parts.values()}
        people = {
            path: (likeness, self._index.people.get(path, ("", round_no))[1])
            for path, likeness in landed.people.items()
        }
        rounds = {n: one for n, one in rounds.items() if n in used}
        _write(self._folder, _Index(self._basis, parts, people, rounds))

    def _written(self, tables: Tables, round_no: int) -> dict[str, str]:
        """Name → digest of the round's files: a part for each fresh file, and those who wait."""
        new = self._folder / "new"
        shutil.rmtree(new, ignore_errors=True)
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        new.mkdir()
        for number in range(len(self._fresh)):
            tables.run("keep", {"file_no": number, "path": str(new / f"{round_no}.{number}.parquet")})
        write_parquet(tables.run("waiting").cast(_PERSON), new / f"{round_no}.waiting.parquet")
        digests = {path.name: _digest(path) for path in new.iterdir()}
        for name in digests:
            (new / name).rename(self._folder / name)
        return digests

    def _is_whole(self, part: _Part) -> bool:
        return all(_is_file(self._folder / one.name, one.digest) for one in (part, self._index.rounds[part.round_no]))


@contextmanager
def opened(root: Root, landed: Landed, basis: str, now: datetime) -> Iterator[Verdicts | None]:
    """What is kept, for the block, for nobody else meanwhile.

    None where nothing can be kept or used: files of landing cannot be told apart, another process has it, or a `now` is
    asked about that lies before what was known when the verdicts were found.
    """
    with locked(root.lock("verdicts"), waits=False) as is_ours:
        if not (is_ours and landed.clips):
            yield None
            return
        index = _read(root.verdicts)
        if index.as_of and index.as_of > now and index.basis == basis:
            yield None
            return
        is_same = index.basis == basis and all(
            landed.people.get(path) == likeness for path, (likeness, _) in index.people.items()
        )
        yield Verdicts(root.verdicts, index if is_same else _Index(), landed, basis, now)


def nothing_found(tables: Tables) -> None:
    """As on the first night of a root."""
    for name in ("part", "found", "stale"):
        tables.register(name, FOUND.empty_table())
    tables.register("reread", _REREAD.empty_table())


def erase(root: Root, person_ids: Collection[str]) -> None:
    """Write every file of ours that names one of these persons without them; what a killed run left goes as well."""
    if not root.verdicts.is_dir():
        return
    gone = pa.array(sorted(person_ids), pa.string())
    with locked(root.lock("verdicts")), Tables() as tables:
        index = _read(root.verdicts)
        tables.register("gone", pa.table([gone], _PERSON))
        try:
            index = _Index(
                index.basis,
                {path: _blanked(root.verdicts, part, gone, tables) for path, part in index.parts.items()},
                index.people,
                {n: _without(root.verdicts, one, gone) for n, one in index.rounds.items()},
            )
        except (OSError, pa.ArrowException, QueryFailed):
            index = _Index()
        _write(root.verdicts, index)


def _blanked(folder: Path, part: _Part, gone: pa.Array, tables: Tables) -> _Part:
    """A part that has nothing but the place of the clips in which these persons are audible."""
    if not _names(folder / part.name, gone, ("p1", "p2", "more")):
        return part
    tables.view("part", [folder / part.name])
    partial = _partial(folder, part)
    tables.run("blank", {"path": str(partial)})
    name, digest = _named(partial)
    return replace(part, name=name, digest=digest, has_erased=True)


def _without(folder: Path, one: _Round, gone: pa.Array) -> _Round:
    """Those who wait but for these persons, whose clips are judged anew anyway."""
    if not _names(folder / one.name, gone, ("person_id",)):
        return one
    rows = pq.ParquetFile(folder / one.name).read()
    partial = _partial(folder, one)
    write_parquet(rows.filter(pc.invert(pc.is_in(rows["person_id"], gone))), partial)
    name, digest = _named(partial)
    return replace(one, name=name, digest=digest)


def _names(kept: Path, person_ids: pa.Array, columns: Sequence[str]) -> bool:
    """Whether one of these persons stands in a file of ours."""
    with pq.ParquetFile(kept) as file:
        chunks = [chunk for column in file.read(list(columns)).columns for chunk in column.chunks]
    ids = [pc.list_flatten(chunk) if pa.types.is_list(chunk.type) else chunk for chunk in chunks]
    return any(pc.any(pc.is_in(some, person_ids)).as_py() for some in ids)


def _partial(folder: Path, kept: _Part | _Round) -> Path:
    """Where what takes the place of a file is written; the index does not name it, so it goes if it is left."""
    return folder / f"{kept.name}.part"


def _named(partial: Path) -> tuple[str, str]:
    """A file's name for good, and its digest."""
    digest = _digest(partial)
    name = f"{digest}.parquet"
    partial.rename(partial.with_name(name))
    return name, digest


def basis_of(policy: Mapping[str, Any]) -> str:
    """What a verdict depends on beside landing's files, as a digest."""
    told = json.dumps(policy, sort_keys=True) + Tables.version(
        (*STATEMENTS, "reread", "fresh", "changed", "found", "keep", "waiting", "blank")
    )
    return hashlib.sha256(told.encode()).hexdigest()


def _read(folder: Path) -> _Index:
    """Nothing where it cannot be read: then everything is judged anew."""
    try:
        told = json.loads((folder / "index.json").read_text(encoding="utf-8"))
        return _Index(
            told["basis"],
            {path: _Part(**one) for path, one in told["parts"].items()},
            {path: (likeness, int(n)) for path, (likeness, n) in told["people"].items()},
            {int(n): _Round(**one) for n, one in told["rounds"].items()},
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return _Index()


def _write(folder: Path, index: _Index) -> None:
    """The index first, then the files that it does not name are deleted."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_text(json.dumps(asdict(index)), folder / "index.json")
    named = {"index.json", *(one.name for one in index.rounds.values())}
    named |= {part.name for part in index.parts.values()}
    for path in folder.iterdir():
        if path.name not in named:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _is_file(path: Path, digest: str) -> bool:
    return path.exists() and _digest(path) == digest


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
