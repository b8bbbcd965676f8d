"""`python -m clip_courier_demo night`: the demonstration from end to end. `ui`: the same in Airflow's interface."""

import argparse
import signal
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from clip_courier.errors import CourierError
from clip_courier_demo.airflow import LOGIN, AirflowNotReady
from clip_courier_demo.hearing import read_truth
from clip_courier_demo.night import DemoFailed, play_night, standalone_airflow
from clip_courier_demo.stage import Stage, set_stage

FOLDER = Path("var") / "demo"


def main() -> int:
    """Exit status 1 when the demonstration did not end well."""
    parser = argparse.ArgumentParser(prog="clip_courier_demo", description=__doc__)
    parser.add_argument("what", choices=["night", "ui"])
    parser.add_argument("--clips", type=int, default=400)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--port", type=int, default=8080, help="of the user interface")
    asked = parser.parse_args()
    console = Console(highlight=False)
    # Whatever ends us, Airflow and the server must not stay behind; a background job has SIGINT ignored.
    for ending in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, _interrupt)
    try:
        if asked.what == "night":
            play_night(FOLDER.absolute(), clips=asked.clips, seed=asked.seed, console=console)
        else:
            _serve(FOLDER.absolute(), asked, console)
    except (CourierError, DemoFailed, AirflowNotReady) as failed:
        console.print(f"error: {failed}", markup=False, style="red")
        return 1
    except KeyboardInterrupt:
        console.print("stopped")
    return 0


def _interrupt(_signal: int, _frame: object) -> None:
    raise KeyboardInterrupt


def _serve(folder: Path, asked: argparse.Namespace, console: Console) -> None:
    """Keep everything up until Ctrl-C: the world of the last demo, or a new one."""
    stage = set_stage(folder, seed=asked.seed, clips=asked.clips, night=datetime.now(UTC).date())
    try:
        with standalone_airflow(stage, console, asked.port) as airflow:
            console.print(f"\n  [bold]{airflow.address}[/]   user {LOGIN}, password {LOGIN}")
            console.print("  start a night: DAG 'Nightly outbound', Trigger, with today's date (UTC) as partition key")
            console.print("  the vendors answer what they find every few seconds; Ctrl-C ends it all\n")
            keep_vendors_working(stage, console)
    finally:
        stage.server.stop()


def keep_vendors_working(stage: Stage, console: Console) -> None:
    truth = read_truth(stage.folder / "world")
    while True:
        for vendor in stage.vendors.values():
            for name in vendor.work(truth, datetime.now(UTC)):
                console.print(f"  vendor {vendor.name} wrote {name}", markup=False)
        time.sleep(5)


if __name__ == "__main__":
    sys.exit(main())
