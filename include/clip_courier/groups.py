"""Small groups: nobody's clips stand alone among what a vendor sees.

A group is what shows the same locale, product, week, bucket of duration, sample rate and channels. It counts its
distinct persons, every participant, also those of what the vendor has from earlier. A clip whose group has fewer than k
climbs a ladder of coarser values until it finds one; a clip that finds none is left out. docs/disclosure.md says what
each rung costs and why it is done clip by clip (local recoding).

Sources: k-anonymity, Sweeney 2002 (doi:10.1142/S0218488502001648); local recoding, Xu et al. 2006
(doi:10.1145/1150402.1150504).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa

from clip_courier.tables import Tables

# What a clip shows on each rung beside the one before. On the second, nothing changes: sound tells its own length, rate
# and channels, and is not altered; from there on they are not counted.
RUNGS: Final = ("as_recorded", "sound_not_counted", "four_weeks", "year", "any_product", "language")
_SOUND_NOT_COUNTED, _FOUR_WEEKS = RUNGS.index("sound_not_counted"), RUNGS.index("four_weeks")

SHOWN: Final = pa.schema(
    [
        ("rung", pa.int8()),
        ("shown_locale", pa.string()),
        ("shown_product", pa.string()),
        ("shown_week", pa.string()),
    ]
)
# What the vendor has from earlier.
BEFORE: Final = pa.schema(
    [
        ("person_ids", pa.list_(pa.string())),
        ("shown_locale", pa.string()),
        ("shown_product", pa.string()),
        ("shown_week", pa.string()),
        ("duration_ms", pa.int32()),
        ("sample_rate_hz", pa.int32()),
        ("channels", pa.int8()),
    ]
)
_COUNTED: Final = (
    *("clip_ref", "person_ids", "locale", "product", "recorded_at"),
    *("duration_ms", "sample_rate_hz", "channels", "rung"),
)


@dataclass(frozen=True)
class Limits:
    """`k` distinct persons. `duration_bounds_ms`: where buckets of duration end, ascending.

    With `is_sound_always_counted` no clip may stand on the rung where sound does not count.
    """

    k: int
    duration_bounds_ms: Sequence[int]
    is_sound_always_counted: bool = False


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
    always = limits.is_sound_always_counted
    values: dict[str, Any] = {"k": limits.k, "bounds": list(limits.duration_bounds_ms)}
    with Tables() as tables:
        tables.register("batch", rows.select(list(_COUNTED)))
        tables.register("before", before.select(BEFORE.names))
        for statement in ("groups_ladder", "groups_clip", "groups_held"):
            tables.run(statement, values)
        for rung in range(len(RUNGS)):
            if rung == _SOUND_NOT_COUNTED and always:
                continue
            _climb(tables, {**values, "rung": rung, "by_sound": always or rung < _SOUND_NOT_COUNTED})
            if not tables.run("groups_waiting")["clips"][0].as_py():
                break
        return tables.run("groups_found").cast(pa.schema([("clip_ref", pa.string()), *SHOWN]))


def _climb(tables: Tables, values: Mapping[str, Any]) -> None:
    """One rung: whose group is large enough stays; one that is not is filled up from those beneath it."""
    statements = ["groups_climb", "groups_size", "groups_settle"]
    if values["rung"] >= _FOUR_WEEKS:
        statements += ["groups_joined", "groups_join"]
    for statement in statements:
        tables.run(statement, values)


def smallest(rows: pa.Table, before: pa.Table, limits: Limits) -> Smallest:
    """Of what the rows show by now: columns of BEFORE, and `rung`."""
    with Tables() as tables:
        tables.register("batch", rows.select([*BEFORE.names, "rung"]))
        tables.register("before", before.select(BEFORE.names))
        values = {"bounds": list(limits.duration_bounds_ms), "by_sound": limits.is_sound_always_counted}
        return Smallest(**tables.run("groups_smallest", values).to_pylist()[0])
