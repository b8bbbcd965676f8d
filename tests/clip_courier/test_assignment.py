"""Who may have a clip, and who gets it."""

from datetime import UTC, date, datetime, timedelta
from hashlib import md5
from itertools import product
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clip_courier.assignment import HELD, assign
from clip_courier.settings import Vendor

NIGHT = date(2026, 11, 20)
BEGUN = datetime(2026, 11, 1, 12, tzinfo=UTC)
HOLDS = {"from": "2026-01-01", "until": "2026-12-31"}
LAPSED = {"from": "2025-01-01", "until": "2026-11-19"}
LATER = {"from": "2026-11-21", "until": "2027-12-31"}
MINUTE = timedelta(minutes=1)
CLIPS = pa.schema(
    [
        *((name, pa.string()) for name in ("clip_id", "clip_key", "call_id", "country", "locale")),
        ("recorded_at", pa.timestamp("us", tz="UTC")),
        ("duration_ms", pa.int32()),
        ("is_for_two", pa.bool_()),
    ]
)


def vendor(name: str, **changes: Any) -> Vendor:
    return Vendor.model_validate(
        {
            "name": name,
            "country": "US",
            "transfer_mechanism": "scc",
            "mechanism_valid": HOLDS,
            "agreements": {"nda": HOLDS, "dpa": HOLDS, "staff_training": HOLDS},
            "clip_countries": "any",
            "locales": ["*"],
            "hours_per_night": 10,
            "batch_max_bytes": 1_000_000,
            "due_days": 7,
            "recipient_fingerprint": "A" * 40,
            "signer_fingerprint": "A" * 40,
            "public_key": f"{name}.asc",
            "sftp_conn_id": f"sftp_{name}",
            **changes,
        }
    )


def clip(n: int, **changes: Any) -> dict[str, Any]:
    return {
        "clip_id": f"c{n}",
        "clip_key": f"k{n}",
        "call_id": f"call{n}",
        "country": "US",
        "locale": "en-US",
        "recorded_at": BEGUN,
        "duration_ms": 10_000,
        "is_for_two": False,
        **changes,
    }


def assigned(
    clips: list[dict[str, Any]],
    vendors: list[Vendor],
    held: list[dict[str, Any]] | None = None,
    taken: tuple[str, ...] = (),
    distance: timedelta = MINUTE,
) -> tuple[list[tuple[str, str]], dict[str, str]]:
    """(clip_id, vendor) pairs, and clip_key → why nobody has it."""
    rows, refused = assign(
        pa.Table.from_pylist(clips, CLIPS),
        vendors,
        NIGHT,
        pa.Table.from_pylist(held or [], HELD),
        pa.table({"clip_id": pa.array(taken, pa.string())}),
        distance,
    )
    pairs = list(zip(rows["clip_id"].to_pylist(), rows["vendor"].to_pylist(), strict=True))
    return pairs, {row["clip_key"]: row["reason"] for row in refused.to_pylist()}


MECHANISMS = ("domestic", "adequacy", "scc")
VALIDITIES = {"holds": HOLDS, "lapsed": LAPSED, "later": LATER, "unsaid": None}


@pytest.mark.parametrize(
    ("mechanism", "validity", "vendor_country", "clip_country", "listed"),
    list(product(MECHANISMS, VALIDITIES, ("US", "DE"), ("US", "DE", "GB"), ("any", ("DE",), ()))),
)
def test_assign_asks_the_law_first(
    mechanism: str, validity: str, vendor_country: str, clip_country: str, listed: str | tuple[str, ...]
) -> None:
    """Every clip country × vendor country × mechanism × its dates × listed countries; what is not allowed is denied."""
    if validity == "unsaid" and mechanism != "domestic":
        with pytest.raises(ValueError, match="mechanism_valid"):
            vendor("aurora", transfer_mechanism=mechanism, mechanism_valid=None)
        return
    one = vendor(
        "aurora",
        country=vendor_country,
        transfer_mechanism=mechanism,
        mechanism_valid=VALIDITIES[validity],
        clip_countries=listed if listed == "any" else list(listed),
    )
    is_lawful = (
        (mechanism != "domestic" or clip_country == vendor_country)
        and validity in ("holds", "unsaid")
        and (listed == "any" or clip_country in listed)
    )
    pairs, why = assigned([clip(1, country=clip_country)], [one])
    assert pairs == ([("c1", "aurora")] if is_lawful else [])
    assert why == ({} if is_lawful else {"k1": "no_lawful_vendor"})


@pytest.mark.parametrize("agreement", ["nda", "dpa", "staff_training"])
def test_assign_gives_nothing_where_an_agreement_does_not_hold(agreement: str) -> None:
    for dates in (LAPSED, LATER):
        agreements = {"nda": HOLDS, "dpa": HOLDS, "staff_training": HOLDS, agreement: dates}
        assert assigned([clip(1)], [vendor("aurora", agreements=agreements)])[1] == {"k1": "no_lawful_vendor"}


clips_ = st.lists(
    st.fixed_dictionaries(
        {
            "call_id": st.sampled_from([None, "a", "b"]),
            "country": st.sampled_from(["US", "DE"]),
            "duration_ms": st.integers(1, 5_000),
            "is_for_two": st.booleans(),
            "minutes": st.integers(0, 12),
        }
    ),
    max_size=14,
)


@settings(max_examples=150, deadline=None)
@given(
    facts=clips_,
    countries=st.lists(st.sampled_from(["any", ("US",), ("DE",), ()]), min_size=3, max_size=3),
    hours=st.lists(st.sampled_from([0.001, 0.003, 10]), min_size=3, max_size=3),
    held=st.lists(
        st.tuples(st.sampled_from(["aurora", "borealis"]), st.sampled_from(["a", "b"]), st.integers(0, 12)), max_size=3
    ),
    taken=st.sets(st.integers(0, 13), max_size=3),
    distance=st.integers(0, 4),
)
def test_assign_keeps_the_law_the_hours_and_the_distance_and_leaves_out_only_what_it_must(
    facts: list[dict[str, Any]],
    countries: list[Any],
    hours: list[float],
    held: list[tuple[str, str, int]],
    taken: set[int],
    distance: int,
) -> None:
    names = ("aurora", "borealis", "corona")
    vendors = [
        vendor(name, clip_countries=may if may == "any" else list(may), hours_per_night=h)
        for name, may, h in zip(names, countries, hours, strict=True)
    ]
    clips = [
        clip(n, recorded_at=BEGUN + one["minutes"] * MINUTE, **{k: v for k, v in one.items() if k != "minutes"})
        for n, one in enumerate(facts)
    ]
    had = [{"vendor": v, "call_id": call, "recorded_at": BEGUN + at * MINUTE} for v, call, at in held]
    pairs, why = assigned(clips, vendors, had, tuple(f"c{n}" for n in taken), distance * MINUTE)
    of = {one["clip_id"]: one for one in clips}
    may_have = {v.name: v for v in vendors}
    in_hands = {name: [of[c] for c, v in pairs if v == name] for name in names}
    for clip_id, name in pairs:
        assert may_have[name].may_receive(of[clip_id]["country"], NIGHT)
        assert int(clip_id[1:]) not in taken

    def near(one: dict[str, Any], name: str) -> bool:
        others = [o for o in [*in_hands[name], *(h for h in had if h["vendor"] == name)] if o is not one]
        return one["call_id"] is not None and any(
            o["call_id"] == one["call_id"] and abs(o["recorded_at"] - one["recorded_at"]) < distance * MINUTE
            for o in others
        )

    def is_full(one: dict[str, Any], name: str) -> bool:
        used = sum(o["duration_ms"] for o in in_hands[name])
        return bool(used + one["duration_ms"] > may_have[name].hours_per_night * 3_600_000)

    for name, theirs in in_hands.items():
        assert sum(one["duration_ms"] for one in theirs) <= may_have[name].hours_per_night * 3_600_000
        assert not any(near(one, name) for one in theirs)
    for one in clips:
        has = [v for c, v in pairs if c == one["clip_id"]]
        wanted = 2 if one["is_for_two"] else 1
        assert len(has) == len(set(has)) <= wanted
        assert (one["clip_key"] in why) == (not has)
        if int(one["clip_id"][1:]) in taken:
            assert why[one["clip_key"]] == "already_delivered"
        elif len(has) < wanted:
            # Nobody was passed over: whoever else may have it is full or has a neighbour.
            others = [v for v in names if v not in has and may_have[v].may_receive(one["country"], NIGHT)]
            assert all(near(one, v) or is_full(one, v) for v in others)
            if not has:
                reason = why[one["clip_key"]]
                assert reason == ("no_lawful_vendor" if not others else reason)
                assert reason != "near_in_call" or any(near(one, v) for v in others)


def test_assign_calls_the_lots_in_order_whatever_order_the_clips_come_in() -> None:
    clips = [clip(n) for n in range(40)]
    vendors = [vendor("aurora"), vendor("borealis")]
    pairs, why = assigned(clips, vendors)
    assert not why
    for clip_id, name in pairs:
        lots = {
            v: md5(f"{v}:k{clip_id[1:]}".encode(), usedforsecurity=False).hexdigest() for v in ("aurora", "borealis")
        }
        assert name == min(lots, key=lots.__getitem__)
    assert sorted(assigned(clips[::-1], vendors[::-1])[0]) == sorted(pairs)


def test_assign_gives_neighbours_to_different_vendors_and_the_third_to_none() -> None:
    clips = [clip(n, call_id="one", recorded_at=BEGUN + n * MINUTE / 2) for n in range(3)]
    pairs, why = assigned(clips, [vendor("aurora"), vendor("borealis")], distance=5 * MINUTE)
    assert len(pairs) == len({name for _, name in pairs}) == 2
    assert list(why.values()) == ["near_in_call"]
