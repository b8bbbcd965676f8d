"""What people of the demo world consented to, and when: one table of situations, from the plain to the treacherous.

Times are days before the night starts (00:00 UTC after the last recorded day), drawn between two bounds. Notice
versions are those of include/policy/notices.yaml; `draft-7` is in no list.
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from clip_courier_demo import identities
from clip_courier_demo.dealing import Ints
from clip_courier_demo.locales import LOCALES
from clip_courier_demo.people import People

PURPOSE = "human_review"
OTHER_PURPOSE = "product_improvement"

# The first notice that discloses vendors. A grant shown it before this day was not under a notice in effect.
DISCLOSING_NOTICE = "2026-02"
IN_EFFECT_FROM = date(2026, 2, 1)

DAY_US = 86_400_000_000

Uniform = NDArray[np.float64]

CONSENT_SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("record_id", "person_id", "purpose", "decision", "notice_version")),
        ("language", pa.string()),
        ("country", pa.string()),
        ("occurred_at", pa.timestamp("us", tz="UTC")),
        ("received_at", pa.timestamp("us", tz="UTC")),
    ]
)


@dataclass(frozen=True)
class Event:
    """One decision, taken between `days[0]` and `days[1]` days before the night and received `arrives` days later.

    `days` None means at the very instant of the situation's previous event.
    """

    decision: str
    days: tuple[float, float] | None
    notice: str = DISCLOSING_NOTICE
    purpose: str = PURPOSE
    arrives: tuple[float, float] = (0.0, 0.05)
    is_before_effect: bool = False


@dataclass(frozen=True)
class Situation:
    """A consent history, the share of people who have it, and its events in the order of their occurrence."""

    name: str
    share: float
    events: tuple[Event, ...] = ()


def _granted(*days: float, notice: str = DISCLOSING_NOTICE, purpose: str = PURPOSE) -> Event:
    return Event("granted", (days[0], days[1]), notice, purpose)


def _withdrawn(*days: float, purpose: str = PURPOSE) -> Event:
    return Event("withdrawn", (days[0], days[1]), purpose=purpose)


_LONG_AGO = _granted(200, 31)

SITUATIONS = (
    Situation("granted", 0.0, (_LONG_AGO,)),
    Situation("granted_after_old_notice", 0.06, (_granted(600, 300, notice="2024-01"), _LONG_AGO)),
    Situation("granted_received_late", 0.02, (Event("granted", (60, 45), arrives=(20, 35)),)),
    Situation(
        "only_other_purpose_withdrawn",
        0.05,
        (_LONG_AGO, _granted(29, 20, purpose=OTHER_PURPOSE), _withdrawn(15, 5, purpose=OTHER_PURPOSE)),
    ),
    Situation("withdrawal_not_yet_received", 0.015, (_LONG_AGO, Event("withdrawn", (4, 1), arrives=(5, 6)))),
    Situation("withdrawal_received_late", 0.01, (_LONG_AGO, Event("withdrawn", (12, 8), arrives=(3, 6)))),
    Situation("withdrawn_before_recording", 0.015, (_granted(200, 120), _withdrawn(60, 31))),
    Situation("withdrawn_between_recordings", 0.01, (_LONG_AGO, _withdrawn(15, 10))),
    Situation("withdrawn_after_recording", 0.02, (_LONG_AGO, _withdrawn(0.06, 0.01))),
    Situation("granted_again", 0.015, (_LONG_AGO, _withdrawn(20, 16), _granted(12, 8))),
    Situation("granted_and_withdrawn_at_once", 0.01, (_granted(45, 31), Event("withdrawn", None))),
    Situation("granted_then_undisclosed", 0.01, (_granted(200, 100), _granted(60, 31, notice="2024-01"))),
    Situation("humans_not_disclosed", 0.03, (_granted(600, 300, notice="2024-01"),)),
    Situation("vendors_not_disclosed", 0.02, (_granted(250, 31, notice="2025-03"),)),
    Situation("notice_unlisted", 0.01, (_granted(200, 31, notice="draft-7"),)),
    Situation("notice_not_in_effect", 0.01, (Event("granted", (28, 3), is_before_effect=True),)),
    Situation("granted_after_recording", 0.01, (_granted(0.06, 0.01),)),
    Situation("granted_between_recordings", 0.015, (_granted(15, 10),)),
    Situation("other_purpose_only", 0.02, (_granted(200, 31, purpose=OTHER_PURPOSE),)),
    Situation("no_events", 0.04),
)


def consent_events(people: People, night: date, seed: int) -> Any:
    """The append-only table of consent events, in the order in which they were received."""
    random = np.random.default_rng([seed, 3])
    parts = [
        part
        for code, situation in enumerate(SITUATIONS)
        for part in _history(situation, np.flatnonzero(people.situation == code), people, night, random)
    ]
    table = pa.concat_tables(parts)
    order = np.argsort(table["received_at"].cast(pa.int64()).to_numpy(), kind="stable")
    table = table.take(pa.array(order))
    records = identities.record_ids(seed, np.arange(table.num_rows))
    return table.add_column(0, "record_id", records).select(CONSENT_SCHEMA.names).cast(CONSENT_SCHEMA)


def _history(
    situation: Situation, persons: Ints, people: People, night: date, random: np.random.Generator
) -> list[Any]:
    """One table for each event of the situation, with a row for each of the persons."""
    tables: list[Any] = []
    occurred = np.zeros(len(persons), dtype=np.int64)
    for event in situation.events:
        if event.days is not None:
            occurred = _occurred(event, event.days, night, random.random(len(persons)))
        received = occurred + _between(event.arrives, random.random(len(persons)))
        tables.append(_rows(event, persons, people, occurred, received))
    return tables


def _occurred(event: Event, days: tuple[float, float], night: date, uniform: Uniform) -> Ints:
    """Microseconds since 1970; a grant under the disclosing notice comes after it took effect, unless meant not to."""
    if event.is_before_effect:
        return midnight_us(IN_EFFECT_FROM) - _between(days, uniform)
    earliest = days[0]
    if event.notice == DISCLOSING_NOTICE:
        earliest = max(days[1], min(earliest, (night - IN_EFFECT_FROM).days - 1.0))
    return midnight_us(night) - _between((earliest, days[1]), uniform)


def _rows(event: Event, persons: Ints, people: People, occurred: Ints, received: Ints) -> Any:
    count = len(persons)
    languages = pa.array([locale.language for locale in LOCALES]).take(pa.array(people.locale[persons]))
    return pa.table(
        {
            "person_id": identities.person_ids(people.seed, persons),
            "purpose": pa.repeat(event.purpose, count),
            "decision": pa.repeat(event.decision, count),
            "notice_version": pa.repeat(event.notice, count),
            "language": languages,
            "country": people.countries(persons),
            "occurred_at": pa.array(occurred).cast(pa.timestamp("us", tz="UTC")),
            "received_at": pa.array(received).cast(pa.timestamp("us", tz="UTC")),
        }
    )


def _between(days: tuple[float, float], uniform: Uniform) -> Ints:
    """Microseconds between two numbers of days."""
    return np.rint((days[0] + (days[1] - days[0]) * uniform) * DAY_US).astype(np.int64)


def midnight_us(day: date) -> int:
    """The start of a UTC day, in microseconds since 1970."""
    return (datetime(day.year, day.month, day.day, tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(
        microseconds=1
    )
