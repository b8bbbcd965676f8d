"""What a returned row may say: its fields with their bounds, and how values of any type become columns.

A value that is not what its field is for is null, and the row keeps the reason in `problem`.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

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
WHOLE_NUMBERS: Final = ("chosen_rank", "revision")
TOLD: Final = (*MAX_CHARACTERS, *WHOLE_NUMBERS, "submitted_at")
_WHOLE = re.compile(r"\s*-?[0-9]{1,10}\s*", re.ASCII)
NOT_UTF8 = re.compile("[\udc80-\udcff]")
# What text is cleaned of, as RE2 writes it: control, format and private characters, and every blank but U+0020.
_UNCLEAN: Final = (
    r"[\p{Cc}\p{Cf}\p{Co}\p{Zl}\p{Zp}"
    r"\x{A0}\x{1680}\x{2000}-\x{200A}\x{202F}\x{205F}\x{3000}]|^ | $"
)
_INVISIBLE: Final = frozenset({"Cc", "Cf", "Co", "Cs"})
# Whole numbers are stored in 32 bits; instants must fit Python's calendar, in which everything after this reads them.
INT32: Final = range(-(2**31), 2**31)
# A row by the names of its fields, or the code of why it is none.
Row = Mapping[str, Any] | str


class Column(NamedTuple):
    """Values of one field, null where they are bad; which are bad; and which are not even readable, with their code."""

    values: pa.Array
    is_bad: pa.Array
    fault: pa.Array | None = None


def object_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON; ValueError when a name stands in it twice, for nobody knows which value is meant."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError
    return found


def table_of(rows: list[tuple[int, Row]]) -> pa.Table:
    numbers = pa.array([number for number, _ in rows], pa.int64())
    fault = pa.array([row if isinstance(row, str) else None for _, row in rows], pa.string())
    fields = [{} if isinstance(row, str) else row for _, row in rows]
    columns = {name: column_of(name, [row.get(name) for row in fields]) for name in TOLD}
    return assembled(numbers, fault, columns)


def column_of(name: str, values: list[Any]) -> Column:
    if name == "submitted_at":
        moments = [moment_of(value) for value in values]
        return Column(pa.array(moments, RETURNED.field(name).type), _none_of(values))
    if name in WHOLE_NUMBERS:
        least = 0 if name == "revision" else None
        if not set(map(type, values)) <= {int, type(None)} or any(v is not None and v not in INT32 for v in values):
            judged = [_whole(value) for value in values]
            values = [number for number, _ in judged]
            is_bad = pa.array([bad for _, bad in judged], pa.bool_())
        else:
            is_bad = _none_of(values)
        numbers = pa.array(values, pa.int64())
        return Column(numbers if least is None else numbers.fill_null(least), is_bad)
    is_text = [value is None or isinstance(value, str) for value in values]
    texts = [value if isinstance(value, str) else None for value in values]
    try:
        read = pa.array(texts, pa.string())
    except UnicodeEncodeError:
        # Half a character, which JSON can spell.
        read = pa.array([t and t.encode("utf-8", "replace").decode("utf-8") for t in texts], pa.string())
    return bounded(name, read, pc.invert(pa.array(is_text, pa.bool_())))


def _none_of(values: Iterable[Any]) -> pa.Array:
    return pa.array([False] * len(list(values)), pa.bool_())


def bounded(name: str, texts: pa.Array, is_bad: pa.Array) -> Column:
    """Text without what is too long, cleaned."""
    is_bad = pc.or_(is_bad, pc.greater(pc.utf8_length(texts), MAX_CHARACTERS[name]).fill_null(False))
    texts = pc.if_else(is_bad, pa.scalar(None, pa.string()), texts)
    is_unclean = pc.match_substring_regex(texts, _UNCLEAN).fill_null(False)
    if pc.any(is_unclean).as_py():
        cleaned = [_readable(text) for text in texts.filter(is_unclean).to_pylist()]
        texts = pc.replace_with_mask(texts, is_unclean, pa.array(cleaned, pa.string()))
    return Column(texts, is_bad)


def _readable(text: str) -> str:
    """Without control and format characters, which can hide or reorder what a reader sees."""
    # Spaces of other widths still part words.
    spaced = "".join(" " if c.isspace() and c not in "\n\t" else c for c in text)
    return "".join(c for c in spaced if unicodedata.category(c) not in _INVISIBLE or c in "\n\t\u200c\u200d").strip()


def _whole(value: object) -> tuple[int | None, bool]:
    """A whole number of 32 bits; and whether what stands there is something else."""
    if value is None or value == "":
        return None, False
    number = int(value) if isinstance(value, str) and _WHOLE.fullmatch(value) else value
    if isinstance(number, bool) or not isinstance(number, int) or number not in INT32:
        return None, True
    return number, False


def moment_of(value: object) -> datetime | None:
    """RFC 3339 with an offset."""
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
        return moment.astimezone(UTC) if moment is not None and moment.tzinfo is not None else None
    except (ValueError, OverflowError):
        # No such instant, or one that in UTC falls out of the calendar.
        return None


def assembled(numbers: pa.Array, fault: pa.Array, columns: Mapping[str, Column]) -> pa.Table:
    """The table, with the first problem of each row."""
    none = pa.scalar(None, pa.string())
    problem = [fault, *(column.fault for column in columns.values() if column.fault is not None)]
    problem += [pc.if_else(columns[name].is_bad, pa.scalar(f"bad_{name}"), none) for name in TOLD]
    values = {"row_number": numbers, **{name: columns[name].values for name in TOLD}}
    return pa.table({**values, "problem": pc.coalesce(*problem)}).select(RETURNED.names).cast(RETURNED)
