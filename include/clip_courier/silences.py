"""Which parts of a recording must not be heard: the time of every word that a mask takes out of a text.

The recogniser times the words of its first hypothesis. A mask counts whichever hypothesis it stands in: what the second
one took for a name may be a harmless word in the first one, and is the same sound. The others are therefore aligned
with the timed words (Levenshtein), and where the two differ, all of the timed words between the next ones that agree
are taken to be the masked one. A mask whose time is not known for certain keeps the whole clip back.
"""

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import regex
from rapidfuzz.distance import Levenshtein

from clip_courier.errors import AudioUnusable

REASON: Final = "mask_without_timing"
# No word that anybody needs to hide is said in less: a recogniser that says so does not know the time.
_SHORTEST_WORD_MS: Final = 30
_EDGE: Final = regex.compile(r"^[\p{P}\p{S}]+|[\p{P}\p{S}]+$")


@dataclass(frozen=True)
class Said:
    """A text as heard by the recogniser: its words in order, and which of them are masked."""

    words: Sequence[str]
    is_masked: Sequence[bool]

    def __post_init__(self) -> None:
        if len(self.words) != len(self.is_masked):
            raise ValueError("a mask or none for every word")


@dataclass(frozen=True)
class Silences:
    """`spans`: (start, end) in ms, in order and apart, margins included, so that the last may end after the recording.

    `heard`: of each text the words that can still be heard, parted by spaces.
    """

    spans: Sequence[tuple[int, int]]
    heard: Sequence[str]


@dataclass(frozen=True)
class _Timed:
    """A word with its time; a recogniser may have written anything there."""

    word: str
    start_ms: int | None
    end_ms: int | None


def words_of(timed: Sequence[Mapping[str, Any]] | None) -> list[str]:
    """The words that landing's `words` has times for, each without spaces inside."""
    return [one.word for one in _parted(timed)]


def silences(
    texts: Sequence[Said],
    timed: Sequence[Mapping[str, Any]] | None,
    is_masked: Sequence[bool],
    *,
    duration_ms: int,
    margin_ms: int,
    late_ms: int = 0,
) -> Silences:
    """What to silence of a recording for all of its hypotheses.

    Args:
        texts: its hypotheses. timed: landing's `words` (word, start_ms, end_ms). is_masked: of `words_of(timed)`.
        duration_ms: of the recording itself. margin_ms: silenced before and after a masked word.
        late_ms: by how much later than its time a word may be heard in it.

    Raises:
        AudioUnusable: `mask_without_timing`: a masked word has no time, or none that can be true.
    """
    known = _parted(timed)
    keys = [_key(one.word) for one in known]
    silent = {place for place, is_one in enumerate(is_masked) if is_one}
    for text in texts:
        silent.update(_places(text, keys))
    spans = list(_spans(known, silent, duration_ms, (margin_ms, margin_ms + late_ms)))
    inaudible = {place for place, one in enumerate(known) if place in silent or _is_within(one, spans)}
    return Silences(spans, [_heard(text, keys, inaudible) for text in texts])


def _parted(timed: Sequence[Mapping[str, Any]] | None) -> list[_Timed]:
    return [
        _Timed(word, one["start_ms"], one["end_ms"])
        for one in timed or ()
        if one is not None
        for word in (one["word"] or "").split()
    ]


def _key(word: str) -> str:
    """In the form that words are compared in."""
    composed = unicodedata.normalize("NFC", word)
    return _EDGE.sub("", composed).casefold() or composed


def _places(text: Said, keys: Sequence[str]) -> Iterator[int]:
    """Of the timed words those that are, or may be, a masked one of the text."""
    if not any(text.is_masked):
        return
    for i1, i2, j1, j2, is_same in _regions([_key(word) for word in text.words], keys):
        masked = [place for place in range(i1, i2) if text.is_masked[place]]
        if is_same:
            yield from (j1 + place - i1 for place in masked)
        elif masked and j1 == j2:
            raise AudioUnusable(REASON, "a word that is masked was not timed")
        elif masked:
            yield from range(j1, j2)


def _regions(words: Sequence[str], keys: Sequence[str]) -> Iterator[tuple[int, int, int, int, bool]]:
    """(start, end) in the text, (start, end) in the timed words, and whether they are the same words there."""
    i1 = j1 = 0
    for block in Levenshtein.editops(words, keys).as_matching_blocks():
        if (i1, j1) != (block.a, block.b):
            yield i1, block.a, j1, block.b, False
        i1, j1 = block.a + block.size, block.b + block.size
        if block.size:
            yield block.a, i1, block.b, j1, True


def _spans(
    known: Sequence[_Timed], silent: set[int], duration_ms: int, margins_ms: tuple[int, int]
) -> Iterator[tuple[int, int]]:
    """With a margin before and one after. The pause between two masked words that follow each other is silenced with
    them: it may hold more of the name.
    """
    before_ms, after_ms = margins_ms
    runs: list[tuple[int, int, int]] = []
    for place in sorted(silent):
        start, end = _checked(known, place, duration_ms)
        while runs and (runs[-1][2] == place - 1 or start - before_ms <= runs[-1][1] + after_ms):
            before, after, _ = runs.pop()
            start, end = min(start, before), max(end, after)
        runs.append((start, end, place))
    yield from ((max(0, start - before_ms), end + after_ms) for start, end, _ in runs)


def _checked(known: Sequence[_Timed], place: int, duration_ms: int) -> tuple[int, int]:
    """The time of a word, if it can be true."""
    one = known[place]
    beside = [known[n].start_ms for n in (place - 1, place, place + 1) if 0 <= n < len(known)]
    starts = [start for start in beside if start is not None]
    if one.start_ms is None or one.end_ms is None or len(starts) < len(beside):
        raise AudioUnusable(REASON, "a word that is masked has no time")
    is_in_order = all(before <= after for before, after in pairwise(starts))
    is_within = one.start_ms >= 0 and one.end_ms <= duration_ms
    if not (is_in_order and is_within and one.end_ms - one.start_ms >= _SHORTEST_WORD_MS):
        raise AudioUnusable(REASON, "a word that is masked has a time that cannot be true")
    return one.start_ms, one.end_ms


def _is_within(one: _Timed, spans: Sequence[tuple[int, int]]) -> bool:
    """Whether more than half of a word lies in silence, so that nobody can make it out."""
    if one.start_ms is None or one.end_ms is None:
        return False
    silent_ms = sum(max(0, min(one.end_ms, end) - max(one.start_ms, start)) for start, end in spans)
    return 2 * silent_ms > one.end_ms - one.start_ms


def _heard(text: Said, keys: Sequence[str], inaudible: set[int]) -> str:
    """Word by word: where the text differs from the timed words, it is the one in the same place that tells."""
    gone = {place for place, is_one in enumerate(text.is_masked) if is_one}
    for i1, i2, j1, j2, _ in _regions([_key(word) for word in text.words], keys) if inaudible else ():
        gone.update(i for i, j in zip(range(i1, i2), range(j1, j2), strict=False) if j in inaudible)
    return " ".join(word for place, word in enumerate(text.words) if place not in gone)
