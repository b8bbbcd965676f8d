"""Millions of strings looked for at once, in whatever form they may stand in a stream of bytes.

Most positions of a text are ruled out by a Bloom filter over some bytes of every string (Bloom 1970,
doi:10.1145/362686.362692), with a few numpy operations for many positions at once. What passes is compared byte by
byte, so nothing is found that is not there. The forms are those of `forms.py`. Measured beside automata in
docs/leaks.md.
"""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from functools import partial
from operator import mul
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from clip_courier.forms import (
    IS_ASCII,
    LONGEST,
    Mask,
    Octets,
    Positions,
    View,
    decoded,
    is_alnum,
    is_text,
    rewritten,
    runs_of,
    view_of,
    words_of,
)

# Pieces that are looked through at the same time.
_AHEAD: Final = 16
# In this form even the longest escape of the longest string is not cut by a border between two pieces.
OVERLAP: Final = 32 * LONGEST
PIECE_BYTES: Final = 1 << 19

# From so many bytes on: so many bytes of a string are looked up, at every so manieth position of the text.
_ANYWHERE: Final = ((15, 8, 8), (11, 8, 4), (1, 6, 3))
# What stands alone is looked up by its first bytes.
_ALONE: Final = ((8, 8, 1), (6, 6, 1), (1, 4, 1))
# Of more strings fewer bytes are looked up, at more positions of the text: ready sooner, and slower.
MOST_GRAMS: Final = 5_000_000
_BITS_A_GRAM: Final = 48
_BLOCK: Final = 1 << 15
_MIX: Final = np.uint64(0x9E3779B97F4A7C15)
_MIX_AGAIN: Final = np.uint64(0xC2B2AE3D27D4EB4F)

Grams = NDArray[np.uint64]
# Number of a string, where it begins and where it ends.
_Found = tuple[int, int, int]


@dataclass(frozen=True)
class Sighting:
    """A string's number, and the offset in the stream at which it begins."""

    needle: int
    offset: int


@dataclass(frozen=True)
class _Strings:
    """Bytes of all, where each begins and ends in them, and its number. Behind the last are eight bytes more."""

    flat: Octets
    begins: Positions
    ends: Positions
    numbers: NDArray[np.int32]

    @classmethod
    def of(cls, strings: pa.Array, numbers: NDArray[np.int32]) -> "_Strings":
        offsets = np.frombuffer(strings.buffers()[1], "<i4")[strings.offset :][: len(strings) + 1].astype(np.int64)
        data = np.frombuffer(strings.buffers()[2] or b"", np.uint8)
        flat = np.append(data, np.zeros(8, np.uint8))
        return cls(flat, np.maximum(offsets[:-1], offsets[1:] - LONGEST), offsets[1:], numbers)

    def __len__(self) -> int:
        return len(self.numbers)

    def some(self, which: Mask | Positions) -> "_Strings":
        return _Strings(self.flat, self.begins[which], self.ends[which], self.numbers[which])

    def words(self) -> Grams:
        """The eight bytes from each place on, as a number."""
        return words_of(self.flat)

    def members(self) -> Mask:
        """ASCII, and which bytes beyond it there are."""
        beyond = self.flat[self.flat >= 128]
        if not len(beyond):
            return IS_ASCII
        members = IS_ASCII.copy()
        members[beyond] = True
        return members

    def tiers(self, kinds: tuple[tuple[int, int, int], ...]) -> Iterator[tuple[int, int, "_Strings"]]:
        """Those of at least so many bytes, and fewer than the kind before, with the width and step of their kind."""
        lengths, longer = self.ends - self.begins, np.iinfo(np.int64).max
        for shortest, width, step in kinds:
            rows = np.flatnonzero((lengths >= shortest) & (lengths < longer))
            if len(rows):
                yield width, step, self.some(rows)
            longer = shortest

    def at(self, text: bytes, owner: int, begin: int) -> _Found | None:
        """Number, begin and end of one of them, if it begins here in the text."""
        string = self.flat[self.begins[owner] : self.ends[owner]].tobytes()
        if begin < 0 or text[begin : begin + len(string)] != string:
            return None
        return int(self.numbers[owner]), begin, begin + len(string)


class _Grams:
    """Of every string `width` bytes from its base in the flat bytes on, and from `step` - 1 places behind it."""

    def __init__(self, strings: _Strings, width: int, bases: Positions, step: int) -> None:
        self._strings = strings
        self._mask = np.uint64((1 << (8 * width)) - 1)
        words = strings.words()
        found = np.concatenate([words[bases + place] & self._mask for place in range(step)])
        order = np.argsort(found)
        self._grams = found[order]
        places, owners = np.divmod(order, len(strings))
        self._owners = owners.astype(np.int32)
        self._places = ((bases - strings.begins)[owners] + places).astype(np.int16)
        size = max(15, int(len(found) * _BITS_A_GRAM - 1).bit_length())
        self._shift = np.uint64(64 - size)
        self._bits = np.zeros(1 << (size - 3), dtype=np.uint8)
        for hashed in (self._first(found), self._second(found)):
            bit = np.uint8(1) << (hashed & np.uint64(7)).astype(np.uint8)
            np.bitwise_or.at(self._bits, (hashed >> np.uint64(3)).view(np.int64), bit)

    def _first(self, grams: Grams) -> Grams:
        return (grams * _MIX) >> self._shift

    def _second(self, grams: Grams) -> Grams:
        return ((grams ^ (grams >> np.uint64(29))) * _MIX_AGAIN) >> self._shift

    def _passes(self, hashed: Grams) -> Positions:
        octets = self._bits.take((hashed >> np.uint64(3)).view(np.int64), mode="clip")
        bit = np.bitwise_and(hashed, np.uint64(7), out=hashed).view(np.uint8)[::8]
        return np.flatnonzero((octets >> bit) & np.uint8(1))

    def find(self, text: bytes, words: Grams, place_of: Callable[[Positions], Positions]) -> Iterator[_Found]:
        """Number, beginning and end of each string of the text which has one of these words in it; of words by their
        numbers `place_of` tells the places."""
        for start in range(0, len(words), _BLOCK):
            grams = words[start : start + _BLOCK] & self._mask
            passed = self._passes(self._first(grams))
            passed = passed[self._passes(self._second(grams[passed]))]
            if len(passed):
                yield from self._compare(text, grams[passed], place_of(passed + start))

    def _compare(self, text: bytes, grams: Grams, places: Positions) -> Iterator[_Found]:
        firsts, ends = np.searchsorted(self._grams, grams, "left"), np.searchsorted(self._grams, grams, "right")
        is_there = ends > firsts
        for first, end, place in zip(
            firsts[is_there].tolist(), ends[is_there].tolist(), places[is_there].tolist(), strict=True
        ):
            for entry in range(first, end):
                begin = place - int(self._places[entry])
                if found := self._strings.at(text, int(self._owners[entry]), begin):
                    yield found


class _Anywhere:
    """Strings of at least eight bytes, found wherever they stand: every `step`th position of the text is looked up."""

    def __init__(self, strings: _Strings, most_grams: int) -> None:
        self.members, self.count = strings.members(), len(strings)
        self.shortest = int(np.min(strings.ends - strings.begins, initial=LONGEST))
        self._tiers: list[tuple[_Grams, int, int]] = []
        for width, most, tier in strings.tiers(_ANYWHERE):
            step = max(1, min(most, most_grams // len(tier)))
            self._tiers.append((_Grams(tier, width, _telling_places(tier, width, step), step), width, step))

    def find(self, view: View) -> Iterator[_Found]:
        """Number, beginning and end of each in the canonical form."""
        if not self.count or len(view.array) == 0:
            return
        text = view.condensed()
        padded = np.frombuffer(text + bytes(8), np.uint8)
        for grams, width, step in self._tiers:
            count = (len(text) - width) // step + 1
            if count > 0:
                words: Grams = np.ndarray((count,), "<u8", padded, strides=(step,))
                yield from grams.find(text, words, partial(mul, step))


def _telling_places(strings: _Strings, width: int, step: int) -> Positions:
    """Where in the flat bytes each string is looked up: of four places the one that fewest others share."""
    words, mask = strings.words(), np.uint64((1 << (8 * width)) - 1)
    shift = np.uint64(64 - min(22, 3 + len(strings).bit_length()))

    def shared(places: Positions) -> Positions:
        """How many others have about the same bytes there."""
        hashed = ((words[places] & mask) * _MIX >> shift).astype(np.int64)
        return np.bincount(hashed)[hashed]

    room = (strings.ends - strings.begins) - (width + step - 1)
    best, fewest = strings.begins, np.full(len(strings), np.iinfo(np.int64).max)
    for third in (3, 0, 1, 2):
        base = strings.begins + room * third // 3
        others = np.maximum(shared(base), shared(base + step - 1))
        best, fewest = np.where(others < fewest, base, best), np.minimum(others, fewest)
    return best


class _Alone:
    """Strings that are found only next to no ASCII letter or digit, by the bytes that they begin with."""

    def __init__(self, strings: _Strings) -> None:
        self.count = len(strings)
        first = strings.flat[strings.begins]
        self._has_signs = not np.all(is_alnum(first) | (first >= 128))
        self._tiers = [_Grams(tier, width, tier.begins, step) for width, step, tier in strings.tiers(_ALONE)]

    def find(self, view: View) -> Iterator[_Found]:
        """Number, beginning and end of each in what is lower case already."""
        text, array = view.octets, view.array
        if not self.count or not text:
            return
        inside = np.append(is_alnum(array), np.False_)
        is_first = np.append(np.True_, ~inside[: len(array) - 1])
        if not self._has_signs:
            is_first &= inside[:-1] | (array >= 128)
        starts = np.flatnonzero(is_first)
        words = words_of(np.append(array, np.zeros(8, np.uint8)))[starts]
        for grams in self._tiers:
            for number, begin, end in grams.find(text, words, starts.take):
                if not inside[end]:
                    yield number, begin, end


class Needles:
    """What is looked for: `telling` strings in any form and anywhere, `brief` ones only where they stand alone.

    Both are binary arrays with a number for each string, which may be the same for several. Telling ones are in
    canonical form (`condensed`), of at least eight bytes; those for whose number `is_numeral` is set are not found
    within a longer number. Brief ones are `folded`; they are found in text, next to no ASCII letter or digit.
    """

    def __init__(
        self,
        telling: pa.Array,
        telling_numbers: NDArray[np.int32],
        brief: pa.Array,
        brief_numbers: NDArray[np.int32],
        is_numeral: NDArray[np.bool_],
        most_grams: int = MOST_GRAMS,
    ) -> None:
        self._telling = _Anywhere(_Strings.of(telling, telling_numbers), most_grams)
        self._brief = _Alone(_Strings.of(brief, brief_numbers))
        self._is_numeral = is_numeral
        self.count = len(telling) + len(brief)

    def sightings(self, octets: bytes, *, is_sound: bool = False) -> set[Sighting]:
        """Everything in a piece of a stream. Of compressed sound only runs of ASCII are looked through."""
        piece = view_of(octets)
        if is_sound:
            return set(self._in_bytes(piece, IS_ASCII))
        is_readable = is_text(octets)
        spelt, unescaped = rewritten(piece, is_text=is_readable)
        found = set(self._in_text(piece) if is_readable else self._in_bytes(piece, self._telling.members))
        if spelt:
            found.update(self._in_text(spelt))
        for view in (piece, unescaped) if unescaped else (piece,):
            for one in decoded(view, self._telling.members):
                found.update(self._in_bytes(one, self._telling.members))
        return found

    def _in_text(self, view: View) -> Iterator[Sighting]:
        yield from self.in_canonical_form(view)
        if not self._brief.count:
            return
        # UTF-16 brings zeros between letters; elsewhere they may stand between two names.
        for words in (view.lower(), view.kept(view.array != 0).lower()) if b"\0" in view.octets else (view.lower(),):
            for number, begin, _ in self._brief.find(words):
                yield Sighting(number, words.origin(begin))

    def _in_bytes(self, view: View, members: Mask) -> Iterator[Sighting]:
        yield from self.in_canonical_form(runs_of(view, members, self._telling.shortest))

    def in_canonical_form(self, view: View) -> Iterator[Sighting]:
        """The telling ones, of what is as it stands brought into that form."""
        for number, begin, end in self._telling.find(view):
            first, last = view.span(begin, end)
            if not self._is_numeral[number] or _is_whole_number(view.octets, first, last):
                yield Sighting(number, view.origin(first))


def _is_whole_number(octets: bytes, first: int, last: int) -> bool:
    """Whether no digit stands before or behind it; zeros may stand before it, as in telephone numbers."""
    while first and octets[first - 1] == ord("0"):
        first -= 1
    return not octets[max(0, first - 1) : first].isdigit() and not octets[last + 1 : last + 2].isdigit()


class Search:
    """Looks through one stream; pieces of any size may be given, and what lies across their borders is found."""

    def __init__(self, needles: Needles, *, is_sound: bool = False, pool: Executor | None = None) -> None:
        self._needles, self._is_sound, self._pool = needles, is_sound, pool
        self._waiting, self._length, self._base = [b""], 0, 0
        self._under_way: deque[tuple[int, range, Future[set[Sighting]]]] = deque()
        self._seen: set[Sighting] = set()
        self.scanned_bytes = 0

    def feed(self, octets: bytes) -> Iterator[Sighting]:
        """What is certain by now, with offsets from the beginning of the stream."""
        self._waiting.append(octets)
        self._length += len(octets)
        self.scanned_bytes += len(octets)
        if self._length >= PIECE_BYTES + OVERLAP:
            whole, start = b"".join(self._waiting), 0
            while len(whole) - start >= PIECE_BYTES + OVERLAP:
                self._look(whole[start : start + PIECE_BYTES + OVERLAP], is_last=False)
                yield from self._told(most_under_way=_AHEAD if self._pool else 0)
                start += PIECE_BYTES
                self._base += PIECE_BYTES
            self._waiting, self._length = [whole[start:]], len(whole) - start

    def end(self) -> Iterator[Sighting]:
        """The rest."""
        self._look(b"".join(self._waiting), is_last=True)
        yield from self._told(most_under_way=0)

    def _look(self, octets: bytes, *, is_last: bool) -> None:
        """What begins within half an overlap of a border is known whole by one of the two neighbours; by both, near
        the middle, so that it is told once."""
        half, near = OVERLAP // 2, 64
        inside = range(half - near if self._base else 0, len(octets) if is_last else len(octets) - half + near)
        if self._pool:
            found = self._pool.submit(self._needles.sightings, octets, is_sound=self._is_sound)
        else:
            found = Future()
            found.set_result(self._needles.sightings(octets, is_sound=self._is_sound))
        self._under_way.append((self._base, inside, found))

    def _told(self, most_under_way: int) -> Iterator[Sighting]:
        while len(self._under_way) > most_under_way:
            base, inside, found = self._under_way.popleft()
            told = {Sighting(one.needle, one.offset + base) for one in found.result() if one.offset in inside}
            yield from sorted(told - self._seen, key=lambda one: (one.offset, one.needle))
            self._seen = told
