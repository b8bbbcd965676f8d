"""Contracts §2 and the sample once more, slow and plain, one clip at a time: the SQL must say the same."""

import hashlib
import hmac
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from clip_courier.settings import Notice, Policy

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


def drawn(clips: Sequence[Mapping[str, Any]], *, cap: int, budget_ms: int, key: bytes) -> dict[str, tuple[str, float]]:
    """clip_id → stratum and inclusion probability of the sample. `clips` are eligible and no id stands twice."""

    def order(what: str, clip: Mapping[str, Any]) -> bytes:
        return hmac.digest(key, f"{what}:{clip['clip_id']}".encode(), hashlib.sha256)

    # Of every person the first so many; a clip must be among the first of everyone who is audible in it.
    clips_of: defaultdict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for clip in sorted(clips, key=lambda clip: order("person", clip)):
        for person in clip["person_ids"]:
            clips_of[person].append(clip)
    misses = Counter(clip["clip_id"] for theirs in clips_of.values() for clip in theirs[cap:])
    strata: defaultdict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for clip in sorted(clips, key=lambda clip: order("stratum", clip)):
        if not misses[clip["clip_id"]]:
            strata[f"{clip['product']} × {clip['locale']}"].append(clip)
    sample = {}
    for stratum, queue in strata.items():
        total, used = sum(clip["duration_ms"] for clip in queue), 0
        for clip in queue:
            used += clip["duration_ms"]
            if used > budget_ms:
                break
            busiest = max(len(clips_of[person]) for person in clip["person_ids"])
            sample[clip["clip_id"]] = (stratum, min(1.0, cap / busiest) * min(1.0, budget_ms / total))
    return sample
