"""What is wrong with three clips in a hundred: metadata that lies, files that are not there, rows that come twice."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from clip_courier_demo import identities
from clip_courier_demo.dealing import Ints, deal
from clip_courier_demo.recordings import Recording

DEFECTS = (
    "none",
    "negative_duration",
    "zero_duration",
    "zero_sample_rate",
    "wrong_sample_rate",
    "bad_locale",
    "lowercase_country",
    "unknown_country",
    "confidence_above_one",
    "duplicate_rank",
    "missing_file",
    "wrong_sha256",
    "truncated_file",
    "garbage_file",
    "empty_file",
    "uri_outside",
    "duplicate_clip_id",
    "duplicate_row",
    "future",
)
_SHARE = 0.03

BAD_LOCALES = ("english", "en_US", "d", "fr-", "", "hi-IN-123456789")
UNKNOWN_COUNTRIES = ("ZZ", "USA", "X1", "")
OUTSIDE_URIS = ("../persons/part-000.parquet", "translator/../../../outside.wav", "../../../etc/hostname")

# At most so many files are damaged in each way; further clips with the same defect share them.
_CORRUPT_FILES = 3
CORRUPT = ("truncated_file", "garbage_file", "empty_file")


def plant_defects(clips: int, seed: int) -> Ints:
    """For each clip an index into DEFECTS; no two defects meet in one clip."""
    random = np.random.default_rng([seed, 7])
    each = _SHARE / (len(DEFECTS) - 1)
    return deal(random, [0.0, *([each] * (len(DEFECTS) - 1))], clips)


def is_defect(codes: Ints, name: str) -> Any:
    """A mask of the clips with this defect."""
    return codes == DEFECTS.index(name)


def write_corrupt_files(
    codes: Ints, recording: Ints, recordings: list[Recording], audio: Path, seed: int
) -> dict[str, list[tuple[str, str]]]:
    """Damaged copies of some recordings: for each way the files' paths and SHA-256, which is of the damaged bytes."""
    written: dict[str, list[tuple[str, str]]] = {name: [] for name in CORRUPT}
    for name in CORRUPT:
        clips = np.flatnonzero(is_defect(codes, name))[:_CORRUPT_FILES]
        for clip, clip_id in zip(clips, identities.clip_ids(seed, clips).to_pylist(), strict=True):
            source = recordings[int(recording[clip])]
            data = _damaged((audio / source.uri).read_bytes(), name, int(clip), seed)
            path = (audio / source.uri).with_name(f"{clip_id}-2{Path(source.uri).suffix}")
            path.write_bytes(data)
            written[name].append((str(path.relative_to(audio)), hashlib.sha256(data).hexdigest()))
    return written


def _damaged(data: bytes, name: str, clip: int, seed: int) -> bytes:
    if name == "truncated_file":
        return data[: len(data) // 2]
    return np.random.default_rng([seed, 8, clip]).bytes(4096) if name == "garbage_file" else b""
