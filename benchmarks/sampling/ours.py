"""Clip Courier's own `select`, on a root of its own, as a night runs it."""

import base64
import json
import tempfile
from datetime import timedelta
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from clip_courier import selection
from clip_courier.landing import Landing
from clip_courier.model import Connection, NightFolder, Root
from clip_courier.pseudonyms import Pseudonyms
from clip_courier.sampling_plan import TAKEN
from sampling.task import KEY, Answer, Task, answered


def sample(task: Task) -> Answer:
    """The first night of a root: what is found out about the window is kept as well."""
    with tempfile.TemporaryDirectory(prefix="courier-bench-") as place:
        return selected(task, Path(place))


def selected(task: Task, place: Path) -> Answer:
    root = Root(place, str(task.world))
    root.prepare()
    folder = NightFolder(root, task.night)
    given = selection.Selection(
        landing=Landing(str(task.world)),
        policy=task.policy,
        sampling_key=Connection("clip_courier_sampling", password=base64.b64encode(KEY).decode("ascii")),
        pseudonyms=Pseudonyms("bench", KEY),
        taken=lambda: _delivered(task),
    )
    selection.select(folder, task.now, given)
    counts = json.loads(folder.funnel.read_text(encoding="utf-8"))
    chosen = pq.ParquetFile(folder.selected).read(["clip_id", "inclusion_probability"])
    # A clip whose id stands twice in landing is chosen once, and both rows are there, side by side, for validation.
    ids = chosen["clip_id"].combine_chunks()
    once = chosen.filter(pa.concat_arrays([pa.array([True] * min(1, len(ids))), pc.not_equal(ids[1:], ids[:-1])]))
    return Answer({**counts["refused"], "eligible": counts["eligible"]}, once)


def _delivered(task: Task) -> pa.Table:
    """The clips of the window that other nights took, a file a batch; nights before the window are passed over."""
    since = pa.scalar(task.oldest - timedelta(days=1), pa.timestamp("us", tz="UTC"))
    batches = [pq.ParquetFile(f).read() for f in task.delivered_files()]
    recent = pa.concat_tables(rows.filter(pc.greater_equal(rows["recorded_at"], since)) for rows in batches)
    return recent.select(TAKEN.names).cast(TAKEN)


if __name__ == "__main__":
    answered(sample, f"duckdb {duckdb.__version__}")
