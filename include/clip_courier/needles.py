"""Millions of strings looked for at once, in whatever form they may stand in a stream of bytes.

A text is brought into one canonical form and the strings are looked for in that alone: lower case, compatibility forms
undone (NFKC, so full-width digits are digits), escapes of URLs, JSON and HTML undone, and of ASCII only letters and
digits kept, so that neither spaces, dashes, brackets and line breaks nor the zero bytes of UTF-16 make a difference.
Runs of base64 and of hexadecimal digits are decoded at every alignment, and what comes out is looked through likewise.

Most positions of a text are ruled out by a Bloom filter over some bytes of every string (Bloom 1970,
doi:10.1145/362686.362692), with a few numpy operations for many positions at once. What passes is compared byte by
byte, so nothing is found that is not there. Measured against automata in docs/leaks.md.
"""

import binascii
import codecs
import html.entities
import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from operator import add
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

# What is undone before strings are looked for; for the evidence.
FORMS: Final = ("case", "NFKC", "signs and spaces", "UTF-16", "URL", "JSON", "HTML", "base64", "hex")
# A longer string is looked for by its last so many bytes.
LONGEST: Final = 256
# Pieces that are looked through at the same time.
_AHEAD: Final = 3
# Many small parts of a piece cost more than all of it.
_MOST_PARTS: Final = 8
# In this form even the longest escape of the longest string is not cut by a border between two pieces.
OVERLAP: Final = 32 * LONGEST
PIECE_BYTES: Final = 1 << 20

# From so many bytes on: so many bytes of a string are looked up, at every so manieth position of the text.
_TIERS: Final = ((15, 8, 8), (11, 8, 4), (8, 6, 3), (4, 4, 1))
# Below, a string says too little to be looked for in bytes that look random, such as sound or what was decoded.
_CERTAIN_BYTES: Final = 8
_MOST_GRAMS: Final = 12_000_000
_BITS_A_GRAM: Final = 48
_BLOCK: Final = 1 << 15
_MIX: Final = np.uint64(0x9E3779B97F4A7C15)
_MIX_AGAIN: Final = np.uint64(0xC2B2AE3D27D4EB4F)

_ALNUM: Final = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_DROPPED: Final = bytes(byte for byte in range(128) if byte not in _ALNUM)
_BASE64: Final = frozenset(_ALNUM + b"+/-_")
_HEX: Final = frozenset(b"0123456789abcdefABCDEF")
# Lines of base64 and hex are joined where the first is at least so long.
_WRAPPED: Final = 16
_TO_BASE64: Final = bytes({45: 43, 95: 47}.get(byte, byte) if byte in _BASE64 else 65 for byte in range(256))

_ESCAPE = re.compile(
    rb"%(?:25)*(?P<url>[0-9A-Fa-f]{2})"
    rb"|\\+u(?P<high>[dD][89abAB][0-9A-Fa-f]{2})\\+u(?P<low>[dD][c-fC-F][0-9A-Fa-f]{2})"
    rb"|\\+(?:u(?P<four>[0-9A-Fa-f]{4})|U(?P<eight>[0-9A-Fa-f]{8})|x(?P<two>[0-9A-Fa-f]{2})|(?P<one>[nrtbf]))"
    rb"|&(?:amp;)*(?:#(?P<decimal>[0-9]{1,7})|#[xX](?P<hexadecimal>[0-9A-Fa-f]{1,6})|(?P<name>[A-Za-z]{2,31}));"
)
# Joins, marks and spaces that nobody sees (Unicode's default ignorable code points).
_UNSEEN = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff]"
)
# With the letter before it, to which a mark may belong.
_BEYOND_ASCII = re.compile(rb"[\x00-\x7f]?[\x80-\xff]+")
_DIGIT = re.compile(r"\d")
# Punctuation beyond ASCII that stands for a sign that is dropped.
_SIGNS = re.compile("[\u2010-\u2015\u2212\u2018-\u201f\u2022\u2024-\u2027\u00b7\u2044\u2215\u3000-\u3003]")

Octets = NDArray[np.uint8]
Positions = NDArray[np.int64]


def _table(members: frozenset[int] | bytes) -> NDArray[np.bool_]:
    return np.isin(np.arange(256), list(members))


_IS_BASE64: Final = _table(_BASE64)
_IS_HEX: Final = _table(_HEX)
_IS_ALNUM: Final = _table(_ALNUM)
_IS_KEPT: Final = ~_table(_DROPPED)
_IS_ODD: Final = _table(bytes([*range(1, 9), *range(14, 32), *range(127, 256)]))
_IS_CONTROL: Final = _table(bytes([*range(1, 9), *range(14, 32)]))
_IS_BREAK: Final = _table(b"\r\n")
_IS_ESCAPE: Final = _table(b"%&\\")
_READABLE: Final = bytes(range(32, 127))
_IS_READABLE: Final = _table(_READABLE + b"\0\t\r\n")
_NIBBLE: Final = np.array([int(chr(b), 16) if b in _HEX else 0 for b in range(256)], dtype=np.uint8)


def folded(octets: bytes) -> bytes:
    """One spelling of every text in UTF-8: NFKC, case-folded (toNFKC_Casefold), every dash the same."""
    return octets.lower() if octets.isascii() else _BEYOND_ASCII.sub(_folded_run, octets).lower()


def _folded_run(match: re.Match[bytes]) -> bytes:
    return _folded_bytes(match[0])


@lru_cache(maxsize=1 << 16)
def _folded_bytes(octets: bytes) -> bytes:
    text = octets.decode("utf-8", "surrogateescape")
    plain = _SIGNS.sub("-", _UNSEEN.sub("", unicodedata.normalize("NFKC", text)))
    # Also the digits of other scripts.
    plain = _DIGIT.sub(lambda digit: str(unicodedata.decimal(digit[0])), plain.casefold())
    return unicodedata.normalize("NFKC", plain).encode("utf-8", "surrogateescape")


def condensed(octets: bytes) -> bytes:
    """The canonical form of bytes: of ASCII only letters and digits, in lower case."""
    return octets.lower().translate(None, _DROPPED)


@dataclass(frozen=True)
class Sighting:
    """A string's number, and the offset in the stream at which it begins."""

    needle: int
    offset: int


class _Tier:
    """Strings of at least `shortest` bytes, found by `width` bytes of each at one of `step` neighbouring places."""

    def __init__(self, flat: Octets, begins: Positions, ends: Positions, numbers: NDArray[np.int32], tier: int) -> None:
        _, self._width, step = _TIERS[tier]
        while step > 1 and len(numbers) * step > _MOST_GRAMS:
            step -= 1
        self._step = step
        self._flat, self._begins, self._ends, self._numbers = flat, begins, ends, numbers
        self._mask = np.uint64((1 << (8 * self._width)) - 1)
        words: NDArray[np.uint64] = np.ndarray((len(flat) - 7,), "<u8", flat, strides=(1,))
        base = self._telling_places(words)
        found = np.concatenate([words[base + place] & self._mask for place in range(step)])
        places = np.concatenate([base - begins + place for place in range(step)]).astype(np.int16)
        order = np.argsort(found, kind="stable")
        self._grams = found[order]
        self._places = places[order]
        self._owners = np.tile(np.arange(len(numbers), dtype=np.int32), step)[order]
        size = max(15, int(len(found) * _BITS_A_GRAM - 1).bit_length())
        self._shift = np.uint64(64 - size)
        self._bits = np.zeros(1 << (size - 3), dtype=np.uint8)
        for hashed in (self._first(self._grams), self._second(self._grams)):
            np.bitwise_or.at(
                self._bits, hashed >> np.uint64(3), np.uint8(1) << (hashed & np.uint64(7)).astype(np.uint8)
            )

    def _telling_places(self, words: NDArray[np.uint64]) -> Positions:
        """Where in the flat bytes each string is looked up: of four places the one that fewest others share."""
        room = (self._ends - self._begins) - (self._width + self._step - 1)
        best, fewest = self._begins, np.full(len(self._begins), np.iinfo(np.int64).max)
        for third in (3, 0, 1, 2):
            base = self._begins + room * third // 3
            shared = np.maximum(self._shared(words[base]), self._shared(words[base + self._step - 1]))
            best, fewest = np.where(shared < fewest, base, best), np.minimum(shared, fewest)
        return best

    def _shared(self, words: NDArray[np.uint64]) -> Positions:
        """How many others have about the same bytes there."""
        hashed = ((words & self._mask) * _MIX >> np.uint64(64 - min(22, 3 + len(words).bit_length()))).astype(np.int64)
        return np.bincount(hashed)[hashed]

    def _first(self, grams: NDArray[np.uint64]) -> NDArray[np.uint64]:
        return (grams * _MIX) >> self._shift

    def _second(self, grams: NDArray[np.uint64]) -> NDArray[np.uint64]:
        return ((grams ^ (grams >> np.uint64(29))) * _MIX_AGAIN) >> self._shift

    def _passes(self, hashed: NDArray[np.uint64]) -> Positions:
        octets = self._bits.take((hashed >> np.uint64(3)).view(np.int64), mode="clip")
        bit = np.bitwise_and(hashed, np.uint64(7), out=hashed).view(np.uint8)[::8]
        return np.flatnonzero((octets >> bit) & np.uint8(1))

    def find(self, text: bytes, padded: Octets) -> Iterator[tuple[int, int, int]]:
        """Number, beginning and end of each string in the text; `padded` is the same with eight bytes more."""
        count = (len(text) - self._width) // self._step + 1
        if count <= 0:
            return
        words: NDArray[np.uint64] = np.ndarray((count,), "<u8", padded, strides=(self._step,))
        for start in range(0, count, _BLOCK):
            grams = words[start : start + _BLOCK] & self._mask
            passed = self._passes(self._first(grams))
            passed = passed[self._passes(self._second(grams[passed]))]
            if len(passed):
                yield from self._compare(text, grams[passed], (passed + start) * self._step)

    def _compare(self, text: bytes, grams: NDArray[np.uint64], places: Positions) -> Iterator[tuple[int, int, int]]:
        at = np.searchsorted(self._grams, grams)
        at[at == len(self._grams)] = 0
        is_there = self._grams[at] == grams
        for entry, place in zip(at[is_there].tolist(), places[is_there].tolist(), strict=True):
            gram, one = self._grams[entry], entry
            while one < len(self._grams) and self._grams[one] == gram:
                owner = self._owners[one]
                begin = place - int(self._places[one])
                needle = self._flat[self._begins[owner] : self._ends[owner]].tobytes()
                if begin >= 0 and text[begin : begin + len(needle)] == needle:
                    yield int(self._numbers[owner]), begin, begin + len(needle)
                one += 1


class _Index:
    """Byte strings, each with a number, found in a text wherever they stand."""

    def __init__(self, strings: pa.Array, numbers: NDArray[np.int32]) -> None:
        offsets = np.frombuffer(strings.buffers()[1], "<i4")[strings.offset :][: len(strings) + 1].astype(np.int64)
        data = strings.buffers()[2]
        flat = np.zeros((len(data) if data else 0) + 16, np.uint8)
        flat[: len(flat) - 16] = np.frombuffer(data, np.uint8) if data else []
        begins = np.maximum(offsets[:-1], offsets[1:] - LONGEST)
        lengths = offsets[1:] - begins
        self._tiers, longer = [], np.iinfo(np.int64).max
        for tier, (shortest, _, _) in enumerate(_TIERS):
            rows = np.flatnonzero((lengths >= shortest) & (lengths < longer))
            if len(rows):
                self._tiers.append((shortest, _Tier(flat, begins[rows], offsets[1:][rows], numbers[rows], tier)))
            longer = shortest

    def find(self, text: bytes, *, shortest: int = 0) -> Iterator[tuple[int, int, int]]:
        """Number, beginning and end of each; strings of a tier below `shortest` bytes are left out."""
        padded = np.frombuffer(text + bytes(8), np.uint8)
        for least, tier in self._tiers:
            if least >= shortest:
                yield from tier.find(text, padded)


class Needles:
    """What is looked for: `telling` strings in any form and anywhere, `brief` ones only where they stand alone.

    Both are binary arrays with a number for each string, which may be the same for several. Telling ones are in
    canonical form (`condensed`); those for whose number `is_numeral` is set are not found within a longer number.
    Brief ones are `folded`; they are found in text, next to no ASCII letter or digit.
    """

    def __init__(
        self,
        telling: pa.Array,
        telling_numbers: NDArray[np.int32],
        brief: pa.Array,
        brief_numbers: NDArray[np.int32],
        is_numeral: NDArray[np.bool_],
    ) -> None:
        self._telling, self._brief = _Index(telling, telling_numbers), _Index(brief, brief_numbers)
        self._is_numeral = is_numeral
        self._has_brief = len(brief) > 0
        self.count = len(telling) + len(brief)

    def sightings(self, octets: bytes, *, is_sound: bool = False) -> set[Sighting]:
        """Everything in a piece of a stream. Of compressed sound only runs that can be read are looked through."""
        piece = _View(octets, int)
        if is_sound:
            return set(self._anywhere(_readable_runs(piece), shortest=_CERTAIN_BYTES))
        is_readable = is_text(octets)
        found = set(self._anywhere(piece, shortest=0 if is_readable else _CERTAIN_BYTES))
        if is_readable:
            found.update(self._alone(_without_zeros(piece)))
        plain = [piece]
        for part, has_escapes in _marked(piece, is_text=is_readable):
            unescaped = _rewritten(part, _ESCAPE, _character) if has_escapes else part
            spelt = _rewritten(unescaped, _BEYOND_ASCII, _folded_run) if is_readable else unescaped
            found.update(self._anywhere(spelt, shortest=0))
            found.update(self._alone(spelt))
            if has_escapes:
                plain.append(unescaped)
        for view in plain:
            for decoded in _decoded(view):
                found.update(self._anywhere(decoded, shortest=_CERTAIN_BYTES))
        return found

    def _anywhere(self, view: "_View", shortest: int) -> Iterator[Sighting]:
        kept: Positions | None = None
        for number, begin, end in self._telling.find(condensed(view.octets), shortest=shortest):
            if kept is None:
                kept = np.flatnonzero(_IS_KEPT[np.frombuffer(view.octets, np.uint8)])
            first, last = int(kept[begin]), int(kept[end - 1])
            if not self._is_numeral[number] or _is_whole_number(view.octets, first, last):
                yield Sighting(number, view.origin(first))

    def _alone(self, view: "_View") -> Iterator[Sighting]:
        if not self._has_brief:
            return
        text = view.octets.lower()
        for number, begin, end in self._brief.find(text):
            if not (begin and _IS_ALNUM[text[begin - 1]]) and not (end < len(text) and _IS_ALNUM[text[end]]):
                yield Sighting(number, view.origin(begin))


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


# -- the forms of a piece --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _View:
    """Bytes that were made of a piece; `origin` tells where in the piece a place of them comes from."""

    octets: bytes
    origin: Callable[[int], int]


def is_text(octets: bytes) -> bool:
    """Whether it reads as UTF-8 or ASCII, zero bytes aside, which UTF-16 brings."""
    if octets.isascii():
        return True
    if np.count_nonzero(_IS_ODD[np.frombuffer(octets, np.uint8)]) * 20 <= len(octets):
        return True
    try:
        for start in (0, len(octets) // 2):
            # A piece may begin or end within a character.
            sample = octets[start : start + 4096].lstrip(bytes(range(128, 192)))
            codecs.getincrementaldecoder("utf-8")().decode(sample)
    except UnicodeDecodeError:
        return False
    return not np.any(_IS_CONTROL[np.frombuffer(octets[:4096], np.uint8)])


def _is_whole_number(octets: bytes, first: int, last: int) -> bool:
    """Whether no digit stands before or behind it; zeros may stand before it, as in telephone numbers."""
    while first and octets[first - 1] == ord("0"):
        first -= 1
    return not octets[max(0, first - 1) : first].isdigit() and not octets[last + 1 : last + 2].isdigit()


def _readable_runs(piece: _View) -> _View:
    """Runs of at least eight bytes that are ASCII or, as in UTF-16, zero: in compressed sound there are few."""
    octets = np.frombuffer(piece.octets, np.uint8)
    runs = _IS_READABLE.take(octets)
    for width in (1, 2, 4):  # then each stands for the eight from it on
        runs = runs[:-width] & runs[width:]
    begins = np.flatnonzero(runs)
    kept = np.zeros(len(octets), np.bool_)
    for place in range(_CERTAIN_BYTES):
        kept[begins + place] = True
    return _View(octets[kept].tobytes(), partial(_place_in_runs, piece, kept))


def _without_zeros(piece: _View) -> _View:
    if b"\0" not in piece.octets:
        return piece
    places = np.flatnonzero(np.frombuffer(piece.octets, np.uint8))
    return _View(piece.octets.replace(b"\0", b""), lambda place: int(places[place]))


def _marked(piece: _View, *, is_text: bool) -> Iterator[tuple[_View, bool]]:
    """The parts of a piece around escapes and, in text, around letters beyond ASCII; whether there are escapes."""
    octets = np.frombuffer(piece.octets, np.uint8)
    signs = np.flatnonzero(_IS_ESCAPE.take(octets))
    escapes = [at for at in signs.tolist() if _ESCAPE.match(piece.octets, at)]
    if not is_text:
        escapes = [at for at in escapes if _is_in_text(piece.octets, at)]
    has_letters = is_text and not piece.octets.isascii()
    beyond = np.flatnonzero(octets >= 128) if has_letters else np.empty(0, np.int64)
    places = np.sort(np.concatenate([np.array(escapes, np.int64), beyond]))
    if not len(places):
        return
    reach = 2 * LONGEST
    is_first = np.concatenate([[True], np.diff(places) > 2 * reach])
    begins = places[is_first]
    ends = places[np.concatenate([is_first[1:], [True]])]
    if len(begins) > _MOST_PARTS:
        begins, ends = begins[:1], ends[-1:]
    for begin, end in zip(begins.tolist(), ends.tolist(), strict=True):
        start = max(0, begin - reach)
        has_escapes = bisect_left(escapes, begin) < bisect_right(escapes, end)
        yield _View(piece.octets[start : end + reach], partial(add, start)), has_escapes


def _is_in_text(octets: bytes, at: int) -> bool:
    """Whether enough signs that can be read stand before and behind a place for anything certain to be there."""
    before, behind = octets[max(0, at - 16) : at], octets[at : at + 24]
    read = len(before) - len(before.rstrip(_READABLE)) + len(behind) - len(behind.lstrip(_READABLE))
    return read >= _CERTAIN_BYTES + 2


def _rewritten(view: _View, pattern: re.Pattern[bytes], change: Callable[[re.Match[bytes]], bytes]) -> _View:
    """Every match changed; where a place came from is worked out when the first one is asked for."""

    @cache
    def stretches() -> tuple[list[int], list[int], list[int]]:
        made, came_from, longest = [0], [0], [len(view.octets)]
        for match in pattern.finditer(view.octets):
            begin = made[-1] + match.start() - came_from[-1]
            made += [begin, begin + len(change(match))]
            came_from += match.span()
            longest += [len(match[0]) - 1, len(view.octets)]
        return made, came_from, longest

    def origin(place: int) -> int:
        made, came_from, longest = stretches()
        last = bisect_right(made, place) - 1
        return view.origin(came_from[last] + min(place - made[last], longest[last]))

    return _View(pattern.sub(change, view.octets), origin)


def _character(match: re.Match[bytes]) -> bytes:
    """What an escape stands for: %2D, \\u002d, \\x2d, &#45;, &#x2d; and names, also where it was escaped twice."""
    kind = str(match.lastgroup)
    text = match[kind].decode("ascii")
    match kind:
        case "url" | "two":
            return bytes([int(text, 16)])
        case "low":
            pair = bytes.fromhex(match["high"].decode() + text)
            return pair.decode("utf-16-be").encode("utf-8")
        case "one":
            return b" "
        case "name":
            return html.entities.html5.get(f"{text};", match[0].decode()).encode("utf-8")
        case _:
            point = int(text, 10 if kind == "decimal" else 16)
            return chr(point).encode("utf-8", "replace") if point < 0x110000 else match[0]


def _decoded(view: _View) -> Iterator[_View]:
    """What runs of base64 (of either alphabet) and of hexadecimal digits hold.

    A run is decoded from its beginning and once more with its bits moved by 2, 4 and 6: so it is decoded from each of
    four characters on, and one of them is the right one. Hexadecimal digits are a part of the alphabet.
    """
    run, kept = _runs(view.octets, _IS_BASE64, _CERTAIN_BYTES * 4 // 3)
    if not run:
        return
    letters = run.translate(_TO_BASE64) + b"AAA"  # in the place of padding
    bits = np.frombuffer(binascii.a2b_base64(letters[: len(letters) // 4 * 4]), np.uint8)
    inside = _View(run, partial(_place_in_runs, view, kept))
    for shift in (0, 2, 4, 6):
        moved = bits[:-1] << shift | bits[1:] >> (8 - shift) if shift else bits
        yield _View(moved.tobytes(), partial(_place_of_bits, inside, shift))
    yield from _from_hex(inside)


def _from_hex(view: _View) -> Iterator[_View]:
    """From the first and from the second digit on."""
    run, kept = _runs(view.octets, _IS_HEX, _CERTAIN_BYTES * 2)
    digits = _NIBBLE[np.frombuffer(run, np.uint8)]
    inside = _View(run, partial(_place_in_runs, view, kept))
    for phase in range(2 if run else 0):
        pairs = digits[phase : phase + (len(digits) - phase) // 2 * 2]
        octets = (pairs[0::2] << 4 | pairs[1::2]).tobytes()
        yield _View(octets, partial(_place_of_pair, inside, phase))


def _place_of_bits(view: _View, shift: int, place: int) -> int:
    return view.origin((shift + 8 * place) // 6)


def _place_of_pair(view: _View, phase: int, place: int) -> int:
    return view.origin(phase + 2 * place)


def _place_in_runs(view: _View, kept: NDArray[np.bool_], place: int) -> int:
    return view.origin(int(np.flatnonzero(kept)[place]))


def _runs(octets: bytes, members: NDArray[np.bool_], shortest: int) -> tuple[bytes, NDArray[np.bool_]]:
    """All runs of such bytes, each with the byte behind it, and which bytes these are. Lines are joined that were
    broken for their width."""
    padded = np.frombuffer(octets + b" ", np.uint8)
    inside = np.zeros(len(padded) + 1, np.int8)
    np.take(members, padded, out=inside[1:].view(np.bool_))
    edges = np.flatnonzero(inside[1:] != inside[:-1])
    begins, ends = edges[0::2], edges[1::2]
    lengths = ends - begins
    is_wrapped = (lengths >= _WRAPPED) & _IS_BREAK[padded[ends]]
    wanted = lengths >= shortest
    wanted[1:] |= is_wrapped[:-1] & (begins[1:] - ends[:-1] <= 2)
    steps = np.zeros(len(padded) + 1, np.int8)
    steps[begins[wanted]] = 1
    steps[(ends + ~is_wrapped)[wanted]] -= 1
    kept = np.cumsum(steps[:-1], dtype=np.int8).view(np.bool_)
    return padded[kept].tobytes(), kept
