"""What it costs to judge every row of a landing zone, beside a hand-written pass and beside Great Expectations alone.

Every contender runs in a process of its own, start-up included, on the same two cores, in turn; the median of its runs
is shown, and whether it counted as many rows for each rule as the hand-written pass. CPU seconds are the steadier
figure where others work on the same machine.

    floor    one hand-written pass in DuckDB: rules, uniqueness, a quarantine table; nothing else
    pass     Clip Courier's judgement of the landing zone, from nothing: rejected rows, counts, and what the next night
             need not judge again
    again    the same on a night on which one partition of 730 is new
    night    all that `validate` does of it: the pass, Great Expectations over the counts, Data Docs
    gx-duckdb, gx-pandas   the same rules in Great Expectations over all rows
    sample   the rows of a night's sample of a million, judged by Great Expectations; no recording is listened to

`make bench` installs what the contenders need.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator
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

CORES = 2
# Each as the module and its first argument. `again` needs what `pass` left.
CONTENDERS = {
    "floor": ("floor",),
    "pass": ("ours", "pass"),
    "again": ("ours", "again"),
    "night": ("ours", "night"),
    "gx-duckdb": ("with_gx", "duckdb"),
    "gx-pandas": ("with_gx", "pandas"),
}
# Much slower than the others: once is enough.
ONCE = ("gx-duckdb", "gx-pandas")


def main() -> int:
    given = _arguments()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    world = world_of(given.world, given.clips, CORES, _environ())
    costs: dict[str, list[Cost]] = {}
    told: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix="courier-bench-") as folder:
        # What lies on disk is in the page cache for everybody, then.
        _run("floor", ("floor",), world, Path(folder))
        for turn in range(given.repeat):
            for name in given.contenders or CONTENDERS:
                if name == "gx-duckdb" and find_spec("duckdb_engine") is None:
                    told[name] = {"library": "missing: duckdb-engine"}
                elif turn == 0 or name not in ONCE:
                    cost, told[name] = _run(name, CONTENDERS[name], world, Path(folder))
                    costs.setdefault(name, []).append(cost)
        if not given.contenders:
            _run("make-sample", ("ours", "make-sample"), world, Path(folder), str(given.sample))
            costs["sample"], told["sample"] = [], {}
            cost, told["sample"] = _run("sample", ("ours", "sample"), world, Path(folder))
            costs["sample"] = [cost]
    lines = list(_lines(costs, told))
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    if given.json:
        report = {"measured_at": datetime.now(UTC).isoformat(timespec="seconds"), "clips": given.clips}
        runs = {name: [vars(cost) for cost in found] for name, found in costs.items()}
        given.json.write_text(json.dumps({**report, "runs": runs, "told": told}, indent=2) + "\n", encoding="utf-8")
    return int(any(_agrees(name, told) is False for name in told))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=10_000_000)
    parser.add_argument("--sample", type=int, default=1_000_000, help="rows of the sample")
    parser.add_argument("--world", type=Path, default=PROJECT / "var" / "bench", help="where worlds are kept, or made")
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, help="these only")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", type=Path, help="also write everything here")
    return parser.parse_args()


def _run(name: str, command: tuple[str, ...], world: Path, folder: Path, *more: str) -> tuple[Cost, dict[str, Any]]:
    print(f"{name} …", file=sys.stderr)
    # The passes share a root, the sample has its own, and the others write a file or nothing.
    target = folder / {"ours": "root" if name in ("pass", "again") else name.removeprefix("make-")}.get(
        command[0], name
    )
    module, *arguments = command
    line = [sys.executable, "-m", f"judging.{module}", *arguments, str(world), str(target), *more]
    try:
        cost, output = measured(line, _environ())
    except Failed as failed:
        raise SystemExit(f"{name} {failed}") from None
    lines = [text for text in output.splitlines() if text.startswith("{")]
    return cost, json.loads(lines[-1]) if lines else {}


def _environ() -> dict[str, str]:
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(CORES))
    paths = [os.environ.get("PYTHONPATH"), str(PROJECT / "include"), str(HERE), str(PACKAGES)]
    return os.environ | threads | {"PYTHONPATH": os.pathsep.join(p for p in paths if p)}


def _agrees(name: str, told: dict[str, dict[str, Any]]) -> bool | None:
    """Whether it found as many rows for each rule as the hand-written pass."""
    if "counts" not in told[name] or "floor" not in told:
        return None
    return bool(told[name]["counts"] == told["floor"]["counts"])


def _lines(costs: dict[str, list[Cost]], told: dict[str, dict[str, Any]]) -> Iterator[tuple[str, ...]]:
    yield "contender", "CPU s", "x floor", "wall s", "peak MiB", "as floor", "with"
    floor = median(cost.cpu_s for cost in costs["floor"]) if "floor" in costs else None
    for name, found in told.items():
        mine = costs.get(name)
        cpu_s = median(cost.cpu_s for cost in mine) if mine else None
        agrees = _agrees(name, told)
        yield (
            name,
            f"{cpu_s:.2f}" if cpu_s else "-",
            f"{cpu_s / floor:.2f}" if cpu_s and floor and name != "sample" else "-",
            f"{median(cost.wall_s for cost in mine):.2f}" if mine else "-",
            f"{median(cost.peak_mib for cost in mine):.0f}" if mine else "-",
            "-" if agrees is None else "yes" if agrees else "NO",
            found.get("library", ""),
        )


if __name__ == "__main__":
    sys.exit(main())
