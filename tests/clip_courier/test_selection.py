"""`select` against the slow twin, and the sample against its promises."""

import base64
import random
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import permutations
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, chi2

import oracle
from clip_courier import selection
from clip_courier.courier import Courier
from clip_courier.errors import ConnectionInvalid, LandingMissing
from clip_courier.landing import Landing
from clip_courier.model import CLIPS, CONSENT_EVENTS, PERSONS, Connection, Root
from clip_courier.sampling_plan import EXPOSURE, TAKEN
from clip_courier.settings import INCLUDE, Hours, Policy, Sampling, load_settings
from clip_courier.tables import Tables
from clip_courier_demo.stage import Stage
from conftest import NIGHT, NOW
from selected_rows import PSEUDONYMS
from snapshots import crosswalk_of, landing_copy, manifested, persons_of, withdraw

Row = dict[str, Any]
POLICY = load_settings({"CLIP_COURIER_POLICY": str(INCLUDE / "policy")}).policy()
LAX = replace(POLICY, sampling=POLICY.sampling.model_copy(update={"birth_year_required": False}))
IN_EFFECT = POLICY.notices["2026-02"].effective_from
KEY = b"k" * 32

TICK, HOUR, WEEK = timedelta(microseconds=1), timedelta(hours=1), timedelta(days=7)
OLDEST = NOW - timedelta(days=POLICY.sampling.retention_days)
ORDINARY = datetime(2026, 10, 5, 12, tzinfo=UTC)


class Case:
    """A clip with those who are audible in it, what they said and what is known about them, all by its number.

    Most of a clip is as it should be, else the first rules would refuse it and the last ones see nothing.
    """

    def __init__(self, number: int) -> None:
        self._rng = random.Random(number)
        self.number = number
        self.recorded_at = self._mostly(
            [ORDINARY, ORDINARY, IN_EFFECT.replace(month=9), NOW, OLDEST], [NOW + TICK, OLDEST - TICK, None]
        )
        # "-" is a participant whose id is null, "!" one that is null altogether.
        people: str | None = self._mostly(["a", "ab", "aa", "abc"], ["", None, "a-", "!", "abcabc"])
        known = sorted(set(people or "") - set("-!"))
        self.participants = None if people is None else [self._participant(name) for name in people]
        self.events = [said | {"person_id": self._own(name)} for name in known for said in self._history()]
        self.persons = [row | {"person_id": self._own(name)} for name in known for row in self._about()]
        self.taken = self._mostly([None], [False, True], one_in=4)
        self.clip = {
            "clip_id": self._mostly([f"c{number}"], [None], one_in=40),
            "clip_ref": f"r{number}",
            "product": self._mostly(["translator"], [None], one_in=60),
            "activation": self._mostly(["call", "button", "wake_word"], ["accidental", None], one_in=20),
            "locale": self._mostly(["en-US"], [None], one_in=60),
            "country": self._mostly(["US"], [None], one_in=60),
            "recorded_at": self.recorded_at,
            "duration_ms": self._mostly([500, 5000, 30_000], [499, 0, -1, 30_001, None], one_in=15),
            "participants": self.participants,
        }

    def __repr__(self) -> str:
        return f"{self.clip}\n{self.events}\n{self.persons}\ntaken: {self.taken}"

    def _mostly(self, usual: Sequence[Any], odd: Sequence[Any], one_in: int = 10) -> Any:
        return self._rng.choice(odd if self._rng.random() < 1 / one_in else usual)

    def _own(self, name: str) -> str:
        return f"{name}{self.number}"

    def _participant(self, name: str) -> Row | None:
        return None if name == "!" else {"person_id": None if name == "-" else self._own(name), "role": "speaker"}

    def _history(self) -> list[Row]:
        """What one person said: mostly a good grant, then anything, around the moments that decide."""
        at = self.recorded_at or ORDINARY
        around = [at + sign * step for sign in (-1, 1) for step in (TICK, HOUR, WEEK)]
        good = [at - WEEK, at - HOUR, at, IN_EFFECT]
        moments = [*good, *good, *around, IN_EFFECT - TICK]
        bad_notices = ["2025-03", "2024-01", "draft", None]
        grants = [
            {
                "purpose": "human_review",
                "decision": "granted",
                "notice_version": self._mostly(["2026-02"], bad_notices),
                "occurred_at": self._mostly(good, moments),
                "received_at": self._mostly([IN_EFFECT, NOW], [NOW + TICK, None]),
            }
            for _ in range(self._mostly([1], [0]))
        ]
        anything = [
            {
                "purpose": self._mostly(["human_review"], ["product_improvement", "HUMAN_REVIEW", None], one_in=6),
                "decision": self._rng.choice(["granted", "withdrawn", "withdrawn", "revoked", "GRANTED", None]),
                "notice_version": self._mostly(["2026-02"], bad_notices, one_in=3),
                "occurred_at": self._mostly(moments, [None]),
                "received_at": self._mostly([IN_EFFECT, NOW, NOW - TICK], [NOW + TICK, NOW + WEEK, None], one_in=3),
            }
            for _ in range(self._rng.choice([0, 0, 0, 1, 1, 2, 3]))
        ]
        # The order of the rows means nothing.
        return self._rng.sample(grants + anything, len(grants + anything))

    def _about(self) -> list[Row]:
        """No row about the person, one, or several that contradict each other."""
        if self._rng.random() < 0.75:
            return [{"birth_year": 1990, "has_guardian_consent": None, "is_restricted": False}]
        return [
            {
                "birth_year": self._mostly([1990, 2007], [2008, 2009, None], one_in=3),
                "has_guardian_consent": self._rng.choice([None, False, True]),
                "is_restricted": self._mostly([None, False], [True]),
            }
            for _ in range(self._rng.choice([0, 1, 2, 2, 3]))
        ]


def relation(rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    loose = pa.schema([pa.field(f.name, f.type) for f in schema])
    return pa.Table.from_pylist([{name: row.get(name) for name in loose.names} for row in rows], loose)


REFERRED = CLIPS.append(pa.field("clip_ref", pa.string()))


def judged(cases: Sequence[Case], policy: Policy) -> tuple[dict[str, str | None], dict[str, str], Row]:
    """Of cases side by side in one landing zone: the reason by id, the answer of `refusals` by ref, and the funnel."""
    taken = [{"clip_id": c.clip["clip_id"], "is_recalled": c.taken} for c in cases if c.taken is not None]
    with Tables(threads=1) as tables:
        tables.register("clips", relation([case.clip for case in cases], REFERRED))
        tables.register("consent_events", relation([e for case in cases for e in case.events], CONSENT_EVENTS))
        tables.register("persons", relation([p for case in cases for p in case.persons], PERSONS))
        tables.register("taken", pa.Table.from_pylist(taken, TAKEN))
        tables.register("exposure", EXPOSURE.empty_table())
        selection.judge(tables, NOW, policy)
        # No statement of ours gives back all that was judged: the funnel only counts.
        rows = tables._connection.table("judged").to_arrow_table().to_pylist()
        answers = {row["clip_ref"]: row["reason"] for row in tables.run("refusals").to_pylist()}
        tables.register("set_aside", selection.SET_ASIDE.empty_table())
        selection.consider(tables, policy.sampling)
        funnel = {row["reason"]: row["clips"] for row in tables.run("funnel").to_pylist()}
    assert len(rows) == len(cases)
    return {row["clip_id"]: row["reason"] for row in rows}, answers, funnel


def test_judge_says_what_the_slow_twin_says() -> None:
    reached: Counter[str | None] = Counter()

    # The same examples every time, so that what they reach can be asserted below.
    @settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(
        cases=st.lists(st.integers(0, 2**32 - 1), min_size=60, max_size=90, unique=True).map(
            lambda numbers: [Case(number) for number in numbers]
        ),
        policy=st.sampled_from([POLICY, LAX]),
    )
    def check(cases: list[Case], policy: Policy) -> None:
        found, answers, funnel = judged(cases, policy)
        reasons, refused = {}, {}
        for case in cases:
            known = (case.clip, case.events, case.persons, policy, NOW)
            taken = {case.clip["clip_id"]: case.taken} if case.taken is not None else {}
            reasons[case.clip["clip_ref"]] = oracle.refusal(*known, taken)
            refused[case.clip["clip_ref"]] = oracle.may_not_be_heard(*known, taken)
        assert found == {case.clip["clip_id"]: reasons[case.clip["clip_ref"]] for case in cases}
        assert answers == {ref: reason for ref, reason in refused.items() if reason}
        assert funnel == Counter(reasons.values())
        reached.update(reasons.values())

    check()
    # Cases that never get past the first rules would prove nothing about the others.
    assert set(reached) == {None, *selection.REFUSALS}, reached
    assert min(reached[None], reached["not_consented"], reached["withdrawn"]) > 100, reached
    assert min(reached.values()) >= 10, reached


def grant(person: str, **changes: Any) -> Row:
    return {
        "record_id": "g",
        "person_id": person,
        "purpose": "human_review",
        "decision": "granted",
        "notice_version": "2026-02",
        "language": "en",
        "country": "US",
        "occurred_at": IN_EFFECT,
        "received_at": IN_EFFECT,
        **changes,
    }


def adult(person: str) -> Row:
    return {"person_id": person, "birth_year": 1980, "has_guardian_consent": None, "is_restricted": None}


def clip(clip_id: str, *people: str, text: str = "hello", **changes: Any) -> Row:
    return {
        "clip_id": clip_id,
        "product": "assistant",
        "activation": "button",
        "locale": "en-US",
        "country": "US",
        "recorded_at": ORDINARY,
        "duration_ms": 1000,
        "sample_rate_hz": 16000,
        "channels": 1,
        "audio_uri": "a.wav",
        "participants": [{"person_id": person, "role": "speaker"} for person in people],
        "hypotheses": [{"rank": 1, "text": text, "confidence": 0.5, "engine": "e"}],
        **changes,
    }


def written(folder: Path, clips: Sequence[Row], events: Sequence[Row] = (), persons: Sequence[Row] = ()) -> Path:
    """A landing zone of these rows, in two files of one partition."""
    half = len(clips) // 2
    for name, rows, schema in (
        ("clips/recorded_date=2026-11-19/a", clips[:half], CLIPS),
        ("clips/recorded_date=2026-11-19/b", clips[half:], CLIPS),
        ("consent_events/a", events, CONSENT_EVENTS),
        ("persons/a", persons, PERSONS),
    ):
        path = folder / f"{name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(relation(rows, schema), path)
    return folder


def reasons_of(rows: Sequence[Row], events: Sequence[Row], persons: Sequence[Row], now: datetime = NOW) -> Row:
    """clip_id → reason, as of `now`."""
    with Tables(threads=1) as tables:
        tables.register("clips", relation(rows, CLIPS))
        tables.register("consent_events", relation(events, CONSENT_EVENTS))
        tables.register("persons", relation(persons, PERSONS))
        tables.register("taken", TAKEN.empty_table())
        tables.register("exposure", EXPOSURE.empty_table())
        selection.judge(tables, now, POLICY)
        return {
            row["clip_id"]: row["reason"] for row in tables._connection.table("judged").to_arrow_table().to_pylist()
        }


def withdrawal(person: str, at: datetime, **changes: Any) -> Row:
    return grant(person, **{"decision": "withdrawn", "occurred_at": at, "received_at": at, **changes})


def test_judge_asks_every_one_of_a_hundred_participants() -> None:
    crowd = [f"p{n}" for n in range(100)]
    rows = [clip("all", *crowd), clip("twice", *crowd, *crowd), clip("most", *crowd[:99]), clip("few", *crowd[:2])]
    events, persons = [grant(p) for p in crowd], [adult(p) for p in crowd]
    assert reasons_of(rows, events, persons) == dict.fromkeys(["all", "twice", "most", "few"])
    gone = [*events, withdrawal("p99", ORDINARY + HOUR)]
    assert reasons_of(rows, gone, persons) == {"all": "withdrawn", "twice": "withdrawn", "most": None, "few": None}
    silent = [event for event in events if event["person_id"] != "p99"]
    assert reasons_of(rows, silent, persons)["all"] == "not_consented"
    young = [row if row["person_id"] != "p99" else row | {"birth_year": 2010} for row in persons]
    assert reasons_of(rows, gone, young)["all"] == "minor"


def test_judge_never_lets_a_new_grant_revive_what_was_recorded_before() -> None:
    """Grant, withdrawal, grant again, told in any order: only what was recorded after the second grant is eligible."""
    moments = [ORDINARY + n * HOUR for n in range(5)]
    rows = [clip(f"c{n}", "ada", recorded_at=moment) for n, moment in enumerate(moments)]
    events = [grant("ada"), withdrawal("ada", ORDINARY + 2 * HOUR), grant("ada", occurred_at=ORDINARY + 3 * HOUR)]
    expected = {"c0": "withdrawn", "c1": "withdrawn", "c2": "not_consented", "c3": None, "c4": None}
    for order in permutations(events):
        assert reasons_of(rows, order, [adult("ada")]) == expected
    # What was known before the withdrawal arrived.
    late = [events[0], events[1] | {"received_at": NOW + TICK}, events[2]]
    assert set(reasons_of(rows, late, [adult("ada")]).values()) == {None}
    assert reasons_of(rows, late, [adult("ada")], now=NOW + TICK) == expected


BORDERS = [
    datetime(2026, 10, 25, 1, 0, tzinfo=UTC),  # the hour that Central Europe's clocks show twice
    datetime(2026, 11, 1, 6, 0, tzinfo=UTC),  # the hour that New York's show twice
    datetime(2026, 10, 1, 0, 0, tzinfo=UTC),  # a UTC midnight; after one at which leap seconds are inserted
]


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata"])
def test_judge_knows_no_time_but_utc(zone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On whatever clock the machine runs: to the microsecond around an hour that occurs twice, and a year's end."""
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        for border in BORDERS:
            rows = [clip(f"{n}", "ada", recorded_at=border + n * TICK) for n in (-1, 0, 1)]
            events = [grant("ada", occurred_at=border), withdrawal("ben", border)]
            assert reasons_of(rows, events, [adult("ada")]) == {"-1": "not_consented", "0": None, "1": None}
        turn = datetime(2027, 1, 1, tzinfo=UTC)
        born = [{**adult("ada"), "birth_year": 2008}]
        rows = [clip("old year", "ada", recorded_at=turn - TICK), clip("new year", "ada", recorded_at=turn)]
        found = reasons_of(rows, [grant("ada")], born, now=turn + HOUR)
        assert found == {"old year": "minor", "new year": None}
    finally:
        monkeypatch.undo()
        time.tzset()


def test_judge_takes_a_person_without_a_row_for_a_minor() -> None:
    assert reasons_of([clip("c", "ada")], [grant("ada")], []) == {"c": "minor"}


def chosen(root: Path) -> Path:
    return root / "crosswalk" / NIGHT.isoformat() / "selected.parquet"


@pytest.mark.parametrize("threads", [1, 2, 8])
def test_select_is_the_same_for_shuffled_files_and_rows(
    stage: Stage, make_courier: Callable[..., Courier], tmp_path: Path, threads: int
) -> None:
    make_courier(stage).select(NIGHT)
    landing = shuffled(Path(stage.environ["CLIP_COURIER_LANDING"]), tmp_path / "landing", seed=threads)
    other = {"CLIP_COURIER_ROOT": str(tmp_path / "var"), "CLIP_COURIER_LANDING": str(landing)}
    make_courier(stage, **other).select(NIGHT)
    assert pq.read_table(chosen(tmp_path / "var")).equals(pq.read_table(chosen(stage.root)))


def shuffled(landing: Path, out: Path, seed: int) -> Path:
    """The same rows in another order, in other files."""
    rng = random.Random(seed)
    for name in ("consent_events", "persons"):
        shutil.copytree(landing / name, out / name)
    for partition in sorted((landing / "clips").iterdir()):
        rows = pa.concat_tables([pq.read_table(f, partitioning=None) for f in sorted(partition.glob("*.parquet"))])
        order = list(range(rows.num_rows))
        rng.shuffle(order)
        (out / "clips" / partition.name).mkdir(parents=True)
        for part in (order[: len(order) // 3], order[len(order) // 3 :]):
            path = out / "clips" / partition.name / f"z{rng.random()}.parquet"
            pq.write_table(rows.take(pa.array(part, pa.int64())), path)
    return out


def test_select_counts_every_clip_once_also_outside_the_window(stage: Stage, courier: Courier) -> None:
    counts = courier.select(NIGHT).counts
    landing = Path(stage.environ["CLIP_COURIER_LANDING"])
    names = [path.parent.name for path in (landing / "clips").rglob("*.parquet")]
    assert min(names) < "recorded_date=2026-08-21", "the demo world has partitions that are not read"
    rows = pq.read_table(landing / "clips", partitioning=None).to_pylist()
    said = pq.read_table(landing / "consent_events").to_pylist()
    people = pq.read_table(landing / "persons").to_pylist()
    expected = Counter(oracle.refusal(row, said, people, POLICY, NOW, {}) for row in rows)
    assert counts["clips"] == len(rows)
    assert counts["eligible"] == expected.pop(None)
    assert counts["refused"] == {reason: expected[reason] for reason in selection.REFUSALS}


def test_select_takes_only_what_the_slow_twin_allows_from_the_demo_world(stage: Stage, courier: Courier) -> None:
    courier.select(NIGHT)
    landing = Path(stage.environ["CLIP_COURIER_LANDING"])
    said = pq.read_table(landing / "consent_events").to_pylist()
    people = pq.read_table(landing / "persons").to_pylist()
    selected = pq.read_table(chosen(stage.root)).to_pylist()
    assert len(selected) > 50
    # A clip whose id stands twice comes with both of its rows, for validation to reject.
    assert all(oracle.refusal(row, said, people, POLICY, NOW, {}) is None for row in selected if row["copies"] == 1)


def test_select_marks_every_row_of_an_id_that_stands_twice(
    stage: Stage, make_courier: Callable[..., Courier], tmp_path: Path
) -> None:
    """Also a row that is refused itself, and one that is the same to the last value."""
    rows = [
        clip("once", "ada"),
        clip("same", "ben"),
        clip("same", "ben"),
        clip("other", "cleo", text="one"),
        clip("other", "dan", text="two", audio_uri="b.wav", recorded_at=ORDINARY + HOUR),
        clip("refused", "eve"),
        clip("refused", "nobody"),
    ]
    people = ["ada", "ben", "cleo", "dan", "eve"]
    landing = written(tmp_path, rows, [grant(p) for p in people], [adult(p) for p in people])
    counts = make_courier(stage, CLIP_COURIER_LANDING=str(landing)).select(NIGHT).counts
    assert (counts["clips"], counts["eligible"], counts["selected"]) == (7, 6, 4)
    selected = pq.read_table(chosen(stage.root)).to_pylist()
    assert [(row["clip_id"], row["copies"]) for row in selected] == [
        ("once", 1),
        *[(twice, 2) for twice in ("other", "other", "refused", "refused", "same", "same")],
    ]
    assert [row["row"] for row in selected] == list(range(1, 8))


def test_select_reads_a_day_more_than_it_keeps(
    stage: Stage, make_courier: Callable[..., Courier], tmp_path: Path
) -> None:
    """A recording of the first hours may lie in the partition of the day before; what lies earlier is only counted."""
    landing = written(tmp_path, [clip("new", "ada")], [grant("ada")], [adult("ada")])
    old = clip("border", "ada", recorded_at=OLDEST), clip("older", "ada", recorded_at=OLDEST - TICK)
    for days, rows in ((1, [*old]), (2, [clip("never-read", "ada")])):
        folder = landing / "clips" / f"recorded_date={(OLDEST - timedelta(days=days)).date()}"
        folder.mkdir()
        pq.write_table(relation(rows, CLIPS), folder / "part.parquet")
    counts = make_courier(stage, CLIP_COURIER_LANDING=str(landing)).select(NIGHT).counts
    assert (counts["clips"], counts["eligible"]) == (4, 2)
    assert counts["refused"] == dict.fromkeys(selection.REFUSALS, 0) | {"too_old": 2}
    assert {row["clip_id"] for row in pq.read_table(chosen(stage.root)).to_pylist()} == {"new", "border"}


def test_select_again_leaves_the_night_as_it_is(stage: Stage, make_courier: Callable[..., Courier]) -> None:
    first = make_courier(stage).select(NIGHT)
    before = chosen(stage.root).read_bytes()
    again = make_courier(stage, now=NOW + WEEK).select(NIGHT)
    assert (first.is_new, again.is_new) == (True, False)
    assert again.counts == first.counts
    assert chosen(stage.root).read_bytes() == before


@pytest.mark.parametrize("password", ["", "not base64!", "c2hvcnQ=", None])
def test_select_without_a_whole_sampling_key_says_which_connection(tmp_path: Path, password: str | None) -> None:
    landing = Landing(str(written(tmp_path, [clip("c", "ada")], [grant("ada")], [adult("ada")])))
    given_ = selection.Selection(
        landing, POLICY, Connection("sampling", password=password), PSEUDONYMS, TAKEN.empty_table
    )
    with pytest.raises(ConnectionInvalid, match="connection sampling: password must be 32 bytes in base64"):
        selection.select(Root(tmp_path / "var", str(tmp_path)).night(NIGHT), NOW, given_)
    assert not (tmp_path / "var").exists()


def world_of(facts: Sequence[Row]) -> dict[str, pa.Table]:
    """A landing zone where everybody consented to everything, as relations."""
    people = sorted({person for fact in facts for person in fact["person_ids"]})
    rows = [
        clip(
            fact["clip_id"],
            *fact["person_ids"],
            product=fact["product"],
            locale=fact["locale"],
            duration_ms=fact["duration_ms"],
            hypotheses=[{"rank": 1, "text": "t", "confidence": fact.get("confidence"), "engine": "e"}],
        )
        for fact in facts
    ]
    return {
        "clips": relation(rows, CLIPS),
        "consent_events": relation([grant(person) for person in people], CONSENT_EVENTS),
        "persons": relation([adult(person) for person in people], PERSONS),
    }


@dataclass(frozen=True)
class Sample:
    """What was drawn by id: stratum and inclusion probability; the plan; by id the rivals and whether it survived them.

    `hits`: what the design took before anything was cut.
    """

    drawn: dict[str, tuple[str, float]]
    plan: list[Row]
    rivals: dict[str, tuple[int, bool]]
    hits: int


def sample_of(
    world: Mapping[str, pa.Table],
    plan: Sampling,
    key: bytes = KEY,
    *,
    heard: Mapping[str, int] = MappingProxyType({}),
    spread: Mapping[str, float] = MappingProxyType({}),
    aside: Iterable[str] = (),
    most_clips: int = 10**9,
    threads: int = 1,
) -> Sample:
    policy = replace(POLICY, sampling=plan)
    with Tables(threads=threads) as tables:
        for name, rows in world.items():
            tables.register(name, rows)
        tables.register("taken", TAKEN.empty_table())
        tables.register("set_aside", pa.table({"clip_id": list(aside)}, selection.SET_ASIDE))
        tables.register("exposure", pa.table([list(heard), list(heard.values())], schema=EXPOSURE))
        selection.judge(tables, NOW, policy)
        night_key = key_of(key)
        selection.consider(tables, plan)
        selection.thin(tables, plan, night_key)
        strata = selection.draw(tables, plan, night_key, spread, most_clips)
        drawn = tables._connection.table("drawn").to_arrow_table().to_pylist()
        rivals = tables._connection.sql(
            "SELECT clip_id, coalesce(rivals, 1) AS n, coalesce(is_kept, TRUE) AS kept"
            " FROM drawable d LEFT JOIN rival r ON r.clip_no = d.clip_no"
        ).to_arrow_table()
        [hits] = tables._connection.sql("SELECT coalesce(sum(hits), 0)::BIGINT FROM hit").fetchall()
    assert len({row["clip_id"] for row in drawn}) == len(drawn)
    return Sample(
        {row["clip_id"]: (row["stratum"], row["inclusion_probability"]) for row in drawn},
        strata,
        {row["clip_id"]: (row["n"], row["kept"]) for row in rivals.to_pylist()},
        hits[0],
    )


def key_of(key: bytes) -> Callable[[str], str]:
    return selection._night_key(Connection("sampling", password=base64.b64encode(key).decode()), NIGHT)


facts = st.builds(
    lambda product, locale, duration_ms, people, tenths: {
        "product": product,
        "locale": locale,
        "duration_ms": duration_ms,
        "person_ids": [f"p{person}" for person in sorted(people)],
        "confidence": None if tenths is None else tenths / 10,
    },
    st.sampled_from(["translator", "assistant"]),
    st.sampled_from(["en-US", "de-DE"]),
    st.integers(500, 30_000),
    st.sets(st.integers(0, 5), min_size=1, max_size=4),
    st.one_of(st.none(), st.integers(0, 10)),
)
plans = st.builds(
    lambda **fields: Sampling.model_validate({**fields, "hours_per_stratum": {"ceiling": fields["hours_per_stratum"]}}),
    strata=st.sampled_from([["product"], ["product", "locale"], ["locale", "country"], ["activation"]]),
    hours_per_night=st.sampled_from([0.005, 0.02, 0.1, 10]),
    hours_per_stratum=st.sampled_from([0.004, 0.01, 0.03, 1]),
    allocation=st.sampled_from(["proportional", "sqrt", "neyman"]),
    uncertainty_weight=st.sampled_from([0, 0, 4]),
    clips_per_person=st.integers(1, 4),
    exposure_seconds=st.sampled_from([31, 60, 100, 600]),
)


def in_plan(facts: Sequence[Row], plan: Sampling) -> list[Row]:
    """The facts as the slow twin reads them."""
    columns = ("product", "locale", "country", "activation")
    fixed = {"country": "US", "activation": "button"}
    return [
        {
            **fact,
            "stratum": " × ".join({**fixed, **fact}[name] for name in columns if name in plan.strata),
            "weight": 1 + plan.uncertainty_weight * (1 - (fact["confidence"] or 0.0)),
        }
        for fact in facts
    ]


@settings(max_examples=60, deadline=None)
@given(
    facts=st.lists(facts, min_size=1, max_size=40),
    plan=plans,
    heard=st.dictionaries(st.sampled_from([f"p{n}" for n in range(6)]), st.integers(0, 120_000), max_size=3),
    aside=st.sets(st.integers(0, 39).map(lambda number: f"clip-{number}"), max_size=5),
    share=st.sampled_from([1.0, 0.5, 0.1]),
    key=st.binary(min_size=32, max_size=32),
)
def test_draw_is_the_sample_of_the_slow_twin(
    facts: list[Row], plan: Sampling, heard: dict[str, int], aside: set[str], share: float, key: bytes
) -> None:
    facts = [fact | {"clip_id": f"clip-{number}"} for number, fact in enumerate(facts)]
    spread = {"translator": 2.0, "assistant": 0.5}
    most = int(len(facts) * share)
    sample = sample_of(world_of(facts), plan, key, heard=heard, spread=spread, aside=aside, most_clips=most)
    eligible = in_plan([fact for fact in facts if fact["clip_id"] not in aside], plan)
    expected = oracle.sampled(eligible, plan, key_of(key), heard, spread, most)
    assert sample.rivals == {clip_id: (one.rivals, one.survives) for clip_id, one in expected.items()}
    assert sample.drawn == {
        clip_id: (one.stratum, pytest.approx(one.probability, rel=1e-5))
        for clip_id, one in expected.items()
        if one.is_taken
    }
    keeps_its_limits(sample, eligible, plan, heard, most)


def keeps_its_limits(
    sample: Sample, eligible: Sequence[Row], plan: Sampling, heard: Mapping[str, int], most_clips: int
) -> None:
    """The promises themselves, which the twin could break along with the SQL."""
    taken = [row for row in eligible if row["clip_id"] in sample.drawn]
    clips_of = Counter(person for row in taken for person in row["person_ids"])
    seconds_of: Counter[str] = Counter()
    length_of: Counter[str] = Counter()
    for row in taken:
        length_of[row["stratum"]] += row["duration_ms"]
        for person in row["person_ids"]:
            seconds_of[person] += row["duration_ms"]
    assert max(clips_of.values(), default=0) <= plan.clips_per_person
    assert all(heard.get(p, 0) + ms <= plan.exposure_seconds * 1000 for p, ms in seconds_of.items())
    assert all(ms <= plan.hours(name).ceiling * 3_600_000 for name, ms in length_of.items())
    assert sum(length_of.values()) <= plan.hours_per_night * 3_600_000
    assert len(taken) <= most_clips
    assert all(0 < probability <= 1 for _, probability in sample.drawn.values())
    for one in sample.plan:
        assert one["chosen_hours"] <= one["budget_hours"] + 1e-4


def heavy_world(clips: int, seed: int, copies: int = 1) -> list[Row]:
    """Persons of very different weight: one owns half of the clips and talks to everybody, another is in every fifth.

    With `copies` that many worlds lie side by side, each with its own persons and strata.
    """
    rng = random.Random(seed)
    made = []
    for number in range(clips):
        people = {"whale"} if number % 2 else {f"p{int(30 * rng.random() ** 3)}"}
        if rng.random() < 0.4:
            people.add(f"p{int(30 * rng.random() ** 3)}")
        if number % 5 == 0:
            people.add("host")
        if number % 41 == 0:
            people |= {f"q{n}" for n in range(5)}
        made.append(
            {
                "product": rng.choice(["translator", "assistant", "assistant"]),
                "duration_ms": rng.randint(500, 30_000),
                "people": sorted(people),
                "confidence": rng.choice([0.3, 0.9]),
            }
        )
    return [
        {
            **{name: one[name] for name in ("product", "duration_ms", "confidence")},
            "clip_id": f"{copy}:{number}",
            "locale": f"l{copy:02d}",
            "person_ids": [f"{copy}:{person}" for person in one["people"]],
        }
        for copy in range(copies)
        for number, one in enumerate(made)
    ]


def test_draw_is_the_same_for_any_threads_and_order_and_another_for_another_key() -> None:
    facts = heavy_world(6000, seed=5)
    # Ids that stand twice, in different strata and of different length.
    facts += [fact | {"product": "z", "duration_ms": 500 + fact["duration_ms"] // 2} for fact in facts[:300]]
    world = world_of(facts)
    plan = Sampling(uncertainty_weight=4, hours_per_stratum=Hours(ceiling=0.2))
    expected = sample_of(world, plan)
    assert 20 < len(expected.drawn) < 1000
    for threads in (1, 2, 8):
        order = pa.array(random.Random(threads).sample(range(len(facts)), len(facts)))
        shuffled = {**world, "clips": world["clips"].take(order)}
        again = sample_of(shuffled, plan, threads=threads)
        assert (again.drawn, again.plan) == (expected.drawn, expected.plan)
    other = sample_of(world, plan, b"m" * 32)
    assert set(other.drawn) != set(expected.drawn)
    # What a clip was to be included with does not depend on the key.
    assert all(other.drawn[one] == expected.drawn[one] for one in set(other.drawn) & set(expected.drawn))


@pytest.mark.parametrize("seed", range(3))
def test_draw_keeps_every_limit_where_few_persons_own_most_clips(seed: int) -> None:
    facts = heavy_world(3000, seed)
    plan = Sampling(
        hours_per_night=0.25, hours_per_stratum=Hours(floor=0.02, ceiling=0.2), clips_per_person=2, exposure_seconds=50
    )
    heard = {"0:p0": 45_000, "0:p1": 21_000, "0:host": 49_900}
    for key in range(5):
        sample = sample_of(world_of(facts), plan, bytes([key]) * 32, heard=heard, most_clips=60)
        assert len(sample.drawn) > 5
        keeps_its_limits(sample, in_plan(facts, plan), plan, heard, 60)


# 40 keys × 50 copies of the world side by side: 2,000 replays of the same draw.
KEYS, COPIES, CLIPS_OF_COPY = 40, 50, 160


@pytest.fixture(scope="module")
def replays() -> tuple[list[Row], np.ndarray, np.ndarray]:
    """The clips of one copy; replay × clip: whether it was taken; and by clip the stored probability."""
    plan = Sampling(
        hours_per_night=1000, hours_per_stratum=Hours(ceiling=0.055), clips_per_person=3, uncertainty_weight=3
    )
    facts = heavy_world(CLIPS_OF_COPY, seed=11, copies=COPIES)
    world = world_of(facts)
    taken = np.zeros((KEYS, len(facts)), dtype=bool)
    probability = np.full(len(facts), np.nan)
    place = {fact["clip_id"]: number for number, fact in enumerate(facts)}
    for key in range(KEYS):
        for clip_id, (_, stored) in sample_of(world, plan, bytes([key]) * 32, threads=2).drawn.items():
            at = place[clip_id]
            assert np.isnan(probability[at]) or probability[at] == stored, "the stored probability depends on the key"
            taken[key, at], probability[at] = True, stored
    return (
        facts[:CLIPS_OF_COPY],
        taken.reshape(KEYS * COPIES, CLIPS_OF_COPY),
        np.nanmax(probability.reshape(COPIES, CLIPS_OF_COPY), axis=0),
    )


def test_inclusion_happens_as_often_as_the_stored_probability_says(
    replays: tuple[list[Row], np.ndarray, np.ndarray],
) -> None:
    """Exact binomial tests over 2,000 replays; by Holm and Bonferroni all hold at the 1 % level of the family."""
    _, taken, probability = replays
    assert not np.isnan(probability).any(), "every clip has a chance"
    assert probability.min() > 0.01
    assert len(np.unique(probability)) > 20
    p_values = [
        binomtest(int(times), len(taken), p).pvalue for times, p in zip(taken.sum(axis=0), probability, strict=True)
    ]
    assert min(p_values) > 0.01 / len(p_values)
    # All together: the sum of the squared deviations of so many clips, against χ².
    frequency = taken.mean(axis=0)
    z = (frequency - probability) / np.sqrt(probability * (1 - probability) / len(taken))
    assert chi2.sf((z**2).sum(), len(z)) > 1e-3


def test_weighted_totals_are_unbiased(replays: tuple[list[Row], np.ndarray, np.ndarray]) -> None:
    """Horvitz and Thompson's total and Hájek's mean of a quantity that goes with length, against the population."""
    facts, taken, probability = replays
    value = np.array([fact["duration_ms"] * (2 if "0:whale" in fact["person_ids"] else 1) for fact in facts], float)
    weight = taken / probability
    totals, sizes = weight @ value, weight.sum(axis=1)
    error = totals.std(ddof=1) / np.sqrt(len(totals))
    assert abs(totals.mean() - value.sum()) < 4 * error
    # A ratio has a bias of the order of 1 / n, far below what the sample without weights shows.
    hajek = totals / sizes
    naive = (taken @ value) / taken.sum(axis=1)
    spread = hajek.std(ddof=1) / np.sqrt(len(hajek))
    assert abs(hajek.mean() - value.mean()) < 4 * spread + 0.01 * value.mean()
    assert abs(naive.mean() - value.mean()) > 5 * abs(hajek.mean() - value.mean())


def test_survivors_overflow_a_budget_so_rarely_that_no_probability_suffers() -> None:
    """What is cut at the budget is all that keeps a probability from being exact: less than one clip in a thousand."""
    plan = Sampling(hours_per_night=1000, hours_per_stratum=Hours(ceiling=0.055), clips_per_person=3)
    world = world_of(heavy_world(CLIPS_OF_COPY, seed=3, copies=COPIES))
    samples = [sample_of(world, plan, bytes([key]) * 32, threads=2) for key in range(6)]
    kept, hit = (sum(of) for of in zip(*((len(one.drawn), one.hits) for one in samples), strict=True))
    assert kept > 2000
    assert hit - kept <= kept / 1000


def answers_later(landing: Path, rows: pa.Table, *, after: timedelta) -> dict[str, str]:
    return selection.refusals(Landing(str(landing)), POLICY, NOW + after, rows)


def test_refusals_needs_the_crosswalk_and_notices_a_withdrawal_that_arrived_since(
    stage: Stage, make_courier: Callable[..., Courier], tmp_path: Path
) -> None:
    manifested(stage, make_courier)
    batch_id = next((stage.root / "nights" / NIGHT.isoformat() / "batches").glob("*-001")).name
    rows = crosswalk_of(stage, batch_id)
    landing = landing_copy(stage, tmp_path)
    # Consent is asked of the people's tables alone: the clips may be gone from landing by then.
    shutil.rmtree(landing / "clips")
    assert answers_later(landing, rows, after=HOUR) == {}
    people = persons_of(rows, [rows["clip_ref"][0].as_py()])
    withdraw(landing, people, at=NOW + HOUR)
    theirs = {row["clip_ref"] for row in rows.to_pylist() if people & set(row["person_ids"])}
    assert answers_later(landing, rows, after=HOUR - TICK) == {}
    assert answers_later(landing, rows, after=HOUR) == dict.fromkeys(theirs, "withdrawn")
    assert theirs < set(rows["clip_ref"].to_pylist())


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"recorded_at": OLDEST - WEEK}, "too_old"),
        ({"duration_ms": 31_000}, "too_long"),
        ({"duration_ms": 1}, "too_short"),
        ({"activation": "accidental"}, "accidental"),
    ],
)
def test_refusals_tells_a_withdrawal_before_any_other_reason(
    tmp_path: Path, changes: Mapping[str, Any], reason: str
) -> None:
    """A vendor may still have a clip that has grown too old for a new night: only a withdrawal recalls it."""
    landing = written(tmp_path, [], [grant("ada"), grant("ben")], [adult("ada"), adult("ben")])
    rows = relation(
        [clip("c1", "ada", clip_ref="r1", **changes), clip("c2", "ben", clip_ref="r2", **changes)], REFERRED
    )
    assert answers_later(landing, rows, after=HOUR) == {"r1": reason, "r2": reason}
    withdraw(landing, ["ada"])
    assert answers_later(landing, rows, after=HOUR) == {"r1": "withdrawn", "r2": reason}


def test_refusals_refuses_what_nothing_is_known_about(tmp_path: Path) -> None:
    landing = written(tmp_path, [], [grant("ada")], [adult("ada")])
    rows = relation(
        [
            clip("c1", "ada", clip_ref="known"),
            clip("c2", "stranger", clip_ref="stranger"),
            clip("c3", clip_ref="nobody"),
            clip("c4", "ada", clip_ref="timeless", recorded_at=None),
            clip("c5", "ada", clip_ref="nameless") | {"clip_id": None},
        ],
        REFERRED,
    )
    assert answers_later(landing, rows, after=HOUR) == {
        "stranger": "minor",  # no row about the person, so no birth year
        "nobody": "unknown_participant",
        "timeless": "malformed",
        "nameless": "malformed",
    }
    assert answers_later(landing, rows.slice(0, 0), after=HOUR) == {}


def test_refusals_without_the_people_answers_nothing(tmp_path: Path) -> None:
    """An error, so that nothing is sent: an empty answer would mean that everything may be heard."""
    landing = written(tmp_path, [], [grant("ada")], [adult("ada")])
    shutil.rmtree(landing / "consent_events")
    with pytest.raises(LandingMissing, match="consent_events"):
        answers_later(landing, relation([clip("c1", "ada", clip_ref="r1")], REFERRED), after=HOUR)


def test_said_by_many_counts_distinct_persons(tmp_path: Path) -> None:
    k = POLICY.disclosure.vocabulary_k
    rows = [clip(f"a{n}", f"p{n}", text="Hello, world") for n in range(k)]
    rows += [clip(f"b{n}", f"p{n}", text="nearly") for n in range(k - 1)]
    rows += [clip(f"c{n}", "one", text="again and again") for n in range(20)]
    # Who of several said it is not known, and one of them twice is still no second person.
    rows += [clip(f"d{n}", f"q{n}", "other", text="together") for n in range(20)]
    rows += [clip(f"e{n}", f"p{n}", text="Grüße", locale="de-DE") for n in range(k)]
    rows += [clip(f"f{n}", f"p{n}", text="split", locale=locale) for n, locale in enumerate(["en", "de"] * 4)]
    rows += [clip(f"g{n}", f"p{n}", hypotheses=hypotheses) for n, hypotheses in enumerate([None, [], [None]])]
    rows += [clip("h1", "p1", participants=None), clip("h2", "p1", participants=[None])]
    found = selection.said_by_many(Landing(str(written(tmp_path, rows))), POLICY, NOW)
    assert found == {"en": frozenset({"hello", "world"}), "de": frozenset({"grüße"})}
