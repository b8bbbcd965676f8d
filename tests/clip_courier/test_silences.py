"""What must not be heard: found by the recogniser's own times, for every hypothesis, or the clip stays here."""

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clip_courier.errors import AudioUnusable
from clip_courier.silences import Said, Silences, silences, words_of

NAMES = {"anna", "quandle", "four", "five"}
MARGIN = 100


def said(text: str) -> Said:
    words = text.split()
    return Said(words, [word.strip(".,!?").lower() in NAMES for word in words])


def timed(text: str, each_ms: int = 400) -> list[dict[str, Any]]:
    """Every word after a pause of half its length."""
    return [
        {"word": word, "start_ms": n * each_ms + each_ms // 2, "end_ms": (n + 1) * each_ms}
        for n, word in enumerate(text.split())
    ]


def found(texts: list[str], words: list[dict[str, Any]] | None, duration_ms: int = 60_000) -> Silences:
    masked = said(" ".join(words_of(words))).is_masked
    return silences([said(t) for t in texts], words, masked, duration_ms=duration_ms, margin_ms=MARGIN)


def is_held_back(texts: list[str], words: list[dict[str, Any]] | None, duration_ms: int = 60_000) -> bool:
    refused = []
    try:
        found(texts, words, duration_ms)
    except AudioUnusable as unusable:
        refused.append(unusable)
    assert not any(name in str(one) for one in refused for name in NAMES)
    assert {one.reason for one in refused} <= {"mask_without_timing"}
    return bool(refused)


# -- one hypothesis --------------------------------------------------------------------------------------------


def test_silences_are_where_the_masked_words_are() -> None:
    text = "please call anna tonight"
    assert found([text], timed(text)) == Silences([(900, 1300)], ["please call tonight"])
    assert found(["please call tonight"], timed("please call tonight")) == Silences([], ["please call tonight"])


def test_silences_last_longer_where_a_recording_may_be_late() -> None:
    """A word is then heard at its time or up to so much later, and the next one may be joined by it."""
    text = "please call anna tonight anna again"
    words, masks = timed(text), said(text)
    late = silences([masks], words, masks.is_masked, duration_ms=60_000, margin_ms=MARGIN, late_ms=132)
    assert late.spans == [(900, 1432), (1700, 2232)]
    later = silences([masks], words, masks.is_masked, duration_ms=60_000, margin_ms=MARGIN, late_ms=400)
    assert later.spans == [(900, 2500)]


def test_silences_of_words_that_follow_each_other_are_one() -> None:
    """What was said in the pause between two digits may be another digit."""
    text = "call four five five please"
    assert found([text], timed(text, 2000)).spans == [(2900, 8100)]


def test_silences_that_touch_are_one() -> None:
    text = "anna and five"
    assert found([text], timed(text, 120)) == Silences([(0, 460)], [""])
    assert found([text], timed(text, 300)) == Silences([(50, 400), (650, 1000)], ["and"])


def test_silences_at_the_edges_begin_with_the_recording() -> None:
    words = [{"word": "anna", "start_ms": 0, "end_ms": 500}]
    assert found(["Anna!"], words, 500).spans == [(0, 600)]


def test_words_differ_from_the_hypothesis_in_letters_marks_and_spaces() -> None:
    words = timed("Please call")
    words.append({"word": "Anna Quandle,", "start_ms": 900, "end_ms": 1700})
    assert words_of(words) == ["Please", "call", "Anna", "Quandle,"]
    assert found(["please CALL anna quandle tonight"], words).spans == [(800, 1800)]


def test_a_word_that_is_mostly_silenced_is_heard_by_nobody() -> None:
    words = [
        {"word": "to", "start_ms": 910, "end_ms": 1000},
        {"word": "anna", "start_ms": 1000, "end_ms": 1400},
        {"word": "tonight", "start_ms": 1400, "end_ms": 2000},
    ]
    assert found(["to anna tonight"], words).heard == ["tonight"]


# -- several ---------------------------------------------------------------------------------------------------


def test_a_mask_of_any_hypothesis_is_silenced() -> None:
    first, second = "please call and a tonight", "please call anna tonight"
    silent = found([first, second], timed(first))
    assert silent.spans == [(900, 1700)]
    assert silent.heard == ["please call tonight", "please call tonight"]


def test_a_mask_in_the_timed_words_alone_is_silenced() -> None:
    assert found(["please call hannah tonight"], timed("please call anna tonight")).spans == [(900, 1300)]


def test_a_word_that_only_a_later_hypothesis_heard_has_no_time() -> None:
    assert is_held_back(["please call tonight", "please call anna tonight"], timed("please call tonight"))
    assert not is_held_back(["please call tonight", "please call me tonight"], timed("please call tonight"))


def test_all_that_differs_around_a_mask_is_silenced() -> None:
    first = "turn on the light in the kitchen"
    assert found([first, "turn anna quandle four in the kitchen"], timed(first)).spans == [(500, 1700)]


@pytest.mark.parametrize("words", [None, [], [{"word": None, "start_ms": 0, "end_ms": 400}]])
def test_masks_without_timed_words_hold_the_clip_back(words: list[dict[str, Any]] | None) -> None:
    assert is_held_back(["call anna"], words)
    assert is_held_back(["call me", "call anna"], words)
    assert found(["call me"], words) == Silences([], ["call me"])
    assert found([], words) == Silences([], [])


@pytest.mark.parametrize(
    ("start_ms", "end_ms"),
    [(-1, 1300), (1300, 1000), (1000, 1000), (1000, 1020), (None, 1300), (1000, None), (1000, 2001), (5000, 5400)],
)
def test_times_that_cannot_be_true_hold_the_clip_back_where_a_mask_needs_them(
    start_ms: int | None, end_ms: int | None
) -> None:
    words = timed("please call anna tonight")
    words[2] |= {"start_ms": start_ms, "end_ms": end_ms}
    assert is_held_back(["please call anna tonight"], words, duration_ms=2000)
    words = timed("please call him tonight")
    words[2] |= {"start_ms": start_ms, "end_ms": end_ms}
    assert not is_held_back(["please call him tonight"], words, duration_ms=2000)


@pytest.mark.parametrize("beside", [1, 3])
def test_times_out_of_order_beside_a_mask_hold_the_clip_back(beside: int) -> None:
    words = timed("please call anna tonight")
    words[beside] |= {"start_ms": 1500 if beside == 1 else 0, "end_ms": 1600 if beside == 1 else 100}
    assert is_held_back(["please call anna tonight"], words)


# -- always ----------------------------------------------------------------------------------------------------

WORDS = st.sampled_from([*sorted(NAMES), "please", "call", "me", "the", "light"])
TEXTS = st.lists(WORDS, max_size=8)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.lists(TEXTS, max_size=3), TEXTS, st.booleans())
def test_no_masked_word_is_ever_heard(texts: list[list[str]], words: list[str], is_first_timed: bool) -> None:
    """However the hypotheses differ: every masked word's sound is silent, or the clip stays here."""
    if is_first_timed and texts:
        words = texts[0]
    times = timed(" ".join(words))
    joined = [" ".join(text) for text in texts]
    if is_held_back(joined, times):
        # The timed words have times, so it is a hypothesis that has one more.
        assert any(set(text) & NAMES for text in texts if text != words)
        return
    silent = found(joined, times)
    for word in times:
        inside = [s for s, e in silent.spans if s <= word["start_ms"] - MARGIN and word["end_ms"] + MARGIN <= e]
        assert inside or word["word"] not in NAMES or (word["start_ms"] < MARGIN and silent.spans[0][0] == 0)
    for text, heard in zip(texts, silent.heard, strict=True):
        assert not set(heard.split()) & NAMES
        # Words of nobody leave only where there is silence, and in their order.
        assert silent.spans or heard.split() == text
        rest = iter(text)
        assert all(word in rest for word in heard.split())
    assert all(start < end for start, end in silent.spans)
    assert all(before < after for (_, before), (after, _) in pairwise(silent.spans))
    # What the texts have no mask near is left alone.
    if not any(set(text) & NAMES for text in [*texts, words]):
        assert not silent.spans
