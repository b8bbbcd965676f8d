"""### Transcripts on their way in

Every hour takes what the vendors returned: each file's signature is checked against the vendor's pinned key, each row
against the batch that the vendor has, and the vendor gets a report. A vendor without a new return is skipped. What was
taken is announced as an asset for `load_warehouse`. While a batch is past its due time the run fails, and has a missed
deadline.
"""

from datetime import timedelta

import pendulum
from airflow.sdk import DeadlineAlert, SyncCallback, dag, task

from clip_courier_airflow import FACTS, RETRIES, courier, run, vendor_names
from clip_courier_deadlines import ReturnsDue, tell_overdue


@dag(
    dag_display_name="Collect returns",
    schedule="0 * * * *",
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    deadline=DeadlineAlert(
        name="Returns due", reference=ReturnsDue(), interval=timedelta(0), callback=SyncCallback(tell_overdue)
    ),
    default_args=RETRIES,
    doc_md=__doc__,
    tags=["clip-courier"],
)
def collect_returns():
    @task(task_display_name="Name the vendors", show_return_value_in_logs=False)
    def vendors():
        return vendor_names()

    @task(
        task_display_name="Collect and match",
        outlets=[FACTS],
        pool="clip_courier_vendors",
        map_index_template="{{ task.op_kwargs['vendor'] }}",
        show_return_value_in_logs=False,
    )
    def collect(vendor):
        return run(lambda: courier().collect(vendor), skip_when_idle=True)

    @task(task_display_name="Fail while returns are overdue", show_return_value_in_logs=False)
    def check_due():
        return run(lambda: courier().overdue())

    collect.expand(vendor=vendors())
    # Beside the others: as the last task it would decide alone whether the run has failed.
    check_due()


collect_returns()
