"""### A night on its way out

Chooses a small lawful sample of clips, judges it, cuts de-identified batches, seals each for its vendor and puts it
on the vendor's server. One run a night at 02:00 UTC; the night is the run's **partition key** (`YYYY-MM-DD`). To run a
night again, start the DAG with that key: what is done stays as it is.

A vendor's batches are shared by as many tasks as it gives us connections, here or on several machines. A vendor whose
agreements lapsed is skipped with the reason in its task's log; the others go on.
"""

import pendulum
from airflow.sdk import CronPartitionTimetable, dag, task

from clip_courier_airflow import RETRIES, courier, night_of, run


@dag(
    dag_display_name="Nightly outbound",
    schedule=CronPartitionTimetable("0 2 * * *", timezone="UTC", key_format="%Y-%m-%d"),
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    default_args=RETRIES,
    doc_md=__doc__,
    tags=["clip-courier"],
)
def nightly_outbound():
    @task(task_display_name="Select a lawful sample", pool="clip_courier_writer", show_return_value_in_logs=False)
    def select(dag_run=None):
        return run(lambda: courier().select(night_of(dag_run)))

    @task(task_display_name="Validate the sample", show_return_value_in_logs=False)
    def validate(dag_run=None):
        return run(lambda: courier().validate(night_of(dag_run)))

    @task(task_display_name="Cut the batches", pool="clip_courier_writer", show_return_value_in_logs=False)
    def manifest(dag_run=None):
        return run(lambda: courier().manifest(night_of(dag_run)))

    @task(task_display_name="Share out the deliveries", show_return_value_in_logs=False)
    def workers(dag_run=None):
        return courier().workers(night_of(dag_run))

    @task(
        task_display_name="Seal and deliver",
        pool="clip_courier_vendors",
        map_index_template="{{ task.op_kwargs['vendor'] }} {{ task.op_kwargs['worker'] }}",
        show_return_value_in_logs=False,
    )
    def deliver(vendor, worker, workers, dag_run=None):
        return run(lambda: courier().deliver(night_of(dag_run), vendor, workers))

    shares = workers()
    select() >> validate() >> manifest() >> shares
    deliver.expand_kwargs(shares)


nightly_outbound()
