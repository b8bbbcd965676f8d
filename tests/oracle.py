"""Contracts §2 and the sample once more, slow and plain, one clip at a time: the SQL must say the same."""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from fractions import Fraction
from math import ceil, floor, inf, sqrt
from types import MappingProxyType
from typing import Any

from clip_courier.settings import Notice, Policy, Sampling

REQUIRED = ("clip_id", "product", "activation", "locale", "country", "recorded_at", "duration_ms")


def refusal(
    clip: Mapping[str, Any],
    events: Sequence[Mapping[str, Any]],
    persons: Sequence[Mapping[str, Any]],
    policy: Policy,
    now: datetime,
    taken: Mapping[str, bool],
) -> str | None:
    """The first reason that keeps a clip out, in the documented order; None when it is eligible.

    `taken`: clip_id → whether it was recalled.
    """
    sampling = policy.sampling
    if any(clip[name] is None for name in REQUIRED):
        return "malformed"
    participants = clip["participants"]
    if not participants or any(p is None or p["person_id"] is None for p in participants):
        return "unknown_participant"
    if clip["activation"] == "accidental":
        return "accidental"
    if clip["recorded_at"] > now:
        return "future"
    if clip["recorded_at"] < now - timedelta(days=sampling.retention_days):
        return "too_old"
    if clip["duration_ms"] < sampling.min_duration_ms:
        return "too_short"
    if clip["duration_ms"] > sampling.max_duration_ms:
        return "too_long"
    personal = personal_refusal(clip, events, persons, policy, now)
    if personal:
        return personal
    if taken.get(clip["clip_id"]):
        return "recalled"
    return "already_delivered" if clip["clip_id"] in taken else None


def personal_refusal(
    clip: Mapping[str, Any],
    events: Sequence[Mapping[str, Any]],
    persons: Sequence[Mapping[str, Any]],
    policy: Policy,
    now: datetime,
) -> str | None:
    """The first reason that lies with the participants, all of whom are known."""
    people = {p["person_id"] for p in clip["participants"]}
    rows = {person: [row for row in persons if row["person_id"] == person] for person in people}
    if any(row["is_restricted"] for person in people for row in rows[person]):
        return "restricted"
    if any(is_minor(rows[person], clip["recorded_at"], policy) for person in people):
        return "minor"
    said = [consent(person, events, clip["recorded_at"], policy.notices, now) for person in people]
    if "none" in said:
        return "not_consented"
    return "withdrawn" if "withdrawn" in said else None


def may_not_be_heard(
    clip: Mapping[str, Any],
    events: Sequence[Mapping[str, Any]],
    persons: Sequence[Mapping[str, Any]],
    policy: Policy,
    now: datetime,
    taken: Mapping[str, bool],
) -> str | None:
    """What is answered about a clip that was taken before: what the participants have against it comes first."""
    reason = refusal(clip, events, persons, policy, now, taken)
    if reason in ("malformed", "unknown_participant"):
        return reason
    return personal_refusal(clip, events, persons, policy, now) or reason


def is_minor(rows: Sequence[Mapping[str, Any]], recorded_at: datetime, policy: Policy) -> bool:
    """Whether a person needed a guardian's consent and there is none; several rows are read in the strictest way."""
    if rows and all(row["has_guardian_consent"] for row in rows):
        return False
    years = [row["birth_year"] for row in rows]
    if policy.sampling.birth_year_required and (not years or None in years):
        return True
    # In the year in which somebody turns 18 they may still be 17.
    return any(year is not None and recorded_at.year - year <= 18 for year in years)


def consent(
    person: str,
    events: Iterable[Mapping[str, Any]],
    recorded_at: datetime,
    notices: Mapping[str, Notice],
    now: datetime,
) -> str:
    """`granted`, `withdrawn` (there was a grant, and a withdrawal at its time or later) or `none`."""
    ours = [event for event in events if event["person_id"] == person and event["purpose"] == "human_review"]
    grants = [e for e in ours if e["decision"] == "granted" and known(e, now) and e["occurred_at"] is not None]
    # Whatever is not a grant is a withdrawal; one that does not say when it arrived has arrived.
    withdrawals = [e for e in ours if e["decision"] != "granted" and (e["received_at"] is None or known(e, now))]
    before = [e["occurred_at"] for e in grants if e["occurred_at"] <= recorded_at]
    before += [e["occurred_at"] for e in withdrawals if e["occurred_at"] and e["occurred_at"] <= recorded_at]
    if not before:
        return "none"
    latest = max(before)
    at_once = [grant for grant in grants if grant["occurred_at"] == latest]
    if not at_once or not all(discloses(grant, notices) for grant in at_once):
        return "none"
    # One that does not say when it happened holds for good.
    gone = any(e["occurred_at"] is None or e["occurred_at"] >= latest for e in withdrawals)
    return "withdrawn" if gone else "granted"


def known(event: Mapping[str, Any], now: datetime) -> bool:
    return event["received_at"] is not None and event["received_at"] <= now


def discloses(grant: Mapping[str, Any], notices: Mapping[str, Notice]) -> bool:
    notice = notices.get(grant["notice_version"])
    return (
        notice is not None
        and notice.discloses_human_review
        and notice.discloses_vendors
        and notice.effective_from <= grant["occurred_at"]
    )


@dataclass(frozen=True)
class Drawn:
    """What the slow twin of the design says of a clip: its rivals, whether it survives them, whether it is taken."""

    stratum: str
    rivals: int
    survives: bool
    is_taken: bool
    probability: float


def sampled(
    clips: Sequence[Mapping[str, Any]],
    plan: Sampling,
    key: Callable[[str], str],
    heard_ms: Mapping[str, int] = MappingProxyType({}),
    spread: Mapping[str, float] = MappingProxyType({}),
    most_clips: int = 10**9,
) -> dict[str, Drawn]:
    """clip_id → what the design of docs/sampling.md says of it. `clips` are eligible, and no id stands twice.

    A clip is a mapping with clip_id, stratum, duration_ms, person_ids, and weight where it is not 1.
    """
    left = {p: plan.exposure_seconds * 1000 - heard_ms.get(p, 0) for clip in clips for p in clip["person_ids"]}
    clips = [clip for clip in clips if all(clip["duration_ms"] <= left[p] for p in clip["person_ids"])]
    cells_of = _cells(clips, plan, left)
    # Phase 1: whom a clip competes with, and who has the lowest lot.
    rivals = {
        clip["clip_id"]: {o["clip_id"] for o in clips if cells_of[o["clip_id"]] & cells_of[clip["clip_id"]]}
        | {clip["clip_id"]}
        for clip in clips
    }
    survives = {one: all(lot(key("person"), one) <= lot(key("person"), o) for o in rivals[one]) for one in rivals}
    # Phase 2: levels, then hits at every whole number plus the start.
    of = {name: [clip for clip in clips if clip["stratum"] == name] for name in sorted({c["stratum"] for c in clips})}
    design = _Levels(of, rivals, cells_of, plan)
    budgets = design.budgets(spread)
    levels = design.few_enough({name: design.within(name, ms) for name, ms in budgets.items()}, most_clips)
    groups: dict[tuple[str, int, float, int], list[Mapping[str, Any]]] = {}
    for clip in clips:
        group = clip["stratum"], billed(clip), clip.get("weight", 1.0), len(rivals[clip["clip_id"]])
        groups.setdefault(group, []).append(clip)
    at = Fraction(int(int(key("start")[:12], 16) / 2**48 * 2**30), 2**30)
    taken, probability = [], {}
    for group in sorted(groups):
        stratum, _, weight, n = group
        q = Fraction(int(min(1.0, levels[stratum] * weight * n) * 2**30), 2**30)
        if q == 0 and levels[stratum] > 0:
            q = Fraction(1, 2**30)
        waiting = [clip for clip in groups[group] if survives[clip["clip_id"]]]
        hits = floor(at + q * len(waiting)) - floor(at)
        at += q * len(waiting)
        waiting.sort(key=lambda clip: lot(key("stratum"), clip["clip_id"]))
        taken += waiting[:hits]
        probability.update({clip["clip_id"]: float(q / n) for clip in groups[group]})
    taken = _cut(taken, budgets, most_clips, key)
    return {
        clip["clip_id"]: Drawn(
            clip["stratum"],
            len(rivals[clip["clip_id"]]),
            survives[clip["clip_id"]],
            clip in taken,
            probability[clip["clip_id"]],
        )
        for clip in clips
    }


def lot(key: str, clip_id: str) -> int:
    return int.from_bytes(hashlib.md5((key + clip_id).encode(), usedforsecurity=False).digest(), "little")


def billed(clip: Mapping[str, Any]) -> int:
    return -(-clip["duration_ms"] // 500) * 500


def _cells(
    clips: Sequence[Mapping[str, Any]], plan: Sampling, left: Mapping[str, int]
) -> dict[str, set[tuple[str, int]]]:
    """clip_id → the cells in which it competes."""
    cells: dict[str, set[tuple[str, int]]] = {clip["clip_id"]: set() for clip in clips}
    for person in left:
        theirs = [clip for clip in clips if person in clip["person_ids"]]
        if not theirs:
            continue
        cap = min(plan.clips_per_person, left[person] // max(clip["duration_ms"] for clip in theirs))
        if len(theirs) > cap:
            theirs.sort(key=lambda clip: (clip["stratum"], clip["duration_ms"], clip["clip_id"]))
            for place, clip in enumerate(theirs):
                cells[clip["clip_id"]].add((person, place * cap // len(theirs)))
    return cells


def _cut(
    taken: list[Mapping[str, Any]], budgets: Mapping[str, int], most_clips: int, key: Callable[[str], str]
) -> list[Mapping[str, Any]]:
    """What overflows goes, in the order of the lots."""
    within, used = [], dict.fromkeys(budgets, 0)
    for clip in sorted(taken, key=lambda clip: lot(key("stratum"), clip["clip_id"])):
        used[clip["stratum"]] += clip["duration_ms"]
        if used[clip["stratum"]] <= budgets[clip["stratum"]]:
            within.append(clip)
    return within[:most_clips]


@dataclass(frozen=True)
class _Levels:
    """The level and the budget of each stratum, by halving."""

    of: Mapping[str, Sequence[Mapping[str, Any]]]
    rivals: Mapping[str, set[str]]
    cells_of: Mapping[str, set[tuple[str, int]]]
    plan: Sampling

    def chance(self, clip: Mapping[str, Any], level: float) -> float:
        return float(min(1 / len(self.rivals[clip["clip_id"]]), level * clip.get("weight", 1.0)))

    def expected(self, name: str, level: float, size: Callable[[Mapping[str, Any]], float]) -> float:
        return sum(self.chance(clip, level) * size(clip) for clip in self.of[name])

    def deviation(self, name: str, level: float, size: Callable[[Mapping[str, Any]], float]) -> float:
        return sqrt(self.variance(name, level, size))

    def variance(self, name: str, level: float, size: Callable[[Mapping[str, Any]], float]) -> float:
        """Of a cell one clip survives; a clip of several counts in the cell of the first person."""
        parts: dict[tuple[str, int], list[tuple[float, float]]] = {}
        for clip in self.of[name]:
            n = len(self.rivals[clip["clip_id"]])
            if self.cells_of[clip["clip_id"]]:
                x = min(1.0, level * clip.get("weight", 1.0) * n) * size(clip)
                parts.setdefault(min(self.cells_of[clip["clip_id"]]), []).append((1 / n, x))
        return sum(max(0.0, sum(p * x * x for p, x in c) - sum(p * x for p, x in c) ** 2) for c in parts.values())

    def level_for(self, name: str, target: float, size: Callable[[Mapping[str, Any]], float]) -> float:
        if self.expected(name, inf, size) <= target:
            return inf
        return _halved(lambda level: self.expected(name, level, size) <= target, 1.0)

    def supply(self, name: str) -> float:
        return self.expected(name, inf, billed) + 2 * self.deviation(name, inf, billed)

    def budgets(self, spread: Mapping[str, float]) -> dict[str, int]:
        hour = 3_600_000
        ceiling = {name: min(self.plan.hours(name).ceiling * hour, ceil(self.supply(name))) for name in self.of}
        least = {name: min(self.plan.hours(name).floor * hour, ceiling[name]) for name in self.of}
        size = {name: float(sum(clip["duration_ms"] for clip in clips)) for name, clips in self.of.items()}
        if self.plan.allocation == "sqrt":
            size = {name: sqrt(ms) for name, ms in size.items()}
        if self.plan.allocation == "neyman":
            known = sorted(spread[name] for name in size if name in spread)
            middle = known[len(known) // 2] if known else 1.0
            size = {name: sqrt(len(self.of[name]) * ms) * spread.get(name, middle) for name, ms in size.items()}

        def filled(rate: float) -> dict[str, float]:
            return {name: min(ceiling[name], max(least[name], rate * size[name])) for name in size}

        total = self.plan.hours_per_night * hour
        rate = inf
        if sum(ceiling.values()) > total:
            rate = _halved(lambda rate: sum(filled(rate).values()) <= total, 1e9)
        return {name: int(ms + 1e-3) for name, ms in filled(rate).items()}

    def within(self, name: str, budget_ms: int) -> float:
        """The level at which the stratum keeps within its budget."""
        if budget_ms >= floor(self.supply(name)):
            return inf
        target = max(0, budget_ms - max(billed(clip) for clip in self.of[name]))
        first = self.level_for(name, target, billed)
        return self.level_for(name, max(0, target - 2 * self.deviation(name, first, billed)), billed)

    def few_enough(self, levels: Mapping[str, float], most_clips: int) -> dict[str, float]:
        def one(_: Mapping[str, Any]) -> float:
            return 1.0

        expected = {name: self.expected(name, level, one) for name, level in levels.items()}
        number = sum(expected.values())
        room = max(0, most_clips - 2 * sqrt(sum(self.variance(name, level, one) for name, level in levels.items())))
        if number + 2 * sqrt(number) <= most_clips or number <= room:
            return dict(levels)
        fewer = {name: self.level_for(name, expected[name] * room / number, one) for name in levels}
        return {name: min(level, fewer[name]) for name, level in levels.items()}


def _halved(holds: Callable[[float], bool], high: float) -> float:
    low = 0.0
    for _ in range(300):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low
