"""Sound: decoded to samples and encoded anew as FLAC, so that nothing but the samples survives."""

import hashlib
import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import soundfile as sf

from clip_courier.errors import AudioUnusable

_INTEGER_SUBTYPES = frozenset({"PCM_S8", "PCM_U8", "PCM_16", "PCM_24", "PCM_32", "ULAW", "ALAW"})
_FLAC_MAX_CHANNELS = 8
_FULL_SCALE = 32767.0


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
            not decode to the end, `audio_empty` when there is no sound in them.
    """
    if sha256 is not None and hashlib.sha256(raw).hexdigest() != sha256.strip().lower():
        raise AudioUnusable("audio_hash_mismatch", "a recording is not the one that its row describes")
    try:
        with sf.SoundFile(io.BytesIO(raw)) as stream:
            expected, rate = stream.frames, stream.samplerate
            if stream.subtype in _INTEGER_SUBTYPES:
                samples = stream.read(dtype="int16", always_2d=True)
            else:
                # libsndfile does not scale floats to integers by itself.
                floats = stream.read(dtype="float32", always_2d=True)
                samples = np.rint(np.clip(np.nan_to_num(floats), -1.0, 1.0) * _FULL_SCALE).astype(np.int16)
    except (sf.LibsndfileError, RuntimeError, ValueError, MemoryError):
        # libsndfile's text may quote what is in the file.
        raise AudioUnusable("audio_corrupt", "a recording cannot be decoded") from None
    if len(samples) != expected or samples.shape[1] > _FLAC_MAX_CHANNELS:
        raise AudioUnusable("audio_corrupt", "a recording ends before its header says")
    if len(samples) == 0:
        raise AudioUnusable("audio_empty", "a recording holds no sound")
    return Recording(samples, rate)


def to_flac(recording: Recording) -> bytes:
    """The samples as 16-bit FLAC; the same samples give the same bytes, and no tag of the source is among them."""
    sink = io.BytesIO()
    sf.write(sink, recording.samples, recording.sample_rate_hz, format="FLAC", subtype="PCM_16")
    return sink.getvalue()
