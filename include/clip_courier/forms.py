"""The forms in which a string may stand in bytes, each brought back to one spelling: canonical, where it is looked for.

A text becomes lower case, compatibility forms are undone (NFKC, so full-width digits are digits), escapes of URLs, JSON
and HTML undone, and of ASCII only letters and digits are kept, so that neither spaces, dashes, brackets and line breaks
nor the zero bytes of UTF-16 make a difference. Runs of base64 and of hexadecimal digits are decoded at every alignment.

Everything is done with masks over a whole piece, a few numpy operations each, because most of a piece is of no form at
all. Of bytes that are no text, such as sound or what was decoded, only runs of ASCII are looked through where that is
enough: a string of ASCII lies in one of them or nowhere.
"""

import codecs
import html.entities
import re
import unicodedata
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from typing import Final

import numpy as np
from numpy.typing import NDArray

# What is undone before strings are looked for; for the evidence.
FORMS: Final = ("case", "NFKC", "signs and spaces", "UTF-16", "URL", "JSON", "HTML", "base64", "hex")
# A longer string is looked for by its last so many bytes.
LONGEST: Final = 256
# Below, a string says too little to be looked for in bytes that look random, such as sound or what was decoded.
CERTAIN_BYTES: Final = 8

_ALNUM: Final = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_DROPPED: Final = bytes(byte for byte in range(128) if byte not in _ALNUM)
_LOWER: Final = bytes(range(256)).lower()
_BASE64: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_URLSAFE: Final = _BASE64[:62] + b"-_"
_HEX: Final = b"0123456789abcdef"
# Lines of base64 and hex are joined where the first is at least so long.
_WRAPPED: Final = 16
# Around what is rewritten so many bytes are looked through with it.
_REACH: Final = 2 * LONGEST
# Stands for what lies between two stretches that are looked through; in no encoding of any text are there four of them.
_BREAK: Final = b"\xff\xff\xff\xff"

_ESCAPE = re.compile(
    rb"%(?:25)*(?P<url>[0-9A-Fa-f]{2})"
    rb"|\\+u(?P<high>[dD][89abAB][0-9A-Fa-f]{2})\\+u(?P<low>[dD][c-fC-F][0-9A-Fa-f]{2})"
    rb"|\\+(?:u(?P<four>[0-9A-Fa-f]{4})|U(?P<eight>[0-9A-Fa-f]{8})|x(?P<two>[0-9A-Fa-f]{2})|(?P<one>[nrtbf]))"
    rb"|&(?:amp;)*(?:#(?P<decimal>[0-9]{1,7})|#[xX](?P<hexadecimal>[0-9A-Fa-f]{1,6})|(?P<name>[A-Za-z]{2,31}));"
)
# Punctuation beyond ASCII that stands for a sign that is dropped, and joins, marks and spaces that nobody sees
# (Unicode's default ignorable code points).
_SIGNS: Final = "\u2010-\u2015\u2212\u2018-\u201f\u2022\u2024-\u2027\u00b7\u2044\u2215\u3000-\u3003"
_UNSEEN: Final = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff"
)
_SIGN, _MARK = re.compile(f"[{_SIGNS}]"), re.compile(f"[{_SIGNS}{_UNSEEN}]")
# A letter with the marks that may belong to it.
_CLUSTER = re.compile(
    "(?s:.)[\u0300-\u036f\u0483-\u0489\u0591-\u05c7\u064b-\u065f\u1ab0-\u1aff\u1dc0-\u1dff\u3099\u309a]*"
)
# Of other scripts.
_DIGIT = re.compile(r"[^\D0-9]")

Octets = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Positions = NDArray[np.int64]


def _table(members: bytes) -> Mask:
    return np.isin(np.arange(256), list(members))


def _values(*alphabets: bytes) -> Octets:
    """Which number each byte stands for, in any of some alphabets."""
    table = np.zeros(256, np.uint8)
    for alphabet in alphabets:
        table[list(alphabet)] = range(len(alphabet))
    return table


def _is_base64(octets: Octets) -> Mask:
    """Letters, digits and /, + and -, and _: comparisons are several times as quick as a table."""
    above = octets - np.uint8(43)
    letters, digits = (octets | 32) - np.uint8(97) < 26, octets - np.uint8(47) < 11
    return np.asarray(letters | digits | (above & 253 == 0) | (octets == 95))


def _is_hex(octets: Octets) -> Mask:
    return np.asarray(((octets | 32) - np.uint8(97) < 6) | (octets - np.uint8(48) < 10))


_EACH: Final = np.arange(256, dtype=np.uint8)
IS_ASCII: Final = _EACH < 128
_IS_KEPT: Final = ~_table(_DROPPED)
_IS_BASE64: Final = _is_base64(_EACH)
_IS_HEX: Final = _is_hex(_EACH)
_SEXTET: Final = _values(_BASE64, _URLSAFE)
_NIBBLE: Final = _values(_HEX, _HEX.upper())
# The lowest so many bytes of a word.
_LOWEST: Final = np.array([(1 << 8 * count) - 1 for count in range(9)], np.uint64)
# How long an escape is, by the byte behind its backslash.
_LENGTHS: Final = np.zeros(256, np.int64)
_LENGTHS[list(b"nrtbf")], _LENGTHS[ord("x")], _LENGTHS[ord("u")] = 2, 4, 6
# Sign of an escape → what may follow it.
_FOLLOWS: Final = {ord("%"): _IS_HEX, ord("\\"): _table(b"\\uUxnrtbf"), ord("&"): _table(b"#" + _ALNUM[10:])}


def folded(octets: bytes) -> bytes:
    """One spelling of every text in UTF-8: NFKC, case-folded (toNFKC_Casefold), every dash the same."""
    return octets.lower() if octets.isascii() else _folded(octets).lower()


def _folded(octets: bytes) -> bytes:
    text = octets.decode("utf-8", "surrogateescape")
    plain = _MARK.sub(lambda mark: "-" * bool(_SIGN.match(mark[0])), unicodedata.normalize("NFKC", text)).casefold()
    plain = _DIGIT.sub(lambda digit: str(unicodedata.decimal(digit[0])), plain)
    return unicodedata.normalize("NFKC", plain).encode("utf-8", "surrogateescape")


def condensed(octets: bytes) -> bytes:
    """The canonical form of bytes: of ASCII only letters and digits, in lower case."""
    return octets.translate(_LOWER, _DROPPED)


def is_text(octets: bytes) -> bool:
    """Whether it reads as UTF-8 or ASCII, zero bytes aside, which UTF-16 brings."""
    if octets.isascii():
        return True
    array = np.frombuffer(octets, np.uint8)
    if np.count_nonzero(_is_control(array) | (array >= 127)) * 20 <= len(octets):
        return True
    try:
        for start in (0, len(octets) // 2):
            # A piece may begin or end within a character.
            sample = octets[start : start + 4096].lstrip(bytes(range(128, 192)))
            codecs.getincrementaldecoder("utf-8")().decode(sample)
    except UnicodeDecodeError:
        return False
    return not np.any(_is_control(array[:4096]))


def is_alnum(lower: Octets) -> Mask:
    """Digits and lower-case letters of ASCII."""
    return ((lower - np.uint8(48)) < 10) | ((lower - np.uint8(97)) < 26)


def words_of(octets: Octets) -> NDArray[np.uint64]:
    """The eight bytes from each place on, as a number; the lowest is the first."""
    return np.ndarray((max(0, len(octets) - 7),), "<u8", octets, strides=(1,))


def _is_control(octets: Octets) -> Mask:
    """Zero, and what moves on in a text (9 to 13), aside."""
    below = octets - np.uint8(1)
    return (below < 31) & ((below < 8) | (below > 12))


@dataclass(frozen=True)
class View:
    """Bytes that were made of a piece; `origin` tells where in the piece a place of them comes from."""

    array: Octets
    origin: Callable[[int], int]

    @cached_property
    def octets(self) -> bytes:
        return self.array.tobytes()

    @cached_property
    def _kept(self) -> Positions:
        return np.flatnonzero(_IS_KEPT[self.array])

    def condensed(self) -> bytes:
        return condensed(self.octets)

    def span(self, begin: int, end: int) -> tuple[int, int]:
        """The first and the last byte of what stands from `begin` to `end` in the canonical form."""
        return int(self._kept[begin]), int(self._kept[end - 1])

    def kept(self, places: Mask | Positions) -> "View":
        """These bytes alone."""
        return View(self.array[places], partial(_place_kept, self, places))

    def lower(self) -> "View":
        return View(np.frombuffer(self.octets.translate(_LOWER), np.uint8), self.origin)


def view_of(octets: bytes) -> View:
    """A piece as it is."""
    return View(np.frombuffer(octets, np.uint8), int)


def _place_kept(view: View, places: Mask | Positions, place: int) -> int:
    at = places if places.dtype != np.bool_ else np.flatnonzero(places)
    return view.origin(int(at[place]))


# -- runs ------------------------------------------------------------------------------------------------------


def _long_runs(inside: Mask, length: int, step: int = 1) -> Mask:
    """Where so many in a row, each `step` behind the last, are set; shorter by what the last of them reach beyond."""
    width = 1
    while width < length and len(inside):
        more = min(width, length - width)
        inside = inside[: -more * step] & inside[more * step :]
        width += more
    return inside


def _spread(starts: Mask, length: int, size: int) -> Mask:
    """Each that is set and so many behind it, cut to `size`."""
    out = np.zeros(size, np.bool_)
    out[: len(starts)] = starts[:size]
    width = 1
    while width < length:
        more = min(width, length - width)
        out[more:] |= out[:-more]
        width += more
    return out


def runs_of(view: View, members: Mask, shortest: int) -> View:
    """Runs of such bytes that a string can lie in, each with the byte that ends it.

    No string of such bytes is lost, and none is made: the byte that ends a run is in no such string.
    """
    inside = view.array < 128 if members is IS_ASCII else members.take(view.array)
    runs = _long_runs(inside, shortest)
    return view.kept(_spread(runs, shortest + 1, len(view.array)) if np.any(runs) else np.empty(0, np.int64))


# -- what is written otherwise ---------------------------------------------------------------------------------


def rewritten(piece: View, *, is_text: bool) -> tuple[View | None, View | None]:
    """The surroundings of escapes and, in text, of letters beyond ASCII: with both in their usual spelling, and with
    escapes alone undone; None where there is nothing to undo.

    The second is for what is encoded: where no escape stands for a letter of base64 or breaks a line of it, that lies
    in the piece as it is.
    """
    begins, ends, which, texts = _escapes(piece, is_text=is_text)
    beyond = np.flatnonzero(piece.array >= 128) if is_text and not piece.octets.isascii() else np.empty(0, np.int64)
    places = np.sort(np.concatenate([beyond, begins, ends - 1]))
    if not len(places):
        return None, None
    gaps = _gaps(places, len(piece.array))
    all_begins, all_ends = np.concatenate([begins, gaps[0]]), np.concatenate([ends, gaps[1]])
    order = np.argsort(all_begins)
    all_which = np.concatenate([which, np.full(len(gaps[0]), len(texts))])[order]
    new = _chosen([*texts, _BREAK], all_which)
    unescaped = _exchanged(piece, all_begins[order], all_ends[order], *new) if len(order) else piece
    spelt = _folded_letters(unescaped) if is_text and not unescaped.octets.isascii() else unescaped
    is_code = any(_IS_BASE64[byte] or byte in b"\r\n" for text in texts for byte in text)
    return spelt, unescaped if is_code else None


def _gaps(places: Positions, size: int) -> tuple[Positions, Positions]:
    """What lies further than `_REACH` from all of the places, where that is much."""
    ends = np.append(places, size + _REACH) - _REACH
    begins = np.append(-_REACH, places) + _REACH
    wide = ends - begins > _REACH
    return begins[wide], np.minimum(ends[wide], size)


def _chosen(texts: Sequence[bytes], which: Positions) -> tuple[Positions, Octets]:
    """The lengths of those texts, and their bytes one behind the other."""
    sizes = np.array([len(text) for text in texts], np.int64)
    lengths, firsts = sizes[which], (np.cumsum(sizes) - sizes)[which]
    places = np.repeat(firsts - (np.cumsum(lengths) - lengths), lengths) + np.arange(np.sum(lengths))
    return lengths, np.frombuffer(b"".join(texts), np.uint8)[places]


def _escapes(piece: View, *, is_text: bool) -> tuple[Positions, Positions, Positions, list[bytes]]:
    """Where escapes begin and end, and which of some texts each stands for.

    Most are one of a few spellings of at most eight bytes, and are looked up by these; the others one by one.
    """
    array = np.append(piece.array, np.zeros(12, np.uint8))
    at = np.sort(np.concatenate([_followed(piece.array, sign, table) for sign, table in _FOLLOWS.items()]))
    if not is_text:
        readable = _long_runs((array >= 32) & (array < 127), CERTAIN_BYTES + 2)
        at = at[_spread(readable, CERTAIN_BYTES + 2, len(array))[at]]
    lengths = _plain_lengths(array, at)
    begins: list[int] = []
    ends: list[int] = []
    texts: list[bytes] = []
    for place in at[lengths == 0].tolist():
        if (not ends or place >= ends[-1]) and (match := _ESCAPE.match(piece.octets, place)):
            begins.append(place)
            ends.append(match.end())
            texts.append(_character(match))
    long_begins, long_ends = np.array(begins, np.int64), np.array(ends, np.int64)
    at, lengths = at[lengths > 0], lengths[lengths > 0]
    # A backslash before another one, or half of a pair, is a part of what was found there.
    before = np.searchsorted(long_begins, at, "right") - 1
    is_free = (before < 0) | (at >= np.append(long_ends, 0)[before])
    at, lengths = at[is_free], lengths[is_free]
    keys = words_of(array)[at] & _LOWEST[lengths]
    spellings, which = np.unique(keys, return_inverse=True)
    undone = [_undone(int(key).to_bytes(8, "little").rstrip(b"\0")) for key in spellings]
    is_escape = np.array([text is not None for text in undone], np.bool_)[which]
    return (
        np.concatenate([long_begins, at[is_escape]]),
        np.concatenate([long_ends, (at + lengths)[is_escape]]),
        np.concatenate([np.arange(len(texts)), which[is_escape] + len(texts)]).astype(np.int64),
        [*texts, *(text or b"" for text in undone)],
    )


def _plain_lengths(array: Octets, at: Positions) -> Positions:
    """How long each escape is if it is one of the usual spellings and stands for itself; 0 where it may be more."""
    sign, then = array[at], array[at + 1]
    lengths = np.where(sign == ord("\\"), _LENGTHS[then], 0)
    # One half of a pair stands with the other.
    lengths[(lengths == 6) & ((array[at + 2] | 32) == ord("d")) & (array[at + 3] >= ord("8"))] = 0
    lengths[(sign == ord("%")) & ~((then == ord("2")) & (array[at + 2] == ord("5")))] = 3
    is_name = sign == ord("&")
    for length in range(3, 9):
        lengths[is_name & (lengths == 0) & (array[at + length - 1] == ord(";"))] = length
    # It may have been escaped twice.
    lengths[is_name & (words_of(array)[at] & _LOWEST[5] == int.from_bytes(b"&amp;", "little"))] = 0
    return lengths


def _followed(array: Octets, sign: int, table: Mask) -> Positions:
    at = np.flatnonzero(array[:-1] == sign)
    return at[table[array[at + 1]]]


@lru_cache(maxsize=1 << 16)
def _undone(spelling: bytes) -> bytes | None:
    match = _ESCAPE.fullmatch(spelling)
    return match and _character(match)


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


def _folded_letters(view: View) -> View:
    """Every run beyond ASCII folded, with the letter before it, to which a mark may belong. They are folded together,
    one a line."""
    array = view.array
    beyond = array >= 128
    inside = beyond.copy()
    inside[:-1] |= beyond[1:] & (array[:-1] >= 32)
    padded = np.concatenate([[False], inside, [False]])
    edges = np.flatnonzero(padded[1:] != padded[:-1])
    begins, ends = edges[0::2], edges[1::2]
    lines = np.insert(array[inside], np.cumsum(ends - begins), ord("\n"))
    new = np.frombuffer(_folded(lines.tobytes()), np.uint8)
    is_end = new == ord("\n")
    lengths = np.diff(np.flatnonzero(is_end), prepend=-1) - 1

    def place_in(run: int, into: int) -> int:
        return _place_unfolded(array[begins[run] : ends[run]].tobytes(), into)

    return _exchanged(view, begins, ends, lengths, new[~is_end], place_in)


def _place_unfolded(run: bytes, into: int) -> int:
    """Where in a run that stands which is `into` bytes on after folding: runs may be long, and lengths change."""
    begins, lasts = _clusters(run)
    return begins[min(bisect_right(lasts, into), len(begins) - 1)]


@lru_cache(maxsize=64)
def _clusters(run: bytes) -> tuple[list[int], list[int]]:
    """Where each letter with its marks begins, and where it ends after folding."""
    begins, lasts, place, end = [], [], 0, 0
    for cluster in _CLUSTER.findall(run.decode("utf-8", "surrogateescape")):
        octets = cluster.encode("utf-8", "surrogateescape")
        place, end = place + len(octets), end + len(_folded(octets))
        begins.append(place - len(octets))
        lasts.append(end)
    return begins, lasts


def _exchanged(
    view: View,
    begins: Positions,
    ends: Positions,
    lengths: Positions,
    new: Octets,
    place_in: Callable[[int, int], int] = lambda _, into: into,
) -> View:
    """The bytes from each of `begins` to `ends` exchanged for the next so many of `new`. `place_in` tells of a span's
    number and a place in what it was exchanged for where in the span that came from."""
    sizes = ends - begins
    starts = begins + np.cumsum(lengths - sizes) - (lengths - sizes)
    is_old = _within(begins, ends, len(view.array))
    if np.array_equal(lengths, sizes):
        out = view.array.copy()
        out[is_old] = new
    else:
        out = np.empty(len(view.array) - int(np.sum(sizes)) + len(new), np.uint8)
        is_new = _within(starts, starts + lengths, len(out))
        out[is_new] = new
        out[~is_new] = view.array[~is_old]

    def origin(place: int) -> int:
        last = int(np.searchsorted(starts, place, "right")) - 1
        if last < 0:
            return view.origin(place)
        into = place - int(starts[last])
        if into < lengths[last]:
            return view.origin(int(begins[last]) + min(place_in(last, into), int(ends[last] - begins[last]) - 1))
        return view.origin(int(ends[last]) + into - int(lengths[last]))

    return View(out, origin)


def _within(begins: Positions, ends: Positions, size: int) -> Mask:
    """Which places lie between the begin and the end of one of some stretches, which do not overlap."""
    edges = np.concatenate([[0], np.column_stack([begins, ends]).ravel(), [size]])
    return np.repeat(np.arange(len(edges) - 1) % 2 == 1, np.diff(edges))


# -- what is encoded -------------------------------------------------------------------------------------------


def decoded(view: View, members: Mask) -> Iterator[View]:
    """What runs of base64 (of either alphabet) and of hexadecimal digits hold, from each of the alignments: as much of
    it as may hold a string of such bytes. Hexadecimal digits are a part of base64's alphabet.
    """
    runs = _encoded(view, _is_base64, CERTAIN_BYTES * 4 // 3)
    if not len(runs.array):
        return
    yield from _from_base64(runs, members)
    digits = _encoded(runs, _is_hex, CERTAIN_BYTES * 2)
    if len(digits.array):
        yield from _from_hex(digits, members)


def _from_base64(runs: View, members: Mask) -> Iterator[View]:
    """Four letters are three bytes, and each of four letters may be the first."""
    letters = np.append(_SEXTET.take(runs.array), np.zeros(8, np.uint8))  # in the place of padding
    if members is IS_ASCII:
        # The first bit of each of the three.
        is_wanted = ((letters[:-2] & 32) | (letters[1:-1] & 8) | (letters[2:] & 2)) == 0
    else:
        pairs = _is_first_of(members).take(letters[:-1].astype(np.int64) << 6 | letters[1:])
        is_wanted = ((pairs[:-2] & 1) & (pairs[1:-1] >> 1) & (pairs[2:] >> 2)).view(np.bool_)
    # Eight bytes are in two groups of three and what is beside them.
    twice = _long_runs(is_wanted, 2, step=4)
    for first in range(4):
        count = (len(runs.array) + 3 - first) // 4
        found = twice[first::4]
        if np.any(found):
            near = _spread(found, 3, count + 1)
            near[:-1] |= near[1:]
            groups = np.flatnonzero(near[:count])
            fours = np.ndarray((count,), "<u4", letters, first, (4,)).take(groups)
            octets = np.empty((len(groups), 3), np.uint8)
            # The first letter is in the lowest byte.
            octets[:, 0] = fours << 2 | fours >> 12 & 3
            octets[:, 1] = fours >> 4 & 0xF0 | fours >> 18 & 0xF
            octets[:, 2] = fours >> 10 & 0xC0 | fours >> 24
            yield View(octets.ravel(), partial(_place_of_group, runs, first, groups))


def _is_first_of(members: Mask) -> Octets:
    """Whether two letters of base64 (12 bits) hold such a byte from the first bit on, the third, and the fifth."""
    twelve = np.arange(1 << 12)
    first, second, third = (members[twelve >> shift & 255].view(np.uint8) for shift in (4, 2, 0))
    return np.asarray(first | second << np.uint8(1) | third << np.uint8(2))


def _from_hex(digits: View, members: Mask) -> Iterator[View]:
    """Two digits are a byte, and each of two may be the first."""
    nibbles = np.append(_NIBBLE.take(digits.array), np.uint8(0))
    octets = nibbles[:-1] << np.uint8(4) | nibbles[1:]
    starts = _long_runs(octets < 128 if members is IS_ASCII else members.take(octets), CERTAIN_BYTES, step=2)
    for first in range(2):
        found = starts[first::2]
        if np.any(found):
            places = np.flatnonzero(_spread(found, CERTAIN_BYTES + 1, (len(octets) - first + 1) // 2))
            yield View(octets[first::2][places], partial(_place_of_pair, digits, first, places))


def _place_of_group(view: View, first: int, groups: Positions, place: int) -> int:
    return view.origin(min(first + 4 * int(groups[place // 3]) + place % 3, len(view.array) - 1))


def _place_of_pair(view: View, first: int, places: Positions, place: int) -> int:
    return view.origin(first + 2 * int(places[place]))


def _encoded(view: View, are_members: Callable[[Octets], Mask], shortest: int) -> View:
    """All runs of such bytes, each with the byte behind it. Lines are joined that were broken for their width, and the
    last of them may be short."""
    size = len(view.array)
    array = np.append(view.array, np.zeros(_WRAPPED + 2, np.uint8))
    inside = are_members(array)
    long = _long_runs(inside, shortest)
    if not np.any(long):
        return view.kept(np.empty(0, np.int64))
    kept = _spread(long, shortest + 1, len(array))
    is_break = (array == ord("\n")) | (array == ord("\r"))
    ends = np.flatnonzero(_long_runs(inside, _WRAPPED)[:-1] & is_break[_WRAPPED:]) + _WRAPPED
    kept[ends] = False
    tails = ends + 1 + ~inside[ends + 1]
    tails = tails[inside[tails] & ~long[tails]]
    for place in range(shortest):
        kept[tails + place] = True  # at last the byte behind it
        tails = tails[inside[tails + place]]
    return view.kept(kept[:size])
