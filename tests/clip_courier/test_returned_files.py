"""Returned files as vendors write them: three formats, and everything that goes wrong in them."""

import csv
import io
import json
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clip_courier import returned_files
from clip_courier.errors import ReturnUnreadable
from clip_courier.returned_files import FORMATS, TOOL_FORMATS, read_returned
from clip_courier.returned_rows import RETURNED

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
@settings(deadline=None)
@given(rows=ROWS)
def test_read_returned_what_was_written(file_format: str, rows: list[dict[str, Any]]) -> None:
    read = read_returned(_written(rows, file_format), file_format)
    assert read.schema.equals(RETURNED)
    wanted = [{"row_number": number, **row, "problem": None} for number, row in enumerate(rows, start=1)]
    assert read.to_pylist() == wanted


@settings(deadline=None)
@given(content=st.binary(max_size=300), file_format=st.sampled_from(FORMATS))
def test_read_returned_any_bytes(content: bytes, file_format: str) -> None:
    with suppress(ReturnUnreadable):
        rows = read_returned(content, file_format)
        assert rows["row_number"].to_pylist() == list(range(1, rows.num_rows + 1))


@settings(deadline=None)
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
    assert [(row["text"], row["problem"]) for row in rows] == [("größe", None), (None, "not_utf8")]


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
        ({"revision": " 7 "}, None),
        ({"revision": "1_0"}, "bad_revision"),
        ({"revision": "\u0661"}, "bad_revision"),
        ({"revision": float("nan")}, "bad_revision"),
        ({"revision": None}, None),
        ({"more": "columns"}, None),
    ],
)
def test_read_returned_fields_of_another_type(change: dict[str, Any], problem: str | None) -> None:
    assert _problems(_line(**change)) == [problem]


def test_read_returned_jsonl_that_names_a_field_twice() -> None:
    """What the second says is not what a reviewer of the first has seen."""
    twice = _line(text="no").replace(b'"status"', b'"text": "yes", "status"', 1)
    assert _problems(_line() + twice) == [None, "unreadable_row"]


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
        ("text", latin, ["not_utf8", None]),
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


def test_read_returned_says_which_rows_are_not_utf8() -> None:
    bad = _line().replace(b"good", b"g\xff\xfed")
    assert _problems(_line() + bad + _line() + bad) == [None, "not_utf8", None, "not_utf8"]
    header, row = _written([ROW], "csv").splitlines()
    sheet = b"\n".join([header, row, row.replace(b"good", b"g\xe9"), row])
    assert _problems(sheet, "csv") == [None, "not_utf8", None]
    task = json.dumps([_task("b" * 32), _task("a" * 32)]).encode()
    assert _problems(task.replace(b"good day", b"g\xe9", 1), "labelstudio.json") == ["not_utf8", None]
    stm = b"a 1 s 0 1 ok\nb 1 s 0 1 caf\xe9\nc 1 s 0 1 ok\n"
    assert _problems(stm, "stm") == [None, "not_utf8", None]


@pytest.mark.parametrize("field", ["clip_ref", "status", "annotator_ref"])
def test_read_returned_fields_that_are_too_long(field: str) -> None:
    for file_format in FORMATS:
        rows = [{**ROW, field: "x" * 200}, {**ROW, field: "x" * 201}]
        assert _problems(_written(rows, file_format), file_format) == [None, f"bad_{field}"]


@pytest.mark.parametrize("file_format", ["jsonl", "csv"])
def test_read_returned_rows_that_are_too_long(file_format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(returned_files, "MAX_ROW_BYTES", 1000)
    content = _written([{**ROW, "note": "x" * 1001}, ROW], file_format)
    assert _problems(content, file_format) == ["row_too_long", None]


# What hides or reorders text, and blanks of other widths; the rest of Unicode stays as it is.
@settings(deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cn"]), max_size=40))
def test_read_returned_cleans_text_like_a_slow_twin(text: str) -> None:
    import unicodedata

    wanted = ""
    for c in text:
        if c in "\n\t\u200c\u200d":
            wanted += c
        elif c.isspace():
            wanted += " "
        elif unicodedata.category(c) == "Cs":
            wanted += "?"
        elif unicodedata.category(c) not in ("Cc", "Cf", "Co"):
            wanted += c
    for content, file_format in ((_line(text=text), "jsonl"), (_parquet_of(text), "parquet")):
        if file_format == "jsonl" or "?" not in wanted:
            assert read_returned(content, file_format)["text"].to_pylist() == [wanted.strip()]


def _parquet_of(text: str) -> bytes:
    return _written([{**ROW, "text": text.encode("utf-8", "replace").decode()}], "parquet")


# -- Parquet as others write it --------------------------------------------------------------------------------


def _parquet_with(**columns: pa.Array) -> bytes:
    table = pa.Table.from_pylist([ROW, ROW], ARROW)
    for name, values in columns.items():
        table = table.set_column(table.schema.get_field_index(name), name, values)
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


@pytest.mark.parametrize(
    ("column", "values", "wanted"),
    [
        ("text", pa.array([b"raw", None], pa.binary()), ["bad_text", None]),
        ("text", pa.array(["good", "day"], pa.large_string()), [None, None]),
        ("text", pa.array(["good", "day"]).dictionary_encode(), [None, None]),
        ("text", pa.array([["a"], None], pa.list_(pa.string())), ["bad_text", None]),
        ("text", pa.nulls(2), [None, None]),
        ("note", pa.array([1, None], pa.int8()), ["bad_note", None]),
        ("revision", pa.array([2**31, 0], pa.int64()), ["bad_revision", None]),
        ("revision", pa.array([2**63, 1], pa.uint64()), ["bad_revision", None]),
        ("revision", pa.array([1.0, None]), ["bad_revision", None]),
        ("revision", pa.array(["1", "x"]), [None, "bad_revision"]),
        ("chosen_rank", pa.array([True, None]), ["bad_chosen_rank", None]),
        ("chosen_rank", pa.array([1, 2], pa.int64()), [None, None]),
        ("submitted_at", pa.array(["2026-11-20T09:30:00Z", "soon"]), [None, None]),
        ("submitted_at", pa.array([2**62, 0], pa.timestamp("ms")), ["unreadable_row", None]),
    ],
)
def test_read_returned_parquet_columns_of_other_types(column: str, values: pa.Array, wanted: list[str | None]) -> None:
    assert _problems(_parquet_with(**{column: values}), "parquet") == wanted


def test_read_returned_parquet_without_the_columns_that_may_be_left_out() -> None:
    table = pa.Table.from_pylist([ROW], ARROW).select(["clip_ref", "status", "annotator_ref", "submitted_at"])
    sink = io.BytesIO()
    pq.write_table(table, sink)
    [row] = read_returned(sink.getvalue(), "parquet").to_pylist()
    assert (row["text"], row["chosen_rank"], row["revision"], row["problem"]) == (None, None, 0, None)


# -- annotation tools ------------------------------------------------------------------------------------------


def _task(ref: str, *results: dict[str, Any], **annotation: Any) -> dict[str, Any]:
    said = {"from_name": "transcription", "type": "textarea", "value": {"text": ["good day"]}}
    about = {"completed_by": {"id": 4, "email": "who@example.org"}, "updated_at": "2026-11-20T09:30:00.123Z"}
    return {
        "id": 1,
        "data": {"audio": f"/data/upload/2/1a2b3c4d-{ref}.flac"},
        "annotations": [{"was_cancelled": False, "result": list(results) or [said], **about, **annotation}],
    }


def _from_tool(
    content: object, file_format: str = "labelstudio.json", at: datetime | None = AT
) -> list[dict[str, Any]]:
    raw = content if isinstance(content, str) else json.dumps(content)
    return list(read_returned(raw.encode(), file_format, at).to_pylist())


def test_label_studio_tasks_become_rows() -> None:
    ref = "a" * 32
    [row] = _from_tool([_task(ref)])
    assert (row["clip_ref"], row["status"], row["text"], row["annotator_ref"]) == (ref, "transcribed", "good day", "4")
    assert (row["problem"], row["chosen_rank"]) == (None, None)
    assert row["submitted_at"] == AT.replace(microsecond=123_000)
    # A changed annotation replaces, one that is exported again does not.
    [later] = _from_tool([_task(ref, updated_at="2026-11-20T09:31:00Z")])
    assert later["revision"] == row["revision"] + 60
    assert _from_tool([_task(ref)]) == [row]


def test_label_studio_segments_choices_and_notes() -> None:
    def said(start: float, text: str, name: str = "transcription") -> dict[str, Any]:
        return {"from_name": name, "value": {"start": start, "text": [text]}}

    def chosen(choice: str, name: str = "status") -> dict[str, Any]:
        return {"from_name": name, "type": "choices", "value": {"choices": [choice]}}

    ref = "b" * 32
    rows = _from_tool(
        [
            _task(ref, said(2.5, "world"), said(0.5, "hello"), said(0, "noisy", "note")),
            _task(ref, chosen("no_speech")),
            _task(ref, chosen("loud", "noise"), chosen("distress", "what")),
            _task(ref, said(0, "x"), chosen("loud", "noise")),
            _task(ref, chosen("done")),
        ]
    )
    assert [(row["status"], row["text"], row["note"]) for row in rows] == [
        ("transcribed", "hello world", "noisy"),
        ("no_speech", None, None),
        ("distress", None, None),
        ("transcribed", "x", None),
        ("done", None, None),
    ]


def test_label_studio_what_is_not_answered_or_not_a_task() -> None:
    unanswered = {"data": {"audio": "x"}, "annotations": []}
    tasks = [unanswered, _task("a" * 32, was_cancelled=True), 7, {"annotations": [3]}, {"annotations": "none"}]
    assert [row["problem"] for row in _from_tool([*tasks, _task("c" * 32)])] == ["unreadable_row"] * 3 + [None]
    two = _task("a" * 32)
    two["data"]["other"] = "b" * 32 + ".flac"
    assert [row["clip_ref"] for row in _from_tool([two])] == [None]
    two["data"]["clip_ref"] = "b" * 32
    assert [row["clip_ref"] for row in _from_tool([two])] == ["b" * 32]
    for content in ("{}", "[", "[" * 100_000):
        with pytest.raises(ReturnUnreadable):
            read_returned(content.encode(), "labelstudio.json")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"was_cancelled": "false"}, "unreadable_row"),
        ({"completed_by": ["Jane"]}, "bad_annotator_ref"),
        ({"completed_by": True}, "bad_annotator_ref"),
        ({"result": [{"value": {"text": "so", "start": 10**400}}]}, "unreadable_row"),
        ({"result": [{"value": {"text": "so", "start": float("nan")}}]}, "unreadable_row"),
        ({"result": [{"value": {"text": "so", "start": 1.5}}]}, None),
    ],
)
def test_label_studio_values_of_another_type(change: dict[str, Any], problem: str | None) -> None:
    annotation = {"completed_by": 3, "created_at": "2026-11-20T09:30:00Z", "result": [{"value": {"text": ["so"]}}]}
    tasks = [{"data": {"clip_ref": "a" * 32}, "annotations": [annotation | change]}]
    assert _problems(json.dumps(tasks).encode(), "labelstudio.json") == [problem]


def test_label_studio_that_names_a_field_twice() -> None:
    with pytest.raises(ReturnUnreadable) as refused:
        read_returned(b'[{"data": {}, "data": {}, "annotations": []}]', "labelstudio.json")
    assert refused.value.reason == "bad_format"


def test_stm_comments_do_not_keep_it_busy() -> None:
    line = f";; annotator_ref: {' ' * 400_000}t{' ' * 400_000}x\n{'a' * 32} 1 s 0 1 so\n"
    began = time.process_time()
    assert _problems(line.encode(), "stm") == ["bad_annotator_ref"]
    assert time.process_time() - began < 1


def test_stm_segments_become_a_row_a_clip() -> None:
    one, two, three = "a" * 32, "b" * 32, "c" * 32
    stm = f""";; LABEL "o" "all" "everything"
;; annotator_ref: t7
;; revision: 2
{two}.flac 1 spk 1.50 2.00 <o,f0> (uh) {{ world / word / @ }}
{two}.flac 1 spk 0.00 1.50 hello
{one} 1 spk 0 1
no line of the format
{three} A inter 0.0 3.0 IGNORE_TIME_SEGMENT_IN_SCORING
{three} A inter 3.0 2.0 ends before it begins
"""
    rows = _from_tool(stm, "stm")
    assert [(row["row_number"], row["clip_ref"], row["status"], row["text"], row["problem"]) for row in rows] == [
        (4, two, "transcribed", "hello uh world", None),
        (6, one, "no_speech", None, None),
        (7, None, None, None, "unreadable_row"),
        (8, three, "unintelligible", None, None),
        (9, None, None, None, "unreadable_row"),
    ]
    assert {(row["annotator_ref"], row["revision"], row["submitted_at"]) for row in rows[:2]} == {("t7", 2, AT)}


def test_ctm_words_become_a_row_a_clip() -> None:
    one, two = "a" * 32, "b" * 32
    ctm = f""";; from a tool
{one} 1 0.50 0.20 world 0.99
{one} 1 0.10 0.20 hello
{two} A * * <ALT_BEGIN>
{two} A 0.00 0.1 first
{two} A * * <ALT>
{two} A 0.00 0.1 other
{two} A * * <ALT_END>
{two} A 0.20 0.1 @
{two} A x 0.1 word
"""
    rows = _from_tool(ctm, "ctm")
    assert [(row["row_number"], row["clip_ref"], row["text"], row["problem"]) for row in rows] == [
        (2, one, "hello world", None),
        (5, two, "first", None),
        (10, None, None, "unreadable_row"),
    ]
    assert {(row["annotator_ref"], row["submitted_at"]) for row in rows[:2]} == {("unnamed", AT)}


@pytest.mark.parametrize("file_format", TOOL_FORMATS)
@settings(deadline=None)
@given(content=st.binary(max_size=200) | st.text("ab1 ;{}()/<>.\n", max_size=200).map(str.encode))
def test_read_returned_any_bytes_of_a_tool(file_format: str, content: bytes) -> None:
    with suppress(ReturnUnreadable):
        numbers = read_returned(content, file_format)["row_number"].to_pylist()
        assert numbers == sorted(set(numbers))
