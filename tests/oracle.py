"""Contracts §2 once more, slow and plain: one clip at a time, one event at a time. The SQL must say the same."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from clip_courier.settings import Notice, Policy

REQUIRED = ("clip_id", "product", "activation", "locale", "country", "recorded_at", "duration_ms")


def refusal(  # noqa: C901 - one rule after the other is what makes it plain
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
    people = {p["person_id"] for p in participants}
    rows = {person: [row for row in persons if row["person_id"] == person] for person in people}
    if any(row["is_restricted"] for person in people for row in rows[person]):
        return "restricted"
    if any(is_minor(rows[person], clip["recorded_at"], policy) for person in people):
        return "minor"
    said = [consent(person, events, clip["recorded_at"], policy.notices, now) for person in people]
    if "none" in said:
        return "not_consented"
    if "withdrawn" in said:
        return "withdrawn"
    if taken.get(clip["clip_id"]):
        return "recalled"
    return "already_delivered" if clip["clip_id"] in taken else None


def is_minor(rows: Sequence[Mapping[str, Any]], recorded_at: datetime, policy: Policy) -> bool:
    """Whether a person needed a guardian's consent and there is none; several rows are read in the strictest way."""
    if rows and all(row["has_guardian_consent"] for row in rows):
        return False
    if not rows or any(row["birth_year"] is None for row in rows):
        return policy.sampling.birth_year_required
    youngest = max(row["birth_year"] for row in rows)
    # In the year in which somebody turns 18 they may still be 17.
    return bool(recorded_at.year - youngest <= 18)


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
