"""No sample at all: DuckDB reads the very columns that a selection has to read, and decodes every value of them.

What a selection costs is told as a multiple of this.
"""

import json
import sys
import time
from pathlib import Path

import duckdb

from clip_courier.tables import Tables
from sampling.task import Task

# The length of a text and the sum of a number are the cheapest that make each value be decoded.
SCANS = {
    "clips": """
        SELECT
            count(*), sum(strlen(clip_id)), sum(strlen(product)), sum(strlen(activation)), sum(strlen(locale)),
            sum(strlen(country)), max(recorded_at), sum(duration_ms), sum(len(participants)),
            sum(strlen(participants[1].person_id))
        FROM clips
    """,
    "consent_events": """
        SELECT
            count(*), sum(strlen(person_id)), sum(strlen(purpose)), sum(strlen(decision)), sum(strlen(notice_version)),
            max(occurred_at), max(received_at)
        FROM consent_events
    """,
    "persons": """
        SELECT
            count(*), sum(strlen(person_id)), sum(birth_year), count(*) FILTER (has_guardian_consent),
            count(*) FILTER (is_restricted)
        FROM persons
    """,
    "delivered": "SELECT count(*), sum(strlen(clip_id)), count(*) FILTER (is_recalled) FROM delivered",
}


def scan(task: Task) -> dict[str, int]:
    """How many rows of each relation were read."""
    rows = {}
    read_files = {"clips": task.clip_files(), "delivered": task.delivered_files()}
    with Tables() as tables:
        for name, statement in SCANS.items():
            tables.view(name, read_files.get(name) or task.files(name))
            [found] = tables._connection.execute(statement).fetchall()
            rows[name] = found[0]
    return rows


if __name__ == "__main__":
    start_cpu = time.process_time()
    read = scan(Task(Path(sys.argv[1])))
    print(json.dumps({"library": f"duckdb {duckdb.__version__}", "start_cpu_s": round(start_cpu, 3), "read": read}))
