"""What most tests stand on: a demo world made once, and a stage (vendors, keys, a real SFTP server) for each."""

import json
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from clip_courier.courier import Courier
from clip_courier.settings import credentials_from, load_settings
from clip_courier_demo.hearing import Truth, read_truth
from clip_courier_demo.stage import VENDORS, Stage, set_stage, write_vendor

pytest_plugins = ["sftp_fixtures"]

NIGHT = date(2026, 11, 20)
NOW = datetime(2026, 11, 20, 2, 0, tzinfo=UTC)


@pytest.fixture(scope="session")
def session_stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Made once: 240 clips, two vendors with keys, one OpenSSH server. Tests take `stage`."""
    stage = set_stage(tmp_path_factory.mktemp("stage"), seed=7, clips=240, night=NIGHT, prefer="openssh")
    yield stage
    stage.server.stop()


@pytest.fixture
def stage(session_stage: Stage) -> Stage:
    """The session's stage with an empty root, empty vendors' servers and untouched vendors' files."""
    shutil.rmtree(session_stage.root, ignore_errors=True)
    for name, vendor in session_stage.vendors.items():
        for part in ("outbound", "returns", "reports", "recalls", "receipts"):
            shutil.rmtree(vendor.home / part, ignore_errors=True)
            (vendor.home / part).mkdir()
        write_vendor(session_stage.folder / "vendors", name, vendor.key, NIGHT)
    assert set(session_stage.vendors) == set(VENDORS)
    return session_stage


@pytest.fixture
def make_courier() -> Callable[..., Courier]:
    """A courier on a stage, at a fixed `now`; `environ` changes or adds variables."""

    def make(stage: Stage, now: datetime = NOW, **environ: str) -> Courier:
        variables = {**stage.environ, **environ}
        return Courier(load_settings(variables), lambda conn_id: credentials_from(variables, conn_id), lambda: now)

    return make


@pytest.fixture
def courier(stage: Stage, make_courier: Callable[..., Courier]) -> Courier:
    return make_courier(stage)


@pytest.fixture(scope="session")
def truth(session_stage: Stage) -> Truth:
    """What is spoken in the demo world, for whoever listens."""
    return read_truth(session_stage.folder / "world")


@pytest.fixture(scope="session")
def canaries(session_stage: Stage) -> list[str]:
    """Every identifying string that the demo world was seeded with."""
    path = Path(session_stage.folder, "world", "demo", "canaries.json")
    return [value for values in json.loads(path.read_text(encoding="utf-8")).values() for value in values]
