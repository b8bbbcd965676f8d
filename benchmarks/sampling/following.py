"""The landing zone of a world as two nights see it: the night before, and the night that is measured.

The same rows as in the world. What arrived within the last day, clips and consent events, lies in files of its own,
which `arrive` adds; nobody in these worlds was unknown a day before. All other files of clips are links to the world's.
"""

import shutil
from datetime import timedelta
from pathlib import Path

import duckdb

from sampling.task import Task

_EVENTS = "SELECT * FROM read_parquet($files) WHERE (received_at > $since) = $is_new"


def build(task: Task, folder: Path) -> None:
    """Write `folder`, whole, as it was a day before; what is still to come lies in `folder/arriving`."""
    partial = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(partial, ignore_errors=True)
    since = task.now - timedelta(days=1)
    linked = [*(task.world / "clips").glob("recorded_date=*/*.parquet"), *map(Path, task.files("persons"))]
    for path in [*linked, *map(Path, task.files("delivered"))]:
        is_new = path.parent.name >= f"recorded_date={since.date()}" and path.parent.parent.name == "clips"
        place = partial / ("arriving" if is_new else "") / path.relative_to(task.world)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.hardlink_to(path)
    for part in ("", "arriving"):
        (partial / part / "consent_events").mkdir(parents=True)
    with duckdb.connect(config={"threads": 2, "memory_limit": "3GB"}) as session:
        session.execute("SET TimeZone = 'UTC'")
        events = task.files("consent_events")
        for files, place, is_new in [
            *(([one], partial / "consent_events" / Path(one).name, False) for one in events),
            (events, partial / "arriving" / "consent_events" / "day.parquet", True),
        ]:
            chosen = session.sql(_EVENTS, params={"files": files, "since": since, "is_new": is_new})
            chosen.write_parquet(str(place), compression="zstd")
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def arrive(folder: Path) -> None:
    """Let what is still to come arrive."""
    for path in (folder / "arriving").rglob("*.parquet"):
        place = folder / path.relative_to(folder / "arriving")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.unlink(missing_ok=True)
        place.hardlink_to(path)
