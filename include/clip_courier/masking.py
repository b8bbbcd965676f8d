"""A recording as it leaves for one vendor: without the words that are masked, and no longer the file that landing has.

Four things are done to the samples, each the same on every run:

* What must not be heard is replaced by a quiet tone. A tone says that a word was taken out here; silence would be taken
  for a pause. Nothing of the original is in it, no fade either: the tone alone swells and fades.
* `voice: disguised` moves the formants by a McAdams coefficient that is another one for every vendor and recording:
  J. Patino, N. Tomashenko, M. Todisco, A. Nautsch, N. Evans, "Speaker anonymisation using the McAdams coefficient",
  Interspeech 2021, the second baseline of the VoicePrivacy challenges. It is a disguise and no anonymisation:
  docs/audio.md.
* What its clip shows of it, it is made (groups.py): one channel, the mean of all; a lower sample rate, by a filter that
  leaves nothing of what lay above; as long as a bucket of durations, by silence at its end. It is never made shorter,
  and never given a higher rate, which would say that there is something to be heard up there.
* Grain: a few hundred samples are moved by the least step there is; which ones, and which way, a key decides. FLAC is
  lossless and its encoder leaves nothing to chance: without this the hash of what leaves could be computed from the
  file in landing, and two vendors could join their copies by it.
"""

import functools
import hashlib
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from clip_courier import audio, ffmpeg
from clip_courier.audio import Recording
from clip_courier.errors import AudioUnusable

_Samples = npt.NDArray[np.int16]
_Floats = npt.NDArray[np.float64]

NATURAL: Final = "natural"
DISGUISED: Final = "disguised"

TONE_HZ: Final = 1000
# 30 dB below full scale: heard over a voice, and nobody takes the headphones off.
_TONE_PEAK: Final = 1036
_RAMP_MS: Final = 10
_SHORT: Final = 1 << 16

# So many samples are moved, in whatever is long enough: which way each one goes makes a secret of 256 bits.
_GRAINS: Final = 256

# The range that the paper draws from.
_COEFFICIENTS: Final = (0.5, 0.9)
_HOP_MS: Final = 10
# Angles are raised to a power, which leaves 1 rad where it is: at the paper's 16 kHz that is this many Hz.
_PIVOT_HZ: Final = 16_000 / (2 * np.pi)
# Two coefficients for every formant, of which a voice has one a kHz, and four for the rest (the paper's 20 at 16 kHz).
_LARGEST_ORDER: Final = 32
# So many frames at once: 5 s, some tens of megabytes.
_FRAMES: Final = 512


class Shown(NamedTuple):
    """What a clip shows of its sound, by the names of the crosswalk's columns."""

    shown_duration_ms: int
    shown_sample_rate_hz: int
    shown_channels: int


# What `leaving` reads of a row, and where the recording is.
OF_SOUND: Final = ("audio_uri", "audio_sha256", "silenced", "sound_key", "voice", *Shown._fields)


def leaving(raw: bytes, row: Mapping[str, Any]) -> bytes:
    """A recording's file in landing as the FLAC that leaves; the same bytes for the same row.

    The row has audio_sha256 (hex, null), silenced (list of start_ms and end_ms), sound_key (secret), voice, and what is
    shown: shown_duration_ms, shown_sample_rate_hz, shown_channels.

    Raises:
        AudioUnusable: it cannot be decoded, is another file than the row says, or the row does not say what to silence
            or how the sound is to be shown.
    """
    recording = audio.decode(raw, row["audio_sha256"])
    # A row that was cut by a version that showed everything as it was recorded does not say how.
    shown = Shown(*(row.get(name) or 0 for name in Shown._fields))
    return audio.to_flac(masked(recording, row, shown))


def masked(recording: Recording, row: Mapping[str, Any], shown: Shown | None = None) -> Recording:
    """The same for samples; without `shown` they stay as many as they are."""
    silenced, key, voice = row.get("silenced"), row.get("sound_key"), row.get("voice")
    if silenced is None or not key or voice not in (NATURAL, DISGUISED):
        # Cut by a version that silenced nothing.
        raise AudioUnusable("mask_without_timing", "what is to be silenced in a recording is not on record")
    rate = recording.sample_rate_hz
    places = [_place(span, rate, len(recording.samples)) for span in silenced]
    samples = recording.samples.copy()
    if voice == DISGUISED:
        for start, end in places:  # before, or the edges of a word would spread to where they can be heard
            samples[start:end] = 0
        samples = disguised(samples, rate, coefficient(key))
    for start, end in places:
        samples[start:end] = _tone(end - start, rate)[:, None]
    if shown is None:
        return Recording(_grained(samples, key), rate)
    coarser = _grained(_coarser(Recording(samples, rate), shown), key)
    missing = 0
    if shown.shown_duration_ms > recording.duration_ms:
        missing = max(0, round(shown.shown_duration_ms * shown.shown_sample_rate_hz / 1000) - len(coarser))
    # Last, and without grain: FLAC has hardly a byte for it.
    silence = np.zeros((missing, coarser.shape[1]), np.int16)
    return Recording(np.concatenate([coarser, silence]), shown.shown_sample_rate_hz)


def _place(span: Mapping[str, int], rate: int, frames: int) -> tuple[int, int]:
    """Every sample that the span touches."""
    start, end = span["start_ms"] * rate // 1000, -(-span["end_ms"] * rate // 1000)
    return min(max(start, 0), frames), min(max(end, 0), frames)


def _tone(frames: int, rate: int) -> _Samples:
    tone = (_short_wave(rate) if frames <= _SHORT else _wave(rate, frames))[:frames].copy()
    ramp = min(frames // 2, rate * _RAMP_MS // 1000)
    rising = np.sin(np.pi / 2 * np.arange(ramp) / max(ramp, 1)) ** 2
    tone[:ramp] *= rising
    tone[frames - ramp :] *= rising[::-1]
    beep: _Samples = np.rint(tone).astype(np.int16)
    return beep


def _wave(rate: int, frames: int) -> _Floats:
    wave: _Floats = _TONE_PEAK * np.sin(2 * np.pi * min(TONE_HZ, rate / 4) / rate * np.arange(frames))
    return wave


@functools.lru_cache(maxsize=8)
def _short_wave(rate: int) -> _Floats:
    """What most tones are a part of: sines cost as much as all that is done to a recording otherwise."""
    return _wave(rate, _SHORT)


def _coarser(recording: Recording, shown: Shown) -> _Samples:
    """In one channel, at a lower rate, where the row shows so; in nothing more than was recorded."""
    samples, rate = recording.samples, recording.sample_rate_hz
    shown_ms, shown_hz, shown_channels = shown
    if shown_ms < recording.duration_ms or not 0 < shown_hz <= rate or shown_channels not in (1, recording.channels):
        raise AudioUnusable("audio_changed", "a recording is not what its row shows of it")
    if shown_channels < recording.channels:
        samples = np.rint(samples.mean(axis=1, keepdims=True)).astype(np.int16)
    if shown_hz < rate:
        samples = _resampled(samples, rate, shown_hz)
    return samples


def _resampled(samples: _Samples, rate: int, to: int) -> _Samples:
    moved = [ffmpeg.resampled(channel.astype("<i2").tobytes(), rate, to) for channel in samples.T]
    return np.stack([np.frombuffer(channel, "<i2").astype(np.int16) for channel in moved], axis=1)


def _grained(samples: _Samples, key: str) -> _Samples:
    flat = samples.reshape(-1)
    step = max(1, flat.size // _GRAINS)
    drawn = np.frombuffer(_secret(key, "grain", 4 * (flat.size // step)), "<u4").astype(np.int64)
    where = np.arange(len(drawn)) * step + (drawn >> 1) % step
    was, by = flat[where].astype(np.int64), 1 - 2 * (drawn & 1)
    # At either end of the scale there is one way only.
    is_out = (was + by < -32768) | (was + by > 32767)
    flat[where] = (was + np.where(is_out, -by, by)).astype(np.int16)
    return flat.reshape(samples.shape)


def _secret(key: str, what: str, size: int) -> bytes:
    """As many bytes as are wanted out of a key of 160 bits: SHAKE-256 (FIPS 202)."""
    return hashlib.shake_256(f"{what}:{key}".encode()).digest(size)


# -- the disguise ----------------------------------------------------------------------------------------------


def coefficient(key: str) -> float:
    """The McAdams coefficient of one recording for one vendor, uniform over the published range."""
    low, high = _COEFFICIENTS
    return low + (high - low) * int.from_bytes(_secret(key, "voice", 6)) / 2**48


def disguised(samples: _Samples, rate: int, mcadams: float) -> _Samples:
    """Samples of shape (frames, channels) with their formants moved; each frame stays as loud as it was."""
    return np.stack([_disguised(channel, rate, mcadams) for channel in samples.T], axis=1)


def _disguised(channel: _Samples, rate: int, mcadams: float) -> _Samples:
    """Frames of twice the hop under the root of a Hann window, which add up to what they were cut from."""
    hop = max(1, rate * _HOP_MS // 1000)
    window = np.sqrt(np.hanning(2 * hop + 1)[:-1])
    order = min(rate // 1000 + 4, _LARGEST_ORDER, hop)
    frames = len(channel) // hop + 2
    padded = np.zeros((frames + 1) * hop)
    padded[hop : hop + len(channel)] = channel
    heard = np.zeros((frames + 1) * hop, np.int16)
    carried = np.zeros(hop)
    for first in range(0, frames, _FRAMES):
        count = min(_FRAMES, frames - first)
        part = np.lib.stride_tricks.sliding_window_view(padded, 2 * hop)[first * hop : (first + count) * hop : hop]
        moved = _moved(part * window, order, 2 * np.pi * _PIVOT_HZ / rate, mcadams) * window
        added = np.zeros((count + 1) * hop)
        added[: count * hop] += moved[:, :hop].reshape(-1)
        added[hop:] += moved[:, hop:].reshape(-1)
        added[:hop] += carried
        carried = added[count * hop :]
        part_of = slice(first * hop, (first + count) * hop)
        heard[part_of] = np.clip(np.rint(added[: count * hop]), -32768, 32767).astype(np.int16)
    return heard[hop : hop + len(channel)]


def _moved(frames: _Floats, order: int, pivot: float, mcadams: float) -> _Floats:
    """Every frame through the filter of its residual and then one whose poles have other angles."""
    model = _linear_prediction(frames, order)
    moved = _with_moved_poles(model, pivot, mcadams)
    count, size = frames.shape
    residual = frames.copy()
    for lag in range(1, order + 1):
        residual[:, lag:] += model[:, lag, None] * frames[:, : size - lag]
    out = np.zeros((count, order + size))
    backwards = -moved[:, :0:-1]
    for place in range(size):
        past = out[:, place : place + order]
        out[:, place + order] = residual[:, place] + np.einsum("ij,ij->i", backwards, past)
    out = out[:, order:]
    energy, was = np.sum(out**2, axis=1), np.sum(frames**2, axis=1)
    out *= np.sqrt(was / np.where(energy > 0, energy, 1))[:, None]
    return out


def _linear_prediction(frames: _Floats, order: int) -> _Floats:
    """Coefficients 1, a1, … of every frame by the autocorrelation method (Levinson-Durbin): always a stable filter."""
    size = frames.shape[1]
    lags = np.stack([np.einsum("ij,ij->i", frames[:, : size - k], frames[:, k:]) for k in range(order + 1)], axis=1)
    # A floor of noise 90 dB below, so that silence and pure tones have a model, too.
    lags[:, 0] = lags[:, 0] * (1 + 1e-9) + 1e-9
    model = np.zeros((len(frames), order + 1))
    model[:, 0] = 1
    error = lags[:, 0].copy()
    for k in range(1, order + 1):
        reflected = -np.einsum("ij,ij->i", model[:, :k], lags[:, k:0:-1]) / error
        model[:, 1 : k + 1] += reflected[:, None] * model[:, k - 1 :: -1][:, :k]
        error *= 1 - reflected**2
    return model


def _with_moved_poles(model: _Floats, pivot: float, mcadams: float) -> _Floats:
    order = model.shape[1] - 1
    companions = np.zeros((len(model), order, order))
    companions[:, 0] = -model[:, 1:]
    companions[:, np.arange(1, order), np.arange(order - 1)] = 1
    poles = np.linalg.eigvals(companions)
    angles = np.abs(np.angle(poles))
    turned = np.minimum(pivot * (angles / pivot) ** mcadams, np.pi)
    moved = np.abs(poles) * np.exp(1j * np.copysign(turned, poles.imag))
    poles = np.where(poles.imag == 0, poles, moved)
    polynomial = np.zeros((len(model), order + 1), np.complex128)
    polynomial[:, 0] = 1
    for k in range(order):
        polynomial[:, 1 : k + 2] -= poles[:, k, None] * polynomial[:, : k + 1].copy()
    real: _Floats = polynomial.real
    return real
