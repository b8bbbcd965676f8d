"""Files that are built to hurt whoever reads them: each is refused in bounded memory and time."""

import io
import json
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clip_courier import confined
from clip_courier.confined import read_confined
from clip_courier.errors import ReturnUnreadable
from clip_courier.returned_files import read_returned
from clip_courier.returned_rows import RETURNED

AT = datetime(2026, 11, 20, 9, 30, tzinfo=UTC)
LINE = json.dumps(
    {"clip_ref": "a" * 32, "status": "transcribed", "text": "good morning", "annotator_ref": "t1"}
).encode()


def _parquet(rows: int, text: str, **options: object) -> bytes:
    """Every row holds the same text, which the file stores once."""
    same = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), pa.array([text]))
    short = {name: pa.array(["x"] * rows) for name in ("clip_ref", "status", "annotator_ref")}
    at = pa.array([AT] * rows, pa.timestamp("us", tz="UTC"))
    sink = io.BytesIO()
    pq.write_table(
        pa.table({**short, "text": same, "note": same, "submitted_at": at}), sink, compression="zstd", **options
    )
    return sink.getvalue()


def _a_million_rows_of_one_long_text() -> bytes:
    return _parquet(1_000_000, "x" * 20_000)


def _one_value_of_600_megabytes() -> bytes:
    return _parquet(10, "x" * 600_000_000, write_statistics=False)


BOMBS: list[tuple[Callable[[], bytes], str]] = [
    (_a_million_rows_of_one_long_text, "parquet"),
    (_one_value_of_600_megabytes, "parquet"),
]


def test_read_confined_says_what_the_reader_says() -> None:
    content = LINE + b"\n7\n" + LINE
    read = read_confined(content, "jsonl", AT)
    assert read.schema.equals(RETURNED)
    assert read.equals(read_returned(content, "jsonl", AT))
    assert read_confined(b"a 1 s 0 1 yes", "stm", AT)["submitted_at"].to_pylist() == [AT]


def test_read_confined_refuses_as_the_reader_does() -> None:
    with pytest.raises(ReturnUnreadable) as refused:
        read_confined(b"\x00\xff", "jsonl", AT)
    assert refused.value.reason == "bad_format"


@pytest.mark.parametrize(("make", "file_format"), BOMBS)
def test_read_confined_stops_what_expands(make: Callable[[], bytes], file_format: str) -> None:
    content = make()
    began = time.monotonic()
    with pytest.raises(ReturnUnreadable) as refused:
        read_confined(content, file_format, AT)
    assert refused.value.reason == "too_large"
    assert time.monotonic() - began < 30


@pytest.mark.parametrize(
    ("bound", "value", "rows"), [("MAX_MEMORY_BYTES", 500 << 20, 300_000), ("MAX_CPU_S", 1, 500_000)]
)
def test_read_confined_has_bounds_of_its_own(
    bound: str, value: int, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is read well within the bounds is refused beyond them: they are the process's, not the reader's."""
    file_format = "labelstudio.json" if bound == "MAX_MEMORY_BYTES" else "jsonl"
    content = b"[" + b",\n".join([LINE] * rows) + b"]" if file_format != "jsonl" else (LINE + b"\n") * rows
    assert read_confined(content, file_format, AT).num_rows == rows
    monkeypatch.setattr(confined, bound, value)
    with pytest.raises(ReturnUnreadable) as refused:
        read_confined(content, file_format, AT)
    assert refused.value.reason == "too_large"


def test_read_confined_survives_damaged_parquet() -> None:
    """Bytes turned over anywhere: rows, or a named refusal, and this process lives."""
    good, random = bytearray(_parquet(100, "good morning")), Random(7)
    for _ in range(6):
        bad = good.copy()
        for _ in range(8):
            bad[random.randrange(len(bad))] = random.randrange(256)
        with suppress(ReturnUnreadable):
            assert read_confined(bytes(bad), "parquet", AT).schema.equals(RETURNED)


def test_read_confined_sees_no_secret_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import subprocess

    monkeypatch.setenv("AIRFLOW_CONN_CLIP_COURIER_PGP", "canary")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    run, seen = subprocess.run, []

    def watched(*arguments: Any, **options: Any) -> Any:
        seen.append(options["env"])
        return run(*arguments, **options)

    monkeypatch.setattr(subprocess, "run", watched)
    assert read_confined(LINE, "jsonl", AT).num_rows == 1
    assert "canary" not in repr(seen)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("said", [b'"too_large"', b'"Zoe Quillfeather"', b'["too_large"]', b"{", b"", b"7"])
def test_a_refusal_is_told_in_words_of_ours(said: bytes) -> None:
    """A file that took the reader over could make it say anything, also what stands in the file."""
    refused = confined._refusal(io.BytesIO(said))
    expected = "too_large" if said == b'"too_large"' else "bad_format"
    assert (refused.reason, str(refused)) == (expected, f"the file cannot be read: {expected}")
