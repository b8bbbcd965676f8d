"""### Withdrawals, every quarter of an hour

Takes withdrawn clips out of batches that are not sealed yet, recalls those that a vendor has (a signed notice, answered
by a signed receipt), and forgets our own copies of them.
"""

import pendulum
from airflow.sdk import dag, task

from clip_courier_airflow import FACTS, RETRIES, courier, run


@dag(
    dag_display_name="Honour withdrawals",
    schedule="*/15 * * * *",
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    default_args=RETRIES,
    doc_md=__doc__,
    tags=["clip-courier"],
)
def honour_withdrawals():
    @task(
        task_display_name="Withhold, recall, forget",
        outlets=[FACTS],
        pool="clip_courier_writer",
        show_return_value_in_logs=False,
    )
    def recall():
        return run(lambda: courier().recall(), skip_when_idle=True)

    recall()


honour_withdrawals()
