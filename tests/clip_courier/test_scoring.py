"""Scores against what NIST sclite counted, against its table filled by hand, and against jiwer's totals."""

from collections.abc import Callable, Sequence

import jiwer
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import scored_pairs
from clip_courier import loading
from clip_courier.scoring import Errors, character_errors, score, word_errors
from clip_courier.tables import Tables

Counts = list[tuple[int, int, int]]
# Few words, so that they meet by chance: the hardest case for an alignment.
TEXTS = st.lists(st.lists(st.sampled_from("abcd"), max_size=14).map(" ".join), max_size=20)


def as_sclite(reference: Sequence[str], hypothesis: Sequence[str]) -> tuple[int, int, int]:
    """Substitutions, deletions, insertions of sclite's table, cell by cell (SCTK, net_dp.c)."""
    above = [(3 * j, 0, 0, j) for j in range(len(hypothesis) + 1)]
    for i, said in enumerate(reference, start=1):
        row = [(3 * i, 0, i, 0)]
        for j, heard in enumerate(hypothesis, start=1):
            differs = int(said != heard)
            diagonal, up, left = above[j - 1], above[j], row[j - 1]
            through, deleted, inserted = diagonal[0] + 4 * differs, up[0] + 3, left[0] + 3
            if through <= deleted and through <= inserted:
                row.append((through, diagonal[1] + differs, *diagonal[2:]))
            elif deleted < inserted:
                row.append((deleted, up[1], up[2] + 1, up[3]))
            else:
                row.append((inserted, left[1], left[2], left[3] + 1))
        above = row
    return above[-1][1:]


def counts(errors: Errors) -> Counts:
    kinds = (errors.substitutions, errors.deletions, errors.insertions)
    return list(zip(*(kind.tolist() for kind in kinds), strict=True))


@pytest.fixture(scope="module")
def pairs() -> list[scored_pairs.Pair]:
    return scored_pairs.pairs()


@pytest.mark.parametrize(("unit", "errors_of"), [("word", word_errors), ("character", character_errors)])
def test_errors_are_those_that_sclite_counted(
    pairs: list[scored_pairs.Pair], unit: str, errors_of: Callable[..., Errors]
) -> None:
    """On every pair, the hopeless ones with it."""
    counted = pq.read_table(scored_pairs.COUNTS)
    assert counted.schema.metadata[b"pairs_sha256"].decode() == scored_pairs.digest(pairs)
    found = errors_of(*zip(*pairs, strict=True))
    for kind in ("substitutions", "deletions", "insertions"):
        assert np.array_equal(getattr(found, kind), counted[f"{unit}_{kind}"].to_numpy()), kind


@pytest.mark.parametrize(
    ("unit", "errors_of", "theirs", "most"),
    [
        ("word", word_errors, jiwer.process_words, (1.0, 1.003)),
        ("character", character_errors, jiwer.process_characters, (1.002, 1.01)),
    ],
)
def test_totals_are_those_of_jiwer(
    pairs: list[scored_pairs.Pair],
    unit: str,
    errors_of: Callable[..., Errors],
    theirs: Callable[..., jiwer.WordOutput],
    most: tuple[float, float],
) -> None:
    """Equal by words on what a recogniser makes; elsewhere sclite and we count a little more, as the docstring says."""
    parts = (pairs[: scored_pairs.REALISTIC : 4], pairs[scored_pairs.REALISTIC :])
    for some, highest in zip(parts, most, strict=True):
        # jiwer counts the spaces as characters.
        bare = [(s.replace(" ", ""), h.replace(" ", "")) for s, h in some] if unit == "character" else some
        total = theirs([said for said, _ in bare], [heard for _, heard in bare])
        edits = total.substitutions + total.deletions + total.insertions
        assert edits <= sum(map(sum, counts(errors_of(*zip(*some, strict=True))))) <= highest * edits


@settings(max_examples=60, deadline=None)
@given(TEXTS, TEXTS)
def test_word_errors_however_bad_the_hypotheses_are(said: list[str], heard: list[str]) -> None:
    both = list(zip(said, heard, strict=False))
    found = word_errors([s for s, _ in both], [h for _, h in both])
    assert counts(found) == [as_sclite(s.split(), h.split()) for s, h in both]
    assert found.lengths.tolist() == [len(s.split()) for s, _ in both]
    assert (found.hits + found.substitutions + found.insertions).tolist() == [len(h.split()) for _, h in both]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(*[st.text(alphabet="abc \U0001f600é", max_size=20)] * 2), max_size=10))
def test_character_errors_however_bad_the_hypotheses_are(both: list[tuple[str, str]]) -> None:
    found = character_errors([s for s, _ in both], [h for _, h in both])
    assert counts(found) == [as_sclite(s.replace(" ", ""), h.replace(" ", "")) for s, h in both]


def test_errors_of_one_long_text_take_no_longer_than_its_table() -> None:
    """A vendor may return twenty thousand characters for a clip of a few seconds."""
    said, heard = "abcab" * 4000, "cabba" * 120
    found = character_errors([said, "a"], [heard, "b"])
    assert int(found.hits[0]) == 600
    assert counts(found)[1] == (1, 0, 0)


def test_word_errors_of_more_words_than_there_are_characters_before_the_surrogates() -> None:
    said = [" ".join(f"w{text}x{place}" for place in range(10)) for text in range(6000)]
    found = word_errors([*said, *said], [*said, *said[1:], said[0]])
    assert found.hits.tolist() == [10] * 6000 + [0] * 6000
    assert found.substitutions.tolist() == [0] * 6000 + [10] * 6000


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
    assert counts(word_errors([reference], [hypothesis])) == [expected]


def test_score_counts_against_the_first_and_the_chosen_hypothesis() -> None:
    rows = {
        "clip_key": ["k1", "k2", "k3"],
        "text": ["Don't stop!", "twenty one cats", "ein Haus"],
        "locale": ["en-GB", "en-US", "de-DE"],
        "hypothesis": ["do not stop", "21 dogs", "ein"],
        "chosen_hypothesis": [None, "21 cats", "kein Haus"],
    }
    found = score(pa.RecordBatch.from_pydict(rows)).to_pylist()
    assert [
        (row["words"], row["substitutions"], row["deletions"], row["insertions"], row["hits"]) for row in found
    ] == [
        (3, 0, 0, 0, 3),
        (2, 1, 0, 0, 1),
        (2, 0, 1, 0, 1),
    ]
    assert [row["chosen_hits"] for row in found] == [None, 2, 1]
    assert [row["chosen_substitutions"] for row in found] == [None, 0, 1]
    assert [row["chosen_character_insertions"] for row in found] == [None, 0, 1]
    assert [row["character_deletions"] for row in found] == [0, 0, 4]
    assert [row["rules"].split(":")[0] for row in found] == ["en", "en", "basic"]


# -- what nobody could hear ------------------------------------------------------------------------------------


def scored_clip(text: str, audible: list[str] | None, chosen: int | None = None) -> dict[str, int]:
    """The score of one returned clip, by way of the statement that finds its hypotheses."""
    said = ["please call anna schmidt at nine tonight", "please fall anna schmidt at nine tonight"]
    crosswalk = {
        "clip_ref": "r",
        "clip_key": "k",
        "batch_id": "b",
        "locale": "en-US",
        "hypotheses": [{"rank": n, "text": one} for n, one in enumerate(said, start=1)],
        "audible_hypotheses": audible and [{"rank": n, "text": one} for n, one in enumerate(audible, start=1)],
    }
    returned = {"row_number": 1, "batch_id": "b", "n": 1, "clip_ref": "r", "status": "transcribed", "text": text}
    with Tables() as tables:
        tables.register("crosswalk", pa.Table.from_pylist([crosswalk], loading._CROSSWALK))
        tables.register("returned", pa.Table.from_pylist([{**returned, "chosen_rank": chosen}], loading._RETURNED))
        tables.register("ledger_batches", pa.Table.from_pylist([{"batch_id": "b"}], loading._LEDGER_BATCHES))
        [row] = tables.run("current_transcripts").to_batches()
    found: dict[str, int] = score(row).to_pylist()[0]
    return found


@pytest.mark.parametrize("text", ["Please call [beep] tonight.", "please call tonight", "Please call ‹NAME› tonight"])
def test_nobody_is_charged_with_words_that_were_silenced(text: str) -> None:
    """However a transcriber writes the tone: with the word for it, with nothing, or with the mask of the hypothesis."""
    heard = ["please call tonight", "please fall tonight"]
    found = scored_clip(text, heard, chosen=2)
    assert (found["words"], found["hits"], found["substitutions"], found["deletions"], found["insertions"]) == (
        *(3, 3),
        *(0, 0, 0),
    )
    assert (found["chosen_hits"], found["chosen_substitutions"]) == (2, 1)


def test_the_recogniser_is_charged_with_what_could_be_heard() -> None:
    found = scored_clip("Please call [beep] tomorrow night.", ["please call tonight"])
    assert (found["words"], found["hits"], found["substitutions"], found["deletions"]) == (4, 2, 1, 1)
    # Where nothing was silenced a hypothesis is what it was.
    assert scored_clip("please call anna schmidt at nine tonight", None)["hits"] == 7
    assert scored_clip("[beep]", ["", ""])["words"] == 0
