"""Stage 1, `select`: who may be heard at all (contracts §2), and a small sample of them.

Each clip is refused for the first of `REFUSALS` that holds, so that the funnel adds up to the input. The sample is
drawn in two phases, so that every cap is a limit and every inclusion probability is known beforehand:

1. Thinning within person. A person with more clips than the cap has as many cells as may be taken of them, each a run
   of like clips; a clip survives when it has the lowest keyed hash in the cells of all its participants, which happens
   with probability 1 / rivals (a hard-core thinning: Matérn 1960, "Spatial Variation", type II).
2. Systematic sampling within stratum, with unequal probabilities, in the order of length (Madow 1949), at a level that
   depends on the plan and on who is eligible, and not on who survived (`sampling_plan`).

π = q / rivals is exact but for the rare nights in which the survivors overflow a budget and are cut. docs/sampling.md.
"""

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

import pyarrow as pa

from clip_courier.errors import ConnectionInvalid
from clip_courier.landing import Landed, Landing
from clip_courier.model import PURPOSE, Connection, NightFolder, Outcome, Root, stamp, utc, write_parquet, write_text
from clip_courier.pseudonyms import OURSELVES, Pseudonyms
from clip_courier.sampling_plan import BILLED_STEP_MS, EXPOSURE, TAKEN, hits, planned
from clip_courier.settings import Policy, Sampling
from clip_courier.tables import Tables
from clip_courier.verdicts import STATEMENTS, basis_of, nothing_found, opened

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

# Clips that validation rejected on other nights: drawn again, they would only be rejected again.
SET_ASIDE = pa.schema([("clip_id", pa.string())])

# In hex, with a clip id behind it, still one block of MD5.
_KEY_BYTES = 16

NOTICES = pa.schema([("notice_version", pa.string()), ("effective_from", pa.timestamp("us", tz="UTC"))])
# What a night asks about, beside what does not change with the night.
BOUNDS = pa.schema(
    [
        *((name, pa.timestamp("us", tz="UTC")) for name in ("now", "oldest")),
        *((name, pa.int64()) for name in ("min_duration_ms", "max_duration_ms")),
    ]
)


@dataclass(frozen=True)
class Selection:
    """What `select` needs beside the night: the landing zone, the policies, the keys, and what other nights did.

    `taken`, `set_aside` and `exposure` have the columns of TAKEN, SET_ASIDE and EXPOSURE; `spread` is the standard
    deviation of past scores by stratum.
    """

    landing: Landing
    policy: Policy
    sampling_key: Connection
    pseudonyms: Pseudonyms
    taken: Callable[[], pa.Table]
    set_aside: Callable[[], pa.Table] = SET_ASIDE.empty_table
    exposure: Callable[[], pa.Table] = EXPOSURE.empty_table
    spread: Callable[[], Mapping[str, float]] = dict


def select(folder: NightFolder, now: datetime, given: Selection) -> Outcome:
    """Write `selected.parquet` and the funnel of the night, as known at `now`; a night that has them is left alone.

    Raises:
        LandingMissing, LandingUnreadable, LandingSchemaBroken: nothing was written.
    """
    if folder.selected.exists() and folder.funnel.exists():
        done = json.loads(folder.funnel.read_text(encoding="utf-8"))
        return Outcome("select", done, [f"select: night {folder.night} was selected at {done['now']}"], is_new=False)
    rows, counts = _draw(folder.night, now, given, folder.root)
    keys = given.pseudonyms.refs(OURSELVES, "clip", rows.column("clip_id").to_pylist())
    write_parquet(rows.append_column("clip_key", pa.array(keys, pa.string())), folder.selected)
    write_text(json.dumps(counts, indent=2) + "\n", folder.funnel)
    return Outcome("select", counts, [_told(counts), *_table(counts["plan"])])


def plan(night: date, now: datetime, given: Selection) -> Outcome:
    """What `select` would choose, stratum by stratum; nothing is written.

    Raises:
        As `select` does.
    """
    _, counts = _draw(night, now, given, None)
    return Outcome("plan", counts, [_told(counts).replace("select:", "plan:"), *_table(counts["plan"])], is_new=False)


def _told(counts: dict[str, Any]) -> str:
    reasons = ", ".join(f"{reason} {clips}" for reason, clips in counts["refused"].items() if clips)
    beside = {"failed validation before": counts["set_aside"], "heard enough of": counts["overheard"]}
    aside = ", ".join(f"{clips} {why}" for why, clips in beside.items() if clips)
    return (
        f"select: {counts['selected']} clips in {counts['strata']} strata, of {counts['eligible']} eligible"
        f"{f' ({aside})' if aside else ''} of {counts['clips']}; refused: {reasons or 'none'}"
    )


def _table(strata: Sequence[Mapping[str, Any]]) -> list[str]:
    """The plan as lines of text: per stratum what is eligible, wanted and chosen, in clips and hours, and the limit."""
    head = ("stratum", "eligible", "hours", "wanted h", "budget h", "chosen", "hours", "limited by")
    rows = [
        (
            one["stratum"],
            f"{one['eligible']}",
            *(f"{one[name]:.3f}" for name in ("eligible_hours", "wanted_hours", "budget_hours")),
            f"{one['chosen']}",
            f"{one['chosen_hours']:.3f}",
            one["limit"],
        )
        for one in strata
    ]
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    justified = [
        "  ".join(
            text.ljust(width) if i in (0, len(head) - 1) else text.rjust(width)
            for i, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (head, *rows)
    ]
    return [f"  {line}" for line in justified] if rows else []


def _draw(night: date, now: datetime, given: Selection, root: Root | None) -> tuple[pa.Table, dict[str, Any]]:
    """The sample and the counts; with a root, what earlier nights found out is used and added to."""
    key = _night_key(given.sampling_key, night)
    sampling, taken = given.policy.sampling, given.taken()
    with (
        Tables() as tables,
        given.landing.attached(tables, oldest_partition(now, given.policy)) as landed,
    ):
        tables.register("taken", taken)
        tables.register("set_aside", given.set_aside())
        tables.register("exposure", given.exposure())
        _judge_window(tables, now, given, landed, root)
        consider(tables, sampling)
        found = {row["reason"]: row["clips"] for row in tables.run("funnel").to_pylist()}
        refused = {reason: found.get(reason, 0) for reason in REFUSALS}
        refused["too_old"] += landed.outside
        clips = sum(found.values()) + landed.outside
        eligible = clips - sum(refused.values())
        overheard = thin(tables, sampling, key)
        # Of all clips in the window so many may be with vendors; those that are already count.
        most_clips = int(clips * sampling.max_share) - refused["already_delivered"] - refused["recalled"]
        strata = draw(tables, sampling, key, given.spread(), max(0, most_clips))
        shares = {
            "overlap_key": key("overlap"),
            "overlap_share": _of_all_hashes(sampling.overlap_share),
            "withheld_key": key("withheld"),
            "withheld_share": _of_all_hashes(sampling.withheld_share),
        }
        tables.run("short", {**shares, **_caps(sampling)})
        tables.run("product")
        rows = tables.run("selected", shares)
        k = given.policy.disclosure.vocabulary_k
        shared = set(tables.run("shared", {"k": k})["stratum"].to_pylist())
    return rows, {
        "night": night.isoformat(),
        "now": stamp(now),
        "clips": clips,
        "refused": refused,
        "eligible": eligible,
        "set_aside": eligible - overheard - sum(one["eligible"] for one in strata),
        "overheard": overheard,
        "selected": sum(one["chosen"] for one in strata),
        "strata": sum(one["chosen"] > 0 for one in strata),
        "plan": _shown(strata, shared, k),
    }


def _shown(strata: Sequence[dict[str, Any]], shared: Set[str], k: int) -> list[dict[str, Any]]:
    """The plan as it may be shown: strata of fewer than k persons are one row, as their names could be somebody's."""
    rest = [one for one in strata if one["stratum"] not in shared]
    if not rest:
        return list(strata)
    sums = {name: sum(one[name] for one in rest) for name in rest[0] if name not in ("stratum", "limit")}
    limits = {one["limit"] for one in rest}
    together = {
        "stratum": f"(strata of fewer than {k} persons)",
        "limit": limits.pop() if len(limits) == 1 else "several",
    }
    rounded = {name: round(value, 4) for name, value in sums.items()}
    return [*(one for one in strata if one["stratum"] in shared), {**together, **rounded}]


def consider(tables: Tables, sampling: Sampling) -> None:
    """Make the relation `drawable` from what `judge` made, and `clips`, `set_aside`; with it `funnel` can be run."""
    tables.run("weight", {"uncertainty_weight": sampling.uncertainty_weight})
    for statement in ("naming", "stratum", "considered", "drawable"):
        tables.run(statement, {**_by(sampling), "step_ms": BILLED_STEP_MS})


def thin(tables: Tables, sampling: Sampling, key: Callable[[str], str]) -> int:
    """Phase 1: make `rival` from `drawable`; the number of clips of persons who were heard enough, which are let go."""
    tables.run("speaker")
    tables.run("busy", _caps(sampling))
    tables.run("heard")
    tables.run("overheard")
    [left_out] = tables.run("reachable").to_pylist()
    tables.run("cell", {"clips_per_person": sampling.clips_per_person})
    tables.run("rival", {"key": key("person")})
    return int(left_out["Count"])


def draw(
    tables: Tables, sampling: Sampling, key: Callable[[str], str], spread: Mapping[str, float], most_clips: int
) -> list[dict[str, Any]]:
    """Phase 2: make `drawn` from `drawable` and `rival`; the plan with what was chosen."""

    def variance(level: Mapping[str, float]) -> dict[str, tuple[float, float]]:
        if not level:
            return {}
        tables.register("level", pa.table({"stratum": list(level), "level": pa.array(level.values(), pa.float64())}))
        return {
            row["stratum"]: (row["billed"], row["clips"])
            for row in tables.run("variance", {"step_ms": BILLED_STEP_MS}).to_pylist()
        }

    reach = tables.run("reach")
    strata = planned(reach, variance, spread, most_clips, sampling)
    start = int.from_bytes(bytes.fromhex(key("start"))[:6]) / 2**48
    tables.register("hit", hits(reach, strata, start))
    tables.register(
        "budget",
        pa.table(
            {
                "stratum": pa.array([one.name for one in strata], pa.string()),
                "budget_ms": pa.array([one.budget_ms for one in strata], pa.int64()),
            }
        ),
    )
    tables.register("drawn", tables.run("drawn", {"key": key("stratum"), "most_clips": most_clips}))
    chosen = {row["stratum"]: (row["clips"], row["duration_ms"]) for row in tables.run("chosen").to_pylist()}
    return [
        {
            "stratum": one.name,
            "eligible": one.eligible,
            "eligible_hours": _hours(one.eligible_ms),
            "wanted_hours": _hours(one.wanted_ms),
            "budget_hours": _hours(one.budget_ms),
            "chosen": chosen.get(one.name, (0, 0))[0],
            "chosen_hours": _hours(chosen.get(one.name, (0, 0))[1]),
            "limit": one.limit,
        }
        for one in strata
    ]


def _by(sampling: Sampling) -> dict[str, bool]:
    return {f"by_{column}": column in sampling.strata for column in ("product", "locale", "country", "activation")}


def _caps(sampling: Sampling) -> dict[str, int]:
    """What bounds how much is heard of a person, and the most that a night within the cap for persons can be."""
    return {
        "clips_per_person": sampling.clips_per_person,
        "exposure_ms": sampling.exposure_seconds * 1000,
        "most_of_person_ms": (1 + (sampling.overlap_share > 0)) * sampling.clips_per_person * sampling.max_duration_ms,
    }


def _hours(ms: int) -> float:
    return round(ms / 3_600_000, 4)


def _of_all_hashes(share: float) -> str:
    """The 128-bit number below which that share of all hashes lies, as text: Python's float holds no such number."""
    return str(min(int(share * 2**128), 2**128 - 1))


def selected_at(folder: NightFolder) -> datetime:
    """What "now" was when the night was selected; raises StageMissing."""
    told = json.loads(folder.require(folder.funnel, "select").read_text(encoding="utf-8"))
    return datetime.fromisoformat(told["now"])


def oldest_partition(now: datetime, policy: Policy) -> date:
    """The first that is read, with a day of slack: a recording just after midnight may lie in the day before."""
    return (utc(now) - timedelta(days=policy.sampling.retention_days + 1)).date()


def _judge_window(tables: Tables, now: datetime, given: Selection, landed: Landed, root: Root | None) -> None:
    """`judge` for the landing window, with what earlier nights found out about it."""
    if root is None:
        judge(tables, now, given.policy)
        return
    basis = basis_of(_asked(given.policy))
    with opened(root, landed, basis, now) as verdicts:
        if verdicts is None:
            judge(tables, now, given.policy)
            return
        verdicts.attach(tables)
        judge(tables, now, given.policy, is_attached=True)
        verdicts.keep(tables)


def judge(tables: Tables, now: datetime, policy: Policy, *, is_attached: bool = False) -> None:
    """Make the relation `judged` from `clips`, `consent_events`, `persons`, `taken`: each clip, its reason or none.

    `is_attached`: `fresh` and `found` stand for `clips` (`verdicts`).
    """
    sampling = policy.sampling
    tables.register("notices", pa.Table.from_pylist(_telling(policy), NOTICES))
    values = {
        "now": utc(now),
        "oldest": utc(now) - timedelta(days=sampling.retention_days),
        "purpose": PURPOSE,
        "min_duration_ms": sampling.min_duration_ms,
        "max_duration_ms": sampling.max_duration_ms,
        "birth_year_required": sampling.birth_year_required,
    }
    tables.register("bounds", pa.Table.from_pylist([{name: values[name] for name in BOUNDS.names}], BOUNDS))
    if not is_attached:
        tables.run("arrived")
        nothing_found(tables)
        tables.run("fresh")
    for statement in (*STATEMENTS, "verdict", "spent", "ruled", "judged"):
        tables.run(statement, values)


def _telling(policy: Policy) -> list[dict[str, Any]]:
    """Columns of NOTICES: those that disclose human review and vendors."""
    return [
        {"notice_version": version, "effective_from": notice.effective_from}
        for version, notice in policy.notices.items()
        if notice.discloses_human_review and notice.discloses_vendors
    ]


def _asked(policy: Policy) -> dict[str, Any]:
    """What of the policy a verdict depends on; ages and lengths are asked about every night."""
    return {
        "notices": [[version, stamp(at)] for version, at in (tuple(one.values()) for one in _telling(policy))],
        "birth_year_required": policy.sampling.birth_year_required,
    }


def _night_key(connection: Connection, night: date) -> Callable[[str], str]:
    """What a draw is for → its own secret, in hex: HMAC-SHA-256 of night and purpose under the sampling key, cut to 128
    bits (RFC 2104, 5).

    Put before a clip id and hashed, it orders the clips as nobody can foretell who lacks the key. Every night has its
    own order: else a clip that lost once would lose for ever.
    """
    try:
        secret = base64.b64decode(connection.password or "", validate=True)
    except (ValueError, binascii.Error):
        secret = b""
    if len(secret) != 32:
        raise ConnectionInvalid(f"connection {connection.conn_id}: password must be 32 bytes in base64")
    return lambda what: hmac.digest(secret, f"{night}:{what}".encode(), hashlib.sha256)[:_KEY_BYTES].hex()


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
        tables.register("exposure", EXPOSURE.empty_table())
        judge(tables, now, policy)
        return {row["clip_ref"]: row["reason"] for row in tables.run("refusals").to_pylist()}


def said_by_many(landing: Landing, policy: Policy, now: datetime) -> dict[str, frozenset[str]]:
    """Language → the words that at least `vocabulary_k` distinct persons said in the landing window."""
    with Tables() as tables, landing.attached(tables, oldest_partition(now, policy)):
        rows = tables.run("vocabulary", {"k": policy.disclosure.vocabulary_k})
    words: dict[str, set[str]] = {}
    for language, word in zip(rows.column("language").to_pylist(), rows.column("word").to_pylist(), strict=True):
        words.setdefault(language, set()).add(word)
    return {language: frozenset(said) for language, said in words.items()}
