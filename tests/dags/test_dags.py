"""The DAGs as Airflow reads them: schedules, partitions, pools, retries; and thin, as a DAG should be."""

import ast
import inspect
import os
from pathlib import Path
from typing import Any

import pytest

PROJECT = Path(__file__).resolve().parents[2]
FILES = sorted((PROJECT / "dags").glob("*.py"))


@pytest.fixture(scope="session")
def dags(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Every DAG by id, imported as the dag processor does; Airflow reads its settings when it is first imported."""
    os.environ.setdefault("AIRFLOW_HOME", str(tmp_path_factory.mktemp("airflow")))
    os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag(dag_folder=str(PROJECT / "dags"))
    assert not bag.import_errors
    return dict(bag.dags)


def test_dags_are_the_four_of_the_design(dags: dict[str, Any]) -> None:
    assert set(dags) == {"nightly_outbound", "collect_returns", "load_warehouse", "honour_withdrawals"}


def test_nightly_outbound_has_a_partition_for_each_night_at_two_in_utc(dags: dict[str, Any]) -> None:
    timetable = dags["nightly_outbound"].timetable
    assert type(timetable).__name__ == "CronPartitionTimetable"
    assert "expression='0 2 * * *'" in repr(timetable)
    assert "key_format='%Y-%m-%d'" in repr(timetable)
    assert "timezone='UTC'" in repr(timetable)


def test_nightly_outbound_runs_the_stages_in_order(dags: dict[str, Any]) -> None:
    tasks = dags["nightly_outbound"].task_dict
    assert tasks["select"].downstream_task_ids == {"validate"}
    assert tasks["validate"].downstream_task_ids == {"manifest"}
    assert tasks["manifest"].downstream_task_ids == {"workers"}
    assert tasks["workers"].downstream_task_ids == {"deliver"}


def test_deliveries_are_shared_by_mapped_tasks_that_get_names_and_numbers_only(dags: dict[str, Any]) -> None:
    deliver = dags["nightly_outbound"].task_dict["deliver"]
    assert deliver.is_mapped
    assert deliver.upstream_task_ids == {"workers"}
    # Each of them is given what `Courier.workers` shares out, and is named so in the grid.
    assert set(inspect.signature(deliver.python_callable).parameters) == {"vendor", "worker", "workers", "dag_run"}
    assert deliver.map_index_template == "{{ task.op_kwargs['vendor'] }} {{ task.op_kwargs['worker'] }}"
    assert deliver.pool == "clip_courier_vendors"


@pytest.mark.parametrize(("dag_id", "cron"), [("collect_returns", "0 * * * *"), ("honour_withdrawals", "*/15 * * * *")])
def test_schedules_are_the_designs(dags: dict[str, Any], dag_id: str, cron: str) -> None:
    assert f"expression='{cron}'" in repr(dags[dag_id].timetable)


def test_load_is_started_by_the_asset_that_the_others_announce(dags: dict[str, Any]) -> None:
    announced = {
        outlet.name
        for dag_id, task_id in (("collect_returns", "collect"), ("honour_withdrawals", "recall"))
        for outlet in outlets_of(dags[dag_id].task_dict[task_id])
    }
    assert announced == {"clip_courier_facts"}
    assert "clip_courier_facts" in repr(dags["load_warehouse"].timetable)


def test_overdue_returns_fail_the_run_and_hide_no_other_failure(dags: dict[str, Any]) -> None:
    """A task of its own, first and last: as the only last one it would decide alone what the run's state is."""
    tasks = dags["collect_returns"].task_dict
    assert tasks["check_due"].upstream_task_ids == tasks["check_due"].downstream_task_ids == set()
    assert {task.task_id for task in dags["collect_returns"].leaves} == {"collect", "check_due"}


def test_overdue_returns_are_a_deadline_that_airflow_can_read_back(dags: dict[str, Any]) -> None:
    """The scheduler has the DAG from the database alone, and takes no class that no plugin names."""
    from airflow.serialization.encoders import encode_deadline_alert

    from clip_courier_deadlines import ClipCourierDeadlines

    (alert,) = dags["collect_returns"].deadline
    stored = encode_deadline_alert(alert)
    [known] = ClipCourierDeadlines.deadline_references
    assert stored["reference"]["__class_path"] == f"{known.__module__}.{known.__qualname__}"
    assert known.deserialize_reference(stored["reference"]) == alert.reference
    assert alert.callback.path == "clip_courier_deadlines.tell_overdue"


def test_every_dag_says_what_it_is_and_tries_again_with_growing_waits(dags: dict[str, Any]) -> None:
    for dag in dags.values():
        assert dag.doc_md
        assert dag.dag_display_name != dag.dag_id
        assert dag.catchup is False
        for task in dag.tasks:
            assert task.retries >= 1
            assert task.retry_exponential_backoff
            assert task.task_display_name != task.task_id


def test_writers_of_the_same_files_share_a_pool_of_one(dags: dict[str, Any]) -> None:
    writers = {
        (dag_id, task_id)
        for dag_id, dag in dags.items()
        for task_id, task in dag.task_dict.items()
        if task.pool == "clip_courier_writer"
    }
    assert writers == {
        ("nightly_outbound", "select"),
        ("nightly_outbound", "manifest"),
        ("load_warehouse", "load"),
        ("honour_withdrawals", "recall"),
    }


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_dag_file_is_thin(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 60
    bodies = [
        node
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef) and any("task" in ast.unparse(d) for d in node.decorator_list)
    ]
    assert bodies
    assert all(len(body.body) == 1 for body in bodies), "each task body is one call"


def outlets_of(task: Any) -> list[Any]:
    return list(task.partial_kwargs.get("outlets", []) if task.is_mapped else task.outlets)
