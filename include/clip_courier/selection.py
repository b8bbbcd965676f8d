"""Stage 1, `select`: who may be heard at all (contracts §2), and a small sample of them.

Each clip is refused for the first of `REFUSALS` that holds, so that the funnel adds up to the input. The sample takes,
in a keyed order, at most a number of clips a person (every participant counts) and then a number of seconds a stratum.

The stored inclusion probability is nominal: min(1, cap / clips of the busiest participant) × min(1, budget / seconds
left in the stratum). It is exact for clips of one person where the budget does not bind, else an approximation.
"""

import base64
import binascii
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

import pyarrow as pa

from clip_courier.errors import ConnectionInvalid
from clip_courier.landing import Landing
from clip_courier.model import PURPOSE, Connection, NightFolder, Outcome, stamp, utc, write_parquet, write_text
from clip_courier.pseudonyms import OURSELVES, Pseudonyms
from clip_courier.settings import Policy
from clip_courier.tables import Tables

# In this order; the first that holds is the reason. `malformed` is a row without a value that the contract demands.
REFUSALS = (
    "malformed",
    "unknown_participant",
    "accidental",
    "future",
    "too_old",
    "too_short",
    "too_long",
    "restricted",
    "minor",
    "not_consented",
    "withdrawn",
    "recalled",
    "already_delivered",
)

# Clips that other nights have taken, with whether they were recalled: clip_id, is_recalled.
TAKEN = pa.schema([("clip_id", pa.string()), ("is_recalled", pa.bool_())])
# Clips that validation rejected on other nights: drawn again, they would only be rejected again.
SET_ASIDE = pa.schema([("clip_id", pa.string())])
_HMAC_BLOCK_BYTES = 64


@dataclass(frozen=True)
class Selection:
    """What `select` needs beside the night: the landing zone, the policies, the keys, and what other nights did.

    `taken` has the columns of TAKEN, `set_aside` those of SET_ASIDE.
    """

    landing: Landing
    policy: Policy
    sampling_key: Connection
    pseudonyms: Pseudonyms
    taken: Callable[[], pa.Table]
    set_aside: Callable[[], pa.Table] = SET_ASIDE.empty_table


def select(folder: NightFolder, now: datetime, given: Selection) -> Outcome:
    """Write `selected.parquet` and the funnel of the night, as known at `now`; a night that has them is left alone.

    Raises:
        LandingMissing, LandingUnreadable, LandingSchemaBroken: nothing was written.
    """
    if folder.selected.exists() and folder.funnel.exists():
        done = json.loads(folder.funnel.read_text(encoding="utf-8"))
        return Outcome("select", done, [f"select: night {folder.night} was selected at {done['now']}"], is_new=False)
    rows, counts = _draw(now, given)
    keys = given.pseudonyms.refs(OURSELVES, "clip", rows.column("clip_id").to_pylist())
    write_parquet(rows.append_column("clip_key", pa.array(keys, pa.string())), folder.selected)
    counts |= {
        "night": folder.night.isoformat(),
        "now": stamp(now),
        "selected": len(set(keys)),
        "strata": len(set(rows.column("stratum").to_pylist())),
    }
    write_text(json.dumps(counts, indent=2) + "\n", folder.funnel)
    return Outcome("select", counts, [_told(counts)])


def _told(counts: dict[str, Any]) -> str:
    reasons = ", ".join(f"{reason} {clips}" for reason, clips in counts["refused"].items() if clips)
    aside = f" ({counts['set_aside']} of them failed validation before)" if counts["set_aside"] else ""
    return (
        f"select: {counts['selected']} clips in {counts['strata']} strata, of {counts['eligible']} eligible{aside}"
        f" of {counts['clips']}; refused: {reasons or 'none'}"
    )


def _draw(now: datetime, given: Selection) -> tuple[pa.Table, dict[str, Any]]:
    sampling = given.policy.sampling
    inner, outer = _padded(given.sampling_key)
    taken, set_aside = given.taken(), given.set_aside()
    with Tables() as tables, given.landing.attached(tables, _oldest_partition(now, given.policy)) as outside:
        tables.register("taken", taken)
        tables.register("set_aside", set_aside)
        judge(tables, now, given.policy)
        found = {row["reason"]: row["clips"] for row in tables.run("funnel").to_pylist()}
        values = {
            "inner": inner,
            "outer": outer,
            "clips_per_person": sampling.clips_per_person,
            "budget_ms": sampling.seconds_per_stratum * 1000,
        }
        tables.run("drawn", values)
        rows = tables.run("selected")
        [aside] = tables.run("set_aside").to_pylist()
    refused = {reason: found.get(reason, 0) for reason in REFUSALS}
    refused["too_old"] += outside
    clips = sum(found.values()) + outside
    return rows, {
        "clips": clips,
        "refused": refused,
        "eligible": clips - sum(refused.values()),
        "set_aside": aside["clips"],
    }


def _oldest_partition(now: datetime, policy: Policy) -> date:
    """With a day of slack: a recording just after midnight may lie in the partition of the day before."""
    return (utc(now) - timedelta(days=policy.sampling.retention_days + 1)).date()


def judge(tables: Tables, now: datetime, policy: Policy) -> None:
    """Make the relation `judged` from `clips`, `consent_events`, `persons`, `taken`: each clip, its reason or none."""
    sampling = policy.sampling
    telling = {v: n for v, n in policy.notices.items() if n.discloses_human_review and n.discloses_vendors}
    tables.register(
        "notices",
        pa.table(
            {
                "notice_version": pa.array(list(telling), pa.string()),
                "effective_from": pa.array([n.effective_from for n in telling.values()], pa.timestamp("us", tz="UTC")),
            }
        ),
    )
    tables.run(
        "judged",
        {
            "now": utc(now),
            "oldest": utc(now) - timedelta(days=sampling.retention_days),
            "purpose": PURPOSE,
            "min_duration_ms": sampling.min_duration_ms,
            "max_duration_ms": sampling.max_duration_ms,
            "birth_year_required": sampling.birth_year_required,
        },
    )


def _padded(connection: Connection) -> tuple[bytes, bytes]:
    """The inner and outer key blocks of HMAC-SHA-256 (RFC 2104), so that SQL can compute it from two parameters."""
    try:
        key = base64.b64decode(connection.password or "", validate=True)
    except (ValueError, binascii.Error):
        key = b""
    if len(key) != 32:
        raise ConnectionInvalid(f"connection {connection.conn_id}: password must be 32 bytes in base64")
    block = key.ljust(_HMAC_BLOCK_BYTES, b"\0")
    return bytes(b ^ 0x36 for b in block), bytes(b ^ 0x5C for b in block)


def refusals(landing: Landing, policy: Policy, now: datetime, clips: pa.Table) -> dict[str, str]:
    """Of the crosswalk's rows, the refs that may not be heard (any more) and why, as landing tells at `now`.

    The rules and the statement are those of `select`; no answer about a clip is a refusal. What a participant has
    against it is told before anything else, so that age or length does not hide a withdrawal.
    """
    if clips.num_rows == 0:
        return {}
    with Tables() as tables, landing.attached_people(tables):
        tables.register("clips", clips)
        tables.register("taken", TAKEN.empty_table())
        judge(tables, now, policy)
        return {row["clip_ref"]: row["reason"] for row in tables.run("refusals").to_pylist()}


def said_by_many(landing: Landing, policy: Policy, now: datetime) -> dict[str, frozenset[str]]:
    """Language → the words that at least `vocabulary_k` distinct persons said in the landing window."""
    with Tables() as tables, landing.attached(tables, _oldest_partition(now, policy)):
        rows = tables.run("vocabulary", {"k": policy.disclosure.vocabulary_k})
    words: dict[str, set[str]] = {}
    for language, word in zip(rows.column("language").to_pylist(), rows.column("word").to_pylist(), strict=True):
        words.setdefault(language, set()).add(word)
    return {language: frozenset(said) for language, said in words.items()}
