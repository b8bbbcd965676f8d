"""The ears of a demo vendor: it knows a recording again, whatever was done to it, and hears the tones in it."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from clip_courier.audio import Recording
from clip_courier_demo.speech import Samples

# A recording is known by how its loudness goes up and down in so many parts.
_PARTS = 50
_TONE_HZ, _TONE_SHARE, _WINDOW_MS = 1000, 0.9, 60
BEEP = "[beep]"


def loudness(samples: Samples) -> list[float]:
    """Of each of 50 parts of the samples (frames first), in nepers."""
    ends = np.linspace(0, len(samples), _PARTS + 1).astype(int)[1:]
    squares = np.concatenate(([0.0], np.cumsum((samples.reshape(len(samples), -1).astype(float) ** 2).mean(axis=1))))
    means = np.diff(squares[ends], prepend=0.0) / np.maximum(np.diff(ends, prepend=0), 1)
    return [round(float(level), 3) for level in 0.5 * np.log1p(means)]


class Truth(dict[str, str]):
    """What is said in the demo world's recordings, by the hash of their samples in landing; and `hear` hears it."""

    def __init__(self, rows: Sequence[Mapping[str, Any]]) -> None:
        super().__init__((row["pcm_sha256"], row["text"]) for row in rows)
        self._by_form: defaultdict[tuple[int, int, int], list[Mapping[str, Any]]] = defaultdict(list)
        for row in rows:
            self._by_form[row["frames"], row["sample_rate_hz"], row["channels"]].append(row)

    def hear(self, recording: Recording) -> str | None:
        """The words of a recording as it was sent; `[beep]` for those behind a tone. None: not of this world."""
        form = len(recording.samples), recording.sample_rate_hz, recording.channels
        level = np.array(loudness(recording.samples))
        alike = sorted(self._by_form[form], key=lambda row: float(np.median(np.abs(level - row["loudness"]))))
        if not alike:
            return None
        said: list[str] = []
        for word in alike[0]["words"]:
            middle = (word["start_ms"] + word["end_ms"]) // 2
            heard = BEEP if has_tone(recording, middle) else word["word"]
            if heard != BEEP or said[-1:] != [BEEP]:
                said.append(heard)
        return " ".join(said)


def has_tone(recording: Recording, at_ms: int) -> bool:
    """Whether around this moment there is nothing but a tone of 1 kHz, in every channel."""
    rate, half = recording.sample_rate_hz, _WINDOW_MS // 2
    start = max(0, (at_ms - half) * rate // 1000)
    sound = recording.samples[start : (at_ms + half) * rate // 1000].astype(float)
    if len(sound) < rate * _WINDOW_MS // 2000:
        return False
    power: npt.NDArray[np.float64] = np.abs(np.fft.rfft(sound * np.hanning(len(sound))[:, None], axis=0)) ** 2
    is_near = np.abs(np.fft.rfftfreq(len(sound), 1 / rate) - _TONE_HZ) < 100
    return bool(np.all(power[is_near].sum(axis=0) > _TONE_SHARE * power.sum(axis=0)) and np.all(power.sum(axis=0) > 1))


def read_truth(world: Path) -> Truth:
    """What is spoken in a demo world."""
    return Truth(pq.read_table(world / "demo" / "truth.parquet").to_pylist())
