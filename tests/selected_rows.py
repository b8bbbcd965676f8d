"""Rows of a night's sample, as `select` writes them, with real recordings behind them."""

import hashlib
import io
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import soundfile as sf

from clip_courier.model import CLIPS
from clip_courier.pseudonyms import OURSELVES, Pseudonyms

PSEUDONYMS = Pseudonyms("tests", b"t" * 32)
RATE = 16_000
_LISTS = {name: CLIPS.field(name).type for name in ("participants", "hypotheses", "words")}
SELECTED = pa.schema(
    [
        ("row", pa.int64()),
        *((f.name, f.type) for f in CLIPS if f.name not in _LISTS),
        ("participants", _LISTS["participants"]),
        ("person_ids", pa.list_(pa.string())),
        ("hypotheses", _LISTS["hypotheses"]),
        ("words", _LISTS["words"]),
        ("stratum", pa.string()),
        ("inclusion_probability", pa.float64()),
        ("is_for_two", pa.bool_()),
        ("is_withheld", pa.bool_()),
        ("copies", pa.int64()),
        ("product_persons", pa.int64()),
        ("clip_key", pa.string()),
    ]
)


def sound(n: int = 0, *, rate: int = RATE, channels: int = 1, ms: int = 1000, container: str = "WAV") -> bytes:
    """A recording that is another one for every `n`: noise over a note, so that it does not compress to nothing."""
    at = np.arange(rate * ms // 1000) / rate
    noise = np.random.default_rng(n).normal(0, 300, (len(at), channels))
    samples = (np.sin(2 * np.pi * (200 + n % 50) * at) * 8000)[:, None] + noise
    memory = io.BytesIO()
    sf.write(memory, samples.astype(np.int16), rate, format=container, subtype="PCM_16")
    return memory.getvalue()


def row(n: int, landing: Path, recording: bytes | None = None, **changes: Any) -> dict[str, Any]:
    """The nth row, good but for `changes`; its recording is written where the row says."""
    recording = sound(n) if recording is None else recording
    made = {
        "row": n,
        "clip_id": f"clip-{n:06d}",
        "call_id": f"call-{n:06d}",
        "product": "translator",
        "activation": "call",
        "locale": "en-US",
        "country": "US",
        "recorded_at": datetime(2026, 11, 19, 12, 0, n % 60, tzinfo=UTC),
        "duration_ms": 1000,
        "sample_rate_hz": RATE,
        "channels": 1,
        "audio_uri": f"translator/{n:06d}.wav",
        "audio_sha256": hashlib.sha256(recording).hexdigest(),
        "person_ids": [f"person-{n:06d}-a", f"person-{n:06d}-b"],
        "hypotheses": [{"rank": 1, "text": "turn on the light", "confidence": 0.9, "engine": "e"}],
        "stratum": "translator/en-US",
        "inclusion_probability": 0.5,
        "is_for_two": False,
        "is_withheld": False,
        "copies": 1,
        "product_persons": 1000,
        **changes,
    }
    made.setdefault("participants", [{"person_id": p, "role": "speaker"} for p in made["person_ids"]])
    first = (made["hypotheses"] or [{}])[0].get("text")
    made.setdefault("words", timed(first, made["duration_ms"]) if first else None)
    made.setdefault("clip_key", PSEUDONYMS.refs(OURSELVES, "clip", [made["clip_id"]])[0])
    path = landing / "audio" / made["audio_uri"]
    if not path.exists() and path.resolve().is_relative_to(landing.resolve()):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(recording)
    return made


def timed(text: str, duration_ms: int = 1000) -> list[dict[str, Any]]:
    """Landing's `words` of a text: each as long as the others, without pauses."""
    words = text.split()
    bounds = [place * (duration_ms or 0) // max(len(words), 1) for place in range(len(words) + 1)]
    return [
        {"word": word, "start_ms": start, "end_ms": end}
        for word, start, end in zip(words, bounds, bounds[1:], strict=False)
    ]


def table(rows: Iterable[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), SELECTED)


def everything_written(folder: Path, but: Path) -> bytes:
    """All names and bytes under `folder` outside `but`; what Parquet compresses stands there as text, too."""
    import pyarrow.parquet as pq

    found = b""
    for path in sorted(folder.rglob("*")):
        if path.is_relative_to(but):
            continue
        found += f"\n{path.relative_to(folder)}\n".encode()
        if path.is_file():
            found += path.read_bytes()
        if path.suffix == ".parquet":
            found += f"{pq.read_table(path).to_pylist()} {pq.read_metadata(path).metadata}".encode()
    return found
