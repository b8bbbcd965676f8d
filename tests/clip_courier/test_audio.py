"""Sound in, sound out, and nothing else: files of every kind with tags, loudness, and files that are broken."""

import hashlib
import io
import struct
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
import soundfile as sf

from clip_courier import audio
from clip_courier.errors import AudioUnusable

Samples = npt.NDArray[np.int16]
CANARY = b"Zoe Quandlebrook-Marrow"
RATE = 16_000


def tone(channels: int = 1, rate: int = RATE, seconds: float = 0.5, peak: float = 0.5) -> Samples:
    """A different note in every channel."""
    at = np.arange(int(rate * seconds)) / rate
    notes = [np.sin(2 * np.pi * (220 + 110 * channel) * at) for channel in range(channels)]
    return (np.stack(notes, axis=1) * peak * 32767).astype(np.int16)


def encode(samples: npt.NDArray[np.generic], container: str, subtype: str, rate: int = RATE) -> bytes:
    memory = io.BytesIO()
    sf.write(memory, samples, rate, format=container, subtype=subtype)
    return memory.getvalue()


def chunk(name: bytes, body: bytes, order: str = "<") -> bytes:
    return name + struct.pack(f"{order}I", len(body)) + body + b"\0" * (len(body) % 2)


# -- tags, written byte by byte --------------------------------------------------------------------------------


def wav_with_tags() -> bytes:
    plain = encode(tone(), "WAV", "PCM_16")
    form, sound = plain[12:36], plain[36:]
    info = chunk(b"LIST", b"INFO" + chunk(b"IART", CANARY + b"\0") + chunk(b"ICMT", CANARY + b"\0"))
    broadcast = chunk(b"bext", CANARY.ljust(256, b"\0") + CANARY.ljust(32, b"\0") + b"\0" * (602 - 288) + CANARY)
    ixml = chunk(b"iXML", b"<BWFXML><NOTE>" + CANARY + b"</NOTE></BWFXML>")
    chunks = info + broadcast + form + ixml + chunk(b"id3 ", id3v2()) + sound + info + chunk(b"JUNK", CANARY)
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks


def id3v2() -> bytes:
    """ID3v2.3 (id3.org): a title, and a private frame."""
    frames = b"".join(
        name + struct.pack(">I", len(body)) + b"\0\0" + body
        for name, body in ((b"TIT2", b"\0" + CANARY), (b"PRIV", b"owner\0" + CANARY))
    )
    size = len(frames)
    return b"ID3\x03\0\0" + bytes([size >> 21 & 127, size >> 14 & 127, size >> 7 & 127, size & 127]) + frames


def mp3_with_tags() -> bytes:
    v1 = b"TAG" + CANARY.ljust(30, b"\0")[:30] + b"\0" * 95
    return id3v2() + encode(tone(), "MP3", "MPEG_LAYER_III") + v1


def flac_with_tags() -> bytes:
    """A comment and a picture (RFC 9639 §8) after the stream's own block."""
    plain = encode(tone(), "FLAC", "PCM_16")
    stream_info, place, last = plain[4:42], 42, False
    while not last:
        last, size = bool(plain[place] & 128), int.from_bytes(plain[place + 1 : place + 4], "big")
        place += 4 + size
    comment = struct.pack("<I", 4) + b"demo" + struct.pack("<II", 1, 7 + len(CANARY)) + b"ARTIST=" + CANARY
    picture = struct.pack(">II", 3, 9) + b"image/png" + struct.pack(">I", len(CANARY)) + CANARY
    picture += struct.pack(">IIIII", 1, 1, 24, 0, len(CANARY)) + CANARY
    application = b"test" + CANARY
    blocks = bytes([stream_info[0] & 127]) + stream_info[1:]
    for kind, body in ((4, comment), (2, application), (6 | 128, picture)):
        blocks += bytes([kind]) + len(body).to_bytes(3, "big") + body
    return b"fLaC" + blocks + plain[place:]


def ogg_with_tags(subtype: str = "VORBIS") -> bytes:
    memory = io.BytesIO()
    with sf.SoundFile(memory, "w", RATE, 1, subtype, format="OGG") as file:
        file.artist = file.title = file.comment = CANARY.decode()
        file.write(tone())
    return memory.getvalue()


def opus_with_tags() -> bytes:
    return ogg_with_tags("OPUS")


def aiff_with_tags() -> bytes:
    plain = encode(tone(), "AIFF", "PCM_16")
    texts = b"".join(chunk(name, CANARY, ">") for name in (b"NAME", b"AUTH", b"(c) ", b"ANNO"))
    chunks = texts + plain[12:] + chunk(b"ID3 ", id3v2(), ">")
    return b"FORM" + struct.pack(">I", 4 + len(chunks)) + b"AIFF" + chunks


def blocks_of(flac: bytes) -> list[tuple[int, bytes]]:
    place, last, found = 4, False, []
    while not last:
        last, kind, size = (
            bool(flac[place] & 128),
            flac[place] & 127,
            int.from_bytes(flac[place + 1 : place + 4], "big"),
        )
        found.append((kind, flac[place + 4 : place + 4 + size]))
        place += 4 + size
    return found


@pytest.mark.parametrize(
    "tagged", [wav_with_tags, flac_with_tags, ogg_with_tags, opus_with_tags, mp3_with_tags, aiff_with_tags]
)
def test_to_flac_keeps_no_tag(tagged: Callable[[], bytes]) -> None:
    source = tagged()
    assert CANARY in source
    recording = audio.decode(source)
    flac = audio.to_flac(recording)
    assert CANARY not in flac
    assert not any(CANARY[start : start + 8] in flac for start in range(len(CANARY) - 8))
    stream_info, *others = blocks_of(flac)
    assert stream_info[0] == 0
    for kind, body in others:
        # What the encoder says of itself, and padding; nothing that was in the source.
        assert kind in (1, 4)
        assert kind == 4 or not body.strip(b"\0")
        assert kind == 1 or body[4:].startswith(b"reference libFLAC")
        assert kind == 1 or body.endswith(struct.pack("<I", 0))
    assert np.array_equal(audio.decode(flac).samples, recording.samples)


@pytest.mark.parametrize("tagged", [wav_with_tags, flac_with_tags, aiff_with_tags])
def test_to_flac_of_the_same_samples_is_the_same(tagged: Callable[[], bytes]) -> None:
    plain = audio.to_flac(audio.Recording(tone(), RATE))
    assert audio.to_flac(audio.decode(tagged())) == plain


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 22_050, 32_000, 44_100, 48_000])
@pytest.mark.parametrize("channels", [1, 2])
def test_decode_keeps_rate_channels_and_every_sample(rate: int, channels: int) -> None:
    samples = tone(channels, rate)
    for container in ("WAV", "FLAC", "AIFF"):
        recording = audio.decode(encode(samples, container, "PCM_16", rate))
        assert (recording.sample_rate_hz, recording.channels, recording.duration_ms) == (rate, channels, 500)
        assert np.array_equal(recording.samples, samples)
        assert np.array_equal(audio.decode(audio.to_flac(recording)).samples, samples)


@pytest.mark.parametrize("peak", [0.9, 0.5, 0.02])
@pytest.mark.parametrize(
    ("container", "subtype", "noise"),
    [
        ("WAV", "FLOAT", 2),
        ("WAV", "DOUBLE", 2),
        ("WAV", "PCM_24", 2),
        ("WAV", "PCM_32", 2),
        ("WAV", "PCM_U8", 300),
        ("WAV", "ULAW", 1100),
        ("WAV", "ALAW", 1100),
        ("FLAC", "PCM_24", 2),
        ("AIFF", "FLOAT", 2),
        ("OGG", "VORBIS", 2500),
        ("OGG", "OPUS", 4000),
        ("MP3", "MPEG_LAYER_III", 2500),
    ],
)
def test_decode_keeps_the_loudness(container: str, subtype: str, noise: int, peak: float) -> None:
    samples = tone(peak=peak)
    heard = audio.decode(encode(samples.astype(np.float64) / 32768, container, subtype)).samples
    assert abs(len(heard) - len(samples)) <= RATE // 10
    middle = slice(RATE // 10, RATE * 4 // 10)
    loud = [np.sqrt(np.mean(s[middle].astype(np.float64) ** 2)) for s in (samples, heard)]
    assert loud[1] == pytest.approx(loud[0], rel=0.1)
    if subtype not in ("OPUS", "VORBIS", "MPEG_LAYER_III"):
        assert np.abs(heard.astype(int) - samples).max() <= noise


def test_decode_limits_floats_that_are_too_loud_or_no_numbers() -> None:
    wild = np.array([0.0, 4.0, -4.0, np.nan, np.inf, -np.inf, 0.5], dtype=np.float32)
    heard = audio.decode(encode(wild, "WAV", "FLOAT")).samples[:, 0].tolist()
    assert heard == [0, 32767, -32767, 0, 32767, -32767, 16384]


# -- what is refused -------------------------------------------------------------------------------------------


def reason(raw: bytes, sha256: str | None = None) -> str:
    with pytest.raises(AudioUnusable) as refused:
        audio.decode(raw, sha256)
    assert CANARY.decode() not in f"{refused.value} {refused.value.__cause__!r}"
    return refused.value.reason


def with_long_tags(raw: bytes) -> bytes:
    """So long that libsndfile's own log is full before it comes to the sound."""
    notes = chunk(b"LIST", b"INFO" + chunk(b"ICMT", b"x" * 6_000) + chunk(b"IART", b"y" * 6_000))
    return raw[:12] + notes + raw[12:]


@pytest.mark.parametrize("kept", [0.2, 0.5, 0.98])
@pytest.mark.parametrize(
    ("container", "subtype"),
    [("WAV", "PCM_16"), ("WAV", "FLOAT"), ("WAV", "ULAW"), ("FLAC", "PCM_16"), ("AIFF", "PCM_16"), ("OGG", "VORBIS")],
)
def test_decode_refuses_a_file_that_was_cut_off(container: str, subtype: str, kept: float) -> None:
    raw = encode(tone(seconds=2), container, subtype)
    assert audio.decode(raw).duration_ms == 2000
    assert reason(raw[: int(len(raw) * kept)]) in ("audio_corrupt", "audio_empty")


def test_decode_refuses_a_wav_that_was_cut_off_behind_long_tags() -> None:
    raw = with_long_tags(encode(tone(), "WAV", "PCM_16"))
    assert audio.decode(raw).duration_ms == 500
    assert reason(raw[:-10]) == "audio_corrupt"


def test_decode_takes_a_wav_whose_writer_did_not_know_its_length() -> None:
    raw = encode(tone(), "WAV", "PCM_16")
    streamed = raw[:4] + b"\xff" * 4 + raw[8:40] + b"\xff" * 4 + raw[44:]
    assert np.array_equal(audio.decode(streamed).samples, tone())


@pytest.mark.parametrize("place", [60, 700, 2000])
def test_decode_refuses_a_flac_that_was_damaged(place: int) -> None:
    raw = bytearray(encode(tone(seconds=1), "FLAC", "PCM_16"))
    raw[place : place + 40] = bytes(b ^ 0xA5 for b in raw[place : place + 40])
    assert reason(bytes(raw)) == "audio_corrupt"


@pytest.mark.parametrize("raw", [b"", b"RIFF", CANARY * 100, b"\0" * 4096, b"fLaC" + CANARY, b"ID3" + CANARY])
def test_decode_refuses_what_is_not_sound(raw: bytes) -> None:
    assert reason(raw) in ("audio_corrupt", "audio_empty")


def test_decode_refuses_a_file_without_sound() -> None:
    assert reason(encode(tone(seconds=0), "WAV", "PCM_16")) == "audio_empty"


def test_decode_refuses_more_channels_than_flac_has() -> None:
    assert reason(encode(tone(channels=9), "WAV", "PCM_16")) == "audio_corrupt"


def test_decode_refuses_hours_in_a_small_file_before_it_makes_room_for_them() -> None:
    raw = bytearray(encode(np.zeros((RATE, 1), np.int16), "FLAC", "PCM_16"))
    # The count of samples in STREAMINFO has 36 bits: four in byte 21 and then four bytes (RFC 9639 §8.2).
    raw[21] |= 0x0F
    assert reason(bytes(raw)) == "audio_too_large"


def test_decode_compares_the_hash_of_the_file() -> None:
    raw = encode(tone(), "WAV", "PCM_16")
    digest = hashlib.sha256(raw).hexdigest()
    for same in (digest, digest.upper(), f" {digest}\n"):
        assert audio.decode(raw, same).duration_ms == 500
    for other in (digest[:-1], "", "0" * 64):
        assert reason(raw, other) == "audio_hash_mismatch"


def test_to_flac_refuses_a_rate_that_flac_has_not() -> None:
    with pytest.raises(AudioUnusable) as refused:
        audio.to_flac(audio.Recording(tone(), 700_000))
    assert refused.value.reason == "audio_corrupt"
