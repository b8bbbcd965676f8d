"""What a vendor's file says, row by row: jsonl, csv or parquet into one table, contracts §4.

Parsing never fails for a bad row: the row keeps its number and gets a `problem`. Only a file that is not of its format at
all is refused whole.
"""

import csv
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from clip_courier.errors import ReturnUnreadable

FORMATS: Final = ("jsonl", "csv", "parquet")
RETURNED: Final = pa.schema(
    [
        ("row_number", pa.int64()),
        ("clip_ref", pa.string()),
        ("status", pa.string()),
        ("text", pa.string()),
        ("chosen_rank", pa.int64()),
        ("annotator_ref", pa.string()),
        ("submitted_at", pa.timestamp("us", tz="UTC")),
        ("revision", pa.int64()),
        ("note", pa.string()),
        ("problem", pa.string()),
    ]
)
_MAX_FIELD_CHARACTERS: Final = 20_000
_TEXTS: Final = ("clip_ref", "status", "text", "annotator_ref", "note")
_REQUIRED_COLUMNS: Final = frozenset({"clip_ref", "status", "annotator_ref", "submitted_at"})


def read_returned(path: Path, file_format: str) -> pa.Table:
    """Rows of a returned file, numbered from 1, as `RETURNED`.

    Raises:
        ReturnUnreadable: `bad_format`; the file is not of the format that its name says.
    """
    readers = {"jsonl": _jsonl, "csv": _csv, "parquet": _parquet}
    try:
        rows = [_row(number, found) for number, found in enumerate(readers[file_format](path), start=1)]
    except (UnicodeDecodeError, csv.Error, pa.ArrowException, OSError):
        raise ReturnUnreadable("bad_format", f"the file is not readable as {file_format}") from None
    return pa.Table.from_pylist(rows, RETURNED)


def _jsonl(path: Path) -> Iterator[object]:
    with path.open(encoding="utf-8-sig") as lines:
        for line in lines:
            if line.strip():
                try:
                    yield json.loads(line)
                except (json.JSONDecodeError, RecursionError):
                    yield None


def _csv(path: Path) -> Iterator[object]:
    csv.field_size_limit(10 * _MAX_FIELD_CHARACTERS)
    with path.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.DictReader(stream, restkey="")
        if not set(reader.fieldnames or ()) >= _REQUIRED_COLUMNS:
            raise ReturnUnreadable("bad_format", "the csv file has no header with the contract's columns")
        for row in reader:
            # Text formats cannot tell an empty field from none.
            yield None if "" in row else {name: value if value != "" else None for name, value in row.items()}


def _parquet(path: Path) -> Iterator[object]:
    file = pq.ParquetFile(path)
    if not set(file.schema_arrow.names) >= _REQUIRED_COLUMNS:
        raise ReturnUnreadable("bad_format", "the parquet file lacks columns of the contract")
    known = [name for name in RETURNED.names if name in file.schema_arrow.names]
    for part in file.iter_batches(columns=known):
        yield from part.to_pylist()


def _row(number: int, found: object) -> dict[str, Any]:
    if not isinstance(found, dict):
        return {"row_number": number, "problem": "unreadable_row"}
    row: dict[str, Any] = {"row_number": number, "problem": None}
    for name in _TEXTS:
        value = found.get(name)
        if value is not None and (not isinstance(value, str) or len(value) > _MAX_FIELD_CHARACTERS):
            row["problem"] = f"bad_{name}"
            value = None
        row[name] = _readable(value) if isinstance(value, str) else None
    for name, least in (("chosen_rank", None), ("revision", 0)):
        row[name], is_bad = _whole(found.get(name), least)
        row["problem"] = f"bad_{name}" if is_bad else row["problem"]
    row["submitted_at"] = _moment(found.get("submitted_at"))
    return row


def _readable(text: str) -> str:
    """Without control and format characters, which can hide or reorder what a reader sees; lone surrogates replaced."""
    text = text.encode("utf-8", "replace").decode("utf-8")
    return "".join(c for c in text if c.isprintable() or c in "\n\t" or c in "\u200c\u200d").strip()


def _whole(value: object, default: int | None) -> tuple[int | None, bool]:
    """A whole number that fits a byte or a revision; and whether what stands there is something else."""
    if value is None or value == "":
        return default, False
    try:
        number = int(value) if isinstance(value, str) else value
    except ValueError:
        return None, True
    if isinstance(number, bool) or not isinstance(number, int) or not -(2**31) <= number < 2**31:
        return None, True
    return number, False


def _moment(value: object) -> datetime | None:
    """RFC 3339 with an offset, or a timestamp that Arrow gave; without a zone a Parquet timestamp is UTC."""
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    except ValueError:
        return None
    if not isinstance(moment, datetime) or (moment.tzinfo is None and isinstance(value, str)):
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
