"""What the pages show of a night; that they ask for a login is Airflow's own test in the demonstration."""

from collections.abc import Callable
from datetime import timedelta
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from fastapi import HTTPException

from clip_courier.courier import Courier
from clip_courier.reports import Period
from clip_courier_demo.keys import make_key
from clip_courier_demo.stage import Stage, write_vendor
from conftest import NIGHT, NOW
from snapshots import MakeCourier, returned


@pytest.fixture
def pages(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path_factory.mktemp("airflow")))
    import clip_courier_pages

    return clip_courier_pages


def test_status_marks_keys_that_expire_soon(
    stage: Stage, make_courier: Callable[..., Courier], pages: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    soon = make_key("aurora, ends soon", expires="40d", made_at=NOW - timedelta(days=20))
    write_vendor(stage.folder / "vendors", "aurora", soon, NIGHT)
    make_courier(stage).night(NIGHT)
    monkeypatch.setattr(pages, "courier", lambda: make_courier(stage))
    page = unescape(pages.status().body.decode())
    assert f'<td>{soon.fingerprint}</td><td class="late">2026-12-10T02:00:00Z expires soon</td>' in page
    theirs = stage.vendors["borealis"].key.fingerprint
    assert f"<td>borealis</td><td>{theirs}</td><td>2028-" in page


def test_status_leads_to_the_reports(
    stage: Stage, make_courier: MakeCourier, truth: dict[str, str], pages: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    courier = returned(stage, make_courier, truth)
    courier.load()
    for period in (Period.of_night(NIGHT), Period.of_week("2026-W47")):
        courier.report(period)
    monkeypatch.setattr(pages, "courier", lambda: courier)
    monkeypatch.setenv("CLIP_COURIER_ROOT", str(stage.root))
    shown = pages.status().body.decode()
    for name in ("2026-11-20", "2026-W47"):
        assert f'<a href="reports/{name}.html">{name}</a>' in shown
        assert "assistant × en-US" in Path(pages.report(f"{name}.html").path).read_text(encoding="utf-8")
    for outside in ("../ledger.sqlite", "2026-11-21.html", "."):
        with pytest.raises(HTTPException):
            pages.report(outside)
