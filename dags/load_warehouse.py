"""### The analysts' file

Scores what was returned, swaps the analysts' DuckDB file for a new one. Started by the asset that collecting returns
and honouring withdrawals announce.
"""

from airflow.sdk import dag, task

from clip_courier_airflow import FACTS, RETRIES, courier, run


@dag(
    dag_display_name="Load the warehouse",
    schedule=[FACTS],
    catchup=False,
    max_active_runs=1,
    default_args=RETRIES,
    doc_md=__doc__,
    tags=["clip-courier"],
)
def load_warehouse():
    @task(task_display_name="Score and publish", pool="clip_courier_writer", show_return_value_in_logs=False)
    def load():
        return run(lambda: courier().load())

    load()


load_warehouse()
