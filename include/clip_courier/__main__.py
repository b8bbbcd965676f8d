"""The command line, contracts §6: one line a thing that was done, `error: …` when a rule or an operation failed.

Exit status 0 done or nothing due, 1 failed, 2 usage.
"""

import argparse
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, date, datetime
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from clip_courier.courier import Courier
from clip_courier.errors import CourierError, MachineFailed
from clip_courier.model import Outcome, Progress, silent
from clip_courier.reports import Period
from clip_courier.settings import credentials_from, load_settings

VERBS = {
    "plan": "show what select would choose, stratum by stratum, and what limits it; changes nothing",
    "select": "choose the night's sample of lawful clips",
    "validate": "judge the sample's metadata and audio",
    "manifest": "cut de-identified batches for the vendors",
    "deliver": "seal the batches and put them on the vendors' servers",
    "night": "select, validate, manifest and deliver",
    "collect": "take what vendors returned",
    "load": "score the transcripts and publish the warehouse",
    "returns": "collect and load",
    "recall": "honour withdrawals: withhold, recall, forget",
    "status": "say where every batch is",
    "report": "write a page about a night, or a week: funnel, error rates, vendors, what was refused",
    "verify": "prove the record: audit chain and crosswalks; with --leaks: that nothing identifying was written",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit status."""
    asked = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s", stream=sys.stderr)
    try:
        with _progress() as progress:
            outcome = _demo_world(asked, progress) if asked.verb == "demo-world" else _run(asked, progress)
    except CourierError as error:
        return _failed(asked, error)
    except OSError as error:
        # Not its whole text: that names files, and the name of a recording may identify someone.
        return _failed(asked, MachineFailed(error.strerror or type(error).__name__))
    except KeyboardInterrupt:
        print("interrupted; run the verb again to go on", file=sys.stderr)
        return 130
    if asked.json:
        print(json.dumps({"verb": asked.verb, "new": outcome.is_new, **outcome.counts}, default=str))
    else:
        print(*outcome.lines, sep="\n")
    return _failed(asked, outcome.failures[0], told=True) if outcome.failures else 0


def _run(asked: argparse.Namespace, progress: Progress) -> Outcome:
    def clock() -> datetime:
        return asked.now or datetime.now(UTC)

    settings = load_settings(os.environ, asked.root)
    courier = Courier(settings, lambda conn_id: credentials_from(os.environ, conn_id), clock, progress)
    night = asked.night or clock().date()
    verbs: dict[str, Callable[[], Outcome]] = {
        "plan": lambda: courier.plan(night),
        "select": lambda: courier.select(night),
        "validate": lambda: courier.validate(night),
        "manifest": lambda: courier.manifest(night, asked.vendor),
        "deliver": lambda: courier.deliver_again(asked.again) if asked.again else courier.deliver(night, asked.vendor),
        "night": lambda: courier.night(night, asked.vendor),
        "collect": lambda: courier.collect(asked.vendor),
        "load": courier.load,
        "returns": lambda: courier.returns(asked.vendor),
        "recall": lambda: courier.recall(asked.vendor),
        "status": lambda: courier.status(asked.night, asked.vendor),
        "report": lambda: courier.report(asked.week or Period.of_night(night)),
        "verify": lambda: _verify(asked, courier),
    }
    return verbs[asked.verb]()


def _verify(asked: argparse.Namespace, courier: Courier) -> Outcome:
    if not asked.leaks:
        return courier.verify()
    also = [*asked.also, *([asked.airflow_home] if asked.airflow_home else [])]
    return courier.verify_leaks(asked.night, asked.vendor, also, asked.database)


def _demo_world(asked: argparse.Namespace, progress: Progress) -> Outcome:
    # The demo brings a speech synthesiser; no other verb should pay for it.
    from clip_courier_demo.world import write_world

    last_day = asked.last_day or date.fromordinal(datetime.now(UTC).date().toordinal() - 1)
    try:
        summary = write_world(asked.out, seed=asked.seed, clips=asked.clips, last_day=last_day, progress=progress)
    except (ValueError, FileExistsError) as refused:
        _parser().error(f"demo-world: {refused}")
    told = (
        f"demo-world: {summary.clips} clips of {summary.persons} persons, {summary.first_date} to {summary.last_date}"
    )
    return Outcome("demo-world", asdict(summary), [told])


def _failed(asked: argparse.Namespace, error: CourierError, *, told: bool = False) -> int:
    if asked.json and not told:
        print(json.dumps({"verb": asked.verb, "error": type(error).__name__, "message": str(error)}))
    print(f"error: {type(error).__name__}: {error}. {error.way_out}", file=sys.stderr)
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="clip-courier", description=__doc__, allow_abbrev=False)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for verb, meaning in VERBS.items():
        one = verbs.add_parser(verb, help=meaning, description=meaning, allow_abbrev=False)
        when = one.add_mutually_exclusive_group()
        when.add_argument("--night", type=_date, metavar="YYYY-MM-DD", help="default: today in UTC")
        if verb == "report":
            when.add_argument("--week", type=_week, metavar="YYYY-Www", help="an ISO week instead of a night")
        if verb == "deliver":
            one.add_argument("--again", metavar="BATCH", help="once more a delivered batch that its vendor has lost")
        if verb == "verify":
            _add_leaks(one)
        one.add_argument("--vendor", metavar="NAME", help="default: every vendor")
        one.add_argument("--now", type=_moment, metavar="RFC3339", help="what is known and in force then; default: now")
        one.add_argument("--root", type=Path, metavar="DIR", help="default: CLIP_COURIER_ROOT or ./var")
        one.add_argument("--json", action="store_true", help="print the counts for machines")
    world = verbs.add_parser("demo-world", help="write a landing zone to try things on", allow_abbrev=False)
    world.add_argument("--out", type=Path, required=True, metavar="DIR")
    world.add_argument("--seed", type=int, default=1, metavar="N")
    world.add_argument("--clips", type=int, default=400, metavar="N")
    world.add_argument(
        "--last-day", type=_date, metavar="YYYY-MM-DD", help="newest day of recordings; default: yesterday"
    )
    world.add_argument("--json", action="store_true", help="print the counts for machines")
    return parser


def _add_leaks(verify: argparse.ArgumentParser) -> None:
    verify.add_argument("--leaks", action="store_true", help="look for identifying values in all that was written")
    verify.add_argument(
        "--also", action="append", default=[], type=Path, metavar="PATH", help="with --leaks: another file or folder"
    )
    verify.add_argument("--airflow-home", type=Path, metavar="DIR", help="with --leaks: Airflow's logs and database")
    verify.add_argument(
        "--database", action="append", default=[], metavar="URL", help="with --leaks: a database, such as Airflow's"
    )


def _date(text: str) -> date:
    try:
        return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC).date()
    except ValueError:
        raise argparse.ArgumentTypeError("must be a date, YYYY-MM-DD") from None


def _week(text: str) -> Period:
    try:
        return Period.of_week(text)
    except ValueError:
        raise argparse.ArgumentTypeError("must be an ISO week, such as 2026-W47") from None


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError("must be RFC 3339, such as 2026-11-20T02:00:00Z") from None
    if moment.tzinfo is None:
        raise argparse.ArgumentTypeError("needs an offset, such as Z")
    return moment.astimezone(UTC)


@contextmanager
def _progress() -> Iterator[Progress]:
    """Bars on a terminal, nothing elsewhere: there the lines that a verb prints are enough."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield silent
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bars(*columns, console=console, transient=True) as bars:
        tasks = {}

        def show(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done, total=total)

        yield show


if __name__ == "__main__":
    sys.exit(main())
