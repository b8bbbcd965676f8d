"""The attack that is played on every batch before it is sealed: who of its persons are found again elsewhere?

The attacker has the manifests of other vendors, and those of this vendor from other key epochs, whose refs say nothing
about the batch's. They match all columns that describe a clip, in several ways, and the best way counts; what the
figure means is docs/disclosure.md.

Source: linkage by rare attributes, Narayanan and Shmatikov 2008 (doi:10.1109/SP.2008.33).
"""

from dataclasses import dataclass
from math import sqrt
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from clip_courier.model import QUASI_IDENTIFIERS
from clip_courier.tables import Tables

# What the attack is played on, on both sides; `person_ids` and `clip_id` are the truth that it is measured by.
ATTACKED: Final = pa.schema([("clip_id", pa.string()), ("person_ids", pa.list_(pa.string())), *QUASI_IDENTIFIERS])
_CHANCE: Final = "language"
# Standard normal quantile of 95 %, one-sided.
_Z: Final = 1.645


@dataclass(frozen=True)
class Linkage:
    """Of `persons` in the batch, the share that was `score` linked rightly beyond chance, and what it is `at_least`.

    `at_least` is Wilson's lower bound with 95 % confidence: a handful of persons proves little. `shared_clips` are also
    with another vendor, by plan, and can be linked by their sound; their speakers have refs for that clip alone.
    `unread_batches` could not be attacked with: their crosswalk is damaged, or of a version that noted less.
    """

    persons: int
    against_persons: int
    shared_clips: int
    score: float
    at_least: float
    unread_batches: int = 0


def attack(batch: pa.Table, others: pa.Table) -> Linkage:
    """Play it. Both have the columns of ATTACKED."""
    if others.num_rows == 0:
        return Linkage(len(pc.unique(pc.list_flatten(batch["person_ids"]))), 0, 0, 0.0, 0.0)
    with Tables() as tables:
        tables.register("batch", batch.select(ATTACKED.names))
        tables.register("others", others.select(ATTACKED.names))
        found = tables.run("linkage").to_pylist()
    linked = {row["way"]: row["linked"] for row in found}
    persons, chance = found[0]["persons"], linked.pop(_CHANCE, 0.0)
    best = max(linked.values(), default=0.0)
    return Linkage(
        persons,
        found[0]["against_persons"],
        found[0]["shared_clips"],
        max(0.0, best - chance) / max(persons, 1),
        max(0.0, _wilson_low(best, persons) - chance / max(persons, 1)),
    )


def _wilson_low(hits: float, tries: int) -> float:
    """Lower bound of a share, Wilson 1927 (doi:10.1080/01621459.1927.10502953)."""
    if tries == 0:
        return 0.0
    share, z2 = hits / tries, _Z * _Z
    middle = share + z2 / (2 * tries)
    return (middle - _Z * sqrt(share * (1 - share) / tries + z2 / (4 * tries * tries))) / (1 + z2 / tries)
