"""A made-up landing zone of any size, laid out as contracts §1 says; the same size is the same rows.

24 months of clips from 60 locales × 5 products; persons are N·u³ of N = clips / 10, so that a few own many; 40 % of the
clips have a second participant. About 0.32 consent events a clip. 5 % of the clips were delivered before.
"""

import argparse
import shutil
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import duckdb

# The last recordings are of the day before. The notices that count are those of include/policy/notices.yaml.
NIGHT = date(2026, 11, 20)
NOW = datetime(2026, 11, 20, 2, 0, tzinfo=UTC)
DAYS = 730
_PERSONS_PER_FILE = 1_000_000
_SQL = Path(__file__).parent


def build(clips: int, folder: Path, *, threads: int, memory: str) -> None:
    """Write `clips/`, `consent_events/`, `persons/`, `delivered/` into `folder`, a day or a million persons at a time.

    The folder appears whole, by rename; one that stands there is replaced.
    """
    partial = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(partial, ignore_errors=True)
    for name in ("consent_events", "persons", "delivered"):
        (partial / name).mkdir(parents=True)
    scratch = partial / ".scratch"
    with duckdb.connect(config={"threads": threads, "memory_limit": memory, "temp_directory": str(scratch)}) as world:
        world.execute("SET TimeZone = 'UTC'")
        world.execute(_statement("names"))
        persons = max(clips // 10, 10)
        _set(world, persons=persons, night=NIGHT)
        for number in range(DAYS):
            first, end = clips * number // DAYS, clips * (number + 1) // DAYS
            _day(world, partial, NIGHT - timedelta(days=DAYS - number), first, end - first)
        for first in range(0, persons, _PERSONS_PER_FILE):
            _set(world, first_person=first, some_persons=min(_PERSONS_PER_FILE, persons - first))
            for name in ("persons", "events"):
                target = partial / {"events": "consent_events"}.get(name, name)
                _write(world, name, target / f"{first // _PERSONS_PER_FILE:03}.parquet")
    shutil.rmtree(scratch, ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def _day(world: duckdb.DuckDBPyConnection, folder: Path, day: date, first: int, clips: int) -> None:
    if clips == 0:
        return
    _set(world, day=day, first_clip=first, day_clips=clips)
    clips_file = folder / "clips" / f"recorded_date={day}" / "part-0.parquet"
    clips_file.parent.mkdir(parents=True)
    _write(world, "clips", clips_file)
    world.read_parquet(str(clips_file)).create_view("clips", replace=True)
    _write(world, "delivered", folder / "delivered" / f"{day}.parquet")


def _set(world: duckdb.DuckDBPyConnection, **values: object) -> None:
    for name, value in values.items():
        world.execute(f"SET VARIABLE {name} = $1", [value])


def _write(world: duckdb.DuckDBPyConnection, name: str, path: Path) -> None:
    world.sql(_statement(name)).write_parquet(str(path), compression="zstd")


def _statement(name: str) -> str:
    return (_SQL / f"world_{name}.sql").read_text(encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clips", type=int)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--memory", default="3GB")
    given = parser.parse_args()
    build(given.clips, given.folder, threads=given.threads, memory=given.memory)


if __name__ == "__main__":
    main()
