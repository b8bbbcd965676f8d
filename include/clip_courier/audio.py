"""Sound: decoded to samples and encoded anew as FLAC, so that nothing but the samples survives."""

import hashlib
import io
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import soundfile as sf

from clip_courier.errors import AudioUnusable

_INTEGER_SUBTYPES = frozenset({"PCM_S8", "PCM_U8", "PCM_16", "PCM_24", "PCM_32", "ULAW", "ALAW"})
_FLAC_MAX_CHANNELS = 8
_FULL_SCALE = 32767.0
# What the largest file that is fetched could hold without compression; a few kilobytes of FLAC can claim hours.
_MAX_SAMPLES = 128 * 1024 * 1024
# Written by who did not know how long it would be; there is nothing to compare with.
_UNKNOWN_LENGTH_BYTES = 0x7FFF0000


@dataclass(frozen=True)
class Recording:
    """Decoded sound: int16 samples of shape (frames, channels)."""

    samples: npt.NDArray[np.int16]
    sample_rate_hz: int

    @property
    def duration_ms(self) -> int:
        return round(len(self.samples) * 1000 / self.sample_rate_hz)

    @property
    def channels(self) -> int:
        return int(self.samples.shape[1])


def decode(raw: bytes, sha256: str | None = None) -> Recording:
    """Decode WAV, FLAC, Ogg, Opus, MP3 or AIFF to 16-bit samples, in memory.

    Raises:
        AudioUnusable: `audio_hash_mismatch` when `sha256` (hex) is given and differs, `audio_corrupt` when the bytes do
            not decode to the end, `audio_too_large`, `audio_empty` when there is no sound in them.
    """
    if sha256 is not None and hashlib.sha256(raw).hexdigest() != sha256.strip().lower():
        raise AudioUnusable("audio_hash_mismatch", "a recording is not the one that its row describes")
    try:
        with sf.SoundFile(io.BytesIO(raw)) as stream:
            expected, rate = stream.frames, stream.samplerate
            if expected * stream.channels > _MAX_SAMPLES:
                raise AudioUnusable("audio_too_large", "a recording holds more sound than any clip can")
            if stream.subtype in _INTEGER_SUBTYPES:
                samples = stream.read(dtype="int16", always_2d=True)
            else:
                # libsndfile does not scale floats to integers by itself.
                floats = stream.read(dtype="float32", always_2d=True)
                samples = np.rint(np.clip(np.nan_to_num(floats), -1.0, 1.0) * _FULL_SCALE).astype(np.int16)
    except (sf.LibsndfileError, RuntimeError, ValueError, MemoryError):
        # libsndfile's text may quote what is in the file.
        raise AudioUnusable("audio_corrupt", "a recording cannot be decoded") from None
    if len(samples) != expected or _is_cut_short(raw):
        raise AudioUnusable("audio_corrupt", "a recording ends before its header says")
    if samples.shape[1] > _FLAC_MAX_CHANNELS:
        raise AudioUnusable("audio_corrupt", "a recording has more channels than FLAC can hold")
    if len(samples) == 0:
        raise AudioUnusable("audio_empty", "a recording holds no sound")
    return Recording(samples, rate)


def _is_cut_short(raw: bytes) -> bool:
    """Whether the chunk with the sound claims more than a WAV or AIFF file has left: libsndfile makes do with that."""
    kind: Literal["little", "big"] = "little" if raw[:4] == b"RIFF" else "big"
    if raw[:4] not in (b"RIFF", b"RIFX", b"FORM"):
        return False
    start = 12
    while start + 8 <= len(raw):
        name, size = raw[start : start + 4], int.from_bytes(raw[start + 4 : start + 8], kind)
        start += 8
        if name in (b"data", b"SSND"):
            return len(raw) - start < size < _UNKNOWN_LENGTH_BYTES
        start += size + size % 2
    return False


def to_flac(recording: Recording) -> bytes:
    """The samples as 16-bit FLAC; the same samples give the same bytes, and no tag of the source is among them.

    Raises:
        AudioUnusable: `audio_corrupt` when FLAC has no such sample rate.
    """
    sink = io.BytesIO()
    try:
        sf.write(sink, recording.samples, recording.sample_rate_hz, format="FLAC", subtype="PCM_16")
    except sf.LibsndfileError:
        raise AudioUnusable("audio_corrupt", "a recording has a sample rate that FLAC cannot hold") from None
    return sink.getvalue()
