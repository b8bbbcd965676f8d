"""The question that every contender answers, and the form of the answer: one night's sample of a made-up landing zone.

A contender is a module that is run with the world's folder and a file to write its sample to; it prints the funnel.
"""

import hashlib
import hmac
import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from functools import cached_property
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from clip_courier.sampling_plan import Variance, hits, planned
from clip_courier.settings import INCLUDE, Notice, Policy, Sampling, load_settings
from sampling.world import NIGHT, NOW

# Recordings are kept for so long in this measurement; the other rules are those of include/policy.
RETENTION_DAYS = 30
KEY = b"benchmarks/selection: sampling k"


@dataclass(frozen=True)
class Task:
    """The world's files, and the policies under which they are sampled."""

    world: Path
    night: date = NIGHT
    now: datetime = NOW

    @cached_property
    def policy(self) -> Policy:
        policy = load_settings({"CLIP_COURIER_POLICY": str(INCLUDE / "policy")}).policy()
        return replace(policy, sampling=policy.sampling.model_copy(update={"retention_days": RETENTION_DAYS}))

    @property
    def sampling(self) -> Sampling:
        return self.policy.sampling

    @property
    def disclosing(self) -> dict[str, Notice]:
        """The notices under which a grant counts, from `effective_from` on."""
        notices = self.policy.notices
        return {v: n for v, n in notices.items() if n.discloses_human_review and n.discloses_vendors}

    @property
    def oldest(self) -> datetime:
        return self.now - timedelta(days=RETENTION_DAYS)

    def key(self, what: str) -> str:
        """The night's secret for a draw, put before a clip id and hashed with MD5; as in clip_courier.selection."""
        return hmac.digest(KEY, f"{self.night}:{what}".encode(), hashlib.sha256)[:16].hex()

    def drawn_of_groups(self, reach: pa.Table, variance: Variance, most_clips: int) -> tuple[pa.Table, pa.Table]:
        """How many survivors of each group are taken, and what each stratum may have: tables of groups, not of clips.

        So these are left to the product's own arithmetic, whoever asks. Both are as in clip_courier.sampling_plan: HIT,
        and stratum, budget_ms.
        """
        strata = planned(reach, variance, {}, most_clips, self.sampling)
        start = int.from_bytes(bytes.fromhex(self.key("start"))[:6]) / 2**48
        budget = {"stratum": [one.name for one in strata], "budget_ms": [one.budget_ms for one in strata]}
        return hits(reach, strata, start), pa.table(budget)

    def most_clips(self, funnel: Mapping[str, int]) -> int:
        """Of all clips in the window so many may be with vendors; those that are already count."""
        taken = funnel.get("already_delivered", 0) + funnel.get("recalled", 0)
        return max(0, int(sum(funnel.values()) * self.sampling.max_share) - taken)

    def clip_files(self) -> list[str]:
        """The partitions that may hold a clip of the window, with a day of slack."""
        first = f"recorded_date={(self.oldest - timedelta(days=1)).date()}"
        return [str(f) for f in self._partitions() if f.parent.name >= first]

    def clips_outside(self) -> int:
        """How many clips the other partitions hold; all of them are too old."""
        inside = set(self.clip_files())
        return sum(pq.read_metadata(f).num_rows for f in self._partitions() if str(f) not in inside)

    def _partitions(self) -> list[Path]:
        return sorted((self.world / "clips").glob("recorded_date=*/*.parquet"))

    def delivered_files(self) -> list[str]:
        """What earlier nights delivered of the window, a file a day."""
        first = str((self.oldest - timedelta(days=1)).date())
        return [f for f in self.files("delivered") if Path(f).stem >= first]

    def files(self, relation: str) -> list[str]:
        return [str(f) for f in sorted((self.world / relation).glob("*.parquet"))]


@dataclass(frozen=True)
class Answer:
    """`funnel`: reason → clips, `eligible` among them. `chosen`: clip_id, inclusion_probability."""

    funnel: Mapping[str, int]
    chosen: pa.Table


def answered(contender: Callable[[Task], Answer], library: str) -> None:
    """Let a contender answer for the world that the command line names."""
    start_cpu = time.process_time()
    answer = contender(Task(Path(sys.argv[1])))
    pq.write_table(answer.chosen, sys.argv[2])
    told = {
        "library": library,
        "start_cpu_s": round(start_cpu, 3),
        "funnel": {reason: int(clips) for reason, clips in sorted(answer.funnel.items()) if clips},
        "chosen": answer.chosen.num_rows,
    }
    print(json.dumps(told))
