"""`make demo`: a whole night through Airflow on real parts, told as it happens, and what came of it."""

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from clip_courier_demo.airflow import Airflow, standalone
from clip_courier_demo.hearing import read_truth
from clip_courier_demo.leaks import find_leaks, members, read_canaries
from clip_courier_demo.stage import Stage, set_stage

_SHOWN = {
    "What was refused, and why": """
        SELECT reason, clips FROM nights WHERE step = 'refused' AND clips > 0 ORDER BY clips DESC""",
    "The funnel": """
        SELECT step, sum(clips)::BIGINT AS clips FROM nights
        WHERE step IN ('clips', 'eligible', 'selected', 'validated', 'manifested', 'delivered')
        GROUP BY step ORDER BY 2 DESC""",
    "Word error rate of the recogniser, with 95 % intervals": """
        SELECT stratum, printf('%.1f %%', 100 * estimate) AS wer,
            coalesce(printf('%.1f to %.1f', 100 * ci_low, 100 * ci_high), 'one person') AS interval, clips, speakers
        FROM wer_by_stratum ORDER BY clips DESC""",
    "Vendors": """
        SELECT vendor, batches, clips, returned_clips AS returned, transcribed_clips AS transcribed, rejected_rows
        FROM vendor_scorecard ORDER BY vendor""",
    "Rejections after sampling": """
        SELECT stage, reason, count(*) AS rows FROM rejections GROUP BY stage, reason ORDER BY stage, rows DESC""",
    "Recalls": "SELECT batch_id, n, clip_count, state FROM recalls ORDER BY batch_id, n",
    "A few transcripts, masked": """
        SELECT c.locale, t.text FROM transcripts t JOIN clips c USING (clip_key, batch_id)
        WHERE t.status = 'transcribed' ORDER BY hash(t.clip_key) LIMIT 6""",
}


class DemoFailed(Exception):
    """A run of the demo did not end well; the text says where to look."""


def play_night(folder: Path, *, clips: int, seed: int, console: Console) -> None:
    """Set the stage in an emptied `folder`, run the night's DAGs, let the vendors work, and show the result."""
    started = time.monotonic()
    shutil.rmtree(folder, ignore_errors=True)
    night = datetime.now(UTC).date()
    with _step(console, f"landing zone of {clips} clips with speech, two vendors with keys and a server"):
        stage = set_stage(folder, seed=seed, clips=clips, night=night)
    try:
        with standalone_airflow(stage, console) as airflow:
            _run(airflow, "nightly_outbound", console, partition_key=night.isoformat())
            _vendors_work(stage, console)
            _run_and_load(airflow, "collect_returns", console)
            withdrawn = _withdraw_someone(stage)
            console.print(f"  a person withdraws: {withdrawn} of their clips are with a vendor")
            _run_and_load(airflow, "honour_withdrawals", console)
            _vendors_work(stage, console)
            _run_and_load(airflow, "honour_withdrawals", console)
        _show(stage, console)
        _prove(stage, console)
    finally:
        stage.server.stop()
    console.print(f"\n[bold]done in {time.monotonic() - started:.0f} s[/]; everything lies under {folder}")
    console.print("next: [bold]make ui[/] for the same in Airflow's user interface")


@contextmanager
def standalone_airflow(stage: Stage, console: Console, port: int | None = None) -> Iterator[Airflow]:
    console.print("• Airflow starts …")
    began = time.monotonic()
    with standalone(stage.folder / "airflow", stage.environ, port=port) as airflow:
        console.print(f"  Airflow is up at {airflow.address} ({time.monotonic() - began:.0f} s)")
        yield airflow


@contextmanager
def _step(console: Console, what: str) -> Iterator[None]:
    console.print(f"• {what} …")
    began = time.monotonic()
    yield
    console.print(f"  done ({time.monotonic() - began:.1f} s)")


def _run(airflow: Airflow, dag_id: str, console: Console, partition_key: str | None = None) -> None:
    console.print(f"• DAG [bold]{dag_id}[/]{f' for the night {partition_key}' if partition_key else ''} …")
    run_id = airflow.run_of(dag_id, partition_key) if partition_key else airflow.trigger(dag_id)
    state = airflow.wait(dag_id, run_id, seen=_teller(console))
    if state != "success":
        raise DemoFailed(f"{dag_id} ended as {state}; its logs lie under {airflow.home / 'logs'}")


def _run_and_load(airflow: Airflow, dag_id: str, console: Console) -> None:
    """Run a DAG whose asset starts the load, and wait for the load that it started."""
    before = len(airflow.runs("load_warehouse"))
    _run(airflow, dag_id, console)
    for _ in range(120):
        runs = airflow.runs("load_warehouse")
        if len(runs) > before:
            console.print("• DAG [bold]load_warehouse[/], started by the asset …")
            if airflow.wait("load_warehouse", runs[-1]["dag_run_id"], seen=_teller(console)) != "success":
                raise DemoFailed(f"load_warehouse failed; its logs lie under {airflow.home / 'logs'}")
            return
        time.sleep(0.5)
    raise DemoFailed("nothing started load_warehouse")


def _teller(console: Console) -> Callable[[dict[str, Any]], None]:
    def tell(task: dict[str, Any]) -> None:
        name = task["task_id"] + (f" [{task['rendered_map_index']}]" if task["rendered_map_index"] else "")
        console.print(f"  {task['state']:<9} {name} ({task['duration'] or 0:.1f} s)", markup=False)

    return tell


def _vendors_work(stage: Stage, console: Console) -> None:
    truth = read_truth(stage.folder / "world")
    for vendor in stage.vendors.values():
        written = vendor.work(truth, datetime.now(UTC))
        console.print(f"• vendor {vendor.name} opens its drops with gpg, works, and returns {len(written)} files")


def _withdraw_someone(stage: Stage) -> int:
    """The person with most clips at a vendor withdraws now: one more event in the landing zone. Returns the clips."""
    crosswalks = sorted((stage.root / "crosswalk").rglob("*.crosswalk.parquet"))
    persons = [
        ids for path in crosswalks for ids in pq.read_table(path, columns=["person_ids"])["person_ids"].to_pylist()
    ]
    everyone = [person for ids in persons for person in ids]
    person = max(sorted(set(everyone)), key=everyone.count)
    withdraw(stage.folder / "world" / "landing", person, datetime.now(UTC))
    return sum(person in ids for ids in persons)


def withdraw(landing: Path, person_id: str, at: datetime) -> None:
    """Append the event that a product writes when someone withdraws."""
    events = sorted((landing / "consent_events").glob("*.parquet"))
    schema = pq.read_schema(events[0])
    row = dict.fromkeys(schema.names) | {
        "record_id": f"withdrawal-{len(events)}",
        "person_id": person_id,
        "purpose": "human_review",
        "decision": "withdrawn",
        "occurred_at": at,
        "received_at": at,
    }
    path = landing / "consent_events" / f"part-withdrawal-{len(events)}.parquet"
    pq.write_table(pa.Table.from_pylist([row], schema), path)


def _show(stage: Stage, console: Console) -> None:
    warehouse = stage.root / "warehouse" / "clip_courier.duckdb"
    console.rule("what an analyst sees")
    with duckdb.connect(str(warehouse), read_only=True) as connection:
        for title, query in _SHOWN.items():
            result = connection.execute(query)
            table = Table(*[column[0] for column in result.description or []], title=title, title_justify="left")
            for row in result.fetchall():
                table.add_row(*[str(value) for value in row])
            console.print(table)
    console.rule("what a vendor sees")
    for vendor in stage.vendors.values():
        for path in sorted(p for p in vendor.home.rglob("*") if p.is_file()):
            console.print(
                f"  {vendor.name}: {path.relative_to(vendor.home)} ({path.stat().st_size} bytes)", markup=False
            )


def _prove(stage: Stage, console: Console) -> None:
    """Count the canaries in everything that left, was logged or is shown."""
    canaries = read_canaries(stage.folder / "world")
    drops: dict[str, bytes] = {}
    for vendor in stage.vendors.values():
        for ready in sorted((vendor.home / "outbound").glob("*.ready.json")):
            batch_id = ready.name.removesuffix(".ready.json")
            drops.update(members(vendor.take(batch_id), batch_id))
    found = find_leaks(canaries, drops, stage.folder)
    console.rule("what must not be seen")
    console.print(
        f"  {len(canaries)} planted names, ids, addresses and numbers looked for in every file: {len(found)} found"
    )
    if found:
        raise DemoFailed(f"identifying values in {', '.join(sorted(found))}")
