"""The page of Airflow's navigation as a browser shows it: what needs somebody stands first."""

import shutil
import subprocess
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from clip_courier.model import stamp
from clip_courier.pgp import OwnKey, open_keyring
from clip_courier_demo.stage import Stage
from conftest import NOW
from snapshots import LATER, MakeCourier, crosswalk_of, delivered, landing_copy, persons_of, refs_with, withdraw

AURORA = "aurora-20261120-001"


@pytest.fixture
def pages(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path_factory.mktemp("airflow")))
    import clip_courier_pages

    return clip_courier_pages


def _shown(page: bytes, folder: Path) -> str:
    file = folder / "page.html"
    file.write_bytes(page)
    browser = shutil.which("chromium") or "chromium"
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", f"file://{file}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout


def test_page_begins_with_what_needs_somebody(
    pages: Any, stage: Stage, make_courier: MakeCourier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    delivered(stage, make_courier)
    crosswalk = crosswalk_of(stage, AURORA)
    persons = persons_of(crosswalk, {crosswalk["clip_ref"][0].as_py()})
    gone = refs_with(crosswalk, persons)
    landing = landing_copy(stage, tmp_path)
    withdraw(landing, persons, LATER)
    courier = make_courier(stage, LATER, CLIP_COURIER_LANDING=str(landing))
    courier.recall()
    row = {"annotator_ref": "t1", "submitted_at": stamp(NOW), "revision": 0}
    rows: list[dict[str, object]] = [{**row, "clip_ref": ref, "status": "no_speech"} for ref in sorted(gone)]
    left = [ref for ref in crosswalk["clip_ref"].to_pylist() if ref not in gone]
    rows += [{**row, "clip_ref": ref, "status": s} for ref, s in zip(left, ("distress", "sensitive"), strict=False)]
    vendor = stage.vendors["aurora"]
    with open_keyring(OwnKey(vendor.key.fingerprint, vendor.key.private_key), [vendor.our_public_key]) as keyring:
        vendor.send(keyring, AURORA, 1, rows, NOW)
    courier.collect("aurora")
    late = make_courier(stage, NOW + timedelta(days=30), CLIP_COURIER_LANDING=str(landing))
    monkeypatch.setattr(pages, "courier", lambda: late)
    shown = _shown(pages.status().body, tmp_path)
    alerts, rest = shown.split("<h2>Nights</h2>")
    for told in (
        f"{len(left) - 2} clips overdue since",
        "1 rows say that a person is in distress",
        "1 rows are marked sensitive",
        f"{len(gone)} rows of clips that were to be deleted",
    ):
        assert told in alerts
        assert told not in rest
    assert alerts.count("borealis-") == 1
    assert not any(ref in shown for ref in [*gone, *left])


def test_page_without_anything_to_see_to(pages: Any, stage: Stage, make_courier: MakeCourier, tmp_path: Path) -> None:
    courier = delivered(stage, make_courier)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pages, "courier", lambda: courier)
        alerts = _shown(pages.status().body, tmp_path).split("<h2>Nights</h2>")[0]
    assert "none yet" in alerts
