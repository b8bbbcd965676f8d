"""Whether anything identifying stands where it must not: in what is about to leave, and in all that was written.

A hit is told by its kind, place and number, never by its value. The rules are docs/leaks.md.
"""

import hashlib
import os
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Final

from clip_courier import forms, needles, unpacking, wanted
from clip_courier.errors import LeakFound, ScanIncomplete
from clip_courier.forms import FORMS, is_text
from clip_courier.needles import Search, Sighting
from clip_courier.unpacking import NAME, Part, Unpacking
from clip_courier.wanted import Watch

_STREAMS: Final = ("text", "bytes", "sound")
_Label = tuple[str, str, str]
WITHHELD: Final = "(a file whose name identifies)"


@dataclass(frozen=True)
class Leak:
    """Values of a kind in a stream of a place; `offset` is of the first."""

    kind: str
    place: str
    member: str
    column: str
    offset: int
    count: int


@lru_cache(maxsize=1)
def rules() -> str:
    """Digest of what decides what is found: another one means that a result may be another."""
    digest = hashlib.sha256()
    for path in (forms.__file__, needles.__file__, unpacking.__file__, wanted.__file__, __file__):
        digest.update(Path(path).read_bytes())
    return digest.hexdigest()


class LeakScan:
    """Looks through parts one after the other, as if they were one stream, and keeps what was found where."""

    def __init__(self, watch: Watch, pool: Executor | None = None) -> None:
        self.watch = watch
        self._streams = {kind: _Stream(Search(watch.needles, is_sound=kind == "sound", pool=pool)) for kind in _STREAMS}
        self._unpacking = Unpacking()
        # Kind and label → offset of the first, number.
        self._found: dict[tuple[str, str, str, str], list[int]] = {}

    def take(self, part: Part) -> None:
        # What can be read and what cannot are not to be in one piece: of such a piece less is looked for.
        first = next(part.pieces, b"")
        kind = "sound" if part.is_sound else "text" if is_text(first) else "bytes"
        self._note(self._streams[kind].take(part, first))

    def _note(self, sightings: Iterable[tuple[Sighting, _Label, int]]) -> None:
        for one, label, offset in sightings:
            kind = self.watch.kinds[self.watch.kind_of[one.needle]]
            self._found.setdefault((kind, *label), [offset, 0])[1] += 1

    def take_content(self, octets: bytes, place: str) -> None:
        """What is in memory, and everything that is packed in it."""
        for part in self._unpacking.content(octets, place):
            self.take(part)

    def leaks(self) -> list[Leak]:
        """All that was found; the scan is over."""
        for stream in self._streams.values():
            self._note(stream.end())
        return [Leak(*key, offset, count) for key, (offset, count) in self._found.items()]

    def check(self, where: str) -> None:
        """Nothing was found, and everything could be opened; the scan is over.

        Raises:
            LeakFound: an identifying value is in what was taken; names the first place.
        ScanIncomplete: a part could not be looked through.
        """
        found = self.leaks()
        if found:
            # A name that identifies is not told either.
            named = {leak.place for leak in found if leak.column == NAME}
            first, count = found[0], sum(leak.count for leak in found)
            raise LeakFound(first.kind, WITHHELD if first.place in named else first.place, first.column, count, where)
        if self._unpacking.unopened:
            raise ScanIncomplete(f"{where}{self._unpacking.unopened[0]} cannot be looked through")

    def result(self) -> dict[str, object]:
        """For the evidence, which stands first in a batch: what every later byte is looked through for, what is not
        looked for, in which forms, and under which rules. Of a batch that is sealed there is no hit."""
        return {
            "values": self.watch.values,
            "not_looked_for": dict(self.watch.not_looked_for),
            "forms": list(FORMS),
            "covers": "names and contents of all members, and the ready file",
            "hits": 0,
            "rules": rules(),
        }

    @property
    def scanned_bytes(self) -> int:
        return sum(stream.scanned_bytes for stream in self._streams.values())


class _Stream:
    """Many parts as one stream: small ones cost next to nothing, and each offset is told by its part."""

    _BETWEEN: Final = b"\n\0\n"

    def __init__(self, search: Search) -> None:
        self._search = search
        self._starts: list[int] = []
        self._labels: list[_Label] = []

    @property
    def scanned_bytes(self) -> int:
        return self._search.scanned_bytes

    def take(self, part: Part, first: bytes) -> Iterator[tuple[Sighting, _Label, int]]:
        """Sightings by now, each with its part and its offset in it."""
        self._starts.append(self._search.scanned_bytes)
        self._labels.append((part.place, part.member, part.column))
        for piece in chain([first], part.pieces, [self._BETWEEN]):
            yield from self._placed(self._search.feed(piece))

    def end(self) -> Iterator[tuple[Sighting, _Label, int]]:
        yield from self._placed(self._search.end())

    def _placed(self, sightings: Iterable[Sighting]) -> Iterator[tuple[Sighting, _Label, int]]:
        for one in sightings:
            at = bisect_right(self._starts, one.offset) - 1
            yield one, self._labels[at], one.offset - self._starts[at]


@dataclass(frozen=True)
class Searched:
    """What a search through everything came to."""

    leaks: list[Leak]
    unopened: list[str]
    not_looked_for: dict[str, int]
    values: int
    files: int
    scanned_bytes: int


def search(watches: Iterable[Watch], places: Callable[[Unpacking], Iterator[Part]]) -> Searched:
    """Look for what each watch looks for, in all places, one watch after the other: memory is that of one of them."""
    leaks: dict[tuple[str, str, str, str], Leak] = {}
    unopened: set[str] = set()
    left_out: dict[str, int] = defaultdict(int)
    values = scanned = files = 0
    for watch in watches:
        unpacking = Unpacking()
        found, files, scanned = _look_for(watch, places(unpacking))
        unopened.update(unpacking.unopened)
        for leak in found:
            key = (leak.kind, leak.place, leak.member, leak.column)
            before = leaks.get(key)
            leaks[key] = replace(leak, count=leak.count + before.count) if before else leak
        for reason, count in watch.not_looked_for.items():
            left_out[reason] += count
        values += watch.values
    # What a name would tell is not told.
    named = {leak.place for leak in leaks.values() if leak.column == NAME}
    told = [replace(one, place=_alias(one.place), member="") if one.place in named else one for one in leaks.values()]
    hidden = sorted(_alias(place) if place.split(":")[0] in named else place for place in unopened)
    return Searched(told, hidden, dict(left_out), values, files, scanned)


def _look_for(watch: Watch, parts: Iterator[Part]) -> tuple[list[Leak], int, int]:
    """What is found of one watch; in how many places, and how many bytes, it was looked for."""
    labels: set[_Label] = set()
    with ThreadPoolExecutor(len(os.sched_getaffinity(0)), "leaks") as pool:
        scan = LeakScan(watch, pool)
        for part in parts:
            label = (part.place, part.member, part.column)
            if label not in labels:
                labels.add(label)
                octets = f"{part.member}\n{part.column}".encode("utf-8", "surrogateescape")
                scan.take(Part(part.place, "", NAME, iter([octets])))
            scan.take(part)
        return scan.leaks(), len({place for place, _, _ in labels}), scan.scanned_bytes


def _alias(place: str) -> str:
    return f"{WITHHELD} {hashlib.sha256(place.encode('utf-8', 'surrogateescape')).hexdigest()[:12]}"


def files_under(folder: Path, private: Collection[str] = ()) -> Iterator[tuple[Path, str]]:
    """Every file outside of the private folders, with its name as it is told."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.is_file() and not path.is_symlink() and not set(private) & set(name.parts):
            yield path, str(name)
