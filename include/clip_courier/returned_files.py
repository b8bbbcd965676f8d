"""What a vendor's file says, row by row: the contract's formats (§4) and those of annotation tools, as one table.

Parsing never fails for a bad row: the row keeps its number and gets a `problem`. Only a file that is not of its format
at all is refused whole. It is read from memory: what was said must not lie in a temporary folder after a crash.
`confined` runs this module in a process of its own, for no parser is trusted with what a stranger wrote.
"""

import csv
import io
import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from clip_courier.errors import ReturnUnreadable
from clip_courier.model import STATUSES

FORMATS: Final = ("jsonl", "csv", "parquet")
# Of annotation tools; docs/contracts.md says how each becomes rows.
TOOL_FORMATS: Final = ("labelstudio.json", "stm", "ctm")
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
# Of the table that the rows become: one long text in a dictionary of Parquet can stand for a million long texts.
MAX_TABLE_BYTES: Final = 512 * 1024 * 1024
# A row of two texts at their bounds, each character as an escape of JSON, is far below.
MAX_ROW_BYTES: Final = 16 * 1024 * 1024
# In characters; what is longer is no longer what the field is for.
MAX_CHARACTERS: Final[Mapping[str, int]] = {
    "clip_ref": 200,
    "status": 200,
    "text": 20_000,
    "annotator_ref": 200,
    "note": 20_000,
}
_WHOLE_NUMBERS: Final = ("chosen_rank", "revision")
_TOLD: Final = (*MAX_CHARACTERS, *_WHOLE_NUMBERS, "submitted_at")
_REQUIRED_COLUMNS: Final = frozenset({"clip_ref", "status", "annotator_ref", "submitted_at"})
_NOT_UTF8 = re.compile("[\udc80-\udcff]")
# What text is cleaned of, as RE2 writes it: control, format and private characters, and every blank but U+0020.
_UNCLEAN: Final = (
    r"[\p{Cc}\p{Cf}\p{Co}\p{Zl}\p{Zp}"
    r"\x{A0}\x{1680}\x{2000}-\x{200A}\x{202F}\x{205F}\x{3000}]|^ | $"
)
_INVISIBLE: Final = frozenset({"Cc", "Cf", "Co", "Cs"})
# Whole numbers are stored in 32 bits; instants must fit Python's calendar, in which everything after this reads them.
_INT32: Final = range(-(2**31), 2**31)
_FIRST_INSTANT: Final = pa.scalar(datetime.min.replace(tzinfo=UTC), pa.timestamp("us", tz="UTC"))
_LAST_INSTANT: Final = pa.scalar(datetime.max.replace(tzinfo=UTC), pa.timestamp("us", tz="UTC"))
_ROWS_AT_ONCE: Final = 8192
# Fewer, because a row of a Parquet file may be far larger than its share of the file.
_PARQUET_ROWS_AT_ONCE: Final = 1024
# A row by the names of its fields, or the code of why it is none.
_Row = Mapping[str, Any] | str


class _Column(NamedTuple):
    """Values of one field, null where they are bad; which are bad; and which are not even readable, with their code."""

    values: pa.Array
    is_bad: pa.Array
    fault: pa.Array | None = None


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
    readers: dict[str, Callable[[], Iterator[tuple[int, _Row]]]] = {
        "jsonl": lambda: enumerate(_jsonl(content), start=1),
        "csv": lambda: enumerate(_csv(content), start=1),
        "labelstudio.json": lambda: enumerate(_label_studio(content), start=1),
        "stm": lambda: _by_clip(content, _stm_line, at),
        "ctm": lambda: _by_clip(content, _ctm_line, at),
    }
    rows = readers[file_format]()
    while some := list(islice(rows, _ROWS_AT_ONCE)):
        yield _table(some)


def _not_of(file_format: str) -> ReturnUnreadable:
    return ReturnUnreadable("bad_format", f"the file is not readable as {file_format}")


def _too_large() -> ReturnUnreadable:
    return ReturnUnreadable("too_large", "the file holds more than any return does")


# -- the contract's text formats ---------------------------------------------------------------------------------


def _jsonl(content: bytes) -> Iterator[_Row]:
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


def _parsed(line: bytes) -> _Row:
    if len(line) > MAX_ROW_BYTES:
        return "row_too_long"
    try:
        row = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError:
        return "not_utf8"
    except (ValueError, RecursionError):
        return "unreadable_row"
    return row if isinstance(row, dict) else "unreadable_row"


def _csv(content: bytes) -> Iterator[_Row]:
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


def _named(header: list[str], fields: list[str]) -> _Row:
    """A row by its header, unless it has other fields than that, or bytes that are not UTF-8."""
    if sum(map(len, fields)) > MAX_ROW_BYTES:
        return "row_too_long"
    if any(map(_NOT_UTF8.search, fields)):
        return "not_utf8"
    if len(fields) != len(header):
        return "unreadable_row"
    # Text formats cannot tell an empty field from none.
    return {name: value if value != "" else None for name, value in zip(header, fields, strict=True)}


# -- formats of annotation tools ---------------------------------------------------------------------------------

# A ref in the name of the recording, wherever a tool has put it: `/data/upload/3/1a2b3c4d-<ref>.flac`.
_REF_IN_NAME = re.compile(r"(?<![a-z0-9])([a-z2-7]{32})(?:\.[a-z0-9]{2,4})?(?![a-z0-9])")
# Revisions of Label Studio's annotations count from here, in seconds.
_REVISIONS_SINCE: Final = datetime(2020, 1, 1, tzinfo=UTC)


def _label_studio(content: bytes) -> Iterator[_Row]:
    """Label Studio's export JSON: tasks, each with annotations. One row an annotation that was not cancelled."""
    try:
        tasks = json.loads(content.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape"))
    except (ValueError, RecursionError):
        raise _not_of("labelstudio.json") from None
    if not isinstance(tasks, list):
        raise _not_of("labelstudio.json")
    for task in tasks:
        annotations = task.get("annotations") if isinstance(task, dict) else None
        if not isinstance(annotations, list):
            yield "unreadable_row"
            continue
        for annotation in annotations:
            if not isinstance(annotation, dict):
                yield "unreadable_row"
            elif not annotation.get("was_cancelled"):
                yield _annotated(task.get("data"), annotation)


def _annotated(data: object, annotation: Mapping[str, Any]) -> _Row:
    results = annotation.get("result")
    if not isinstance(data, dict) or not isinstance(results, list):
        return "unreadable_row"
    said: list[tuple[float, str]] = []
    notes: list[str] = []
    chosen: list[tuple[bool, str]] = []
    for result in results:
        value = result.get("value") if isinstance(result, dict) else None
        if not isinstance(value, dict):
            return "unreadable_row"
        field, start = result.get("from_name"), value.get("start")
        told = value.get("text")
        texts = told if isinstance(told, list) else [told]
        lines = [(float(start) if isinstance(start, int | float) else 0.0, t) for t in texts if isinstance(t, str)]
        if field == "note":
            notes += [text for _, text in lines]
        else:
            said += lines
        choices = value.get("choices")
        # Tools ask more than we do: what else was chosen says nothing here.
        answers = [c for c in choices if isinstance(c, str)] if isinstance(choices, list) else []
        chosen += [(field != "status", c) for c in answers if field == "status" or c in STATUSES]
    by = annotation.get("completed_by")
    changed = annotation.get("updated_at") or annotation.get("created_at")
    moment = _moment(changed)
    row = {
        "clip_ref": _ref_in(data),
        "status": min(chosen)[1] if chosen else "transcribed",
        "text": " ".join(text for _, text in sorted(said, key=lambda part: part[0])) or None,
        "note": " ".join(notes) or None,
        # Of a person's profile the number alone: an address must not come in here.
        "annotator_ref": str(by.get("id") if isinstance(by, dict) else by) if by is not None else None,
        "submitted_at": changed,
        # An annotation that was changed replaces what it was; one that is exported again is a duplicate.
        "revision": int((moment - _REVISIONS_SINCE).total_seconds()) if moment else 0,
    }
    is_text = all(value is None or isinstance(value, int) or not _NOT_UTF8.search(str(value)) for value in row.values())
    return row if is_text else "not_utf8"


def _ref_in(data: Mapping[str, Any]) -> str | None:
    """The ref that a task names, else the one in the name of its recording."""
    if isinstance(data.get("clip_ref"), str):
        return str(data["clip_ref"])
    found = {ref for value in data.values() if isinstance(value, str) for ref in _REF_IN_NAME.findall(value)}
    return found.pop() if len(found) == 1 else None


class _Part(NamedTuple):
    """A timed piece of a clip: its ref, when it begins in seconds, and what is said in it; None is not judged."""

    clip_ref: str
    begins_s: float
    text: str | None


# What may be told of the lines that follow, in a comment: `;; annotator_ref: t1`.
_DIRECTIVE = re.compile(r"^;;\s*(annotator_ref|submitted_at|revision)\s*:\s*(\S.*?)\s*$")
_ALTERNATIVES = re.compile(r"\{([^{}/]*)(?:/[^{}]*)?\}")
_OPTIONAL = re.compile(r"\(([^()\s]*)\)")


def _by_clip(
    content: bytes, read_line: Callable[[list[str]], _Part], at: datetime | None
) -> Iterator[tuple[int, _Row]]:
    """Lines of NIST's formats, put together by clip; a row has the number of its first line.

    Source: sctk's doc/infmts.htm. `{a / b}` stands for its first alternative, `(word)` for the word.
    """
    told = {"annotator_ref": "unnamed", "submitted_at": at.isoformat() if at else None, "revision": "0"}
    first: dict[str, tuple[int, dict[str, Any]]] = {}
    parts: dict[str, list[_Part]] = {}
    faults: list[tuple[int, _Row]] = []
    is_other_choice = False
    text = content.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
    for number, line in enumerate(io.StringIO(text, newline=None), start=1):
        if directive := _DIRECTIVE.match(line):
            told[directive[1]] = directive[2]
        fields = line.split()
        if not fields or line.startswith(";;"):
            continue
        marks = set(fields) & {"<ALT_BEGIN>", "<ALT>", "<ALT_END>"}
        is_other_choice = (is_other_choice and not marks) or "<ALT>" in marks
        if marks or is_other_choice:
            continue
        try:
            if _NOT_UTF8.search(line) or len(line) > MAX_ROW_BYTES:
                raise UnicodeError
            part = read_line(fields)
        except UnicodeError:
            faults.append((number, "row_too_long" if len(line) > MAX_ROW_BYTES else "not_utf8"))
        except (ValueError, IndexError):
            faults.append((number, "unreadable_row"))
        else:
            first.setdefault(part.clip_ref, (number, dict(told)))
            parts.setdefault(part.clip_ref, []).append(part)
    if not first:
        raise ReturnUnreadable("bad_format", "the file has no line of its format")
    rows: list[tuple[int, _Row]] = [
        (number, {**about, "clip_ref": ref, **_joined(parts[ref])}) for ref, (number, about) in first.items()
    ]
    yield from sorted([*rows, *faults], key=lambda row: row[0])


def _joined(parts: list[_Part]) -> dict[str, str | None]:
    said = [part.text for part in sorted(parts, key=lambda part: part.begins_s) if part.text]
    if said:
        return {"status": "transcribed", "text": " ".join(said)}
    return {"status": "unintelligible" if any(part.text is None for part in parts) else "no_speech", "text": None}


def _stm_line(fields: list[str]) -> _Part:
    """`<recording> <channel> <speaker> <begin> <end> [<label>] transcript`."""
    begins, ends = _seconds(fields[3]), _seconds(fields[4])
    if ends < begins:
        raise ValueError
    words = fields[5:]
    if words and words[0].startswith("<") and words[0].endswith(">"):
        words = words[1:]
    if words == ["IGNORE_TIME_SEGMENT_IN_SCORING"]:
        return _Part(_recording(fields[0]), begins, None)
    text = _OPTIONAL.sub(r"\1", _ALTERNATIVES.sub(r"\1", " ".join(words)))
    return _Part(_recording(fields[0]), begins, " ".join(word for word in text.split() if word != "@"))


def _ctm_line(fields: list[str]) -> _Part:
    """`<recording> <channel> <begin> <duration> <word> [<confidence>]`."""
    _seconds(fields[3])
    return _Part(_recording(fields[0]), _seconds(fields[2]), fields[4] if fields[4] != "@" else "")


def _seconds(field: str) -> float:
    seconds = float(field)
    if not 0 <= seconds < 1e6:
        raise ValueError
    return seconds


def _recording(name: str) -> str:
    found = _REF_IN_NAME.search(name)
    return found[1] if found else name


# -- rows of text become a table ---------------------------------------------------------------------------------


def _table(rows: list[tuple[int, _Row]]) -> pa.Table:
    numbers = pa.array([number for number, _ in rows], pa.int64())
    fault = pa.array([row if isinstance(row, str) else None for _, row in rows], pa.string())
    fields = [{} if isinstance(row, str) else row for _, row in rows]
    columns = {name: _column(name, [row.get(name) for row in fields]) for name in _TOLD}
    return _assembled(numbers, fault, columns)


def _column(name: str, values: list[Any]) -> _Column:
    if name == "submitted_at":
        moments = [_moment(value) for value in values]
        return _Column(pa.array(moments, RETURNED.field(name).type), _none_of(values))
    if name in _WHOLE_NUMBERS:
        least = 0 if name == "revision" else None
        if not set(map(type, values)) <= {int, type(None)} or any(v is not None and v not in _INT32 for v in values):
            judged = [_whole(value) for value in values]
            values = [number for number, _ in judged]
            is_bad = pa.array([bad for _, bad in judged], pa.bool_())
        else:
            is_bad = _none_of(values)
        numbers = pa.array(values, pa.int64())
        return _Column(numbers if least is None else numbers.fill_null(least), is_bad)
    is_text = [value is None or isinstance(value, str) for value in values]
    texts = [value if isinstance(value, str) else None for value in values]
    try:
        read = pa.array(texts, pa.string())
    except UnicodeEncodeError:
        # Half a character, which JSON can spell.
        read = pa.array([t and t.encode("utf-8", "replace").decode("utf-8") for t in texts], pa.string())
    return _bounded(name, read, pc.invert(pa.array(is_text, pa.bool_())))


def _none_of(values: Iterable[Any]) -> pa.Array:
    return pa.array([False] * len(list(values)), pa.bool_())


def _bounded(name: str, texts: pa.Array, is_bad: pa.Array) -> _Column:
    """Text without what is too long, cleaned."""
    is_bad = pc.or_(is_bad, pc.greater(pc.utf8_length(texts), MAX_CHARACTERS[name]).fill_null(False))
    texts = pc.if_else(is_bad, pa.scalar(None, pa.string()), texts)
    is_unclean = pc.match_substring_regex(texts, _UNCLEAN).fill_null(False)
    if pc.any(is_unclean).as_py():
        cleaned = [_readable(text) for text in texts.filter(is_unclean).to_pylist()]
        texts = pc.replace_with_mask(texts, is_unclean, pa.array(cleaned, pa.string()))
    return _Column(texts, is_bad)


def _readable(text: str) -> str:
    """Without control and format characters, which can hide or reorder what a reader sees."""
    # Spaces of other widths still part words.
    spaced = "".join(" " if c.isspace() and c not in "\n\t" else c for c in text)
    return "".join(c for c in spaced if unicodedata.category(c) not in _INVISIBLE or c in "\n\t\u200c\u200d").strip()


def _whole(value: object) -> tuple[int | None, bool]:
    """A whole number of 32 bits; and whether what stands there is something else."""
    if value is None or value == "":
        return None, False
    try:
        number = int(value) if isinstance(value, str) else value
    except ValueError:
        return None, True
    if isinstance(number, bool) or not isinstance(number, int) or number not in _INT32:
        return None, True
    return number, False


def _moment(value: object) -> datetime | None:
    """RFC 3339 with an offset."""
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
        return moment.astimezone(UTC) if moment is not None and moment.tzinfo is not None else None
    except (ValueError, OverflowError):
        # No such instant, or one that in UTC falls out of the calendar.
        return None


def _assembled(numbers: pa.Array, fault: pa.Array, columns: Mapping[str, _Column]) -> pa.Table:
    """The table, with the first problem of each row."""
    none = pa.scalar(None, pa.string())
    problem = [fault, *(column.fault for column in columns.values() if column.fault is not None)]
    problem += [pc.if_else(columns[name].is_bad, pa.scalar(f"bad_{name}"), none) for name in _TOLD]
    values = {"row_number": numbers, **{name: columns[name].values for name in _TOLD}}
    return pa.table({**values, "problem": pc.coalesce(*problem)}).select(RETURNED.names).cast(RETURNED)


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
    known = [name for name in _TOLD if name in names]
    # Values that repeat stay as they are stored: decoded, one long text could fill any memory.
    texts = [name for name in MAX_CHARACTERS if name in names and not pa.types.is_nested(_type_of(file, name))]
    file = pq.ParquetFile(pa.BufferReader(content), read_dictionary=texts)
    first = 1
    for part in file.iter_batches(batch_size=_PARQUET_ROWS_AT_ONCE, columns=known):
        rows = part.num_rows
        columns = {name: _arrow_column(name, part.column(name) if name in known else pa.nulls(rows)) for name in _TOLD}
        yield _assembled(pa.array(range(first, first + rows), pa.int64()), pa.nulls(rows, pa.string()), columns)
        first += rows


def _type_of(file: Any, name: str) -> pa.DataType:
    return file.schema_arrow.field(name).type


def _arrow_column(name: str, values: pa.Array) -> _Column:
    if name == "submitted_at":
        return _instants(values)
    if name in _WHOLE_NUMBERS:
        if pa.types.is_integer(values.type):
            is_small = pc.and_(pc.greater_equal(values, _least(values.type)), pc.less_equal(values, _most(values.type)))
            kept = pc.if_else(is_small, values, pa.scalar(None, values.type)).cast(pa.int64())
            column = _Column(kept, pc.invert(is_small).fill_null(False))
        else:
            column = _column(name, values.to_pylist())
        return column._replace(values=column.values.fill_null(0) if name == "revision" else column.values)
    return _texts(name, values)


def _least(kind: pa.DataType) -> pa.Scalar:
    return pa.scalar(0 if pa.types.is_unsigned_integer(kind) else max(_INT32.start, -(2 ** (kind.bit_width - 1))), kind)


def _most(kind: pa.DataType) -> pa.Scalar:
    bits = kind.bit_width - (0 if pa.types.is_unsigned_integer(kind) else 1)
    return pa.scalar(min(_INT32.stop - 1, 2**bits - 1), kind)


def _texts(name: str, values: pa.Array) -> _Column:
    """A column of text, checked for UTF-8; one of another type is bad wherever it says something."""
    kind = values.type.value_type if pa.types.is_dictionary(values.type) else values.type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)):
        return _Column(pa.nulls(len(values), pa.string()), values.is_valid())
    is_long = pa.array([False] * len(values), pa.bool_())
    if pa.types.is_dictionary(values.type):
        # Four bytes are the most that a character takes: what is longer is dropped before it is multiplied.
        is_long_value = pc.greater(pc.binary_length(values.dictionary), 4 * MAX_CHARACTERS[name])
        is_long = is_long_value.take(values.indices).fill_null(False)
        indices = pc.if_else(is_long, pa.scalar(None, values.indices.type), values.indices)
        values = values.dictionary.take(indices)
    raw = values.cast(pa.binary()) if not pa.types.is_large_string(kind) else values.cast(pa.large_binary())
    try:
        return _bounded(name, raw.cast(pa.string()), is_long)
    except pa.ArrowInvalid:
        texts = [_decoded(value) for value in raw.to_pylist()]
        fault = pa.array(["not_utf8" if is_wrong else None for _, is_wrong in texts], pa.string())
        return _bounded(name, pa.array([text for text, _ in texts], pa.string()), is_long)._replace(fault=fault)


def _decoded(value: bytes | None) -> tuple[str | None, bool]:
    try:
        return (None if value is None else value.decode("utf-8")), False
    except UnicodeDecodeError:
        return None, True


def _instants(values: pa.Array) -> _Column:
    """Timestamps of any unit; without a zone they are UTC. Text is read as in the text formats."""
    none = pa.array([False] * len(values), pa.bool_())
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    if not pa.types.is_timestamp(values.type):
        texts = values.to_pylist() if pa.types.is_string(values.type) or pa.types.is_large_string(values.type) else []
        moments = [_moment(text) for text in texts] or [None] * len(values)
        return _Column(pa.array(moments, RETURNED.field("submitted_at").type), none)
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
    return _Column(moments, none, outside)
