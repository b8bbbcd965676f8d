"""What vendors owe as deadlines of Airflow's: its pages list a due date that has passed, and the log says whose.

Airflow asks when a run of `collect_returns` is made, in the scheduler, which nothing here may bring to a halt.
"""

import logging
import os
from datetime import UTC, datetime
from typing import Any

from airflow.plugins_manager import AirflowPlugin
from airflow.sdk.definitions.deadline import BaseDeadlineReference

from clip_courier.courier import Courier
from clip_courier.errors import ConnectionMissing, CourierError
from clip_courier.settings import load_settings

log = logging.getLogger("clip_courier")


class ReturnsDue(BaseDeadlineReference):
    """When the returns that are owed the longest were due; no deadline as long as nothing is owed."""

    def _evaluate_with(self, *, session: Any, **_: object) -> datetime | None:
        try:
            return _courier().owed_since()
        except (CourierError, OSError) as failed:
            # Whoever collects says it better.
            log.warning("it cannot be told what is overdue: %s", type(failed).__name__)
            return None


def tell_overdue(context: object = None) -> None:
    """What Airflow calls when such a deadline has passed: one line a batch."""
    for late in _courier().overdue().failures:
        log.error("OVERDUE: %s. %s", late, getattr(late, "way_out", ""))


def _courier() -> Courier:
    """One that asks for no secret: the scheduler has no business with them."""

    def none(conn_id: str) -> Any:
        raise ConnectionMissing(f"connection {conn_id} is not for the scheduler")

    return Courier(load_settings(os.environ), none, lambda: datetime.now(UTC))


class ClipCourierDeadlines(AirflowPlugin):
    """So that Airflow finds the reference again when it reads a DAG that it has stored."""

    name = "clip_courier_deadlines"
    deadline_references = [ReturnsDue]  # noqa: RUF012
