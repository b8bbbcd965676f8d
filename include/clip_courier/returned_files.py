"""What a vendor's file says, row by row: the contract's formats (§4) and those of annotation tools, as one table.

Parsing never fails for a bad row: the row keeps its number and gets a `problem`. Only a file that is not of its format
at all is refused whole. It is read from memory: what was said must not lie in a temporary folder after a crash.
`confined` runs this module in a process of its own, for no parser is trusted with what a stranger wrote.
"""

import csv
import io
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from clip_courier import tool_formats
from clip_courier.errors import ReturnUnreadable
from clip_courier.returned_rows import (
    INT32,
    MAX_CHARACTERS,
    MAX_ROW_BYTES,
    NOT_UTF8,
    RETURNED,
    TOLD,
    WHOLE_NUMBERS,
    Column,
    Row,
    assembled,
    bounded,
    column_of,
    moment_of,
    object_of,
    table_of,
)

FORMATS: Final = ("jsonl", "csv", "parquet")
# Of annotation tools; docs/contracts.md says how each becomes rows.
TOOL_FORMATS: Final = ("labelstudio.json", "stm", "ctm")
# A batch has thousands of clips; a file with more rows than this is something else.
MAX_ROWS: Final = 1_000_000
# Of the table that the rows become: one long text in a dictionary of Parquet can stand for a million long texts.
MAX_TABLE_BYTES: Final = 512 * 1024 * 1024
_REQUIRED_COLUMNS: Final = frozenset({"clip_ref", "status", "annotator_ref", "submitted_at"})
_FIRST_INSTANT: Final = pa.scalar(datetime.min.replace(tzinfo=UTC), pa.timestamp("us", tz="UTC"))
_LAST_INSTANT: Final = pa.scalar(datetime.max.replace(tzinfo=UTC), pa.timestamp("us", tz="UTC"))
_ROWS_AT_ONCE: Final = 8192
# Fewer, because a row of a Parquet file may be far larger than its share of the file.
_PARQUET_ROWS_AT_ONCE: Final = 1024


def read_returned(content: bytes, file_format: str, at: datetime | None = None) -> pa.Table:
    """Rows of a returned file with their numbers, as `RETURNED`. `at` is when a row was submitted that cannot say it.

    Raises:
        ReturnUnreadable: `bad_format`, the file is not of the format that its name says; `too_many_rows`; `too_large`.
    """
    return pa.concat_tables([RETURNED.empty_table(), *blocks(content, file_format, at)])


def blocks(content: bytes, file_format: str, at: datetime | None = None) -> Iterator[pa.Table]:
    """The same a few thousand rows at a time, so that no more than those are held twice."""
    rows = size_bytes = 0
    try:
        for block in _tables(content, file_format, at):
            rows, size_bytes = rows + block.num_rows, size_bytes + block.nbytes
            if rows > MAX_ROWS:
                raise ReturnUnreadable("too_many_rows", f"the file has more than {MAX_ROWS} rows")
            if size_bytes > MAX_TABLE_BYTES:
                raise _too_large()
            yield block
    except MemoryError:
        raise _too_large() from None
    except (UnicodeDecodeError, csv.Error, pa.ArrowException, OSError):
        raise _not_of(file_format) from None


def _tables(content: bytes, file_format: str, at: datetime | None) -> Iterator[pa.Table]:
    if file_format == "parquet":
        yield from _parquet(content)
        return
    readers: dict[str, Callable[[], Iterator[tuple[int, Row]]]] = {
        "jsonl": lambda: enumerate(_jsonl(content), start=1),
        "csv": lambda: enumerate(_csv(content), start=1),
        "labelstudio.json": lambda: enumerate(tool_formats.label_studio(content), start=1),
        "stm": lambda: tool_formats.by_clip(content, tool_formats.stm_line, at),
        "ctm": lambda: tool_formats.by_clip(content, tool_formats.ctm_line, at),
    }
    rows = readers[file_format]()
    while some := list(islice(rows, _ROWS_AT_ONCE)):
        yield table_of(some)


def _not_of(file_format: str) -> ReturnUnreadable:
    return ReturnUnreadable("bad_format", f"the file is not readable as {file_format}")


def _too_large() -> ReturnUnreadable:
    return ReturnUnreadable("too_large", "the file holds more than any return does")


# -- the contract's text formats ---------------------------------------------------------------------------------


def _jsonl(content: bytes) -> Iterator[Row]:
    """Line by line from bytes: a line in another encoding is that row's fault and not the file's."""
    has_row, is_empty = False, True
    for line in io.BytesIO(content.removeprefix(b"\xef\xbb\xbf")):
        if not line.strip():
            continue
        row = _parsed(line)
        has_row, is_empty = has_row or not isinstance(row, str), False
        yield row
    if not (has_row or is_empty):
        raise _not_of("jsonl")


def _parsed(line: bytes) -> Row:
    if len(line) > MAX_ROW_BYTES:
        return "row_too_long"
    try:
        row = json.loads(line.decode("utf-8"), object_pairs_hook=object_of)
    except UnicodeDecodeError:
        return "not_utf8"
    except (ValueError, RecursionError):
        return "unreadable_row"
    return row if isinstance(row, dict) else "unreadable_row"


def _csv(content: bytes) -> Iterator[Row]:
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
            yield "unreadable_row"
            continue
        if fields is None:
            break
        broken = None
        if fields:
            yield _named(header, fields)
    if broken is not None:
        # A quote that never closes has swallowed the rows after it.
        raise broken


def _named(header: list[str], fields: list[str]) -> Row:
    """A row by its header, unless it has other fields than that, or bytes that are not UTF-8."""
    if sum(map(len, fields)) > MAX_ROW_BYTES:
        return "row_too_long"
    if any(map(NOT_UTF8.search, fields)):
        return "not_utf8"
    if len(fields) != len(header):
        return "unreadable_row"
    # Text formats cannot tell an empty field from none.
    return {name: value if value != "" else None for name, value in zip(header, fields, strict=True)}


# -- Parquet -----------------------------------------------------------------------------------------------------


def _parquet(content: bytes) -> Iterator[pa.Table]:
    import pyarrow.parquet as pq

    file = pq.ParquetFile(pa.BufferReader(content))
    names = file.schema_arrow.names
    if not set(names) >= _REQUIRED_COLUMNS or len(set(names)) < len(names):
        raise ReturnUnreadable("bad_format", "the parquet file lacks columns of the contract")
    if file.metadata.num_rows > MAX_ROWS:
        raise ReturnUnreadable("too_many_rows", f"the file has more than {MAX_ROWS} rows")
    groups = [file.metadata.row_group(n) for n in range(file.metadata.num_row_groups)]
    if sum(group.total_byte_size for group in groups) > MAX_TABLE_BYTES:
        raise _too_large()
    known = [name for name in TOLD if name in names]
    # Values that repeat stay as they are stored: decoded, one long text could fill any memory.
    texts = [name for name in MAX_CHARACTERS if name in names and not pa.types.is_nested(_type_of(file, name))]
    file = pq.ParquetFile(pa.BufferReader(content), read_dictionary=texts)
    first = 1
    for part in file.iter_batches(batch_size=_PARQUET_ROWS_AT_ONCE, columns=known):
        rows = part.num_rows
        columns = {name: _arrow_column(name, part.column(name) if name in known else pa.nulls(rows)) for name in TOLD}
        yield assembled(pa.array(range(first, first + rows), pa.int64()), pa.nulls(rows, pa.string()), columns)
        first += rows


def _type_of(file: Any, name: str) -> pa.DataType:
    return file.schema_arrow.field(name).type


def _arrow_column(name: str, values: pa.Array) -> Column:
    if name == "submitted_at":
        return _instants(values)
    if name in WHOLE_NUMBERS:
        if pa.types.is_integer(values.type):
            is_small = pc.and_(pc.greater_equal(values, _least(values.type)), pc.less_equal(values, _most(values.type)))
            kept = pc.if_else(is_small, values, pa.scalar(None, values.type)).cast(pa.int64())
            column = Column(kept, pc.invert(is_small).fill_null(False))
        else:
            column = column_of(name, values.to_pylist())
        return column._replace(values=column.values.fill_null(0) if name == "revision" else column.values)
    return _texts(name, values)


def _least(kind: pa.DataType) -> pa.Scalar:
    return pa.scalar(0 if pa.types.is_unsigned_integer(kind) else max(INT32.start, -(2 ** (kind.bit_width - 1))), kind)


def _most(kind: pa.DataType) -> pa.Scalar:
    bits = kind.bit_width - (0 if pa.types.is_unsigned_integer(kind) else 1)
    return pa.scalar(min(INT32.stop - 1, 2**bits - 1), kind)


def _texts(name: str, values: pa.Array) -> Column:
    """A column of text, checked for UTF-8; one of another type is bad wherever it says something."""
    kind = values.type.value_type if pa.types.is_dictionary(values.type) else values.type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)):
        return Column(pa.nulls(len(values), pa.string()), values.is_valid())
    is_long = pa.array([False] * len(values), pa.bool_())
    if pa.types.is_dictionary(values.type):
        # Four bytes are the most that a character takes: what is longer is dropped before it is multiplied.
        is_long_value = pc.greater(pc.binary_length(values.dictionary), 4 * MAX_CHARACTERS[name])
        is_long = is_long_value.take(values.indices).fill_null(False)
        indices = pc.if_else(is_long, pa.scalar(None, values.indices.type), values.indices)
        values = values.dictionary.take(indices)
    raw = values.cast(pa.binary()) if not pa.types.is_large_string(kind) else values.cast(pa.large_binary())
    try:
        return bounded(name, raw.cast(pa.string()), is_long)
    except pa.ArrowInvalid:
        texts = [_decoded(value) for value in raw.to_pylist()]
        fault = pa.array(["not_utf8" if is_wrong else None for _, is_wrong in texts], pa.string())
        return bounded(name, pa.array([text for text, _ in texts], pa.string()), is_long)._replace(fault=fault)


def _decoded(value: bytes | None) -> tuple[str | None, bool]:
    try:
        return (None if value is None else value.decode("utf-8")), False
    except UnicodeDecodeError:
        return None, True


def _instants(values: pa.Array) -> Column:
    """Timestamps of any unit; without a zone they are UTC. Text is read as in the text formats."""
    none = pa.array([False] * len(values), pa.bool_())
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    if not pa.types.is_timestamp(values.type):
        texts = values.to_pylist() if pa.types.is_string(values.type) or pa.types.is_large_string(values.type) else []
        moments = [moment_of(text) for text in texts] or [None] * len(values)
        return Column(pa.array(moments, RETURNED.field("submitted_at").type), none)
    # Seconds and milliseconds can count further than microseconds can.
    unit, per_us = values.type.unit, {"s": 10**6, "ms": 10**3, "us": 1, "ns": 1}
    counted = values.cast(pa.timestamp("us") if unit == "ns" else pa.timestamp(unit), safe=False).cast(pa.int64())
    first, last = (pa.scalar(s.value // per_us[unit], pa.int64()) for s in (_FIRST_INSTANT, _LAST_INSTANT))
    is_within = pc.and_(pc.greater_equal(counted, first), pc.less_equal(counted, last))
    counted = pc.if_else(is_within, counted, pa.scalar(None, pa.int64()))
    moments = pc.multiply(counted, per_us[unit]).cast(pa.timestamp("us", tz="UTC"))
    outside = pc.if_else(
        pc.invert(is_within).fill_null(False), pa.scalar("unreadable_row"), pa.scalar(None, pa.string())
    )
    return Column(moments, none, outside)
