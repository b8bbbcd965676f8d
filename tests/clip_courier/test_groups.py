"""Small groups against a plain twin, and against what anybody can count in what is shown."""

import os
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clip_courier.groups import BEFORE, RUNGS, Limits, Smallest, group, rung_counts, smallest

Clip = Mapping[str, Any]
Shown = tuple[int | None, str | None, str | None, str | None, int | None, int | None, int | None]
NAMES = ("shown_locale", "shown_product", "shown_week", "shown_duration_ms", "shown_sample_rate_hz", "shown_channels")

BATCH = pa.schema(
    [
        ("clip_ref", pa.string()),
        ("person_ids", pa.list_(pa.string())),
        ("locale", pa.string()),
        ("product", pa.string()),
        ("recorded_at", pa.timestamp("us", tz="UTC")),
        ("sound_ms", pa.int32()),
        ("sample_rate_hz", pa.int32()),
        ("channels", pa.int8()),
        ("rung", pa.int8()),
    ]
)
BOUNDS, PADDED = (2_000, 5_000), (5_000, 9_500)
DAY = datetime(2026, 11, 19, 12, tzinfo=UTC)


# -- the plain twin --------------------------------------------------------------------------------------------


def shown_at(clip: Clip, rung: int) -> tuple[str, str, str, int, int, int]:
    year, week, _ = clip["recorded_at"].isocalendar()
    if rung >= 2:
        week = 1
    elif rung >= 1:
        week = next(first for first in range(49, 0, -4) if first <= week)
    length, rate = clip["sound_ms"], clip["sample_rate_hz"]
    if rung >= 5:
        length = next((bound - 1 for bound in PADDED if length < bound), length)
    return (
        clip["locale"].split("-")[0] if rung >= 6 else clip["locale"],
        "other" if rung >= 4 else clip["product"],
        f"{year}-W{week:02d}",
        length,
        min(rate, 8_000) if rung >= 7 else min(rate, 16_000) if rung >= 3 else rate,
        1 if rung >= 3 else clip["channels"],
    )


def group_of(shown: Sequence[Any]) -> tuple[Any, ...]:
    """What is counted: all six, the length by its bucket."""
    locale, product, week, length, rate, channels = shown
    return locale, product, week, sum(bound <= length for bound in BOUNDS), rate, channels


def persons_of(clips: Iterable[Clip]) -> set[str]:
    return {person for clip in clips for person in clip["person_ids"]}


class Twin:
    """The ladder, one clip after the other. `where`: the group that a clip is in by now."""

    def __init__(self, clips: Sequence[Clip], before: Sequence[Clip], k: int) -> None:
        self.by_ref = {clip["clip_ref"]: clip for clip in clips}
        self.before, self.k = before, k
        self.rung: dict[str, int] = {}
        self.where: dict[str, tuple[Any, ...]] = {}
        for rung in range(len(RUNGS)):
            self.climb(rung)

    def at(self, ref: str, rung: int) -> tuple[Any, ...]:
        return group_of(shown_at(self.by_ref[ref], rung))

    def showing(self, key: tuple[Any, ...], among: Iterable[str]) -> set[str]:
        here = [self.by_ref[ref] for ref in among if self.where[ref] == key]
        return persons_of([*here, *(b for b in self.before if group_of([b[name] for name in NAMES]) == key)])

    def climb(self, rung: int) -> None:
        waiting = [r for r, c in self.by_ref.items() if r not in self.rung and (c.get("rung") or 0) <= rung]
        for ref in waiting:
            self.where[ref] = self.at(ref, rung)
        of = {ref: self.where[ref] for ref in waiting}
        among = [*self.rung, *waiting]
        persons = {key: self.showing(key, among) for key in set(of.values())}
        for ref in waiting:
            if len(persons[of[ref]]) >= self.k:
                self.rung[ref] = rung
        settled = list(self.rung)
        for key in sorted(k for k, found in persons.items() if rung and len(found) < self.k):
            come = self.coming(key, persons[key], settled, rung)
            for ref in come:
                self.where[ref], self.rung[ref] = key, rung
            if come:
                self.rung.update({ref: rung for ref in waiting if of[ref] == key})

    def coming(self, key: tuple[Any, ...], known: set[str], settled: list[str], rung: int) -> list[str]:
        """The clips that come up to a group that is too small."""
        beneath = [ref for ref in settled if self.at(ref, rung) == key and self.where[ref] != key]
        if not beneath:
            return []

        def persons(refs: Iterable[str]) -> set[str]:
            return persons_of(self.by_ref[ref] for ref in refs)

        groups: dict[Any, list[str]] = {}
        for ref in sorted(beneath):
            groups.setdefault(self.where[ref], []).append(ref)
        largest = groups[min(groups, key=lambda one: (-len(persons(groups[one])), one))]
        first_of: dict[str, str] = {}
        for ref in largest:
            for person in set(self.by_ref[ref]["person_ids"]) - known:
                first_of.setdefault(person, ref)
        missing = self.k - len(known)
        come = sorted(set(first_of.values()))[:missing]
        if len(come) == missing and len(persons(largest) - persons(come)) >= self.k:
            return come
        enough = {one: refs for one, refs in groups.items() if len(known | persons(refs)) >= self.k}
        return enough[min(enough, key=lambda one: (len(enough[one]), one))] if enough else []

    def result(self) -> dict[str, Shown]:
        return {
            ref: (self.rung[ref], *shown_at(clip, self.rung[ref])) if ref in self.rung else (None,) * 7
            for ref, clip in self.by_ref.items()
        }


# -- ours ------------------------------------------------------------------------------------------------------


def tables(clips: Sequence[Clip], before: Sequence[Clip]) -> tuple[pa.Table, pa.Table]:
    rows = (
        pa.Table.from_pylist([dict(one) for one in some], schema) for some, schema in ((clips, BATCH), (before, BEFORE))
    )
    return tuple(rows)


def grouped(clips: Sequence[Clip], before: Sequence[Clip] = (), k: int = 2) -> pa.Table:
    return group(*tables(clips, before), Limits(k, BOUNDS, PADDED))


def least(found: pa.Table, clips: Sequence[Clip], before: Sequence[Clip] = ()) -> Smallest:
    by_ref = {one["clip_ref"]: one for one in clips}
    shown = [{**by_ref[one["clip_ref"]], **one} for one in found.to_pylist() if one["rung"] is not None]
    return smallest(pa.Table.from_pylist(shown, BEFORE), tables([], before)[1], Limits(2, BOUNDS, PADDED))


def shown_of(found: pa.Table) -> dict[str, Shown]:
    return {row["clip_ref"]: (row["rung"], *(row[name] for name in NAMES)) for row in found.to_pylist()}


def clip(ref: str, *persons: str, **changes: Any) -> dict[str, Any]:
    made = {
        "clip_ref": ref,
        "person_ids": list(persons or [f"person of {ref}"]),
        "locale": "en-US",
        "product": "assistant",
        "recorded_at": DAY,
        "sound_ms": 3_000,
        "sample_rate_hz": 16_000,
        "channels": 1,
        "rung": 0,
    }
    return made | changes


PERSONS = st.lists(st.sampled_from([f"p{n}" for n in range(9)]), min_size=1, max_size=2, unique=True)
VALUES = {
    "person_ids": PERSONS,
    "locale": st.sampled_from(["en-US", "en-GB", "de-DE", "de"]),
    "product": st.sampled_from(["assistant", "translator", "other"]),
    "recorded_at": st.integers(0, 80).map(lambda days: DAY - timedelta(days=days)),
    "sound_ms": st.sampled_from([1_000, 1_999, 3_000, 4_999, 5_000, 9_000, 9_500]),
    "sample_rate_hz": st.sampled_from([16_000, 16_000, 8_000, 44_100, 4_000]),
    "channels": st.sampled_from([1, 1, 2]),
}


@st.composite
def nights(draw: st.DrawFn) -> tuple[list[Clip], list[Clip], int]:
    # In half of the worlds most is alike, so that groups on all rungs are found.
    values = VALUES | ({} if draw(st.booleans()) else {"locale": st.just("en-US"), "product": st.just("assistant")})
    rungs = st.sampled_from([0, 0, 0, 0, 2, 3, 5])
    clips = [
        {"clip_ref": f"ref-{n:02}", **made}
        for n, made in enumerate(draw(st.lists(st.fixed_dictionaries({**values, "rung": rungs}), max_size=25)))
    ]
    before = [
        {**made, **dict(zip(NAMES, shown_at(made, draw(st.integers(0, 7))), strict=True))}
        for made in draw(st.lists(st.fixed_dictionaries(values), max_size=6))
    ]
    return clips, before, draw(st.sampled_from([2, 3, 5]))


@settings(max_examples=int(os.environ.get("CLIP_COURIER_GROUPS", "16")), derandomize=True, deadline=None)
@given(nights(), st.randoms(use_true_random=False))
def test_group_says_what_the_plain_twin_says(
    night: tuple[list[Clip], list[Clip], int], shuffled: random.Random
) -> None:
    clips, before, k = night
    rows = list(clips)
    shuffled.shuffle(rows)
    found = grouped(rows, before, k)
    ours = shown_of(found)
    assert ours == Twin(clips, before, k).result()
    # What anybody can count in it: nobody's clip is in a group of fewer than k, by all that describes it.
    by_ref = {one["clip_ref"]: one for one in clips}
    groups: dict[Any, set[str]] = {}
    for ref, (rung, *shown) in ours.items():
        if rung is not None:
            groups.setdefault(group_of(shown), set()).update(by_ref[ref]["person_ids"])
    for one in before:
        key = group_of([one[name] for name in NAMES])
        if key in groups:
            groups[key].update(one["person_ids"])
    assert all(len(persons) >= k for persons in groups.values())
    assert least(found, clips, before).persons == min((len(persons) for persons in groups.values()), default=None)
    for ref, (rung, *shown) in ours.items():
        clip = by_ref[ref]
        # Never finer than before, and of the sound never more than there is.
        assert rung is None or rung >= (clip["rung"] or 0)
        assert rung is None or (shown[3] >= clip["sound_ms"] and shown[4] <= clip["sample_rate_hz"])
        assert rung is None or shown[5] in (1, clip["channels"])


# -- cases -----------------------------------------------------------------------------------------------------


def test_group_leaves_alone_what_is_large_enough() -> None:
    clips = [clip(f"{n}", f"person {n}") for n in range(3)]
    found = grouped(clips, k=3)
    assert set(shown_of(found).values()) == {(0, "en-US", "assistant", "2026-W47", 3_000, 16_000, 1)}
    assert least(found, clips) == Smallest(3, 3)
    assert rung_counts(found["rung"]) == {}


def test_group_counts_persons_and_not_clips() -> None:
    often = [clip(f"{n}", "the same") for n in range(50)]
    assert set(shown_of(grouped(often)).values()) == {(None,) * 7}
    # Two who talk with each other are two.
    assert shown_of(grouped([clip("call", "one", "other")]))["call"][0] == 0


YEAR = ("en-US", "assistant", "2026-W01")


@pytest.mark.parametrize(
    ("change", "rung", "shown"),
    [
        ({"recorded_at": DAY - timedelta(days=14)}, "four_weeks", ("en-US", "assistant", "2026-W45", 3_000, 16_000, 1)),
        ({"recorded_at": DAY - timedelta(days=60)}, "year", (*YEAR, 3_000, 16_000, 1)),
        ({"sample_rate_hz": 44_100}, "common_sound", (*YEAR, 3_000, 16_000, 1)),
        ({"channels": 2}, "common_sound", (*YEAR, 3_000, 16_000, 1)),
        ({"product": "dictation"}, "any_product", ("en-US", "other", "2026-W01", 3_000, 16_000, 1)),
        ({"sound_ms": 1_000}, "padded", ("en-US", "other", "2026-W01", 4_999, 16_000, 1)),
        ({"locale": "en-GB"}, "language", ("en", "other", "2026-W01", 4_999, 16_000, 1)),
        ({"sample_rate_hz": 8_000}, "narrow_band", ("en", "other", "2026-W01", 4_999, 8_000, 1)),
    ],
)
def test_group_climbs_no_further_than_it_must(change: dict[str, Any], rung: str, shown: tuple[Any, ...]) -> None:
    """Two clips that differ in one thing: both show the least that makes them alike."""
    found = shown_of(grouped([clip("a"), clip("b", **change)]))
    assert found == dict.fromkeys("ab", (RUNGS.index(rung), *shown))


def test_group_leaves_out_a_language_that_one_person_speaks() -> None:
    found = shown_of(grouped([clip("a"), clip("b"), clip("c", locale="hi-IN")]))
    assert {ref: rung for ref, (rung, *_) in found.items()} == {"a": 0, "b": 0, "c": None}


def test_group_takes_from_a_large_group_as_few_as_are_missing() -> None:
    many = [clip(f"many-{n:03}") for n in range(100)]
    late = clip("late", recorded_at=DAY - timedelta(days=14))
    found = shown_of(grouped([*many, late], k=5))
    coarse = [ref for ref, (rung, *_) in found.items() if rung]
    assert len(coarse) == 5
    assert "late" in coarse


def test_group_leaves_out_what_no_rung_makes_alike() -> None:
    """Longer than any bucket, or of fewer samples a second than anybody else: nothing is cut off, nothing made up."""
    clips = [clip("a"), clip("b"), clip("long", sound_ms=60_000), clip("coarse", sample_rate_hz=4_000)]
    found = shown_of(grouped(clips))
    assert {ref: rung for ref, (rung, *_) in found.items()} == {"a": 0, "b": 0, "long": None, "coarse": None}


def test_group_counts_what_the_vendor_has() -> None:
    earlier = clip("x", "somebody")
    earlier |= dict(zip(NAMES, ("hi-IN", "assistant", "2026-W47", 4_000, 16_000, 1), strict=True))
    alone = clip("alone", "person", locale="hi-IN")
    assert shown_of(grouped([alone], [earlier]))["alone"][:4] == (0, "hi-IN", "assistant", "2026-W47")
    # The same person twice is one.
    assert shown_of(grouped([clip("alone", "somebody", locale="hi-IN")], [earlier]))["alone"][0] is None


def test_group_weeks_at_the_turn_of_the_year() -> None:
    """The last week of a long year belongs to its last four."""
    days = {"2020-W53": datetime(2020, 12, 31, tzinfo=UTC), "2021-W01": datetime(2021, 1, 4, tzinfo=UTC)}
    one = [clip("a", recorded_at=days["2020-W53"]), clip("b", recorded_at=days["2020-W53"] - timedelta(days=7))]
    assert {found[3] for found in shown_of(grouped(one)).values()} == {"2020-W49"}
    other = [clip("a", recorded_at=days["2020-W53"]), clip("b", recorded_at=days["2021-W01"])]
    assert Counter(found[0] for found in shown_of(grouped(other)).values()) == {None: 2}


def test_group_of_nothing() -> None:
    found = grouped([])
    assert found.num_rows == 0
    assert least(found, []) == Smallest(None, None)
