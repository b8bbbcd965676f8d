"""Clip Courier's own `select`, on a root of its own, as a night runs it."""

import base64
import json
import tempfile
from datetime import timedelta
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from clip_courier import selection
from clip_courier.landing import Landing
from clip_courier.model import Connection, NightFolder, Root
from clip_courier.pseudonyms import Pseudonyms
from sampling.task import KEY, Answer, Task, answered


def sample(task: Task) -> Answer:
    with tempfile.TemporaryDirectory(prefix="courier-bench-") as place:
        root = Root(Path(place), str(task.world))
        root.prepare()
        folder = NightFolder(root, task.night)
        _select(task, folder)
        counts = json.loads(folder.funnel.read_text(encoding="utf-8"))
        chosen = pq.read_table(folder.selected, columns=["clip_id", "inclusion_probability"])
    # A clip whose id stands twice in landing is chosen once, and both rows are there for validation to see.
    once = chosen.group_by(["clip_id", "inclusion_probability"]).aggregate([])
    return Answer({**counts["refused"], "eligible": counts["eligible"]}, once)


def _select(task: Task, folder: NightFolder) -> None:
    given = selection.Selection(
        landing=Landing(str(task.world)),
        policy=task.policy,
        sampling_key=Connection("clip_courier_sampling", password=base64.b64encode(KEY).decode("ascii")),
        pseudonyms=Pseudonyms("bench", KEY),
        taken=lambda: _delivered(task),
    )
    selection.select(folder, task.now, given)


def _delivered(task: Task) -> pa.Table:
    """The clips of the window that other nights took, a file a batch; nights before the window are passed over."""
    since = [("recorded_at", ">=", task.oldest - timedelta(days=1))]
    columns = ["clip_id", "is_recalled"]
    batches = [pq.read_table(f, columns=columns, filters=since) for f in task.delivered_files()]
    once = pa.concat_tables(batches).group_by("clip_id").aggregate([("is_recalled", "max")])
    return once.rename_columns(selection.TAKEN.names).cast(selection.TAKEN)


if __name__ == "__main__":
    answered(sample, f"duckdb {duckdb.__version__}")
