"""Audio files that say whose they are: WAV, FLAC, Ogg and M4A whose tags are full of what must not leave."""

import io
import struct
from collections.abc import Mapping

import av
import soundfile

from clip_courier import audio
from clip_courier_demo.speech import Samples

# Which of the RIFF layouts a WAV file gets: tags before the sound, after it, or in a broadcast extension (EBU 3285).
RIFF_LAYOUTS = ("list_first", "list_last", "broadcast")

_INFO_CHUNKS = {"title": b"INAM", "artist": b"IART", "comment": b"ICMT", "copyright": b"ICOP", "software": b"ISFT"}

# Offsets in a page: stream serial number, checksum, count of segments, their table.
_OGG_SERIAL, _OGG_CHECKSUM, _OGG_SEGMENTS, _OGG_HEADER = 14, 22, 26, 27
_CRC_POLYNOMIAL = 0x04C11DB7


def encode(samples: Samples, rate_hz: int, container: str, tags: Mapping[str, str], variant: int) -> bytes:
    """A file of 16-bit samples, shape (frames,) or (frames, 2), in `wav`, `flac`, `ogg` (Vorbis) or `m4a`
    (AAC); the last two are lossy.

    `tags` has some of the keys title, artist, comment, copyright, software. The bytes depend on the arguments alone;
    `variant` is any number, and chooses the layout of a WAV file and the serial number of an Ogg stream.
    """
    if container == "wav":
        return _wav(samples, rate_hz, tags, RIFF_LAYOUTS[variant % len(RIFF_LAYOUTS)])
    if container == "m4a":
        return _m4a(samples.reshape(len(samples), -1), rate_hz, tags)
    memory = io.BytesIO()
    channels = 1 if samples.ndim == 1 else samples.shape[1]
    subtype = "PCM_16" if container == "flac" else "VORBIS"
    with soundfile.SoundFile(memory, "w", rate_hz, channels, subtype, format=container.upper()) as file:
        for name, value in tags.items():
            setattr(file, name, value)
        file.write(samples)
    return memory.getvalue() if container == "flac" else _with_serial(memory.getvalue(), variant)


def decode(data: bytes) -> Samples:
    """The 16-bit samples of a file, frames first."""
    if data[4:8] == b"ftyp":
        recording = audio.decode(data)
        return recording.samples[:, 0] if recording.channels == 1 else recording.samples
    samples: Samples = soundfile.read(io.BytesIO(data), dtype="int16")[0]
    return samples


def _wav(samples: Samples, rate_hz: int, tags: Mapping[str, str], layout: str) -> bytes:
    channels = 1 if samples.ndim == 1 else samples.shape[1]
    form = struct.pack("<HHIIHH", 1, channels, rate_hz, rate_hz * channels * 2, channels * 2, 16)
    info = b"INFO" + b"".join(_chunk(_INFO_CHUNKS[name], value.encode() + b"\0") for name, value in tags.items())
    sound = _chunk(b"data", samples.astype("<i2").tobytes())
    chunks = {
        "list_first": _chunk(b"LIST", info) + _chunk(b"fmt ", form) + sound,
        "list_last": _chunk(b"fmt ", form) + sound + _chunk(b"LIST", info),
        "broadcast": _chunk(b"bext", _broadcast(tags)) + _chunk(b"fmt ", form) + _chunk(b"iXML", _ixml(tags)) + sound,
    }[layout]
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks


def _m4a(samples: Samples, rate_hz: int, tags: Mapping[str, str]) -> bytes:
    """AAC as phones record it, with the tags in iTunes' list."""
    memory = io.BytesIO()
    layout = "mono" if samples.shape[1] == 1 else "stereo"
    with av.open(memory, "w", format="ipod", options={"fflags": "+bitexact"}) as file:
        file.metadata.update(tags)
        stream = file.add_stream("aac", rate=rate_hz, layout=layout)
        frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="s16", layout=layout)
        frame.sample_rate, frame.pts = rate_hz, 0
        file.mux([*stream.encode(frame), *stream.encode(None)])
    return memory.getvalue()


def _chunk(name: bytes, body: bytes) -> bytes:
    return name + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)


def _broadcast(tags: Mapping[str, str]) -> bytes:
    """Description 256 bytes, originator 32, its reference 32, date and time 18, time reference 8, the rest 256."""
    texts = ((tags["comment"], 256), (tags["artist"], 32), (tags["title"], 32))
    fixed = b"".join(text.encode()[:size].ljust(size, b"\0") for text, size in texts)
    return fixed + b"1970-01-0100:00:00" + b"\0" * (8 + 256) + tags["software"].encode()


def _ixml(tags: Mapping[str, str]) -> bytes:
    fields = "".join(f"<{name.upper()}>{value}</{name.upper()}>" for name, value in tags.items())
    return f'<?xml version="1.0" encoding="UTF-8"?><BWFXML>{fields}</BWFXML>'.encode()


def _with_serial(data: bytes, serial: int) -> bytes:
    """The Ogg file with this stream serial number in place of the encoder's random one (RFC 3533, section 6)."""
    pages = bytearray(data)
    start = 0
    while start < len(pages):
        segments = pages[start + _OGG_SEGMENTS]
        head = start + _OGG_HEADER + segments
        end = head + sum(pages[start + _OGG_HEADER : head])
        struct.pack_into("<I", pages, start + _OGG_SERIAL, serial)
        struct.pack_into("<I", pages, start + _OGG_CHECKSUM, 0)
        struct.pack_into("<I", pages, start + _OGG_CHECKSUM, _ogg_checksum(pages[start:end]))
        start = end
    return bytes(pages)


def _ogg_checksum(page: bytes | bytearray) -> int:
    checksum = 0
    for octet in page:
        checksum = ((checksum << 8) & 0xFFFFFFFF) ^ _CRC_TABLE[(checksum >> 24) ^ octet]
    return checksum


def _crc_entry(octet: int) -> int:
    value = octet << 24
    for _ in range(8):
        value = ((value << 1) ^ (_CRC_POLYNOMIAL if value & 0x80000000 else 0)) & 0xFFFFFFFF
    return value


_CRC_TABLE = tuple(_crc_entry(octet) for octet in range(256))
