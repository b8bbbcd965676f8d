"""What a vendor's file says, row by row: jsonl, csv or parquet into one table, contracts §4.

Parsing never fails for a bad row: the row keeps its number and gets a `problem`. Only a file that is not of its format
at all is refused whole. It is read from memory: what was said must not lie in a temporary folder after a crash.
"""

import csv
import io
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
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
# A batch has thousands of clips; a file with more rows than this is something else.
MAX_ROWS: Final = 1_000_000
_MAX_FIELD_CHARACTERS: Final = 20_000
_TEXTS: Final = ("clip_ref", "status", "text", "annotator_ref", "note")
_REQUIRED_COLUMNS: Final = frozenset({"clip_ref", "status", "annotator_ref", "submitted_at"})
_NOT_UTF8 = re.compile("[\udc80-\udcff]")
# Few, because one row may be as large as the file.
_ROWS_AT_ONCE: Final = 256


def read_returned(content: bytes, file_format: str) -> pa.Table:
    """Rows of a returned file, numbered from 1, as `RETURNED`.

    Raises:
        ReturnUnreadable: `bad_format`, the file is not of the format that its name says; `too_many_rows`.
    """
    readers = {"jsonl": _jsonl, "csv": _csv, "parquet": _parquet}
    rows: list[dict[str, Any]] = []
    try:
        for found in readers[file_format](content):
            if len(rows) == MAX_ROWS:
                raise ReturnUnreadable("too_many_rows", f"the file has more than {MAX_ROWS} rows")
            rows.append(_row(len(rows) + 1, found))
    except (UnicodeDecodeError, csv.Error, pa.ArrowException, OSError):
        raise _not_of(file_format) from None
    return pa.Table.from_pylist(rows, RETURNED)


def _not_of(file_format: str) -> ReturnUnreadable:
    return ReturnUnreadable("bad_format", f"the file is not readable as {file_format}")


def _jsonl(content: bytes) -> Iterator[object]:
    """Line by line from bytes: a line in another encoding is that row's fault and not the file's."""
    lines = [line for line in content.removeprefix(b"\xef\xbb\xbf").split(b"\n") if line.strip()]
    rows = [_parsed(line) for line in lines]
    if rows and not any(isinstance(row, dict) for row in rows):
        raise _not_of("jsonl")
    yield from rows


def _parsed(line: bytes) -> object:
    try:
        return json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError):
        return None


def _csv(content: bytes) -> Iterator[object]:
    # A field that is too long is its row's fault; the module's limit would end the file.
    csv.field_size_limit(len(content) + 1)
    text = io.TextIOWrapper(io.BytesIO(content), encoding="utf-8-sig", errors="surrogateescape", newline="")
    reader = csv.reader(text, strict=True)
    header = [name.strip() for name in next(reader, [])]
    if not set(header) >= _REQUIRED_COLUMNS or len(set(header)) < len(header):
        raise ReturnUnreadable("bad_format", "the csv file has no header with the contract's columns")
    broken: csv.Error | None = None
    while True:
        try:
            fields = next(reader, None)
        except csv.Error as error:
            broken = error
            yield None
            continue
        if fields is None:
            break
        broken = None
        if fields:
            yield _named(header, fields)
    if broken is not None:
        # A quote that never closes has swallowed the rows after it.
        raise broken


def _named(header: list[str], fields: list[str]) -> dict[str, str | None] | None:
    """A row by its header; None when it has other fields than that, or bytes that are not UTF-8."""
    if len(fields) != len(header) or any(map(_NOT_UTF8.search, fields)):
        return None
    # Text formats cannot tell an empty field from none.
    return {name: value if value != "" else None for name, value in zip(header, fields, strict=True)}


def _parquet(content: bytes) -> Iterator[object]:
    file = pq.ParquetFile(pa.BufferReader(content))
    names = file.schema_arrow.names
    if not set(names) >= _REQUIRED_COLUMNS or len(set(names)) < len(names):
        raise ReturnUnreadable("bad_format", "the parquet file lacks columns of the contract")
    if file.metadata.num_rows > MAX_ROWS:
        raise ReturnUnreadable("too_many_rows", f"the file has more than {MAX_ROWS} rows")
    known = [name for name in RETURNED.names if name in names]
    for part in file.iter_batches(batch_size=_ROWS_AT_ONCE, columns=known):
        for place in range(part.num_rows):
            try:
                yield part.slice(place, 1).to_pylist()[0]
            except (ValueError, OverflowError, pa.ArrowException):
                # Bytes that are not UTF-8, or a time that no calendar has.
                yield None


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
    if text.isascii() and text.isprintable():
        return text.strip()
    text = text.encode("utf-8", "replace").decode("utf-8")
    # Spaces of other widths still part words.
    spaced = "".join(" " if c.isspace() and c not in "\n\t" else c for c in text)
    return "".join(c for c in spaced if c.isprintable() or c in "\n\t" or c in "\u200c\u200d").strip()


def _whole(value: object, default: int | None) -> tuple[int | None, bool]:
    """A whole number that fits a revision; and whether what stands there is something else."""
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
        if not isinstance(moment, datetime) or (moment.tzinfo is None and isinstance(value, str)):
            return None
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        # No such instant, or one that in UTC falls out of the calendar.
        return None
