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
Shown = tuple[int | None, str | None, str | None, str | None]

BATCH = pa.schema(
    [
        ("clip_ref", pa.string()),
        ("person_ids", pa.list_(pa.string())),
        ("locale", pa.string()),
        ("product", pa.string()),
        ("recorded_at", pa.timestamp("us", tz="UTC")),
        ("duration_ms", pa.int32()),
        ("sample_rate_hz", pa.int32()),
        ("channels", pa.int8()),
        ("rung", pa.int8()),
    ]
)
BOUNDS = (2_000, 5_000)
DAY = datetime(2026, 11, 19, 12, tzinfo=UTC)


# -- the plain twin --------------------------------------------------------------------------------------------


def shown_at(clip: Clip, rung: int) -> tuple[str, str, str]:
    year, week, _ = clip["recorded_at"].isocalendar()
    if rung >= 3:
        week = 1
    elif rung >= 2:
        week = next(first for first in range(49, 0, -4) if first <= week)
    language = clip["locale"].split("-")[0]
    return (
        language if rung >= 5 else clip["locale"],
        "other" if rung >= 4 else clip["product"],
        f"{year}-W{week:02d}",
    )


def sound_of(clip: Clip) -> tuple[int, int, int]:
    return sum(bound <= clip["duration_ms"] for bound in BOUNDS), clip["sample_rate_hz"], clip["channels"]


def persons_of(clips: Iterable[Clip]) -> set[str]:
    return {person for clip in clips for person in clip["person_ids"]}


class Twin:
    """The ladder, one clip after the other."""

    def __init__(self, clips: Sequence[Clip], before: Sequence[Clip], k: int, always: bool) -> None:
        self.by_ref = {clip["clip_ref"]: clip for clip in clips}
        self.before, self.k, self.always = before, k, always
        self.rung: dict[str, int] = {}
        self.shown: dict[str, tuple[str, str, str]] = {}
        for rung in range(6):
            if not (rung == 1 and always):
                self.climb(rung)

    def key(self, clip: Clip, shown: tuple[str, str, str], rung: int) -> tuple[Any, ...]:
        return (shown, sound_of(clip)) if self.always or rung == 0 else (shown, ())

    def showing(self, key: tuple[Any, ...], among: Iterable[str], rung: int) -> set[str]:
        here = [self.by_ref[ref] for ref in among if self.key(self.by_ref[ref], self.shown[ref], rung) == key]
        there = [
            b for b in self.before if self.key(b, (b["shown_locale"], b["shown_product"], b["shown_week"]), rung) == key
        ]
        return persons_of([*here, *there])

    def climb(self, rung: int) -> None:
        waiting = [r for r, c in self.by_ref.items() if r not in self.rung and (c.get("rung") or 0) <= rung]
        for ref in waiting:
            self.shown[ref] = shown_at(self.by_ref[ref], rung)
        of = {ref: self.key(self.by_ref[ref], self.shown[ref], rung) for ref in waiting}
        among = [*self.rung, *waiting]
        persons = {key: self.showing(key, among, rung) for key in set(of.values())}
        settled = list(self.rung)
        for ref in waiting:
            if len(persons[of[ref]]) >= self.k:
                self.rung[ref] = rung
        if rung >= 2:
            settled = list(self.rung)
            for key in sorted(k for k, found in persons.items() if len(found) < self.k):
                come = self.coming(key, persons[key], settled, rung)
                for ref in come:
                    self.shown[ref], self.rung[ref] = key[0], rung
                if come:
                    self.rung.update({ref: rung for ref in waiting if of[ref] == key})

    def coming(self, key: tuple[Any, ...], known: set[str], settled: list[str], rung: int) -> list[str]:
        """The clips that come up to a group that is too small."""
        beneath: list[str] = []
        for ref in settled:
            clip = self.by_ref[ref]
            if self.key(clip, shown_at(clip, rung), rung) == key and self.shown[ref] != key[0]:
                beneath.append(ref)
        if not beneath:
            return []

        def persons(refs: Iterable[str]) -> set[str]:
            return persons_of(self.by_ref[ref] for ref in refs)

        finest: dict[Any, list[str]] = {}
        whole: dict[Any, list[str]] = {}
        for ref in sorted(beneath):
            finest.setdefault((self.shown[ref], sound_of(self.by_ref[ref])), []).append(ref)
            whole.setdefault(self.shown[ref], []).append(ref)
        largest = finest[min(finest, key=lambda one: (-len(persons(finest[one])), one))]
        first_of: dict[str, str] = {}
        for ref in largest:
            for person in set(self.by_ref[ref]["person_ids"]) - known:
                first_of.setdefault(person, ref)
        missing = self.k - len(known)
        come = sorted(set(first_of.values()))[:missing]
        if len(come) == missing and len(persons(largest) - persons(come)) >= self.k:
            return come
        enough = {one: refs for one, refs in whole.items() if len(known | persons(refs)) >= self.k}
        return enough[min(enough, key=lambda one: (len(enough[one]), one))] if enough else []

    def result(self) -> dict[str, Shown]:
        return {
            ref: (self.rung[ref], *self.shown[ref]) if ref in self.rung else (None, None, None, None)
            for ref in self.by_ref
        }


# -- ours ------------------------------------------------------------------------------------------------------


def tables(clips: Sequence[Clip], before: Sequence[Clip]) -> tuple[pa.Table, pa.Table]:
    rows = (
        pa.Table.from_pylist([dict(one) for one in some], schema) for some, schema in ((clips, BATCH), (before, BEFORE))
    )
    return tuple(rows)


def grouped(clips: Sequence[Clip], before: Sequence[Clip] = (), k: int = 2, always: bool = False) -> pa.Table:
    return group(*tables(clips, before), Limits(k, BOUNDS, always))


def least(found: pa.Table, clips: Sequence[Clip], before: Sequence[Clip] = (), always: bool = False) -> Smallest:
    by_ref = {one["clip_ref"]: one for one in clips}
    shown = [{**by_ref[one["clip_ref"]], **one} for one in found.to_pylist()]
    rows = pa.Table.from_pylist(shown, pa.schema([*BATCH, *(f for f in found.schema if f.name.startswith("shown"))]))
    return smallest(rows, tables([], before)[1], Limits(2, BOUNDS, always))


def shown_of(found: pa.Table) -> dict[str, Shown]:
    return {
        row["clip_ref"]: (row["rung"], row["shown_locale"], row["shown_product"], row["shown_week"])
        for row in found.to_pylist()
    }


def clip(ref: str, *persons: str, **changes: Any) -> dict[str, Any]:
    made = {
        "clip_ref": ref,
        "person_ids": list(persons or [f"person of {ref}"]),
        "locale": "en-US",
        "product": "assistant",
        "recorded_at": DAY,
        "duration_ms": 3_000,
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
    "duration_ms": st.sampled_from([1_000, 3_000, 9_000]),
    "sample_rate_hz": st.sampled_from([16_000, 16_000, 8_000]),
    "channels": st.sampled_from([1, 1, 2]),
}


@st.composite
def nights(draw: st.DrawFn) -> tuple[list[Clip], list[Clip], int, bool]:
    rungs = st.sampled_from([0, 0, 0, 0, 2, 4])
    clips = [
        {"clip_ref": f"ref-{n:02}", **made}
        for n, made in enumerate(draw(st.lists(st.fixed_dictionaries({**VALUES, "rung": rungs}), max_size=25)))
    ]
    before = []
    for made in draw(st.lists(st.fixed_dictionaries(VALUES), max_size=6)):
        names = ("shown_locale", "shown_product", "shown_week")
        before.append({**made, **dict(zip(names, shown_at(made, draw(st.integers(0, 5))), strict=True))})
    return clips, before, draw(st.sampled_from([2, 3, 5])), draw(st.booleans())


@settings(max_examples=int(os.environ.get("CLIP_COURIER_GROUPS", "16")), derandomize=True, deadline=None)
@given(nights(), st.randoms(use_true_random=False))
def test_group_says_what_the_plain_twin_says(
    night: tuple[list[Clip], list[Clip], int, bool], shuffled: random.Random
) -> None:
    clips, before, k, always = night
    rows = list(clips)
    shuffled.shuffle(rows)
    found = grouped(rows, before, k, always)
    ours = shown_of(found)
    assert ours == Twin(clips, before, k, always).result()
    # What anybody can count in it: nobody's clip is in a group of fewer than k.
    by_ref = {one["clip_ref"]: one for one in clips}
    triples: dict[Any, set[str]] = {}
    for ref, (rung, *triple) in ours.items():
        if rung is not None:
            triples.setdefault((*triple, sound_of(by_ref[ref]) if always else ()), set()).update(
                by_ref[ref]["person_ids"]
            )
    for one in before:
        key = (one["shown_locale"], one["shown_product"], one["shown_week"], sound_of(one) if always else ())
        if key in triples:
            triples[key].update(one["person_ids"])
    assert all(len(persons) >= k for persons in triples.values())
    of_smallest = least(found, clips, before, always).persons
    assert of_smallest is None if not triples else k <= of_smallest <= min(len(persons) for persons in triples.values())
    assert all(rung is None or rung >= (by_ref[ref]["rung"] or 0) for ref, (rung, *_) in ours.items())


# -- cases -----------------------------------------------------------------------------------------------------


def test_group_leaves_alone_what_is_large_enough() -> None:
    clips = [clip(f"{n}", f"person {n}") for n in range(3)]
    found = grouped(clips, k=3)
    assert set(shown_of(found).values()) == {(0, "en-US", "assistant", "2026-W47")}
    assert least(found, clips) == Smallest(3, 3)
    assert rung_counts(found["rung"]) == {}


def test_group_counts_persons_and_not_clips() -> None:
    often = [clip(f"{n}", "the same") for n in range(50)]
    assert set(shown_of(grouped(often)).values()) == {(None, None, None, None)}
    # Two who talk with each other are two.
    assert shown_of(grouped([clip("call", "one", "other")]))["call"][0] == 0


@pytest.mark.parametrize(
    ("change", "rung", "shown"),
    [
        ({"sample_rate_hz": 8_000}, "sound_not_counted", ("en-US", "assistant", "2026-W47")),
        ({"channels": 2}, "sound_not_counted", ("en-US", "assistant", "2026-W47")),
        ({"duration_ms": 9_000}, "sound_not_counted", ("en-US", "assistant", "2026-W47")),
        ({"recorded_at": DAY - timedelta(days=14)}, "four_weeks", ("en-US", "assistant", "2026-W45")),
        ({"recorded_at": DAY - timedelta(days=60)}, "year", ("en-US", "assistant", "2026-W01")),
        ({"product": "dictation"}, "any_product", ("en-US", "other", "2026-W01")),
        ({"locale": "en-GB"}, "language", ("en", "other", "2026-W01")),
    ],
)
def test_group_climbs_no_further_than_it_must(change: dict[str, Any], rung: str, shown: tuple[str, ...]) -> None:
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


def test_group_leaves_out_a_rare_sound_only_when_it_is_told_to() -> None:
    clips = [clip("a"), clip("b"), clip("odd", sample_rate_hz=11_025)]
    assert shown_of(grouped(clips))["odd"] == (1, "en-US", "assistant", "2026-W47")
    assert shown_of(grouped(clips, always=True))["odd"][0] is None


def test_group_counts_what_the_vendor_has() -> None:
    (earlier,) = ({**clip("x", "somebody"), "shown_locale": "hi-IN", "shown_product": "assistant"} for _ in range(1))
    earlier["shown_week"] = "2026-W47"
    alone = clip("alone", "person", locale="hi-IN")
    assert shown_of(grouped([alone], [earlier]))["alone"] == (0, "hi-IN", "assistant", "2026-W47")
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
