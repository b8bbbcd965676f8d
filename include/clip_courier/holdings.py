"""What vendors hold from other nights, read from the crosswalks: it narrows what a night may take.

Nights that selected before the landing window began hold nothing of it, as no clip is selected before it was recorded:
they are passed over, so that the cost follows the window and not the length of history.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clip_courier.assignment import HELD
from clip_courier.batch_files import read_crosswalk
from clip_courier.ledger import CANCELLED, Batch, Ledger, parse_stamp
from clip_courier.model import Root
from clip_courier.sampling_plan import EXPOSURE, TAKEN


@dataclass(frozen=True)
class Holdings:
    """Of all nights but `night`; `since`: recordings from then on."""

    root: Root
    ledger: Ledger
    night: date
    since: datetime

    def taken(self, recalled: pa.Table) -> pa.Table:
        """Columns of TAKEN: the clips that batches hold, and `recalled` (clip_id), each once."""
        return taken_once((self._read(b, ["clip_id"], self.since) for b in self._recent()), recalled)

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
        for batch in self._recent():
            rows = self._read(batch, ["call_id", "recorded_at"], self.since)
            vendor = pa.array([batch.vendor] * rows.num_rows, pa.string())
            parts.append(rows.add_column(0, "vendor", vendor).cast(HELD))
        return pa.concat_tables(parts)

    def _batches(self) -> Iterator[Batch]:
        return (b for b in self.ledger.batches() if b.state != CANCELLED and b.night_date != self.night)

    def _recent(self) -> Iterator[Batch]:
        """Those of nights that may have selected a recording of `since` or later."""
        return (batch for batch in self._batches() if self._selected_at(batch.night_date) >= self.since)

    def _selected_at(self, night: date) -> datetime:
        try:
            told = json.loads(self.root.night(night).funnel.read_text(encoding="utf-8"))
            # Stamps are whole seconds, rounded down.
            return parse_stamp(told["now"]) + timedelta(seconds=1)
        except (OSError, ValueError, KeyError):
            return datetime.max.replace(tzinfo=UTC)

    def _read(self, batch: Batch, columns: list[str], since: datetime | None = None) -> pa.Table:
        return read_crosswalk(self.root.night(batch.night_date), batch.batch_id, columns, since)


def taken_once(held: Iterable[pa.Table], recalled: pa.Table) -> pa.Table:
    """Columns of TAKEN: clips (clip_id) that are held or were recalled, each once."""
    gone = pc.unique(recalled["clip_id"])
    kept = pc.unique(pa.chunked_array([ids for rows in held for ids in rows["clip_id"].chunks], pa.string()))
    kept = kept.filter(pc.invert(pc.is_in(kept, gone)))
    is_recalled = pa.array(np.arange(len(gone) + len(kept)) < len(gone))
    return pa.table([pa.concat_arrays([gone, kept]), is_recalled], schema=TAKEN)
