"""Sound: decoded to samples and encoded anew as FLAC, so that nothing but the samples survives."""

import hashlib
import io
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import soundfile as sf

from clip_courier import ffmpeg
from clip_courier.errors import AudioUnusable

_INTEGER_SUBTYPES = frozenset({"PCM_S8", "PCM_U8", "PCM_16", "PCM_24", "PCM_32", "ULAW", "ALAW"})
_FLAC_MAX_CHANNELS = 8
_FULL_SCALE = 32767.0
# Kinds of metadata blocks (RFC 9639 §8.1), the mark of the last one, and sizes.
_STREAMINFO, _PADDING, _SEEKTABLE, _LAST = 0, 1, 3, 0x80
_STREAMINFO_BYTES, _SEEK_POINT_BYTES = 34, 18
# What the largest file that is fetched could hold without compression; a few kilobytes of FLAC can claim hours.
_MAX_SAMPLES = 128 * 1024 * 1024
# How the containers begin that are not taken: ASF with WMA, and AAC that says its form once and never again.
_UNSUPPORTED = (b"0&\xb2u\x8ef\xcf\x11", b"ADIF")
# Written by who did not know how long it would be; there is nothing to compare with.
_UNKNOWN_LENGTH_BYTES = 0x7FFF0000


@dataclass(frozen=True)
class Recording:
    """Decoded sound: int16 samples of shape (frames, channels).

    `late_ms`: up to so much later than its clock says a word may be heard, because the file does not say how much of
    its beginning the encoder added.
    """

    samples: npt.NDArray[np.int16]
    sample_rate_hz: int
    late_ms: int = 0

    @property
    def duration_ms(self) -> int:
        return round(len(self.samples) * 1000 / self.sample_rate_hz)

    @property
    def channels(self) -> int:
        return int(self.samples.shape[1])


def decode(raw: bytes, sha256: str | None = None) -> Recording:
    """Decode a file to 16-bit samples, in memory: WAV, FLAC, Ogg, Opus, MP3 or AIFF, or what `ffmpeg` takes.

    What it is its first bytes say, never a name.

    Raises:
        AudioUnusable: `audio_hash_mismatch` when `sha256` (hex) is given and differs, `audio_corrupt` when the bytes do
            not decode to the end, `audio_unsupported` when they are of a kind that is not decoded,
            `audio_too_large`, `audio_empty` when there is no sound in them.
        MachineFailed: the process for MP4 and the like does not start.
    """
    if sha256 is not None and hashlib.sha256(raw).hexdigest() != sha256.strip().lower():
        raise AudioUnusable("audio_hash_mismatch", "a recording is not the one that its row describes")
    if raw.startswith(_UNSUPPORTED):
        raise AudioUnusable("audio_unsupported", "a recording is in a container that is not taken")
    kind = ffmpeg.kind_of(raw)
    recording = _by_ffmpeg(raw, kind) if kind else _by_libsndfile(raw)
    if recording.channels > _FLAC_MAX_CHANNELS:
        raise AudioUnusable("audio_corrupt", "a recording has more channels than FLAC can hold")
    if len(recording.samples) == 0:
        raise AudioUnusable("audio_empty", "a recording holds no sound")
    return recording


def _by_ffmpeg(raw: bytes, kind: str) -> Recording:
    sound = ffmpeg.decode(raw, kind, _MAX_SAMPLES)
    samples = np.frombuffer(sound.samples, "<i2").astype(np.int16, copy=False).reshape(-1, sound.channels)
    return Recording(samples, sound.sample_rate_hz, -(-sound.late * 1000 // sound.sample_rate_hz))


def _by_libsndfile(raw: bytes) -> Recording:
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
    """The samples as 16-bit FLAC; the same samples give the same bytes, and nothing but them is in it.

    Raises:
        AudioUnusable: `audio_corrupt` when FLAC has no such sample rate, `audio_not_bare` when anything else is in it.
    """
    sink = io.BytesIO()
    try:
        sf.write(sink, recording.samples, recording.sample_rate_hz, format="FLAC", subtype="PCM_16")
    except sf.LibsndfileError:
        raise AudioUnusable("audio_corrupt", "a recording has a sample rate that FLAC cannot hold") from None
    encoded = sink.getvalue()
    # The encoder adds a comment of its own, with its version.
    *_, (_, end) = _blocks(encoded)
    flac = b"fLaC" + bytes([_STREAMINFO | _LAST]) + encoded[5 : 8 + _STREAMINFO_BYTES] + encoded[end:]
    check_bare(flac, recording)
    return flac


def check_bare(flac: bytes, recording: Recording) -> None:
    """The gate: what describes the sound (RFC 9639 §8.2), room and places to seek may stand before it, nothing else.

    A list of what may be there, so that a kind of tag that nobody has thought of is refused as well.

    Raises:
        AudioUnusable: `audio_not_bare`.
    """
    blocks = _blocks(flac)
    kinds = [flac[start] & ~_LAST for start, _ in blocks]
    bodies = [flac[start + 4 : end] for start, end in blocks]
    is_bare = (
        flac[:4] == b"fLaC"
        and kinds[:1] == [_STREAMINFO]
        and len(bodies[0]) == _STREAMINFO_BYTES
        and all(
            (kind == _PADDING and not body.strip(b"\0")) or (kind == _SEEKTABLE and len(body) % _SEEK_POINT_BYTES == 0)
            for kind, body in zip(kinds[1:], bodies[1:], strict=True)
        )
        # The sound follows at once: the first frame's sync code.
        and flac[blocks[-1][1] :][:2] in (b"\xff\xf8", b"\xff\xf9")
    )
    if not is_bare or _described(bodies[0]) != (
        recording.sample_rate_hz,
        recording.channels,
        16,
        len(recording.samples),
    ):
        raise AudioUnusable("audio_not_bare", "a recording would leave with more than its sound")


def _blocks(flac: bytes) -> list[tuple[int, int]]:
    """Start and end of every metadata block, its header of four bytes included."""
    found, start, is_last = [], 4, False
    while not is_last and start + 4 <= len(flac):
        is_last = bool(flac[start] & _LAST)
        end = start + 4 + int.from_bytes(flac[start + 1 : start + 4], "big")
        found.append((start, end))
        start = end
    return found


def _described(stream_info: bytes) -> tuple[int, int, int, int]:
    """Sample rate, channels, bits of a sample and samples, as STREAMINFO has them."""
    packed = int.from_bytes(stream_info[10:18], "big")
    return packed >> 44, (packed >> 41 & 7) + 1, (packed >> 36 & 31) + 1, packed & (1 << 36) - 1
