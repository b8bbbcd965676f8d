"""Estimates replayed on a population whose error rate is known, and worked out by hand where that is possible."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from scipy.stats import t as student

from clip_courier.estimates import PARTS, differences, ratios
from clip_courier.tables import Tables

OBSERVED = pa.schema(
    [
        ("measure", pa.string()),
        ("cell", pa.string()),
        ("arm", pa.string()),
        ("weight", pa.float64()),
        ("numerator", pa.float64()),
        ("denominator", pa.float64()),
        ("duration_ms", pa.int64()),
        ("persons", pa.list_(pa.string())),
    ]
)
CLIPS_PER_PERSON = 3
REPLAYS = 2000
Numbers = npt.NDArray[Any]


def parts_of(observed: pa.Table, *also: str) -> list[pa.Table]:
    """As the warehouse makes them; `also` are further statements that read the same sums."""
    with Tables() as tables:
        tables.register("observed", observed)
        tables.run("sums", {"measure": "wer"})
        tables.run("residuals")
        return [tables.run("parts", {"measure": "wer"}).cast(PARTS), *map(tables.run, also)]


def estimated(observed: pa.Table) -> pa.Table:
    return ratios(*parts_of(observed))


@dataclass(frozen=True)
class Population:
    """Clips of persons, of whom a few record many; who records much is understood better."""

    persons: Numbers  # two columns, the second -1 where nobody else speaks
    words: Numbers
    errors: Numbers

    @property
    def rate(self) -> float:
        return float(self.errors.sum() / self.words.sum())


def population(*, people: int, conversations: float, seed: int, most: int = 15) -> Population:
    """`most` is how many clips anybody has."""
    random = np.random.default_rng(seed)
    clips_of = 1 + np.minimum(random.pareto(1.1, people), most - 1).astype(int)
    first = np.repeat(np.arange(people), clips_of)
    # Most calls are with one and the same person.
    second = (first + 1 + (random.random(len(first)) < 0.3) * random.integers(1, people, len(first))) % people
    second[random.random(len(first)) >= conversations] = -1
    difficulty = np.exp(random.normal(-2, 0.5, people)) * np.where(clips_of < 3, 1.8, 1)
    shared = np.where(second >= 0, np.sqrt(difficulty[first] * difficulty[second]), difficulty[first])
    words = 1 + random.poisson(random.gamma(2.5, 4, len(first)))
    errors = random.poisson(shared * np.exp(random.normal(0, 0.25, len(first))) * words)
    return Population(np.stack([first, second], axis=1), words, errors)


class Design:
    """As the product draws: in every cell of a person's clips one is kept, then a systematic sample of those kept."""

    def __init__(self, drawn_from: Population, clips_per_person: int = CLIPS_PER_PERSON) -> None:
        owner = drawn_from.persons.T.ravel()
        clip = np.tile(np.arange(len(drawn_from.words)), 2)[owner >= 0]
        owner = owner[owner >= 0]
        order = np.lexsort((clip, owner))
        clip, owner = clip[order], owner[order]
        count = np.bincount(owner)[owner]
        rank = np.arange(len(owner)) - np.searchsorted(owner, owner)
        part = np.minimum(clips_per_person, count)
        _, self._cell = np.unique(np.stack([owner, rank * part // count]), axis=1, return_inverse=True)
        self._clip, self._clips = clip, len(drawn_from.words)
        self._starts = np.searchsorted(self._cell, np.arange(self._cell.max() + 1))
        rivals: list[set[int]] = [set() for _ in range(self._clips)]
        for members in np.split(clip, self._starts[1:]):
            for one in members:
                rivals[one].update(members.tolist())
        self.kept_probability = 1 / np.array([len(r) for r in rivals])

    def draw(self, share: float, random: np.random.Generator) -> tuple[Numbers, Numbers]:
        """Clips, and the inclusion probability of each."""
        key = random.random(self._clips)[self._clip]
        smallest = np.minimum.reduceat(key, self._starts)[self._cell] == key
        kept = np.flatnonzero(np.bincount(self._clip, ~smallest, self._clips) == 0)
        shuffled = random.permutation(kept)
        drawn = shuffled[(np.arange(len(kept)) + random.random()) * share % 1 < share]
        return drawn, share * self.kept_probability[drawn]


def replayed(
    drawn_from: Population, share: float, seed: int, clips_per_person: int = CLIPS_PER_PERSON
) -> tuple[pa.Table, Numbers]:
    """The estimates of every replay, and what the plain mean of each would say."""
    design, random = Design(drawn_from, clips_per_person), np.random.default_rng(seed)
    draws = [design.draw(share, random) for _ in range(REPLAYS)]
    clips = np.concatenate([clips for clips, _ in draws])
    replay = np.repeat(np.arange(REPLAYS), [len(clips) for clips, _ in draws])
    weight = 1 / np.concatenate([probability for _, probability in draws])
    errors, words = drawn_from.errors[clips], drawn_from.words[clips]
    persons = np.sort(drawn_from.persons[clips], axis=1).ravel().astype(str).astype(object)
    offsets = np.concatenate(([0], np.cumsum(1 + (drawn_from.persons[clips, 1] >= 0))))
    columns = [
        pa.array(["wer"] * len(clips)),
        pa.array(np.char.zfill(replay.astype(str), 4)),
        pa.array([""] * len(clips)),
        *(pa.array(column, pa.float64()) for column in (weight, errors, words)),
        pa.array(words * 400, pa.int64()),
        pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(persons[persons != "-1"], pa.string())),
    ]
    naive = np.bincount(replay, errors) / np.bincount(replay, words)
    return estimated(pa.Table.from_arrays(columns, schema=OBSERVED)), naive


def covered(estimates: pa.Table, truth: float) -> float:
    low, high = (estimates[name].to_numpy() for name in ("ci_low", "ci_high"))
    return float(np.mean((low <= truth) & (truth <= high)))


@pytest.mark.parametrize("conversations", [0.0, 0.4])
def test_ratios_hold_the_truth_as_often_as_they_say(conversations: float) -> None:
    """Of 2,000 nights; the plain mean of the same clips is off by far more than its own error."""
    everything = population(people=6000, conversations=conversations, seed=7)
    estimates, naive = replayed(everything, 0.03, 11)
    estimate = estimates["estimate"].to_numpy()
    assert abs(estimate.mean() - everything.rate) < 0.001
    assert 0.935 <= covered(estimates, everything.rate) <= 0.965
    assert abs(naive.mean() - everything.rate) > 0.005
    margin = estimates["margin"].to_numpy()
    assert 0.9 < margin.mean() / 1.96 / estimate.std() < 1.1
    # What is still needed is what makes the margin a point.
    needed = (margin / 0.01) ** 2 * estimates["hours"].to_numpy() - estimates["hours"].to_numpy()
    assert np.allclose(estimates["hours_needed"].to_numpy(), np.maximum(needed, 0))


def test_ratios_of_few_persons_hold_the_truth_as_well() -> None:
    """A dozen persons, one of them three times: with the normal quantile it would be far from 95 %."""
    everything = population(people=6000, conversations=0.0, seed=7)
    estimates, _ = replayed(everything, 0.0013, 5)
    assert np.median(estimates["speakers"].to_numpy()) < 16
    assert 0.93 <= covered(estimates, everything.rate) <= 0.97


@pytest.mark.parametrize("clips", [14, 60, 300])
def test_ratios_hold_the_truth_where_few_weigh_much(clips: int) -> None:
    """One clip a person, of whom some have twenty and so weigh twenty times as much as others."""
    everything = population(people=6000, conversations=0.0, seed=7, most=20)
    estimates, _ = replayed(everything, clips / 6000, 11, clips_per_person=1)
    assert 0.935 <= covered(estimates, everything.rate) <= 0.965


def rows(*given: tuple[str, float, float, float, list[str]], arm: str = "") -> pa.Table:
    names = ("cell", "weight", "numerator", "denominator", "persons")
    told = [
        {"measure": "wer", "arm": arm, "duration_ms": 3_600_000, **dict(zip(names, row, strict=True))} for row in given
    ]
    return pa.Table.from_pylist(told, OBSERVED)


def by_cell(table: pa.Table) -> dict[str, dict[str, Any]]:
    return {row["cell"]: row for row in table.to_pylist()}


def test_ratios_by_hand() -> None:
    """(2·1 + 6) / (2·10 + 20) = 0.2; without the one 0.3, without the other 0.1: 2 · 0.1², with one degree."""
    found = by_cell(
        estimated(
            rows(
                ("two", 2, 1, 10, ["p1"]),
                ("two", 1, 6, 20, ["p2"]),
                ("one", 1, 2, 4, ["p1"]),
                ("one", 1, 0, 4, ["p1"]),
                ("flawless", 1, 0, 5, ["p1"]),
                ("flawless", 1, 0, 5, ["p2"]),
                ("flawless alone", 1, 0, 5, ["p1"]),
                ("silent", 1, 2, 0, ["p1"]),
                ("alike", 1, 1, 5, ["p1"]),
                ("alike", 1, 2, 10, ["p2"]),
            )
        )
    )
    two, margin = found["two"], student.ppf(0.975, 1) * 0.1 * np.sqrt(2)
    assert two["estimate"] == pytest.approx(0.2)
    assert two["margin"] == pytest.approx(margin)
    assert (two["ci_low"], two["ci_high"]) == pytest.approx((0.2 * np.exp(-margin / 0.2), 0.2 * np.exp(margin / 0.2)))
    assert (two["clips"], two["speakers"], two["hours"]) == (2, 2, 2)
    assert two["hours_needed"] == pytest.approx(2 * ((margin / 0.01) ** 2 - 1))
    # Drawn at random: residuals -1 and 2 of weights 2 and 1, squares 2 · 1 + 4 over 3; words 40 / 3.
    assert two["effective_clips"] == pytest.approx(2 * 2 / (40 / 3) ** 2 / 0.02)
    assert found["one"]["estimate"] == 0.25
    assert (found["one"]["ci_low"], found["one"]["ci_high"], found["one"]["speakers"]) == (None, None, 1)
    assert (found["flawless"]["estimate"], found["flawless"]["ci_low"]) == (0, 0)
    assert found["flawless"]["ci_high"] == pytest.approx(1 - 0.025 ** (1 / 2))
    assert (found["flawless alone"]["estimate"], found["flawless alone"]["ci_high"]) == (0, None)
    assert (found["silent"]["estimate"], found["silent"]["ci_low"], found["silent"]["clips"]) == (None, None, 1)
    assert (found["alike"]["estimate"], found["alike"]["ci_low"]) == (0.2, None)


def test_ratios_take_two_clips_of_one_person_for_one() -> None:
    halves = rows(("s", 1, 1, 5, ["p1"]), ("s", 1, 0, 5, ["p1"]), ("s", 1, 3, 10, ["p2"]), ("s", 1, 0, 7, ["p3"]))
    whole = rows(("s", 1, 1, 10, ["p1"]), ("s", 1, 3, 10, ["p2"]), ("s", 1, 0, 7, ["p3"]))
    split, joined = (by_cell(estimated(one))["s"] for one in (halves, whole))
    for name in ("estimate", "ci_low", "ci_high"):
        assert split[name] == pytest.approx(joined[name])


def test_ratios_know_who_was_heard_together() -> None:
    """By the definition: squares of sums are products over all clips that share a person, each pair of clips once."""
    random = np.random.default_rng(3)
    sizes = [1, 2, 2, 3, 3, 2, 1, 3] * 6
    people = [sorted(random.choice(8, size, replace=False).astype(str).tolist()) for size in sizes]
    given = [("s", *map(float, random.integers(1, 9, 3)), persons) for persons in people]
    [parts] = parts_of(rows(*given))
    weight, errors, words = np.array([row[1:4] for row in given]).T
    sharing = np.array([[bool(set(one) & set(other)) for other in people] for one in people])
    share = weight * words / (weight * words).sum()
    assert parts["shares"].to_pylist() == [pytest.approx(share @ sharing @ share)]
    found = by_cell(ratios(parts))["s"]
    assert (found["clips"], found["speakers"]) == (48, 8)
    assert found["estimate"] == pytest.approx((weight * errors).sum() / (weight * words).sum())


def test_differences_hold_the_truth_as_often_as_they_say() -> None:
    """Two measures of the same persons, the one four points above the other."""
    random = np.random.default_rng(1)
    replays, people, clips = 1500, 40, 200
    replay = np.repeat(np.arange(replays), clips)
    person = random.integers(0, people, len(replay))
    habit = np.exp(random.normal(-2, 0.5, (replays, people)))[replay, person]
    is_other = random.random(len(replay)) < 0.3
    words = random.integers(5, 15, len(replay))
    rate = habit * np.where(is_other, 1.3, 1)
    columns = [
        pa.array(["wer"] * len(replay)),
        pa.array(replay.astype(str)),
        pa.array(np.where(is_other, "withheld", "shown")),
        pa.array(np.ones(len(replay))),
        pa.array(random.poisson(rate * words).astype(float)),
        pa.array(words.astype(float)),
        pa.array(words * 400),
        pa.array([[p] for p in person.astype(str)], pa.list_(pa.string())),
    ]
    parts, common = parts_of(pa.Table.from_arrays(columns, schema=OBSERVED), "common")
    found = differences(parts, common, "withheld", "shown")
    assert found.num_rows == replays
    usual = np.exp(-2 + 0.5**2 / 2)
    truth = 0.3 * usual
    assert abs(found["estimate"].to_numpy().mean() - truth) < 0.002
    assert 0.93 <= covered(found, truth) <= 0.97
    # Of the single measures as well: forty persons with some four clips each.
    for arm, rate in (("withheld", 1.3 * usual), ("shown", usual)):
        assert 0.93 <= covered(ratios(parts.filter(pc.equal(parts["arm"], arm))), rate) <= 0.97


def test_differences_need_both() -> None:
    one = rows(("a", 1, 1, 5, ["p1"]), ("a", 1, 2, 5, ["p2"]), ("b", 1, 1, 5, ["p1"]), arm="withheld")
    other = rows(("a", 1, 1, 5, ["p1"]), ("a", 1, 0, 9, ["p2"]), ("c", 1, 1, 5, ["p1"]), arm="shown")
    found = by_cell(differences(*parts_of(pa.concat_tables([one, other]), "common"), "withheld", "shown"))
    assert set(found) == {"a"}
    assert found["a"]["estimate"] == pytest.approx(3 / 10 - 1 / 14)
    assert found["a"]["ci_low"] is not None
    assert differences(*parts_of(one, "common"), "withheld", "shown").num_rows == 0
