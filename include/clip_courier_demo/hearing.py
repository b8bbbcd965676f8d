"""The ears of a demo vendor: it knows a recording again, whatever was done to it, and hears the tones in it."""

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
    return [round(float(level), 3) for level in _levels(_energy(samples), len(samples))]


def _energy(samples: Samples) -> npt.NDArray[np.float64]:
    """Up to each frame."""
    return np.concatenate(([0.0], np.cumsum((samples.reshape(len(samples), -1).astype(float) ** 2).mean(axis=1))))


def _levels(energy: npt.NDArray[np.float64], frames: int) -> npt.NDArray[np.float64]:
    ends = np.linspace(0, frames, _PARTS + 1).astype(int)[1:]
    means = np.diff(energy[ends], prepend=0.0) / np.maximum(np.diff(ends, prepend=0), 1)
    levels: npt.NDArray[np.float64] = 0.5 * np.log1p(means)
    return levels


class Truth(dict[str, str]):
    """What is said in the demo world's recordings, by the hash of their samples in landing; and `hear` hears it."""

    def __init__(self, rows: Sequence[Mapping[str, Any]]) -> None:
        super().__init__((row["pcm_sha256"], row["text"]) for row in rows)
        self._rows = rows
        self._rates, self._channels, frames = (
            np.array([row[name] for row in rows], int) for name in ("sample_rate_hz", "channels", "frames")
        )
        self._seconds = frames / np.maximum(self._rates, 1)

    def hear(self, recording: Recording) -> str | None:
        """The words of a recording as it was sent; `[beep]` for those behind a tone. None: not of this world.

        It may have been mixed into one channel, given a lower rate and made longer by silence.
        """
        rate, energy = recording.sample_rate_hz, _energy(recording.samples)
        whole, sounding = len(energy) - 1, int(np.searchsorted(energy, energy[-1]))
        frames = np.rint(self._seconds * rate).astype(int)
        is_like = (self._rates >= rate) & (self._channels >= recording.channels)
        is_like &= (frames >= sounding - 1) & (frames <= whole + 1)
        if not is_like.any():
            return None

        def unlike(place: int) -> float:
            apart = _levels(energy, min(int(frames[place]), whole)) - self._rows[place]["loudness"]
            # Two channels in one are half as loud where only one of them speaks.
            return float(
                np.median(np.abs(apart - (np.median(apart) if self._channels[place] > recording.channels else 0)))
            )

        said: list[str] = []
        for word in self._rows[min(np.flatnonzero(is_like).tolist(), key=unlike)]["words"]:
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
