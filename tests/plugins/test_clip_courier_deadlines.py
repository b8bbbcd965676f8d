"""What is overdue as a deadline of Airflow's: the moving due date, and a scheduler that nothing here stops."""

import logging
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from clip_courier.ledger import parse_stamp
from clip_courier_demo.stage import Stage
from snapshots import MakeCourier, delivered


@pytest.fixture
def deadlines(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path_factory.mktemp("airflow")))
    import clip_courier_deadlines

    return clip_courier_deadlines


def test_deadline_is_the_longest_overdue_return(
    deadlines: Any,
    stage: Stage,
    make_courier: MakeCourier,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    delivered(stage, make_courier)
    batches = make_courier(stage).overview().batches
    due = min(parse_stamp(batch.due_at) for batch in batches if batch.due_at)
    reference = deadlines.ReturnsDue()

    def at(now: datetime) -> datetime | None:
        monkeypatch.setattr(deadlines, "_courier", lambda: make_courier(stage, now))
        return reference._evaluate_with(session=None, dag_id="collect_returns", run_id="r")  # type: ignore[no-any-return]

    # What came in the last minute is collected within the hour.
    assert at(due + timedelta(minutes=59)) is None
    assert at(due + timedelta(minutes=61)) == due
    deadlines.tell_overdue({"dag_run": {}})
    late = [record.message for record in caplog.records if record.levelno == logging.ERROR]
    assert len(late) == sum(parse_stamp(batch.due_at) == due for batch in batches if batch.due_at)
    assert all("OVERDUE" in line and "clips" in line for line in late)


def test_deadline_of_a_ledger_that_is_down_stops_no_scheduler(
    deadlines: Any, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in stage.environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("CLIP_COURIER_LEDGER", "sqlite:////nowhere/ledger.sqlite")
    assert deadlines.ReturnsDue()._evaluate_with(session=None) is None


def test_deadline_asks_for_no_secret(deadlines: Any, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in stage.environ.items():
        monkeypatch.setenv(name, value)
    assert deadlines.ReturnsDue()._evaluate_with(session=None) is None
    with pytest.raises(deadlines.ConnectionMissing):
        deadlines._courier()._credentials("clip_courier_pgp")
    assert datetime.now(UTC) - deadlines._courier()._clock() < timedelta(minutes=1)
