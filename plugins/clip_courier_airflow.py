"""The only bridge between Airflow and Clip Courier: Connections become credentials, a task's call becomes an outcome.

Airflow keeps what a task returns and what it is called with, and shows both to every viewer: only vendors' names, batch
ids and counts pass here.
"""

import logging
import os
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import Asset
from airflow.sdk import Connection as AirflowConnection
from airflow.sdk.exceptions import (
    AirflowException,
    AirflowFailException,
    AirflowNotFoundException,
    AirflowSkipException,
)

from clip_courier import errors, model
from clip_courier.courier import Courier
from clip_courier.settings import load_settings

log = logging.getLogger("clip_courier")

# Something that the warehouse is built from has changed.
FACTS = Asset(name="clip_courier_facts", uri="clip-courier://facts")

# Every task re-runs safely, so it may be tried again; the waits grow from seconds to half an hour.
RETRIES = {
    "retries": 4,
    "retry_delay": timedelta(seconds=20),
    "retry_exponential_backoff": 2.0,
    "max_retry_delay": timedelta(minutes=30),
}

# A second try cannot mend these; it can lock an account or hide the cause.
FINAL = (
    errors.SettingsInvalid,
    errors.ConnectionMissing,
    errors.ConnectionInvalid,
    errors.VendorUnknown,
    errors.LandingSchemaBroken,
    errors.ContractBroken,
    errors.AuditBroken,
    errors.CrosswalkMissing,
    errors.KeyUnusable,
    errors.HostKeyMismatch,
    errors.LoginRefused,
    errors.RemoteConflict,
    errors.ReturnOverdue,
)


def credentials(conn_id: str) -> model.Connection:
    """The Connection of that id, from whichever backend Airflow is set up with."""
    try:
        found = AirflowConnection.get(conn_id)
    except AirflowNotFoundException:
        raise errors.ConnectionMissing(f"connection {conn_id} is not defined") from None
    return model.Connection(
        conn_id=conn_id,
        host=found.host,
        port=found.port,
        login=found.login,
        password=found.password,
        extra=found.extra_dejson,
    )


def courier() -> Courier:
    """The courier of this deployment: CLIP_COURIER_* from the environment, secrets from Airflow, the wall clock."""
    return Courier(load_settings(os.environ), credentials, lambda: datetime.now(UTC))


def data_docs(night: date) -> Path:
    """The folder of a night's Data Docs."""
    return load_settings(os.environ).root.night(night).data_docs


def reports() -> Path:
    """The folder of the pages about nights and weeks."""
    return load_settings(os.environ).root.reports


def vendor_names() -> list[str]:
    """Every vendor that has a file: what the vendor tasks are mapped over."""
    return list(load_settings(os.environ).vendors())


def night_of(dag_run: Any) -> date:
    """The night of a run is its partition key; a run that was started by hand without one means today in UTC."""
    return (
        date.fromisoformat(dag_run.partition_key) if dag_run.partition_key else dag_run.run_after.astimezone(UTC).date()
    )


def run(verb: Callable[[], model.Outcome], *, skip_when_idle: bool = False) -> dict[str, object]:
    """Do one verb in a task; returns its counts, not its tables.

    A closed gate, and with `skip_when_idle` having nothing to do, skips the task; what a second try cannot mend fails
    it at once. The cause of an error stays behind: it may hold what must not be logged.
    """
    try:
        outcome = verb()
    except errors.GateClosed as closed:
        raise AirflowSkipException(f"{closed}. {closed.way_out}") from None
    except FINAL as final:
        raise AirflowFailException(f"{type(final).__name__}: {final}. {final.way_out}") from None
    except errors.CourierError as failed:
        raise AirflowException(f"{type(failed).__name__}: {failed}. {failed.way_out}") from None
    for line in outcome.lines:
        log.info("%s", line)
    if outcome.failures:
        # One that may pass is worth another try of all: what is done already is left alone.
        passing = [failed for failed in outcome.failures if not isinstance(failed, FINAL)]
        first = (passing or outcome.failures)[0]
        kind = AirflowException if passing else AirflowFailException
        raise kind(f"{type(first).__name__}: {first}. {first.way_out}")
    if skip_when_idle and not outcome.is_new:
        raise AirflowSkipException("nothing is due")
    # A table, such as the plan by stratum, stands in the log and the night's folder; XCom is for counts.
    return {"new": outcome.is_new, **{name: n for name, n in outcome.counts.items() if not isinstance(n, list)}}
