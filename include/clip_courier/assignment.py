"""Which vendor gets a clip: first the law, then the distance within a call, then the vendor's hours.

Every clip has a lot with every vendor that may lawfully have it, and the lots are called in order (rendezvous hashing:
Thaler and Ravishankar 1998), so that a vendor more or less moves only the clips that it concerns.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime, timedelta
from hashlib import md5
from typing import Any, Final

import pyarrow as pa

from clip_courier.settings import Vendor

# Clips that vendors hold from other nights: what a neighbour may be found among.
HELD: Final = pa.schema(
    [("vendor", pa.string()), ("call_id", pa.string()), ("recorded_at", pa.timestamp("us", tz="UTC"))]
)
LEFT_OUT: Final = pa.schema([("clip_key", pa.string()), ("vendor", pa.string()), ("reason", pa.string())])


def assign(
    clips: pa.Table, vendors: Sequence[Vendor], night: date, held: pa.Table, taken: pa.Table, distance: timedelta
) -> tuple[pa.Table, pa.Table]:
    """The clips with their vendor, one row a vendor, and those that nobody gets with the reason (LEFT_OUT).

    A clip that is marked `is_for_two` goes to two vendors where two may have it. Two clips of a call whose recordings
    begin closer than `distance` never lie with one vendor, also not from different nights.

    Args:
        clips: validated rows: clip_id, clip_key, call_id, country, locale, recorded_at, duration_ms, is_for_two.
        held: columns of HELD. taken: clip_id of clips that other nights' batches hold.
    """
    clips = clips.sort_by("clip_id")
    facts = clips.select(
        ["clip_id", "clip_key", "call_id", "country", "locale", "recorded_at", "duration_ms", "is_for_two"]
    ).to_pylist()
    gone = set(taken["clip_id"].to_pylist())
    why: dict[int, str] = {row: "already_delivered" for row, clip in enumerate(facts) if clip["clip_id"] in gone}
    begun: defaultdict[tuple[str, str], list[datetime]] = defaultdict(list)
    for one in held.to_pylist():
        begun[one["vendor"], one["call_id"]].append(one["recorded_at"])
    left_ms = {vendor.name: round(vendor.hours_per_night * 3_600_000) for vendor in vendors}
    given = sorted(_called(facts, sorted(_lots(facts, vendors, night, why)), left_ms, begun, distance, why))
    has_one = {row for row, _ in given}
    rows = clips.take(pa.array([row for row, _ in given], pa.int64()))
    refused = [
        {"clip_key": clip["clip_key"], "vendor": None, "reason": why[row]}
        for row, clip in enumerate(facts)
        if row not in has_one
    ]
    return (
        rows.append_column("vendor", pa.array([vendor for _, vendor in given], pa.string())),
        pa.Table.from_pylist(refused, LEFT_OUT),
    )


def _called(
    facts: Sequence[Mapping[str, Any]],
    lots: Sequence[tuple[bytes, int, str]],
    left_ms: dict[str, int],
    begun: defaultdict[tuple[str, str], list[datetime]],
    distance: timedelta,
    why: dict[int, str],
) -> Iterator[tuple[int, str]]:
    """(row, vendor) as the lots are called, one after the other: each decision narrows the next.

    A night's sample is small. `left_ms` by vendor and `begun` by vendor and call are brought forward, `why` by row says
    what stood against a clip.
    """
    got: Counter[int] = Counter()
    for _, row, vendor in lots:
        clip = facts[row]
        if got[row] >= 1 + clip["is_for_two"]:
            continue
        near = begun[vendor, clip["call_id"]] if clip["call_id"] is not None else []
        if any(abs(clip["recorded_at"] - moment) < distance for moment in near):
            why[row] = "near_in_call"
        elif clip["duration_ms"] > left_ms[vendor]:
            why.setdefault(row, "no_capacity")
        else:
            near.append(clip["recorded_at"])
            left_ms[vendor] -= clip["duration_ms"]
            got[row] += 1
            yield row, vendor


def _lots(
    facts: Sequence[Mapping[str, Any]], vendors: Sequence[Vendor], night: date, why: dict[int, str]
) -> list[tuple[bytes, int, str]]:
    """(lot, row, vendor) for every vendor that may lawfully have the clip; a clip without any is noted in `why`."""
    may: dict[tuple[str, str], list[str]] = {}
    found = []
    for row, clip in enumerate(facts):
        if row in why:
            continue
        kind = clip["country"], clip["locale"]
        if kind not in may:
            may[kind] = [v.name for v in vendors if v.may_receive(kind[0], night) and v.speaks(kind[1])]
        if not may[kind]:
            why[row] = "no_lawful_vendor"
        for vendor in may[kind]:
            lot = md5(f"{vendor}:{clip['clip_key']}".encode(), usedforsecurity=False).digest()
            found.append((lot, row, vendor))
    return found
