"""The README can be believed: its commands run, its tables name what exists, generated files are fresh."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from clip_courier import errors
from clip_courier.__main__ import VERBS
from clip_courier.courier import Courier
from clip_courier_demo.stage import Stage
from conftest import NIGHT, NOW

PROJECT = Path(__file__).resolve().parents[1]
README = (PROJECT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
CONTRACTS = (PROJECT / "docs" / "contracts.md").read_text(encoding="utf-8")


def block(beginning: str) -> str:
    return next(text for text in BLOCKS if text.startswith(beginning))


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder in which the README's relative paths hold, apart from the repository itself."""
    for name in (".venv", "Makefile", "bin", "include"):
        (tmp_path / name).symlink_to(PROJECT / name)
    return tmp_path


def test_make_has_every_target_that_is_named() -> None:
    named = set(re.findall(r"(?:`|^)make ([a-z-]+)", README, re.MULTILINE))
    makefile = (PROJECT / "Makefile").read_text(encoding="utf-8")
    assert {"demo", "test"} <= named
    assert named <= set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))


def test_make_lists_its_targets() -> None:
    listed = subprocess.run(["make", "-s"], cwd=PROJECT, capture_output=True, text=True, check=True).stdout
    for target in ("demo", "test", "ui", "check"):
        assert f"make {target}" in listed


def test_readme_names_every_verb() -> None:
    table = README.split("| verb | what it does |")[1].split("\n\n")[0]
    assert set(re.findall(r"^\| `([a-z-]+)` \|", table, re.MULTILINE)) == {*VERBS, "demo-world"}


def test_readme_runs_a_night_on_ones_own_clips(checkout: Path, stage: Stage) -> None:
    script = block("export CLIP_COURIER_ROOT").replace("/srv/courier", str(checkout / "courier"))
    script = script.replace("/data/landing", stage.environ["CLIP_COURIER_LANDING"])
    environ = {**os.environ, **stage.environ, "PATH": f"{PROJECT}/.venv/bin:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-ec", script], cwd=checkout, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "delivered" in done.stdout


def test_readme_asks_the_warehouse(checkout: Path, stage: Stage, courier: Courier, truth: dict[str, str]) -> None:
    courier.night(NIGHT)
    for vendor in stage.vendors.values():
        vendor.work(truth, NOW)
    courier.returns()
    shutil.copytree(stage.root, checkout / "var" / "demo" / "var")
    done = subprocess.run(
        ["bash", "-ec", block(".venv/bin/python -c")], cwd=checkout, capture_output=True, text=True, check=True
    )
    assert "translator" in done.stdout


def test_readme_names_the_contracts_variables_and_connections() -> None:
    def variables(text: str) -> set[str]:
        return set(re.findall(r"CLIP_COURIER_[A-Z]+", text))

    assert variables(README) == variables(CONTRACTS)
    for connection in re.findall(r"^\| `(clip_courier_[a-z]+|sftp_<vendor>)` \|", CONTRACTS, re.MULTILINE):
        assert f"| `{connection}` |" in README


def test_readme_promises_point_at_code_and_at_tests_that_exist() -> None:
    rows = README.split("| promise | enforced in | proven by |")[1].split("\n\n")[0].splitlines()[2:]
    assert len(rows) == 8
    for row in rows:
        _, _, enforced, proven, _ = row.split("|")
        homes, tests = re.findall(r"`([^`]+)`", enforced), re.findall(r"`([^`]+)`", proven)
        assert homes, row
        assert tests, row
        for home in homes:
            path, _, name = home.partition(":")
            text = (PROJECT / "include" / "clip_courier" / path).read_text(encoding="utf-8")
            assert not name or re.search(rf"(def|class) {name}\b|^{name}\b", text, re.MULTILINE), home
        for test in tests:
            path, _, name = test.partition("::")
            assert f"def {name}(" in (PROJECT / "tests" / path).read_text(encoding="utf-8"), test


@pytest.mark.parametrize("document", ["README.md", *(f"docs/{p.name}" for p in (PROJECT / "docs").glob("*.md"))])
def test_links_lead_somewhere(document: str) -> None:
    path = PROJECT / document
    for target in re.findall(r"\]\(([^)#]+)\)", path.read_text(encoding="utf-8")):
        assert target.startswith("http") or (path.parent / target).exists(), target


def test_every_dependency_has_a_reason() -> None:
    wanted = (PROJECT / "requirements.in").read_text(encoding="utf-8").splitlines()
    names = {re.split(r"[=<>]", line)[0] for line in wanted if line and not line.startswith("#")}
    table = (PROJECT / "docs" / "decisions.md").read_text(encoding="utf-8").split("## Dependencies")[1]
    given = {name for row in re.findall(r"^\| ([a-z0-9, -]+) \|", table, re.MULTILINE) for name in row.split(", ")}
    assert names <= given


def test_every_error_says_what_to_do_next() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.CourierError)]
    assert len(kinds) > 20
    assert all(kind.__doc__ and len(kind.__doc__) > 20 for kind in kinds)
