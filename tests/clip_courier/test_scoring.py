"""Scores against a plain dynamic programme with the weights of sclite."""

import unicodedata
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clip_courier.scoring import Errors, character_errors, normalise, word_errors

WORDS = [f"{first}{second}" for first in "abcdefghij" for second in "klmnopqrst"]
# Few words, so that they meet by chance: the hardest case for an alignment.
FEW_WORDS = WORDS[:4]


def least_cost(reference: Sequence[str], hypothesis: Sequence[str]) -> set[tuple[int, int, int]]:
    """Every (substitutions, deletions, insertions) of an alignment of the least cost under 4, 3, 3."""
    best: dict[tuple[int, int], tuple[int, set[tuple[int, int, int]]]] = {(0, 0): (0, {(0, 0, 0)})}
    for i in range(len(reference) + 1):
        for j in range(len(hypothesis) + 1):
            if i == j == 0:
                continue
            ways: list[tuple[int, set[tuple[int, int, int]]]] = []
            if i and j:
                cost, counts = best[i - 1, j - 1]
                differs = int(reference[i - 1] != hypothesis[j - 1])
                ways.append((cost + 4 * differs, {(s + differs, d, n) for s, d, n in counts}))
            if i:
                cost, counts = best[i - 1, j]
                ways.append((cost + 3, {(s, d + 1, n) for s, d, n in counts}))
            if j:
                cost, counts = best[i, j - 1]
                ways.append((cost + 3, {(s, d, n + 1) for s, d, n in counts}))
            least = min(cost for cost, _ in ways)
            best[i, j] = (least, {one for cost, counts in ways if cost == least for one in counts})
    return best[len(reference), len(hypothesis)][1]


def edit_distance(reference: Sequence[str], hypothesis: Sequence[str]) -> int:
    row = list(range(len(hypothesis) + 1))
    for i, r in enumerate(reference, start=1):
        above, row[0] = row[0], i
        for j, h in enumerate(hypothesis, start=1):
            above, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, above + (r != h))
    return row[-1]


@st.composite
def recognised(draw: st.DrawFn) -> tuple[list[str], list[str]]:
    """A sentence, and what a recogniser made of it with one error in about eight words."""
    said = draw(st.lists(st.sampled_from(WORDS), min_size=1, max_size=20))
    heard: list[str] = []
    for word in said:
        fate = draw(st.integers(0, 23))
        if fate == 0:
            continue
        heard.append(draw(st.sampled_from(WORDS)) if fate == 1 else word)
        if fate == 2:
            heard.append(draw(st.sampled_from(WORDS)))
    return said, heard


def counts(errors: Errors) -> tuple[int, int, int]:
    return errors.substitutions, errors.deletions, errors.insertions


@settings(max_examples=300, deadline=None)
@given(recognised())
def test_word_errors_are_those_of_a_least_cost_alignment(pair: tuple[list[str], list[str]]) -> None:
    said, heard = pair
    errors = word_errors(" ".join(said), " ".join(heard))
    assert counts(errors) in least_cost(said, heard)
    assert errors.length == len(said)
    assert errors.hits == len(said) - errors.substitutions - errors.deletions


@settings(max_examples=300, deadline=None)
@given(*[st.lists(st.sampled_from(FEW_WORDS), max_size=14)] * 2)
def test_word_errors_add_up_however_bad_the_hypothesis_is(said: list[str], heard: list[str]) -> None:
    errors = word_errors(" ".join(said), " ".join(heard))
    assert sum(counts(errors)) == edit_distance(said, heard)
    assert min(*counts(errors), errors.hits) >= 0
    assert errors.hits + errors.substitutions + errors.insertions == len(heard)


@settings(max_examples=200, deadline=None)
@given(*[st.text(alphabet="abc ", max_size=14)] * 2)
def test_character_errors_add_up_without_spaces(said: str, heard: str) -> None:
    errors = character_errors(said, heard)
    said, heard = said.replace(" ", ""), heard.replace(" ", "")
    assert errors.length == len(said)
    assert sum(counts(errors)) == edit_distance(said, heard)


@pytest.mark.parametrize(
    ("reference", "hypothesis", "expected"),
    [
        ("turn on the light", "turn on the light", (0, 0, 0)),
        ("turn on the light", "turn the light", (0, 1, 0)),
        ("turn on the light", "turn it on the light", (0, 0, 1)),
        ("turn on the light", "turn off the light", (1, 0, 0)),
        ("turn on", "", (0, 2, 0)),
        ("", "turn on", (0, 0, 2)),
        ("", "", (0, 0, 0)),
    ],
)
def test_word_errors_tell_the_kinds_apart(reference: str, hypothesis: str, expected: tuple[int, int, int]) -> None:
    assert counts(word_errors(reference, hypothesis)) == expected


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Don't stop!", "dont stop"),
        ("l’heure", "L'heure"),
        ("ＡＢＣ １２", "abc 12"),
        ("हिन्दी, में।", "हिन्दी में"),
        (unicodedata.normalize("NFD", "Café"), "café"),
    ],
)
def test_normalise_keeps_what_is_spoken_only(one: str, other: str) -> None:
    assert normalise(one) == normalise(other)


def test_normalise_keeps_words_apart_that_punctuation_parts() -> None:
    assert normalise("well-known, isn't it?").split() == ["well", "known", "isnt", "it"]


@given(st.text())
def test_normalise_twice_is_once(text: str) -> None:
    assert normalise(normalise(text)) == normalise(text)
