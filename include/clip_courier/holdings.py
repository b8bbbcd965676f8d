"""What vendors hold from other nights, read from the crosswalks: it narrows what a night may take.

A file whose recordings are all older than what is asked for is not read beyond its footer, so that the cost follows the
landing window and not the length of history.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from clip_courier.assignment import HELD
from clip_courier.batch_files import read_crosswalk
from clip_courier.ledger import CANCELLED, Batch, Ledger
from clip_courier.model import Root

# Clips that other nights have taken, with whether they were recalled.
TAKEN: Final = pa.schema([("clip_id", pa.string()), ("is_recalled", pa.bool_())])
# What vendors heard of a person within the plan's days, of other nights.
EXPOSURE: Final = pa.schema([("person_id", pa.string()), ("heard_ms", pa.int64())])


@dataclass(frozen=True)
class Holdings:
    """Of all nights but `night`; `since`: recordings from then on."""

    root: Root
    ledger: Ledger
    night: date
    since: datetime

    def taken(self, recalled: pa.Table) -> pa.Table:
        """Columns of TAKEN: the clips that batches hold, and `recalled` (clip_id), each once."""
        held = (self._read(batch, ["clip_id"], self.since) for batch in self._batches())
        parts = [_marked(rows, is_recalled=False) for rows in held]
        parts.append(_marked(recalled.select(["clip_id"]), is_recalled=True))
        once = pa.concat_tables(parts).group_by("clip_id").aggregate([("is_recalled", "max")])
        return once.rename_columns(TAKEN.names).cast(TAKEN)

    def exposure(self, days: int) -> pa.Table:
        """Columns of EXPOSURE: of every person audible, over all vendors, in the nights of so many days before.

        A clip that two vendors hold counts twice. A recalled clip is no longer known, so it does not count.
        """
        after = self.night - timedelta(days=days)
        parts = [EXPOSURE.empty_table()]
        for batch in self._batches():
            if batch.night_date > after:
                rows = self._read(batch, ["person_ids", "duration_ms"])
                at = pc.list_parent_indices(rows["person_ids"])
                heard = rows["duration_ms"].take(at).cast(pa.int64())
                parts.append(pa.table([pc.list_flatten(rows["person_ids"]), heard], schema=EXPOSURE))
        once = pa.concat_tables(parts).group_by("person_id").aggregate([("heard_ms", "sum")])
        return once.rename_columns(EXPOSURE.names)

    def held(self) -> pa.Table:
        """Columns of HELD."""
        parts = [HELD.empty_table()]
        for batch in self._batches():
            rows = self._read(batch, ["call_id", "recorded_at"], self.since)
            vendor = pa.array([batch.vendor] * rows.num_rows, pa.string())
            parts.append(rows.add_column(0, "vendor", vendor).cast(HELD))
        return pa.concat_tables(parts)

    def _batches(self) -> Iterator[Batch]:
        return (b for b in self.ledger.batches() if b.state != CANCELLED and b.night_date != self.night)

    def _read(self, batch: Batch, columns: list[str], since: datetime | None = None) -> pa.Table:
        return read_crosswalk(self.root.night(batch.night_date), batch.batch_id, columns, since)


def _marked(clips: pa.Table, *, is_recalled: bool) -> pa.Table:
    return clips.append_column("is_recalled", pa.array([int(is_recalled)] * clips.num_rows, pa.int8()))
