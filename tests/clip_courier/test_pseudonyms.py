"""Pseudonyms against Python's own hmac, and the choice of the epoch."""

import base64
import hashlib
import hmac
import re
import time
from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clip_courier.errors import ConnectionInvalid
from clip_courier.model import Connection
from clip_courier.pseudonyms import OURSELVES, Pseudonyms, last_pseudonyms, pseudonyms_for

KEY = bytes(range(32))
NIGHT = date(2026, 11, 20)
LONGEST = timedelta(days=184)


def plainly(key: bytes, *parts: str) -> str:
    message = b"".join(len(part.encode()).to_bytes(4, "big") + part.encode() for part in parts)
    return base64.b32encode(hmac.new(key, message, hashlib.sha256).digest()[:20]).decode().lower()


def connection(**epochs: object) -> Connection:
    return Connection("clip_courier_pseudonyms", extra={"epochs": epochs})


def epoch(begins: str, key: bytes = KEY) -> dict[str, str]:
    return {"key": base64.b64encode(key).decode(), "from": begins}


@given(
    st.binary(min_size=32, max_size=32), st.text(), st.text(), st.sampled_from(["clip", "person"]), st.lists(st.text())
)
def test_refs_are_plain_hmac(key: bytes, vendor: str, name: str, kind: str, ids: list[str]) -> None:
    assert Pseudonyms(name, key).refs(vendor, kind, ids) == [plainly(key, vendor, name, kind, value) for value in ids]


def test_refs_look_alike_and_are_given_in_order() -> None:
    ids = [f"clip-{n}" for n in range(1000)]
    refs = Pseudonyms("e1", KEY).refs("aurora", "clip", ids)
    assert all(re.fullmatch("[a-z2-7]{32}", ref) for ref in refs)
    assert len(set(refs)) == len(ids)
    assert Pseudonyms("e1", KEY).refs("aurora", "clip", reversed(ids)) == refs[::-1]


def test_refs_differ_by_vendor_epoch_kind_and_key() -> None:
    makers = [Pseudonyms("e1", KEY), Pseudonyms("e2", KEY), Pseudonyms("e1", KEY[::-1])]
    vendors, kinds = ["aurora", "borealis", OURSELVES], ["clip", "person"]
    refs = [maker.refs(vendor, kind, ["x"])[0] for maker in makers for vendor in vendors for kind in kinds]
    assert len(set(refs)) == len(refs) == 18


@given(st.text(min_size=1, max_size=6), st.integers(0, 6), st.integers(0, 6))
def test_refs_are_not_shared_by_parts_that_join_to_the_same_text(text: str, one: int, other: int) -> None:
    maker = Pseudonyms("e1", KEY)
    first, second = (text[:one], text[one:]), (text[:other], text[other:])
    same = maker.refs(first[0], first[1], ["x"]) == maker.refs(second[0], second[1], ["x"])
    assert same == (first == second)


def test_refs_are_made_fast_enough_for_a_night() -> None:
    ids = [f"clip-{n:016x}" for n in range(60_000)]
    best = 0.0
    for _ in range(5):
        begun = time.process_time()
        Pseudonyms("e1", KEY).refs("aurora", "clip", ids)
        best = max(best, len(ids) / (time.process_time() - begun))
    assert best >= 300_000


def test_pseudonyms_for_takes_the_latest_epoch_that_has_begun() -> None:
    given_ = connection(
        old=epoch("2025-01-01"), now=epoch("2026-11-20", b"n" * 32), next=epoch("2026-11-21", b"x" * 32)
    )
    assert (pseudonyms_for(given_, NIGHT, LONGEST).epoch, pseudonyms_for(given_, NIGHT, LONGEST).key) == (
        "now",
        b"n" * 32,
    )
    assert pseudonyms_for(given_, date(2026, 11, 19), timedelta(days=10**4)).epoch == "old"
    assert pseudonyms_for(given_, date(2026, 11, 21), LONGEST).epoch == "next"


@pytest.mark.parametrize(
    "epochs",
    [
        {},
        {"future": epoch("2026-11-21")},
        {"short": epoch("2026-01-01", b"k" * 31)},
        {"undated": {"key": base64.b64encode(KEY).decode()}},
        {"keyless": {"from": "2026-01-01"}},
        {"misdated": epoch("yesterday")},
        {"garbled": {"key": "*" * 44, "from": "2026-01-01"}},
        {"typed": {"key": 5, "from": "2026-01-01"}},
        {"text": "2026-01-01"},
        # One that is broken is not passed over, though another one would do.
        {"good": epoch("2026-01-01"), "broken": epoch("2026-01-02", b"k")},
    ],
)
def test_pseudonyms_for_refuses_what_is_not_an_epoch(epochs: dict[str, object]) -> None:
    with pytest.raises(ConnectionInvalid, match="clip_courier_pseudonyms") as refused:
        pseudonyms_for(connection(**epochs), NIGHT, LONGEST)
    assert refused.value.__cause__ is None
    assert base64.b64encode(KEY).decode() not in str(refused.value)


def test_pseudonyms_for_refuses_a_connection_without_epochs() -> None:
    for extra in ({}, {"epochs": None}, {"epochs": ["e1"]}, {"epochs": "e1"}):
        with pytest.raises(ConnectionInvalid, match="epochs"):
            pseudonyms_for(Connection("clip_courier_pseudonyms", extra=extra), NIGHT, LONGEST)


def test_pseudonyms_do_not_show_their_key() -> None:
    shown = repr(pseudonyms_for(connection(e1=epoch("2026-11-01", b"secret--" * 4)), NIGHT, LONGEST))
    assert "e1" in shown
    assert "secret" not in shown


def test_pseudonyms_for_begins_another_epoch_when_one_is_over() -> None:
    begins = date(2026, 5, 21)
    only = connection(e1=epoch(begins.isoformat()))
    named = {days: pseudonyms_for(only, begins + timedelta(days=days), LONGEST) for days in (0, 183, 184, 367, 368)}
    assert [one.epoch for one in named.values()] == ["e1", "e1", "e1+1", "e1+1", "e1+2"]
    refs = [named[days].refs("aurora", "person", ["person-1"])[0] for days in named]
    assert len(set(refs)) == 3
    renewed = connection(e1=epoch(begins.isoformat()), e2=epoch("2026-11-21"))
    assert pseudonyms_for(renewed, begins + timedelta(days=184), LONGEST).epoch == "e2"


def test_last_pseudonyms_serve_however_old_they_are() -> None:
    only = connection(e1=epoch("2020-01-01"))
    assert last_pseudonyms(only, NIGHT).epoch == "e1"
    with pytest.raises(ConnectionInvalid, match="no epoch has begun"):
        last_pseudonyms(only, date(2019, 12, 31))
