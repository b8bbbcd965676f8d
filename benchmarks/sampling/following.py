"""The landing zone of a world as two nights see it: the night before, and the night that is measured.

The same rows as in the world. What arrived within the last day, clips and consent events, lies in files of its own,
which come in between; nobody in these worlds was unknown a day before. Other files of clips are links to the world's.
"""

import shutil
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import duckdb

from sampling.ours import selected
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


def main() -> None:
    """From nothing, or from what an earlier run left, to the moment before the night that is measured.

    The root of the night before is made anew each time: what is kept counts only for the statements that found it.
    """
    task, folder = Task(Path(sys.argv[1])), Path(sys.argv[2])
    landing = folder / "landing"
    if not landing.exists():
        folder.mkdir(parents=True, exist_ok=True)
        build(task, landing)
    arriving = [path.relative_to(landing / "arriving") for path in (landing / "arriving").rglob("*.parquet")]
    for path in arriving:
        (landing / path).unlink(missing_ok=True)
    shutil.rmtree(folder / "root", ignore_errors=True)
    day = timedelta(days=1)
    selected(replace(task, world=landing, night=task.night - day, now=task.now - day), folder / "root")
    for path in arriving:
        (landing / path).parent.mkdir(parents=True, exist_ok=True)
        (landing / path).hardlink_to(landing / "arriving" / path)


if __name__ == "__main__":
    main()
