"""The command line as a shell sees it: exit status, one line an error, JSON for machines."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from clip_courier.__main__ import VERBS, main
from clip_courier_demo.stage import Stage
from conftest import NIGHT
from snapshots import MakeCourier, manifested

INCLUDE = Path(__file__).resolve().parents[2] / "include"
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(stage: Stage) -> Run:
    """`clip-courier …` on the stage; keyword arguments are environment variables."""

    def run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        variables = {**os.environ, **stage.environ, "PYTHONPATH": str(INCLUDE), **environ}
        command = [sys.executable, "-m", "clip_courier", *arguments]
        return subprocess.run(command, env=variables, capture_output=True, text=True, timeout=120)

    return run


def error_of(done: subprocess.CompletedProcess[str]) -> str:
    """The one line that an error is told in."""
    assert done.returncode == 1, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert "Traceback" not in done.stderr
    return lines[0]


def test_night_then_every_verb_finds_it_done(run: Run) -> None:
    night = ("--night", NIGHT.isoformat(), "--now", "2026-11-20T02:00:00Z")
    first = run("night", *night, "--json")
    assert first.returncode == 0, first.stderr
    told = json.loads(first.stdout)
    assert told["verb"] == "night"
    assert told["new"] is True
    assert told["select"]["eligible"] + sum(told["select"]["refused"].values()) == told["select"]["clips"]
    for verb in ("select", "validate", "manifest", "deliver", "night"):
        again = run(verb, *night, "--json")
        assert again.returncode == 0, again.stderr
        assert json.loads(again.stdout)["new"] is False
    once_more = run("deliver", "--again", f"aurora-{NIGHT:%Y%m%d}-001", *night)
    assert "lies on the server of aurora as it was sent" in once_more.stdout
    assert "NotSentAgain" in error_of(run("deliver", "--again", "nobody-20261120-001"))


def test_deliver_carries_no_library_of_another_stage(run: Run, stage: Stage, make_courier: MakeCourier) -> None:
    """The process that delivers for hours holds no word lists, statistics or data docs of the others."""
    manifested(stage, make_courier)
    night = ("--night", NIGHT.isoformat(), "--now", "2026-11-20T02:00:00Z")
    done = run("deliver", *night, PYTHONPROFILEIMPORTTIME="1")
    assert done.returncode == 0, done.stderr[-2000:]
    assert "delivered" in done.stdout
    told = (line for line in done.stderr.splitlines() if line.startswith("import time:"))
    names = [line.rpartition("|")[2].strip() for line in told]
    imported = {name.split(".")[0] for name in names}
    assert imported >= {"paramiko", "gnupg", "duckdb"}
    # The search for leaks asks wordfreq's small list for what says nothing.
    others = {"scipy", "faker", "whisper_normalizer", "rapidfuzz", "pycountry"}
    assert imported & (others | {"great_expectations", "matplotlib", "airflow"}) == set()
    # Arrow looks for pandas, and is told that there is none.
    assert [name for name in names if name.startswith("pandas.")] == []


def test_report_takes_a_night_or_a_week_that_was_published(run: Run, stage: Stage) -> None:
    assert "WarehouseMissing" in error_of(run("report", "--night", NIGHT.isoformat()))
    assert run("load").returncode == 0
    assert "ReportEmpty" in error_of(run("report", "--week", "2026-W47"))
    for wrong in (("--week", "2026-W54"), ("--week", "2026-W47", "--night", NIGHT.isoformat())):
        with pytest.raises(SystemExit, match="2"):
            main(["report", *wrong])
    assert not (stage.root / "reports").exists()


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_every_verb_takes_the_contracts_options_and_explains_itself(run: Run, verb: str) -> None:
    helped = run(verb, "--help")
    assert helped.returncode == 0
    for option in ("--night", "--vendor", "--now", "--root", "--json"):
        assert option in helped.stdout


@pytest.mark.parametrize("verb", ["collect", "load", "returns", "recall", "status", "verify"])
def test_verbs_with_nothing_to_do_succeed_on_an_empty_root(run: Run, verb: str) -> None:
    done = run(verb, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["verb"] == verb


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["deliever"],
        ["select", "--night", "20-11-2026"],
        ["select", "--now", "2026-11-20T02:00:00"],
        ["select", "--nigth", "2026-11-20"],
        ["demo-world"],
        ["demo-world", "--out", "x", "--clips", "3"],
    ],
)
def test_wrong_usage_is_two(run: Run, arguments: list[str], tmp_path: Path) -> None:
    done = run(*[str(tmp_path / a) if a == "x" else a for a in arguments])
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_an_error_is_one_line_that_says_what_to_do(run: Run) -> None:
    line = error_of(run("deliver", "--night", "2026-11-20"))
    assert line.startswith("error: StageMissing: night 2026-11-20")
    assert "Run the stage that comes before" in line


@pytest.mark.parametrize("verb", ["manifest", "deliver", "collect", "recall"])
def test_a_vendor_that_is_unknown_is_named_error(run: Run, verb: str) -> None:
    line = error_of(run(verb, "--vendor", "nobody"))
    assert "VendorUnknown" in line or "StageMissing" in line


def test_an_error_is_json_too_when_json_is_asked_for(run: Run) -> None:
    done = run("validate", "--night", "2026-11-20", "--json")
    assert json.loads(done.stdout)["error"] == "StageMissing"
    error_of(done)


def test_one_vendors_missing_connection_fails_it_and_the_others_go_on(run: Run) -> None:
    night = ("--night", NIGHT.isoformat(), "--now", "2026-11-20T02:00:00Z")
    done = run("night", *night, AIRFLOW_CONN_SFTP_AURORA="{")
    assert "ConnectionInvalid" in error_of(done)
    assert "borealis" in done.stdout
    assert "delivered" in done.stdout
    assert run("night", *night).returncode == 0


def test_a_root_that_cannot_be_a_folder_is_a_named_error(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "SettingsInvalid: root" in error_of(run("status", "--root", str(tmp_path / "file" / "root")))


def test_demo_world_writes_a_landing_zone(run: Run, tmp_path: Path) -> None:
    done = run(
        "demo-world", "--out", str(tmp_path), "--seed", "5", "--clips", "40", "--last-day", "2026-11-19", "--json"
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["clips"] == 40
    selected = run(
        "select",
        "--night",
        "2026-11-20",
        "--root",
        str(tmp_path / "var"),
        CLIP_COURIER_LANDING=str(tmp_path / "landing"),
    )
    assert selected.returncode == 0, selected.stderr
