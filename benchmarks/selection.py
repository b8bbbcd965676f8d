"""What a night's selection costs, beside the floor and beside what a user would write.

The question is one night over two years of made-up clips, of which a window of 30 days counts. Every contender runs in
a process of its own, start-up included, on the same two cores, in turn; the median of its runs is shown.

    floor   DuckDB reads the columns that a selection needs and decodes them; nothing else
    ours    Clip Courier's `select`, which writes all columns of the chosen clips besides, on the first night of a root
    following   the same on the night after another one: a day's clips and consent events are new since
    pandas, polars, spark   the same sample, as a user would write it: the same clips, and the same probabilities to a
            millionth, as they compute in floating point what we compute in whole numbers

`make bench` installs what the contenders need; without it their rows say what is missing. 100 million clips take
10 GB of disk and some ten minutes to make: `--clips 100000000`.
"""

import argparse
import json
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parent
PACKAGES = PROJECT / ".venv-bench"
sys.path[:0] = [str(HERE), str(PACKAGES)]

from sampling.measure import Cost, Failed, measured, world_of  # noqa: E402 - beside this file

CONTENDERS = {
    "floor": "floor",
    "ours": "ours",
    "following": "ours_following",
    "pandas": "with_pandas",
    "polars": "with_polars",
    "spark": "with_spark",
}
NEEDS = {"polars": ["polars", "polars_hash"], "spark": ["pyspark"]}
# pandas holds all of it in memory, and Spark takes half a minute to start.
SIZES = {"pandas": (0, 10_000_000), "spark": (10_000_000, 10_000_000)}
CORES = 2
TOLERANCE = 1e-6
# One that takes longer than this runs once.
PATIENCE_S = 60


@dataclass
class Row:
    """A contender at one size. `problem`: why there is nothing else."""

    clips: int
    contender: str
    problem: str | None = None
    costs: list[Cost] = field(default_factory=list)
    told: dict[str, Any] = field(default_factory=dict)

    @property
    def is_due(self) -> bool:
        return self.problem is None and not any(c.wall_s > PATIENCE_S for c in self.costs)

    @property
    def cost(self) -> Cost | None:
        if not self.costs:
            return None
        return Cost(*(median(getattr(c, name) for c in self.costs) for name in ("wall_s", "cpu_s", "peak_mib")))


def main() -> int:
    given = _arguments()
    cores = sorted(os.sched_getaffinity(0))[:CORES]
    os.sched_setaffinity(0, cores)
    rows: list[Row] = []
    for clips in given.clips:
        world = world_of(given.world, clips, CORES, _environ())
        here = [_row(clips, name, is_asked=given.contenders is not None) for name in given.contenders or CONTENDERS]
        here = [row for row in here if row]
        with tempfile.TemporaryDirectory(prefix="courier-bench-") as samples:
            _run(world, here, given.repeat, Path(samples))
            _compare(here, Path(samples))
        _print(here)
        rows += here
    if given.json:
        given.json.write_text(json.dumps(_report(rows), indent=2) + "\n", encoding="utf-8")
    return int(any(_agrees(row, rows) is False or row.problem == "failed" for row in rows))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--world", type=Path, default=PROJECT / "var" / "bench", help="where worlds are kept, or made")
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, help="these only, at any size")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", type=Path, help="also write everything here")
    return parser.parse_args()


def _row(clips: int, name: str, *, is_asked: bool) -> Row | None:
    smallest, largest = SIZES.get(name, (0, sys.maxsize))
    if not is_asked and not smallest <= clips <= largest:
        return None
    missing = [package for package in NEEDS.get(name, []) if find_spec(package) is None]
    if name == "spark" and not (shutil.which("java") or os.environ.get("JAVA_HOME")):
        missing.append("Java")
    return Row(clips, name, f"missing: {', '.join(missing)}" if missing else None)


def _run(world: Path, rows: list[Row], repeat: int, samples: Path) -> None:
    # What lies on disk is in the page cache for everybody, then; and one first run is nobody's.
    measured(_command("floor", str(world)), _environ())
    places = {row.contender: world for row in rows}
    if "following" in places:
        places["following"] = world.with_name(f"{world.name}-following")
        print(f"the night before, {rows[0].clips:,} clips …", file=sys.stderr)
        measured(_command("following", str(world), str(places["following"])), _environ())
    for _ in range(repeat):
        for row in rows:
            if row.is_due:
                print(f"{row.contender}, {row.clips:,} clips …", file=sys.stderr)
                try:
                    place = str(places[row.contender])
                    command = _command(CONTENDERS[row.contender], place, str(samples / row.contender))
                    cost, output = measured(command, _environ())
                except Failed as failed:
                    row.problem = "failed"
                    print(f"{row.contender} {failed}", file=sys.stderr)
                else:
                    row.costs.append(cost)
                    row.told = json.loads(output)


def _compare(rows: list[Row], samples: Path) -> None:
    """Add to each row how its sample differs from ours."""
    ours = samples / "ours"
    for row in rows:
        theirs = samples / row.contender
        if theirs != ours and theirs.exists() and ours.exists():
            _, output = measured(_command("compare", str(ours), str(theirs)), _environ())
            row.told |= json.loads(output)


def _command(module: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", f"sampling.{module}", *arguments]


def _environ() -> dict[str, str]:
    threads = dict.fromkeys(("OMP_NUM_THREADS", "POLARS_MAX_THREADS", "OPENBLAS_NUM_THREADS"), str(CORES))
    # Where the product's package is said to lie already, that one is measured.
    paths = [os.environ.get("PYTHONPATH"), str(PROJECT / "include"), str(HERE), str(PACKAGES)]
    return os.environ | threads | {"PYTHONPATH": os.pathsep.join(p for p in paths if p)}


def _of(name: str, row: Row, rows: list[Row]) -> Row | None:
    return next((r for r in rows if r.contender == name and r.clips == row.clips and r.told), None)


def _ratio(row: Row, rows: list[Row]) -> float | None:
    floor = _of("floor", row, rows)
    return row.cost.cpu_s / floor.cost.cpu_s if row.cost and floor and floor.cost else None


def _agrees(row: Row, rows: list[Row]) -> bool | None:
    """Whether it refused as many clips for each reason, and chose the same ones with the same probabilities, as we."""
    ours = _of("ours", row, rows)
    if "clips_of_one" not in row.told or not ours:
        return None
    is_same = row.told["clips_of_one"] == 0 and row.told["largest_difference"] <= TOLERANCE
    return bool(is_same and row.told["funnel"] == ours.told["funnel"])


def _lines(rows: list[Row]) -> Iterator[tuple[str, ...]]:
    yield "clips", "contender", "CPU s", "x floor", "wall s", "peak MiB", "chosen", "as ours", "with"
    for row in rows:
        ratio, agrees = _ratio(row, rows), _agrees(row, rows)
        yield (
            f"{row.clips:,}",
            row.contender,
            f"{row.cost.cpu_s:.2f}" if row.cost else "-",
            f"{ratio:.2f}" if ratio else "-",
            f"{row.cost.wall_s:.2f}" if row.cost else "-",
            f"{row.cost.peak_mib:.0f}" if row.cost else "-",
            str(row.told.get("chosen", "-")),
            "-" if agrees is None else "yes" if agrees else "NO",
            row.problem or row.told.get("library", ""),
        )


def _print(rows: list[Row]) -> None:
    lines = list(_lines(rows))
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    is_text = {1, 8}
    for line in lines:
        cells = (c.ljust(w) if i in is_text else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True)))
        print("  ".join(cells).rstrip(), flush=True)


def _report(rows: list[Row]) -> dict[str, Any]:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": CORES,
        "memory_gib": round(memory / 2**30, 1),
        "processor": _processor(),
        "python": platform.python_version(),
        "rows": [
            {
                "clips": row.clips,
                "contender": row.contender,
                "problem": row.problem,
                **({k: round(v, 3) for k, v in asdict(row.cost).items()} if row.cost else {}),
                "times_floor": _ratio(row, rows),
                "agrees": _agrees(row, rows),
                "runs": [asdict(cost) for cost in row.costs],
                **row.told,
            }
            for row in rows
        ],
    }


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    sys.exit(main())
