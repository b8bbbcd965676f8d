"""`select` against the slow twin, and the sample against its promises."""

import base64
import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import oracle
from clip_courier import selection
from clip_courier.courier import Courier
from clip_courier.errors import ConnectionInvalid, LandingMissing
from clip_courier.landing import Landing
from clip_courier.model import CLIPS, CONSENT_EVENTS, PERSONS, Connection, Root
from clip_courier.settings import INCLUDE, Policy, load_settings
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
        tables.register("taken", pa.Table.from_pylist(taken, selection.TAKEN))
        selection.judge(tables, NOW, policy)
        # No statement of ours gives back all that was judged: the funnel only counts.
        rows = tables._connection.table("judged").to_arrow_table().to_pylist()
        answers = {row["clip_ref"]: row["reason"] for row in tables.run("refusals").to_pylist()}
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
        landing, POLICY, Connection("sampling", password=password), PSEUDONYMS, selection.TAKEN.empty_table
    )
    with pytest.raises(ConnectionInvalid, match="connection sampling: password must be 32 bytes in base64"):
        selection.select(Root(tmp_path / "var", str(tmp_path)).night(NIGHT), NOW, given_)
    assert not (tmp_path / "var").exists()


DRAWABLE = pa.schema(
    [
        ("clip_id", pa.string()),
        ("product", pa.string()),
        ("locale", pa.string()),
        ("recorded_at", pa.timestamp("us", tz="UTC")),
        ("duration_ms", pa.int32()),
        ("person_ids", pa.list_(pa.string())),
        ("reason", pa.string()),
    ]
)


def drawn_by_sql(
    rows: Sequence[Row], *, cap: int, budget_ms: int, key: bytes = KEY, threads: int = 1, aside: Iterable[str] = ()
) -> dict[str, tuple[str, float]]:
    inner, outer = selection._padded(Connection("sampling", password=base64.b64encode(key).decode()))
    with Tables(threads=threads) as tables:
        tables.register("judged", pa.Table.from_pylist(rows, DRAWABLE))
        tables.register("set_aside", pa.table({"clip_id": list(aside)}, selection.SET_ASIDE))
        values = {"inner": inner, "outer": outer, "clips_per_person": cap, "budget_ms": budget_ms}
        tables.run("drawn", values)
        found = tables._connection.table("drawn").to_arrow_table().to_pylist()
    sample = {row["clip_id"]: (row["stratum"], row["inclusion_probability"]) for row in found}
    assert len(sample) == len(found)
    return sample


def drawable(facts: Sequence[tuple[str, int, Sequence[int]]]) -> list[Row]:
    return [
        {
            "clip_id": f"clip-{number}",
            "product": product,
            "locale": "en-US",
            "recorded_at": NOW,
            "duration_ms": duration_ms,
            "person_ids": [f"p{person}" for person in sorted(people)],
            "reason": None,
        }
        for number, (product, duration_ms, people) in enumerate(facts)
    ]


facts = st.tuples(
    st.sampled_from(["translator", "assistant"]),
    st.integers(500, 30_000),
    st.sets(st.integers(0, 4), min_size=1, max_size=3),
)


@settings(max_examples=80, deadline=None)
@given(
    facts=st.lists(facts, min_size=1, max_size=40),
    refused=st.sets(st.integers(0, 39), max_size=5),
    aside=st.sets(st.integers(0, 39).map(lambda number: f"clip-{number}"), max_size=5),
    cap=st.integers(1, 4),
    budget_ms=st.integers(500, 200_000),
    key=st.binary(min_size=32, max_size=32),
)
def test_drawn_is_the_sample_of_the_slow_twin(
    facts: list[tuple[str, int, set[int]]], refused: set[int], aside: set[str], cap: int, budget_ms: int, key: bytes
) -> None:
    rows = drawable([(product, duration_ms, sorted(people)) for product, duration_ms, people in facts])
    for number in refused & set(range(len(rows))):
        rows[number]["reason"] = "withdrawn"
    eligible = [row for row in rows if row["reason"] is None and row["clip_id"] not in aside]
    sample = drawn_by_sql(rows, cap=cap, budget_ms=budget_ms, key=key, aside=aside)
    expected = oracle.drawn(eligible, cap=cap, budget_ms=budget_ms, key=key)
    assert sample == {clip_id: (stratum, pytest.approx(p)) for clip_id, (stratum, p) in expected.items()}
    # The promises themselves, which the twin could break along with the SQL.
    taken = [row for row in eligible if row["clip_id"] in sample]
    assert all(clips <= cap for clips in Counter(p for row in taken for p in row["person_ids"]).values())
    for product in ("translator", "assistant"):
        assert sum(row["duration_ms"] for row in taken if row["product"] == product) <= budget_ms
    assert all(0 < probability <= 1 for _, probability in sample.values())


def test_drawn_is_the_same_for_any_threads_and_order_and_another_for_another_key() -> None:
    rng = random.Random(5)
    people = [rng.sample(range(4000), rng.choice([1, 1, 1, 2])) for _ in range(20_000)]
    rows = drawable([(rng.choice("abcd"), rng.randint(500, 30_000), two) for two in people])
    # Ids that stand twice, in different strata and of different length: one of the rows is drawn, always the same.
    rows += [row | {"product": "z", "duration_ms": row["duration_ms"] + 1} for row in rows[:2000]]
    rows += [row | {"product": "z"} for row in rows[2000:4000]]
    plan = {"cap": 3, "budget_ms": 9_000_000}
    expected = drawn_by_sql(rows, **plan)
    assert 1000 < len(expected) < 10_000
    for threads in (1, 2, 8):
        rng.shuffle(rows)
        assert drawn_by_sql(rows, **plan, threads=threads) == expected
    assert set(drawn_by_sql(rows, **plan, key=b"m" * 32)) != set(expected)


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
