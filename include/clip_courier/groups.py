"""Small groups: nobody's clips stand alone among what a vendor sees.

A group is what shows the same locale, product, week, bucket of duration, sample rate and channels. It counts its
distinct persons, every participant, also those of what the vendor has from earlier. A clip whose group has fewer than k
climbs a ladder of coarser values until it finds one; a clip that finds none is left out. What it shows of its sound is
what its sound becomes (masking.py). docs/disclosure.md says what each rung costs and why it is done clip by clip (local
recoding).

Sources: k-anonymity, Sweeney 2002 (doi:10.1142/S0218488502001648); local recoding, Xu et al. 2006
(doi:10.1145/1150402.1150504).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import pyarrow as pa

from clip_courier.model import QUASI_IDENTIFIERS
from clip_courier.tables import Tables

# What a clip shows on each rung beside the one before is in sql/groups_ladder.sql; the order is that of what a
# transcriber loses.
RUNGS: Final = (
    "as_recorded",
    "four_weeks",
    "year",
    "common_sound",
    "any_product",
    "padded",
    "language",
    "narrow_band",
)

SHOWN: Final = pa.schema([("rung", pa.int8()), *QUASI_IDENTIFIERS])
# What the vendor has from earlier.
BEFORE: Final = pa.schema([("person_ids", pa.list_(pa.string())), *QUASI_IDENTIFIERS])
_COUNTED: Final = (
    *("clip_ref", "person_ids", "locale", "product", "recorded_at"),
    *("sound_ms", "sample_rate_hz", "channels", "rung"),
)


@dataclass(frozen=True)
class Limits:
    """`k` distinct persons. `duration_bounds_ms`: where the buckets end that durations are counted in, ascending.

    `padded_bounds_ms`: where the coarser ones end, whose end a recording is made as long as: the last ms before.
    """

    k: int
    duration_bounds_ms: Sequence[int]
    padded_bounds_ms: Sequence[int]

    def teach(self, tables: Tables) -> None:
        """What the statements call by name."""
        tables.macro("bucket", ["ms"], " + ".join(["0", *(f"(ms >= {b})::INTEGER" for b in self.duration_bounds_ms)]))
        ends = "".join(f" WHEN ms < {bound} THEN {bound - 1}" for bound in self.padded_bounds_ms)
        tables.macro("padded", ["ms"], f"(CASE{ends} END)::INTEGER")


@dataclass(frozen=True)
class Smallest:
    """Distinct persons and clips of the smallest group; None where nothing is shown."""

    persons: int | None
    clips: int | None


def rung_counts(rungs: pa.ChunkedArray) -> dict[str, int]:
    """How many clips are shown coarser than they were recorded, by the name of the rung."""
    found = Counter(rungs.to_pylist())
    return {name: found[place] for place, name in enumerate(RUNGS) if place and found[place]}


def group(rows: pa.Table, before: pa.Table, limits: Limits) -> pa.Table:
    """Find each clip its group, as little coarser as the ladder allows; the order of rows says nothing.

    Args:
        rows: the crosswalk's rows of one batch. Where they have a `rung`, a clip starts there and not below it.
        before: columns of BEFORE: what this vendor has and keeps.

    Returns:
        clip_ref and the columns of SHOWN, in the order of the refs; all of them null where a clip found no group.
    """
    if "rung" not in rows.column_names:
        rows = rows.append_column("rung", pa.nulls(rows.num_rows, pa.int8()))
    with Tables() as tables:
        limits.teach(tables)
        tables.register("batch", rows.select(list(_COUNTED)))
        tables.register("before", before.select(BEFORE.names))
        for statement in ("groups_ladder", "groups_clip", "groups_held"):
            tables.run(statement)
        for rung in range(len(RUNGS)):
            _climb(tables, {"k": limits.k, "rung": rung})
            if not tables.run("groups_waiting")["clips"][0].as_py():
                break
        return tables.run("groups_found").cast(pa.schema([("clip_ref", pa.string()), *SHOWN]))


def _climb(tables: Tables, values: Mapping[str, int]) -> None:
    """One rung: whose group is large enough stays; one that is not is filled up from those beneath it."""
    statements = ["groups_climb", "groups_size", "groups_settle"]
    if values["rung"]:
        statements += ["groups_joined", "groups_join"]
    for statement in statements:
        tables.run(statement, values)


def smallest(rows: pa.Table, before: pa.Table, limits: Limits) -> Smallest:
    """Of what the rows show by now; both have the columns of BEFORE."""
    with Tables() as tables:
        limits.teach(tables)
        tables.register("batch", rows.select(BEFORE.names))
        tables.register("before", before.select(BEFORE.names))
        return Smallest(**tables.run("groups_smallest").to_pylist()[0])
