"""A whole Airflow on this machine and only for this machine: scheduler, workers, API server and user interface."""

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[2]
LOGIN = "admin"
POOLS = {"clip_courier_writer": 1, "clip_courier_vendors": 4}
DAGS = frozenset({"nightly_outbound", "collect_returns", "load_warehouse", "honour_withdrawals"})
_START_S = 180
_STOP_S = 30
_END_STATES = frozenset({"success", "failed"})


class AirflowNotReady(Exception):
    """It did not come up, or a run did not end in time; the text names the log to read."""


@dataclass
class Airflow:
    """A running Airflow. `api` speaks its REST interface, version 2."""

    address: str
    home: Path
    token: str = field(repr=False)

    def api(self, method: str, path: str, body: Mapping[str, object] | None = None) -> Any:
        """The answer to one request, as JSON; HTTPError for a refusal."""
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self.token}"}
        return _ask(method, f"{self.address}/api/v2/{path}", body, headers)

    def trigger(self, dag_id: str, partition_key: str | None = None) -> str:
        """Start a run; returns its id."""
        body: dict[str, object] = {"logical_date": None}
        if partition_key is not None:
            body["partition_key"] = partition_key
        return str(self.api("POST", f"dags/{dag_id}/dagRuns", body)["dag_run_id"])

    def run_of(self, dag_id: str, partition_key: str) -> str:
        """The run of a partition: the scheduler's own when the partition is due, else one that is started here."""
        for _ in _every(0.5, 10):
            found = [run for run in self.runs(dag_id) if run["partition_key"] == partition_key]
            if found:
                return str(found[0]["dag_run_id"])
        return self.trigger(dag_id, partition_key)

    def runs(self, dag_id: str) -> list[dict[str, Any]]:
        """All runs of a DAG, oldest first."""
        return list(self.api("GET", f"dags/{dag_id}/dagRuns?order_by=run_after&limit=100")["dag_runs"])

    def tasks(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """The task instances of a run; a mapped one once for each of its indices."""
        return list(self.api("GET", f"dags/{dag_id}/dagRuns/{run_id}/taskInstances?limit=100")["task_instances"])

    def wait(
        self, dag_id: str, run_id: str, timeout_s: float = 240, seen: Callable[[dict[str, Any]], None] | None = None
    ) -> str:
        """Wait until a run ends; `seen` is told of every task once, when it ends. Returns the run's state."""
        told: set[tuple[str, int]] = set()
        for _ in _every(0.5, timeout_s):
            state = self.api("GET", f"dags/{dag_id}/dagRuns/{run_id}")["state"]
            for one in self.tasks(dag_id, run_id):
                key = (one["task_id"], one["map_index"])
                if seen and key not in told and one["state"] in {"success", "failed", "skipped", "upstream_failed"}:
                    told.add(key)
                    seen(one)
            if state in _END_STATES:
                return str(state)
        raise AirflowNotReady(f"{dag_id} did not end within {timeout_s:.0f} s; logs: {self.home / 'logs'}")


@contextmanager
def standalone(home: Path, environ: Mapping[str, str], *, port: int | None = None) -> Iterator[Airflow]:
    """Run `airflow standalone` with this repository's DAGs as long as the block runs."""
    home.mkdir(parents=True, exist_ok=True)
    api_port = port or free_port()
    password = LOGIN
    passwords = home / "passwords.json"
    passwords.write_text(json.dumps({LOGIN: password}), encoding="utf-8")
    with (home / "standalone.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "airflow", "standalone"],
            env={**os.environ, **environ, **_configuration(home, api_port)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            # A shell's background job ignores the one signal that standalone ends on.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
        )
    try:
        yield _ready(process, f"http://127.0.0.1:{api_port}", home, password)
    finally:
        _stop(process)


def _configuration(home: Path, port: int) -> dict[str, str]:
    settings = {
        # standalone starts its parts as `airflow …`.
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "AIRFLOW_HOME": str(home),
        "PYTHONPATH": str(PROJECT / "include"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(PROJECT / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(PROJECT / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        # They are started once the pools are there: a task without its pool would wait for ever.
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "True",
        # Each worker process costs memory from the start; this is a small machine's share.
        "AIRFLOW__CORE__PARALLELISM": "4",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"{LOGIN}:admin",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(home / "passwords.json"),
        "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(64),
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__BASE_URL": f"http://127.0.0.1:{port}",
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(free_port()),
        "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(free_port()),
    }
    return {**settings, "GX_ANALYTICS_ENABLED": "false"}


def _ready(process: subprocess.Popen[bytes], address: str, home: Path, password: str) -> Airflow:
    """Wait for health and for the DAGs, then log in and make the pools that the tasks name."""
    for _ in _every(0.5, _START_S):
        if process.poll() is not None:
            break
        with suppress(urllib.error.URLError, OSError, KeyError):
            health = _ask("GET", f"{address}/api/v2/monitor/health", None, {})
            if all(health[part]["status"] == "healthy" for part in ("metadatabase", "scheduler", "dag_processor")):
                login = {"username": LOGIN, "password": password}
                token = _ask("POST", f"{address}/auth/token", login, {"Content-Type": "application/json"})
                airflow = Airflow(address, home, token["access_token"])
                _make_pools(airflow)
                _start_dags(airflow)
                return airflow
    raise AirflowNotReady(f"Airflow did not start; read {home / 'standalone.log'}")


def _make_pools(airflow: Airflow) -> None:
    there = {pool["name"] for pool in airflow.api("GET", "pools")["pools"]}
    for name, slots in POOLS.items():
        if name not in there:
            airflow.api("POST", "pools", {"name": name, "slots": slots, "description": "Clip Courier"})


def _start_dags(airflow: Airflow) -> None:
    for _ in _every(0.5, _START_S):
        if {dag["dag_id"] for dag in airflow.api("GET", "dags")["dags"]} >= DAGS:
            for dag_id in sorted(DAGS):
                airflow.api("PATCH", f"dags/{dag_id}", {"is_paused": False})
            return
        broken = airflow.api("GET", "importErrors")["import_errors"]
        if broken:
            raise AirflowNotReady(f"a DAG cannot be imported: {broken[0]['filename']}")
    raise AirflowNotReady(f"the DAGs do not appear; logs: {airflow.home / 'logs'}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """It ends on SIGINT only, and sometimes leaves children behind."""
    with suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGINT)
    with suppress(subprocess.TimeoutExpired):
        process.wait(_STOP_S)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _ask(method: str, url: str, body: Mapping[str, object] | None, headers: Mapping[str, str]) -> Any:
    data = None if body is None else json.dumps(body).encode("utf-8")
    # The address is our own, http on this machine.
    request = urllib.request.Request(url, data, dict(headers), method=method)  # noqa: S310
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
        return json.load(answer)


def _every(pause_s: float, timeout_s: float) -> Iterator[None]:
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        yield
        time.sleep(pause_s)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
