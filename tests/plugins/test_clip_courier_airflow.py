"""The bridge: what Airflow gives becomes ours, what we raise becomes Airflow's, and nothing else gets through."""

import json
import logging
from datetime import UTC, date, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from clip_courier import errors
from clip_courier.model import Outcome

SECRET = "canary-secret-quorvanthistle"


@pytest.fixture
def bridge(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path_factory.mktemp("airflow")))
    import clip_courier_airflow

    return clip_courier_airflow


def raises(error: Exception) -> Any:
    def verb() -> Outcome:
        raise error

    return verb


def test_credentials_are_those_of_the_connection(bridge: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    connection = {"conn_type": "sftp", "host": "h", "port": 2222, "login": "l", "password": SECRET, "extra": {"a": 1}}
    monkeypatch.setenv("AIRFLOW_CONN_SFTP_ACME", json.dumps(connection))
    found = bridge.credentials("sftp_acme")
    assert (found.host, found.port, found.login, found.password, found.extra) == ("h", 2222, "l", SECRET, {"a": 1})
    assert SECRET not in repr(found)


def test_credentials_that_are_missing_are_a_named_error(bridge: Any) -> None:
    with pytest.raises(errors.ConnectionMissing, match="sftp_nobody"):
        bridge.credentials("sftp_nobody")


def test_night_is_the_partition_key_or_the_day_of_the_run(bridge: Any) -> None:
    after = datetime(2026, 11, 21, 0, 30, tzinfo=UTC)
    assert bridge.night_of(SimpleNamespace(partition_key="2026-11-20", run_after=after)) == date(2026, 11, 20)
    assert bridge.night_of(SimpleNamespace(partition_key=None, run_after=after)) == date(2026, 11, 21)


def test_run_returns_counts_and_logs_lines(bridge: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "clip_courier"):
        counts = bridge.run(lambda: Outcome("select", {"selected": 3}, ["select: 3 clips"]))
    assert counts == {"new": True, "selected": 3}
    assert "select: 3 clips" in caplog.text


def test_run_skips_a_closed_gate_and_what_has_nothing_to_do(bridge: Any) -> None:
    from airflow.sdk.exceptions import AirflowSkipException

    with pytest.raises(AirflowSkipException, match="nda"):
        bridge.run(raises(errors.GateClosed("vendor acme: nda not valid on 2026-11-20")))
    with pytest.raises(AirflowSkipException, match="nothing is due"):
        bridge.run(lambda: Outcome("collect", is_new=False), skip_when_idle=True)


@pytest.mark.parametrize(
    "kind", [errors.HostKeyMismatch, errors.LoginRefused, errors.ContractBroken, errors.ReturnOverdue]
)
def test_run_fails_at_once_what_a_second_try_cannot_mend(bridge: Any, kind: type[errors.CourierError]) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    with pytest.raises(AirflowFailException, match=kind.__name__) as raised:
        bridge.run(raises(kind("it is so")))
    assert kind("").way_out in str(raised.value)


def test_run_leaves_what_may_pass_to_the_retries_and_the_cause_behind(bridge: Any) -> None:
    from airflow.sdk.exceptions import AirflowException, AirflowFailException

    def verb() -> Outcome:
        try:
            raise ValueError(SECRET)
        except ValueError as cause:
            raise errors.ServerUnreachable("the server does not answer") from cause

    with pytest.raises(AirflowException) as raised:
        bridge.run(verb)
    assert not isinstance(raised.value, AirflowFailException)
    assert raised.value.__suppress_context__
    assert raised.value.__cause__ is None
    assert SECRET not in str(raised.value)


def test_run_fails_when_a_vendor_failed(bridge: Any) -> None:
    from airflow.sdk.exceptions import AirflowException, AirflowFailException

    final, passing = errors.LoginRefused("acme refused us"), errors.ServerUnreachable("beta does not answer")
    with pytest.raises(AirflowFailException, match="acme"):
        bridge.run(lambda: Outcome("recall", failures=[final]))
    with pytest.raises(AirflowException, match="beta") as raised:
        bridge.run(lambda: Outcome("recall", failures=[final, passing]))
    assert not isinstance(raised.value, AirflowFailException)
