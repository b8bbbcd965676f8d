"""Returned files as vendors write them: three formats, and everything that goes wrong in them."""

import csv
import io
import json
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clip_courier import returned_files
from clip_courier.errors import ReturnUnreadable
from clip_courier.returned_files import FORMATS, RETURNED, read_returned

COLUMNS = ("clip_ref", "status", "text", "chosen_rank", "annotator_ref", "submitted_at", "revision", "note")
AT = datetime(2026, 11, 20, 9, 30, tzinfo=UTC)
ROW: dict[str, Any] = {
    "clip_ref": "a" * 32,
    "status": "transcribed",
    "text": "good morning",
    "chosen_rank": 1,
    "annotator_ref": "t1",
    "submitted_at": AT,
    "revision": 0,
    "note": None,
}
ARROW = pa.schema(
    [
        *((name, pa.string()) for name in ("clip_ref", "status", "text")),
        ("chosen_rank", pa.int8()),
        ("annotator_ref", pa.string()),
        ("submitted_at", pa.timestamp("us", tz="UTC")),
        ("revision", pa.int32()),
        ("note", pa.string()),
    ]
)
# What survives reading unchanged: no control characters, no blanks at the ends, no empty text.
TEXT = st.text("abc äß🙂\"',;\n", min_size=1, max_size=20).map(str.strip).filter(bool)
INSTANTS = st.integers(-62_000_000_000, 253_000_000_000).map(lambda s: datetime.fromtimestamp(s, UTC))
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "clip_ref": TEXT,
            "status": TEXT,
            "text": st.none() | TEXT,
            "chosen_rank": st.none() | st.integers(-128, 127),
            "annotator_ref": TEXT,
            "submitted_at": INSTANTS,
            "revision": st.integers(-(2**31), 2**31 - 1),
            "note": st.none() | TEXT,
        }
    ),
    min_size=1,
    max_size=6,
)


def _written(rows: list[dict[str, Any]], file_format: str) -> bytes:
    if file_format == "parquet":
        sink = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(rows, ARROW), sink)
        return sink.getvalue()
    texts = [{**row, "submitted_at": row["submitted_at"].isoformat()} for row in rows]
    if file_format == "jsonl":
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in texts).encode("utf-8")
    sheet = io.StringIO(newline="")
    writer = csv.DictWriter(sheet, COLUMNS)
    writer.writeheader()
    writer.writerows(texts)
    return sheet.getvalue().encode("utf-8")


def _line(**changes: Any) -> bytes:
    row = {**ROW, "submitted_at": "2026-11-20T09:30:00Z", **changes}
    return json.dumps(row).encode() + b"\n"


def _problems(content: bytes, file_format: str = "jsonl") -> list[str | None]:
    return list(read_returned(content, file_format)["problem"].to_pylist())


@pytest.mark.parametrize("file_format", FORMATS)
@given(rows=ROWS)
def test_read_returned_what_was_written(file_format: str, rows: list[dict[str, Any]]) -> None:
    read = read_returned(_written(rows, file_format), file_format)
    assert read.schema.equals(RETURNED)
    wanted = [{"row_number": number, **row, "problem": None} for number, row in enumerate(rows, start=1)]
    assert read.to_pylist() == wanted


@given(content=st.binary(max_size=300), file_format=st.sampled_from(FORMATS))
def test_read_returned_any_bytes(content: bytes, file_format: str) -> None:
    with suppress(ReturnUnreadable):
        rows = read_returned(content, file_format)
        assert rows["row_number"].to_pylist() == list(range(1, rows.num_rows + 1))


@given(junk=st.binary(max_size=60).filter(lambda b: b"\n" not in b and b.strip()))
def test_read_returned_jsonl_row_beside_any_other(junk: bytes) -> None:
    rows = read_returned(_line() + junk + b"\n" + _line(), "jsonl")
    assert rows.num_rows == 3
    assert [rows["text"].to_pylist()[place] for place in (0, 2)] == ["good morning"] * 2


@pytest.mark.parametrize("file_format", ["jsonl", "csv"])
@pytest.mark.parametrize("change", ["bom", "crlf"])
def test_read_returned_of_another_editor(file_format: str, change: str) -> None:
    content = _written([ROW, ROW], file_format).replace(b"\r\n", b"\n")
    content = b"\xef\xbb\xbf" + content if change == "bom" else content.replace(b"\n", b"\r\n")
    rows = read_returned(content, file_format).to_pylist()
    assert rows == [{"row_number": number, **ROW, "problem": None} for number in (1, 2)]


@pytest.mark.parametrize("file_format", ["jsonl", "csv"])
def test_read_returned_one_row_in_windows_1252(file_format: str) -> None:
    good, bad = [{**ROW, "text": "größe"}], [{**ROW, "text": "grösse"}]
    lines = _written(bad, file_format).decode().encode("cp1252").splitlines(keepends=True)
    content = _written(good, file_format) + lines[-1]
    rows = read_returned(content, file_format).to_pylist()
    assert [(row["text"], row["problem"]) for row in rows] == [("größe", None), (None, "unreadable_row")]


def test_read_returned_rows_that_are_no_rows() -> None:
    deep = b"[" * 100_000 + b"]" * 100_000
    others = [
        deep,
        b'{"clip_ref": ' + deep + b"}",
        b"[1]",
        b"null",
        b"{",
        b"1" * 10_000,
        b'"' + b"x" * 10_000_000 + b'"',
    ]
    assert _problems(b"\n".join([_line().strip(), *others])) == [None, *["unreadable_row"] * len(others)]


@pytest.mark.parametrize("file_format", FORMATS)
def test_read_returned_a_field_of_ten_megabytes(file_format: str) -> None:
    content = _written([{**ROW, "text": "x" * 10_000_000}, ROW], file_format)
    assert _problems(content, file_format) == ["bad_text", None]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"clip_ref": 7}, "bad_clip_ref"),
        ({"status": ["transcribed"]}, "bad_status"),
        ({"text": {"a": 1}}, "bad_text"),
        ({"text": "x" * 20_001}, "bad_text"),
        ({"text": "x" * 20_000}, None),
        ({"annotator_ref": 4}, "bad_annotator_ref"),
        ({"note": True}, "bad_note"),
        ({"chosen_rank": "first"}, "bad_chosen_rank"),
        ({"chosen_rank": 1.5}, "bad_chosen_rank"),
        ({"chosen_rank": True}, "bad_chosen_rank"),
        ({"chosen_rank": "9" * 5000}, "bad_chosen_rank"),
        ({"revision": 2**31}, "bad_revision"),
        ({"revision": None}, None),
        ({"more": "columns"}, None),
    ],
)
def test_read_returned_fields_of_another_type(change: dict[str, Any], problem: str | None) -> None:
    assert _problems(_line(**change)) == [problem]


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-20T09:30:00Z", AT),
        ("2026-11-20T10:30:00+01:00", AT),
        ("2026-11-20T09:30:00", None),
        ("2026-11-20", None),
        ("yesterday", None),
        ("0001-01-01T00:00:00+14:00", None),
        ("9999-12-31T23:59:59-14:00", None),
        (1_790_000_000, None),
    ],
)
def test_read_returned_instants(text: object, moment: datetime | None) -> None:
    assert read_returned(_line(submitted_at=text), "jsonl")["submitted_at"].to_pylist() == [moment]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "Europe/Berlin"])
def test_read_returned_parquet_instants(unit: str, zone: str | None) -> None:
    at = AT.astimezone(timezone(timedelta(hours=2))) if zone else AT.replace(tzinfo=None)
    place = ARROW.get_field_index("submitted_at")
    table = pa.Table.from_pylist([ROW], ARROW).set_column(
        place, "submitted_at", pa.array([at], pa.timestamp(unit, tz=zone))
    )
    sink = io.BytesIO()
    pq.write_table(table, sink, version="2.6")
    assert read_returned(sink.getvalue(), "parquet")["submitted_at"].to_pylist() == [AT]


def test_read_returned_parquet_values_that_python_cannot_hold() -> None:
    far = pa.array([0, 2**62], pa.timestamp("us", tz="UTC"))
    latin = pa.array([b"caf\xe9", b"good"], pa.binary()).view(pa.string())
    for column, values, wanted in (
        ("submitted_at", far, [None, "unreadable_row"]),
        ("text", latin, ["unreadable_row", None]),
    ):
        place = ARROW.get_field_index(column)
        table = pa.Table.from_pylist([ROW, ROW], ARROW).set_column(place, column, values)
        sink = io.BytesIO()
        pq.write_table(table, sink)
        assert _problems(sink.getvalue(), "parquet") == wanted


def test_read_returned_hides_nothing_in_invisible_characters() -> None:
    text = "a\u202eb\x00c\u00a0d\u3000e\u200bf\ud800g"
    read = read_returned(_line(text=text), "jsonl")["text"].to_pylist()
    assert read == ["abc d ef?g"]


@pytest.mark.parametrize(
    ("content", "file_format"),
    [
        (b"\x00\x01garbage\xff" * 100, "jsonl"),
        (b"\x00\x01garbage\xff" * 100, "csv"),
        (b"\x00\x01garbage\xff" * 100, "parquet"),
        (b"PAR1 but not really PAR1", "parquet"),
        (_written([ROW], "parquet")[:-20], "parquet"),
        (_written([ROW], "jsonl").decode().encode("utf-16"), "jsonl"),
        (_written([ROW], "csv").decode().encode("utf-16"), "csv"),
        (_written([ROW], "parquet"), "jsonl"),
        (_written([ROW], "jsonl"), "csv"),
        (b"", "csv"),
        (b"", "parquet"),
        (b"clip_ref;status;annotator_ref;submitted_at\n", "csv"),
        (b"clip_ref,clip_ref,status,annotator_ref,submitted_at\n", "csv"),
        # a quote that never closes swallows the rows after it
        (_written([ROW], "csv") + b'a,transcribed,"oh,1,t1,2026-11-20T09:30:00Z,0,\nb,no_speech,,,t1,x,0,\n', "csv"),
    ],
)
def test_read_returned_files_that_are_refused_whole(content: bytes, file_format: str) -> None:
    with pytest.raises(ReturnUnreadable) as refused:
        read_returned(content, file_format)
    assert refused.value.reason == "bad_format"


def test_read_returned_csv_rows_of_another_width() -> None:
    header, row = _written([ROW], "csv").splitlines()
    broken = b'a,"b"c,d,e,f,g,h,i'
    content = b"\r\n".join([header, row, row + b",more", b"few,fields", broken, b"", row, b""])
    assert _problems(content, "csv") == [None, *["unreadable_row"] * 3, None]


def test_read_returned_csv_with_an_index_column() -> None:
    """As pandas writes it when it is not told otherwise."""
    header, row = _written([ROW], "csv").splitlines()
    assert _problems(b"\n".join([b"," + header, b"0," + row]), "csv") == [None]


@pytest.mark.parametrize("file_format", FORMATS)
def test_read_returned_more_rows_than_any_batch_has(file_format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(returned_files, "MAX_ROWS", 3)
    assert _problems(_written([ROW] * 3, file_format), file_format) == [None] * 3
    with pytest.raises(ReturnUnreadable) as refused:
        read_returned(_written([ROW] * 4, file_format), file_format)
    assert refused.value.reason == "too_many_rows"
