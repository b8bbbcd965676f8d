"""The analysts' DuckDB file: built whole beside the old one and swapped in by rename, so that readers never wait.

What was in the old file is gone with it; a DELETE would leave the bytes.
"""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Final

import pyarrow as pa

from clip_courier.model import whole_file
from clip_courier.tables import Tables

# In this order: later ones read earlier ones.
_LOADS: Final = (
    "deliveries",
    "clips",
    "transcripts",
    "scores",
    "wer_by_stratum",
    "rejections",
    "recalls",
    "nights",
)


def publish(path: Path, relations: Mapping[str, pa.Table], now: datetime) -> dict[str, int]:
    """Build the warehouse from the relations that sql/load_*.sql read; returns the rows of each table."""
    with whole_file(path) as partial:
        partial.unlink(missing_ok=True)
        with Tables(partial) as tables:
            tables.run("warehouse")
            for name, rows in relations.items():
                tables.register(name, rows)
            for table in _LOADS:
                tables.run(f"load_{table}")
            tables.run("load_vendor_scorecard", {"now": now})
            counts = {row["table_name"]: row["rows"] for row in tables.run("table_sizes").to_pylist()}
        # A leftover log of a build that was killed would be replayed into the new file.
        partial.with_name(f"{partial.name}.wal").unlink(missing_ok=True)
    return counts
