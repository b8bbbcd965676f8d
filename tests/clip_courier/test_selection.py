"""`select` against the slow twin, and the sample against its promises."""

import hashlib
import hmac
import random
import shutil
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clip_courier import selection
from clip_courier.courier import Courier
from clip_courier.landing import Landing
from clip_courier.model import CLIPS, CONSENT_EVENTS, PERSONS
from clip_courier.settings import INCLUDE, load_settings
from clip_courier.tables import Tables
from clip_courier_demo.stage import Stage
from conftest import NIGHT, NOW
from oracle import refusal

POLICY = load_settings({"CLIP_COURIER_POLICY": str(INCLUDE / "policy")}).policy()
PEOPLE = ["ada", "ben", "cleo"]
# Around the moments that decide: the night, the notices' first days, and New Year.
MOMENTS = [
    NOW,
    NOW - timedelta(days=90),
    datetime(2026, 2, 1, tzinfo=UTC),
    datetime(2026, 9, 30, 23, 59, 59, 999_999, tzinfo=UTC),
    datetime(2026, 10, 25, 1, 0, tzinfo=UTC),
    datetime(2026, 11, 1, tzinfo=UTC),
]
NUDGES = [timedelta(0), timedelta(microseconds=1), timedelta(hours=1), timedelta(days=9)]

moments = st.builds(
    lambda at, nudge, sign: at + sign * nudge,
    st.sampled_from(MOMENTS),
    st.sampled_from(NUDGES),
    st.sampled_from([-1, 1]),
)
events = st.fixed_dictionaries(
    {
        "record_id": st.just("r"),
        "person_id": st.sampled_from([*PEOPLE, None]),
        "purpose": st.sampled_from(["human_review", "human_review", "human_review", "product_improvement"]),
        "decision": st.sampled_from(["granted", "granted", "granted", "withdrawn", "revoked", None]),
        "notice_version": st.sampled_from(["2026-02", "2026-02", "2026-02", "2025-03", "2024-01", "draft", None]),
        "language": st.just("en"),
        "country": st.just("US"),
        "occurred_at": st.one_of(moments, moments, moments, st.none()),
        "received_at": st.one_of(moments, moments, st.just(MOMENTS[2]), st.just(MOMENTS[2]), st.none()),
    }
)
persons = st.fixed_dictionaries(
    {
        "person_id": st.sampled_from(PEOPLE),
        "birth_year": st.sampled_from([1970, 1970, 1990, 2007, 2008, 2009, None]),
        "has_guardian_consent": st.sampled_from([None, False, True]),
        "is_restricted": st.sampled_from([None, False, False, False, True]),
    }
)
participants = st.lists(
    st.builds(lambda p: {"person_id": p, "role": "speaker"}, st.sampled_from([*PEOPLE, *PEOPLE, *PEOPLE, None])),
    max_size=4,
)
clips = st.fixed_dictionaries(
    {
        "clip_id": st.sampled_from(["c1", "c2", "c3", None]),
        "product": st.sampled_from(["translator", "translator", None]),
        "activation": st.sampled_from(["call", "button", "button", "accidental"]),
        "locale": st.just("en-US"),
        "country": st.just("US"),
        "recorded_at": st.one_of(moments, moments, moments, st.none()),
        "duration_ms": st.sampled_from([499, 500, 5000, 5000, 30_000, 30_001, None]),
        "participants": st.one_of(st.none(), participants, participants, participants),
    }
)


def relation(rows: list[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    loose = pa.schema([pa.field(f.name, f.type) for f in schema])
    return pa.Table.from_pylist([{name: row.get(name) for name in loose.names} for row in rows], loose)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    rows=st.lists(clips, min_size=1, max_size=6),
    said=st.lists(events, max_size=12),
    people=st.lists(persons, max_size=5),
    taken=st.dictionaries(st.sampled_from(["c1", "c2"]), st.booleans()),
)
def test_judge_says_what_the_slow_twin_says(
    rows: list[dict[str, Any]], said: list[dict[str, Any]], people: list[dict[str, Any]], taken: dict[str, bool]
) -> None:
    with Tables(threads=1) as tables:
        tables.register("clips", relation(rows, CLIPS))
        tables.register("consent_events", relation(said, CONSENT_EVENTS))
        tables.register("persons", relation(people, PERSONS))
        tables.register(
            "taken", pa.Table.from_pylist([{"clip_id": c, "is_recalled": r} for c, r in taken.items()], selection.TAKEN)
        )
        selection.judge(tables, NOW, POLICY)
        found = Counter({row["reason"]: row["clips"] for row in tables.run("funnel").to_pylist()})
    expected = Counter(refusal(row, said, people, POLICY, NOW, taken) for row in rows)
    assert found == expected
    assert set(expected) - {None} <= set(selection.REFUSALS)


@pytest.mark.parametrize("threads", [1, 2, 8])
def test_select_is_the_same_for_shuffled_files_rows_and_any_number_of_threads(
    stage: Stage, make_courier: Callable[..., Courier], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: set(range(threads)))
    make_courier(stage).select(NIGHT)
    expected = pq.read_table(chosen(stage.root)).drop_columns(["row"]).to_pylist()
    landing = shuffled(Path(stage.environ["CLIP_COURIER_LANDING"]), tmp_path / "landing", seed=threads)
    other = {"CLIP_COURIER_ROOT": str(tmp_path / "var"), "CLIP_COURIER_LANDING": str(landing)}
    make_courier(stage, **other).select(NIGHT)
    found = pq.read_table(chosen(tmp_path / "var")).drop_columns(["row"]).to_pylist()
    assert sorted(found, key=repr) == sorted(expected, key=repr)


def chosen(root: Path) -> Path:
    return root / "crosswalk" / NIGHT.isoformat() / "selected.parquet"


def shuffled(landing: Path, out: Path, seed: int) -> Path:
    """The same rows in another order, in other files."""
    rng = random.Random(seed)
    (out / "audio").parent.mkdir(parents=True)
    (out / "audio").symlink_to(landing / "audio")
    for name in ("consent_events", "persons"):
        shutil.copytree(landing / name, out / name)
    for partition in sorted((landing / "clips").iterdir()):
        rows = pa.concat_tables([pq.read_table(f, partitioning=None) for f in sorted(partition.glob("*.parquet"))])
        order = list(range(rows.num_rows))
        rng.shuffle(order)
        (out / "clips" / partition.name).mkdir(parents=True)
        for place, half in enumerate((order[: len(order) // 3], order[len(order) // 3 :])):
            pq.write_table(rows.take(pa.array(half, pa.int64())), out / "clips" / partition.name / f"z{rng.random()}-{place}.parquet")
    return out


def test_select_counts_every_clip_once_also_outside_the_window(stage: Stage, courier: Courier) -> None:
    counts = courier.select(NIGHT).counts
    landing = Path(stage.environ["CLIP_COURIER_LANDING"])
    rows = sum(pq.read_metadata(f).num_rows for f in (landing / "clips").rglob("*.parquet"))
    refused = counts["refused"]
    assert isinstance(refused, dict)
    assert tuple(refused) == selection.REFUSALS
    assert counts["clips"] == rows
    assert int(str(counts["eligible"])) + sum(refused.values()) == rows


def test_select_takes_only_what_the_slow_twin_allows_from_the_demo_world(stage: Stage, courier: Courier) -> None:
    courier.select(NIGHT)
    landing = Path(stage.environ["CLIP_COURIER_LANDING"])
    said = pq.read_table(landing / "consent_events").to_pylist()
    people = pq.read_table(landing / "persons").to_pylist()
    selected = pq.read_table(chosen(stage.root)).to_pylist()
    assert len(selected) > 50
    # A clip whose id stands twice comes with both of its rows, for validation to reject.
    assert all(refusal(row, said, people, POLICY, NOW, {}) is None for row in selected if row["copies"] == 1)
    assert any(row["copies"] == 2 for row in selected) is any(
        n == 2 for n in Counter(r["clip_id"] for r in selected).values()
    )


def sample(clip_rows: list[dict[str, Any]], *, cap: int, budget_s: int, key: bytes = b"k" * 32) -> list[dict[str, Any]]:
    """The drawn rows of clips that are all eligible."""
    inner = bytes(b ^ 0x36 for b in key.ljust(64, b"\0"))
    outer = bytes(b ^ 0x5C for b in key.ljust(64, b"\0"))
    schema = pa.schema(
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
    with Tables() as tables:
        tables.register("judged", pa.Table.from_pylist(clip_rows, schema))
        values = {"inner": inner, "outer": outer, "clips_per_person": cap, "budget_ms": budget_s * 1000}
        tables.run("drawn", values)
        by_id = {row["clip_id"]: dict.fromkeys(CLIPS.names) | row for row in clip_rows}
        tables.register("clips", relation(list(by_id.values()), CLIPS))
        return list(tables.run("selected").to_pylist())


eligible = st.lists(
    st.tuples(
        st.sampled_from(["translator", "assistant"]),
        st.integers(500, 30_000),
        st.sets(st.integers(0, 4), min_size=1, max_size=3),
    ),
    min_size=1,
    max_size=40,
)


@settings(max_examples=150, deadline=None)
@given(facts=eligible, cap=st.integers(1, 4), budget_s=st.integers(1, 60))
def test_drawn_keeps_the_cap_of_every_participant_and_the_budget_of_every_stratum(
    facts: list[tuple[str, int, set[int]]], cap: int, budget_s: int
) -> None:
    rows = [
        {
            "clip_id": f"c{n}",
            "product": product,
            "locale": "en-US",
            "recorded_at": NOW,
            "duration_ms": duration,
            "person_ids": [f"p{p}" for p in sorted(people)],
            "reason": None,
        }
        for n, (product, duration, people) in enumerate(facts)
    ]
    by_id = {row["clip_id"]: row for row in rows}
    drawn = sample(rows, cap=cap, budget_s=budget_s)
    taken = [by_id[row["clip_id"]] for row in drawn]
    assert all(n <= cap for n in Counter(p for row in taken for p in row["person_ids"]).values())
    for product in ("translator", "assistant"):
        assert sum(row["duration_ms"] for row in taken if row["product"] == product) <= budget_s * 1000
    assert all(0 < row["inclusion_probability"] <= 1 for row in drawn)


def test_drawn_order_is_hmac_of_the_clip_id_under_the_sampling_key() -> None:
    """Of one person's clips the cap keeps those with the lowest HMAC, and another key keeps others."""
    rows = [
        {
            "clip_id": f"c{n}",
            "product": "p",
            "locale": "en",
            "recorded_at": NOW,
            "duration_ms": 1000,
            "person_ids": ["one"],
            "reason": None,
        }
        for n in range(30)
    ]

    def lowest(key: bytes) -> set[str]:
        def order(row: dict[str, Any]) -> str:
            return hmac.new(key, f"person:{row['clip_id']}".encode(), hashlib.sha256).hexdigest()

        return {row["clip_id"] for row in sorted(rows, key=order)[:3]}

    one, other = b"k" * 32, b"m" * 32
    assert {row["clip_id"] for row in sample(rows, cap=3, budget_s=3600, key=one)} == lowest(one)
    assert {row["clip_id"] for row in sample(rows, cap=3, budget_s=3600, key=other)} == lowest(other)
    assert lowest(one) != lowest(other)


def test_refusals_notices_a_withdrawal_that_arrived_since(
    stage: Stage, make_courier: Callable[..., Courier], tmp_path: Path
) -> None:
    landing = tmp_path / "landing"
    source = Path(stage.environ["CLIP_COURIER_LANDING"])
    landing.mkdir()
    for name in ("clips", "audio", "persons"):
        (landing / name).symlink_to(source / name)
    shutil.copytree(source / "consent_events", landing / "consent_events")
    courier = make_courier(stage, CLIP_COURIER_LANDING=str(landing))
    courier.select(NIGHT)
    rows = pq.read_table(chosen(stage.root))
    rows = rows.append_column("clip_ref", rows["clip_key"])
    asked = Landing(str(landing))
    single = {row["clip_ref"] for row in rows.to_pylist() if row["copies"] == 1}
    assert not single & set(selection.refusals(asked, POLICY, NOW, rows))
    person = rows["person_ids"].to_pylist()[0][0]
    late = {
        "record_id": "w",
        "person_id": person,
        "purpose": "human_review",
        "decision": "withdrawn",
        "occurred_at": NOW,
        "received_at": NOW + timedelta(hours=1),
    }
    pq.write_table(relation([late], CONSENT_EVENTS), landing / "consent_events" / "late.parquet")
    theirs = {row["clip_ref"] for row in rows.to_pylist() if person in row["person_ids"]}
    assert not single & set(selection.refusals(asked, POLICY, NOW, rows)), "not known yet"
    after = selection.refusals(asked, POLICY, NOW + timedelta(hours=1), rows)
    assert {ref for ref in theirs if after.get(ref) == "withdrawn"} == theirs
    assert set(after) & single == theirs & single


def test_said_by_many_counts_distinct_persons(tmp_path: Path) -> None:
    k = POLICY.disclosure.vocabulary_k

    def clip(n: int, person: str, text: str, *others: str) -> dict[str, Any]:
        return {
            "clip_id": f"c{n}",
            "product": "p",
            "activation": "button",
            "locale": "en-US",
            "country": "US",
            "recorded_at": NOW,
            "duration_ms": 1000,
            "sample_rate_hz": 16000,
            "channels": 1,
            "audio_uri": "a.wav",
            "participants": [{"person_id": p, "role": "speaker"} for p in (person, *others)],
            "hypotheses": [{"rank": 1, "text": text, "confidence": 0.5, "engine": "e"}],
        }

    rows = [clip(n, f"p{n}", "Hello world") for n in range(k)]
    rows += [clip(100 + n, "one", "again and again") for n in range(20)]
    rows += [clip(200 + n, f"q{n}", "together", "other") for n in range(20)]
    folder = tmp_path / "landing"
    for name, content, schema in (
        ("clips/recorded_date=2026-11-19", rows, CLIPS),
        ("consent_events", [], CONSENT_EVENTS),
        ("persons", [], PERSONS),
    ):
        (folder / name).mkdir(parents=True)
        pq.write_table(relation(content, schema), folder / name / "part-0.parquet")
    assert selection.said_by_many(Landing(str(folder)), POLICY, NOW) == {"en": frozenset({"hello", "world"})}
