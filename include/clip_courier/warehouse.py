"""The analysts' DuckDB file: built whole beside the old one and swapped in by rename, so that readers never wait.

What was in the old file is gone with it; a DELETE would leave the bytes.
"""

import hashlib
import shutil
import tempfile
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Final

import pyarrow as pa

from clip_courier import estimates
from clip_courier.errors import QueryFailed
from clip_courier.tables import Tables

# In this order: later ones read earlier ones.
_LOADS: Final = (
    "deliveries",
    "clips",
    "transcripts",
    "scores",
    "rejections",
    "recalls",
    "returns",
    "nights",
)
# Ratios of sql/observed.sql, one after the other: the sums of one are as many as persons.
_RATIOS: Final = (
    *("stratum", "product", "locale", "week"),
    *("pairwise_wer", "word_disagreement", "status_disagreement", "rejected", "turnaround"),
)
# These read what was estimated from the former.
_ESTIMATES: Final = ("wer_by_stratum", "wer_by_product", "wer_by_locale", "wer_by_week", "vendor_scorecard")


_BUILDS: Final = ".build-"


def rules() -> str:
    """Digest of the statements: by others the same facts make other tables."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("sql/*.sql")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def publish(path: Path, relations: Mapping[str, pa.Table | list[Path]], now: datetime) -> dict[str, int]:
    """Build the warehouse from the relations that sql/load_*.sql read; returns the rows of each table.

    A relation is a table, or the Parquet files of one, which are read as they are needed.

    Not for two processes at once: what another build has left lying is taken for a killed one's.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    sweep(path)
    # A folder, because DuckDB puts its log and what does not fit into memory beside its file.
    with tempfile.TemporaryDirectory(prefix=_BUILDS, dir=path.parent) as folder:
        build = Path(folder, path.name)
        with Tables(build) as tables:
            tables.run("warehouse")
            for name, rows in relations.items():
                if isinstance(rows, list):
                    tables.view(name, rows)
                else:
                    tables.register(name, rows)
            for table in _LOADS:
                tables.run(f"load_{table}")
            if twice := tables.run("twice")["table_name"].to_pylist():
                raise QueryFailed(f"a clip stands more than once in a batch, in {', '.join(twice)}")
            _estimate(tables)
            for table in _ESTIMATES:
                tables.run(f"load_{table}", {"now": now} if table == "vendor_scorecard" else {})
            counts = {row["table_name"]: row["rows"] for row in tables.run("table_sizes").to_pylist()}
        build.replace(path)
    return counts


def sweep(path: Path) -> None:
    """Remove what a build that was killed has left beside the warehouse: it may hold what was erased since."""
    for leftover in path.parent.glob(f"{_BUILDS}*"):
        shutil.rmtree(leftover)


def _estimate(tables: Tables) -> None:
    """Make the relations `estimated` and `steered` that sql/load_*.sql read."""
    tables.run("observed")
    found = []
    for measure in _RATIOS:
        estimated = estimates.ratios(_parts(tables, measure))
        found.append(estimated.append_column("measure", pa.repeat(measure, estimated.num_rows)))
    tables.register("estimated", pa.concat_tables(found))
    arms = _parts(tables, "steering")
    tables.register("steered", estimates.differences(arms, tables.run("common"), "withheld", "shown"))


def _parts(tables: Tables, measure: str) -> pa.Table:
    tables.run("sums", {"measure": measure})
    tables.run("residuals")
    return tables.run("parts", {"measure": measure}).cast(estimates.PARTS)


def spread_of_scores(path: Path) -> dict[str, float]:
    """Stratum → the standard deviation of what clips add to its word error rate; none where nothing is published."""
    if not path.exists():
        return {}
    with Tables(path, is_read_only=True) as tables:
        return {row["stratum"]: row["spread"] for row in tables.run("spread_of_scores").to_pylist()}
