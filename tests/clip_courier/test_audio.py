"""Sound in, sound out, and nothing else: files of every kind with tags, loudness, and files that are broken."""

import base64
import hashlib
import io
import struct
from collections.abc import Callable, Iterator

import av
import numpy as np
import numpy.typing as npt
import pytest
import soundfile as sf
from hypothesis import given, settings
from hypothesis import strategies as st

import av_files
from clip_courier import audio, masking
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


TEXT = CANARY.decode()


def wav_with_tags() -> bytes:
    """What RIFF files are known to carry, before and after the sound, and behind the end of the file."""
    plain = encode(tone(), "WAV", "PCM_16")
    form, sound = plain[12:36], plain[36:]
    info = chunk(b"LIST", b"INFO" + b"".join(chunk(n, CANARY + b"\0") for n in (b"IART", b"ICMT", b"INAM", b"ISFT")))
    broadcast = chunk(b"bext", CANARY.ljust(256, b"\0") + CANARY.ljust(32, b"\0") + b"\0" * (602 - 288) + CANARY)
    ixml = chunk(b"iXML", b"<BWFXML><NOTE>" + CANARY + b"</NOTE></BWFXML>")
    label = chunk(b"labl", b"\1\0\0\0" + CANARY + b"\0") + chunk(b"note", b"\1\0\0\0" + CANARY + b"\0")
    cue = chunk(b"cue ", struct.pack("<II4sIII4s", 1, 1, b"\0" * 4, 0, 0, 0, b"data")[:28])
    others = [chunk(n, CANARY * 3) for n in (b"cart", b"_PMX", b"axml", b"umid", b"JUNK", b"PAD ", b"Zoe ")]
    before = info + broadcast + form + ixml + chunk(b"id3 ", id3v2())
    chunks = before + b"".join(others) + sound + info + cue + chunk(b"LIST", b"adtl" + label) + b"".join(others)
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks + CANARY


def id3v2() -> bytes:
    """ID3v2.3 (id3.org): texts in the two encodings that it has, a comment, a picture, and a private frame."""
    wide = b"\1" + TEXT.encode("utf-16")
    frames = b"".join(
        name + struct.pack(">I", len(body)) + b"\0\0" + body
        for name, body in (
            (b"TIT2", b"\0" + CANARY),
            (b"TPE1", wide),
            (b"COMM", b"\0eng\0" + CANARY),
            (b"USLT", b"\0eng\0" + CANARY),
            (b"APIC", b"\0image/png\0\3" + CANARY + b"\0" + base64.b64encode(CANARY)),
            (b"PRIV", b"owner\0" + CANARY.hex().encode()),
        )
    )
    size = len(frames)
    return b"ID3\3\0\0" + bytes([size >> 21 & 127, size >> 14 & 127, size >> 7 & 127, size & 127]) + frames


def mp3_with_tags() -> bytes:
    """ID3v2 before the sound; APEv2 and ID3v1 after it."""
    item = struct.pack("<II", len(CANARY), 0) + b"Artist\0" + CANARY
    ape = struct.pack("<8sIIII8s", b"APETAGEX", 2000, len(item) + 32, 1, 0, b"\0" * 8)
    return id3v2() + encode(tone(), "MP3", "MPEG_LAYER_III") + item + ape + id3v1()


def flac_with_tags(before: bytes = b"", after: bytes = b"") -> bytes:
    """A block of every kind (RFC 9639 §8) after the stream's own, and of kinds that nobody has defined."""
    plain = encode(tone(), "FLAC", "PCM_16")
    stream_info, place, last = plain[4:42], 42, False
    while not last:
        last, size = bool(plain[place] & 128), int.from_bytes(plain[place + 1 : place + 4], "big")
        place += 4 + size
    comment = struct.pack("<I", len(CANARY)) + CANARY + struct.pack("<II", 1, 7 + len(CANARY)) + b"ARTIST=" + CANARY
    picture = struct.pack(">II", 3, 9) + b"image/png" + struct.pack(">I", len(CANARY)) + CANARY
    picture += struct.pack(">IIIII", 1, 1, 24, 0, len(CANARY)) + CANARY
    sheet = CANARY.ljust(128, b"\0") + b"\0" * (8 + 1 + 258) + b"\1"
    sheet += b"\0" * 8 + b"\xaa" + CANARY[:12].ljust(12, b"\0") + b"\0" * 15
    kinds = ((4, comment), (2, b"test" + CANARY), (5, sheet), (1, b"\0" + CANARY), (99, CANARY), (6 | 128, picture))
    blocks = bytes([stream_info[0] & 127]) + stream_info[1:]
    for kind, body in kinds:
        blocks += bytes([kind]) + len(body).to_bytes(3, "big") + body
    return before + b"fLaC" + blocks + plain[place:] + after


def flac_between_tags() -> bytes:
    """As players of MP3 tag a FLAC: before and behind it."""
    return flac_with_tags(id3v2(), b"TAG" + CANARY.ljust(125, b"\0"))


def ogg_with_tags(subtype: str = "VORBIS") -> bytes:
    memory = io.BytesIO()
    with sf.SoundFile(memory, "w", RATE, 1, subtype, format="OGG") as file:
        for name in ("artist", "title", "comment", "album", "copyright", "license", "software", "tracknumber", "genre"):
            setattr(file, name, TEXT if name != "comment" else base64.b64encode(CANARY * 3).decode())
        file.write(tone())
    return memory.getvalue()


def opus_with_tags() -> bytes:
    return ogg_with_tags("OPUS")


def aiff_with_tags() -> bytes:
    plain = encode(tone(), "AIFF", "PCM_16")
    texts = b"".join(chunk(name, CANARY, ">") for name in (b"NAME", b"AUTH", b"(c) ", b"ANNO", b"APPL"))
    chunks = texts + plain[12:] + chunk(b"ID3 ", id3v2(), ">") + texts
    return b"FORM" + struct.pack(">I", 4 + len(chunks)) + b"AIFF" + chunks


def caf_with_tags() -> bytes:
    memory = io.BytesIO()
    with sf.SoundFile(memory, "w", RATE, 1, "PCM_16", format="CAF") as file:
        file.artist = file.title = file.comment = TEXT
        file.write(tone())
    return memory.getvalue()


def au_with_tags() -> bytes:
    plain = encode(tone(), "AU", "PCM_16")
    start = int.from_bytes(plain[4:8], "big")
    return plain[:4] + struct.pack(">I", start + 32) + plain[8:start] + CANARY.ljust(32, b"\0") + plain[start:]


def id3v1() -> bytes:
    return b"TAG" + CANARY.ljust(30, b"\0")[:30] * 3 + b"\0" * 35


def mp4_with_tags(brand: str = "mp4", codec: str = "aac") -> bytes:
    """iTunes' list with a cover, copyright and name of a track, XMP, ID3, free space; before, within and behind."""
    names = ("title", "artist", "album", "comment", "copyright", "description", "lyrics", "encoder", "location")
    plain = av_files.encode(tone(), RATE, brand, codec, tags=dict.fromkeys(names, TEXT))
    box = av_files.box

    def item(name: bytes, kind: int, value: bytes) -> bytes:
        return box(name, box(b"data", struct.pack(">II", kind, 0), value))

    mean, name = box(b"mean", b"\0" * 4, b"com.apple.iTunes"), box(b"name", b"\0" * 4, CANARY)
    own = box(b"----", mean, name, box(b"data", struct.pack(">II", 1, 0), CANARY))
    items = [item(b"\xa9nam", 1, CANARY), item(b"\xa9lyr", 1, base64.b64encode(CANARY)), item(b"covr", 14, CANARY), own]
    handler = box(b"hdlr", b"\0" * 8, b"mdirappl", b"\0" * 9)
    listed = box(b"meta", b"\0" * 4, handler, box(b"ilst", *items), box(b"free", CANARY))
    xmp = box(b"uuid", bytes.fromhex("be7acfcb97a942e89c71999491e3afac"), b"<x:xmpmeta>" + CANARY + b"</x:xmpmeta>")
    notice = box(b"cprt", b"\0" * 4, struct.pack(">H", 0x15C7), CANARY + b"\0")
    tag = box(b"ID32", b"\0" * 4, struct.pack(">H", 0x15C7), id3v2())
    user = box(b"udta", listed, notice, box(b"titl", b"\0" * 6, CANARY + b"\0"), box(b"Xtra", CANARY), tag)
    named = av_files.rebuilt(plain, "moov/trak/mdia/hdlr", lambda body: body[:20] + CANARY + b"\0")
    inside = av_files.rebuilt(named, "moov/trak", lambda body: body + box(b"udta", box(b"name", CANARY)) + xmp)
    full = av_files.rebuilt(inside, "moov", lambda body: body + user + box(b"meta", b"\0" * 4, handler, tag) + xmp)
    behind = [box(name, CANARY * 3) for name in (b"free", b"skip", b"wide", b"zoeq")]
    return full + xmp + user + b"".join(behind) + CANARY


def mov_with_tags() -> bytes:
    return mp4_with_tags("mov", "alac")


def mp4_with_a_picture() -> bytes:
    """A cover as a track of its own."""
    memory = io.BytesIO()
    with av.open(memory, "w", format="mp4") as file:
        sound, cover = file.add_stream("aac", rate=RATE, layout="mono"), file.add_stream("mjpeg", rate=1)
        cover.width = cover.height = 16
        cover.pix_fmt = "yuvj420p"
        file.metadata["comment"] = sound.metadata["title"] = TEXT
        part = av.AudioFrame.from_ndarray(tone().reshape(1, -1), format="s16", layout="mono")
        part.sample_rate, part.pts = RATE, 0
        file.mux([*cover.encode(av.VideoFrame(16, 16, "yuvj420p")), *cover.encode(None)])
        file.mux([*sound.encode(part), *sound.encode(None)])
    return memory.getvalue()


def aac_with_tags() -> bytes:
    return id3v2() + av_files.encode(tone(), RATE, "adts") + id3v1()


def webm_with_tags() -> bytes:
    """Matroska's tags, and void space behind them (RFC 9559)."""
    tags = dict.fromkeys(("title", "artist", "comment", "custom"), TEXT)
    return av_files.encode(tone(), RATE, "webm", "libopus", tags=tags) + bytes([0xEC, 0x80 | len(CANARY)]) + CANARY


TAGGED = [
    *(wav_with_tags, flac_with_tags, flac_between_tags, ogg_with_tags, opus_with_tags, mp3_with_tags, aiff_with_tags),
    *(caf_with_tags, au_with_tags, mp4_with_tags, mov_with_tags, mp4_with_a_picture, aac_with_tags, webm_with_tags),
]


def forms_of(text: str) -> list[bytes]:
    """As somebody might find it who looks; what is shorter than eight bytes stands anywhere by chance."""
    return [form for form in _forms(text) if len(form) >= 8]


def _forms(text: str) -> Iterator[bytes]:
    for spelt in {text, text.lower(), text.upper(), text[::-1], *text.split(), text.replace(" ", "")}:
        for encoding in ("utf-8", "utf-16-le", "utf-16-be", "utf-32-le"):
            yield spelt.encode(encoding)
        yield spelt.encode().hex().encode()
        yield bytes(c >> 1 for c in spelt.encode())
        for start in range(3):
            # Whole groups of three bytes: as they stand in a longer text, too.
            whole = spelt.encode()[start:]
            yield base64.b64encode(whole[: len(whole) // 3 * 3])


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


def described(flac: bytes) -> tuple[int, int, int, int]:
    """Rate, channels, bits and samples out of STREAMINFO, read bit by bit (RFC 9639 §8.2)."""
    bits = "".join(f"{byte:08b}" for byte in flac[8 + 10 : 8 + 18])
    return int(bits[:20], 2), int(bits[20:23], 2) + 1, int(bits[23:28], 2) + 1, int(bits[28:], 2)


@pytest.mark.parametrize("tagged", TAGGED)
@pytest.mark.parametrize("voice", ["natural", "disguised"])
def test_what_leaves_keeps_no_tag(tagged: Callable[[], bytes], voice: str) -> None:
    source = tagged()
    assert CANARY in source
    recording = audio.decode(source)
    shown = masking.Shown(recording.duration_ms, recording.sample_rate_hz, recording.channels)
    row = {"audio_sha256": None, "silenced": [], "sound_key": "k" * 32, "voice": voice, **shown._asdict()}
    for flac in (audio.to_flac(recording), masking.leaving(source, row)):
        assert not [form for form in forms_of(TEXT) if form in flac]
        # Nothing that is not the sound: one block that describes it, and then its frames.
        assert [(kind, len(body)) for kind, body in blocks_of(flac)] == [(0, 34)]
        assert flac[42:44] in (b"\xff\xf8", b"\xff\xf9")
        heard = audio.decode(flac)
        assert described(flac) == (heard.sample_rate_hz, heard.channels, 16, len(heard.samples))
        assert heard.samples.shape == recording.samples.shape
        # The hash in STREAMINFO is that of what leaves, not of what landing has.
        assert flac[8 + 18 : 42] == hashlib.md5(heard.samples.astype("<i2").tobytes()).digest()  # noqa: S324
    assert np.array_equal(audio.decode(audio.to_flac(recording)).samples, recording.samples)


def with_blocks(flac: bytes, blocks: list[tuple[int, bytes]]) -> bytes:
    """A bare FLAC with these blocks behind its own."""
    marked = [(kind | 128 * (place == len(blocks)), body) for place, (kind, body) in enumerate(blocks, start=1)]
    added = b"".join(bytes([kind]) + len(body).to_bytes(3, "big") + body for kind, body in marked)
    return flac[:4] + bytes([0 if blocks else 128]) + flac[5:42] + added + flac[42:]


KINDS = st.integers(0, 127)
BLOCKS = st.lists(st.tuples(KINDS, st.binary(max_size=40) | st.sampled_from([b"", b"\0" * 7, b"\0" * 36])), max_size=3)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(BLOCKS)
def test_the_gate_lets_no_block_through_but_room_and_seek_points(blocks: list[tuple[int, bytes]]) -> None:
    recording = audio.Recording(tone(), RATE)
    flac = with_blocks(audio.to_flac(recording), blocks)
    is_harmless = all((kind == 1 and set(body) <= {0}) or (kind == 3 and len(body) % 18 == 0) for kind, body in blocks)
    assert passes(flac, recording) == is_harmless


def passes(flac: bytes, recording: audio.Recording) -> bool:
    reasons = []
    try:
        audio.check_bare(flac, recording)
    except AudioUnusable as unusable:
        reasons.append(unusable.reason)
    assert reasons in ([], ["audio_not_bare"])
    return not reasons


def test_the_gate_knows_the_sound_and_where_it_begins() -> None:
    recording = audio.Recording(tone(), RATE)
    flac = audio.to_flac(recording)
    assert passes(flac, recording)
    for other in (audio.Recording(tone(2), RATE), audio.Recording(tone(), 8_000), audio.Recording(tone()[1:], RATE)):
        assert not passes(flac, other)
    for wrong in (
        CANARY + flac,
        id3v2() + flac,
        flac[:42] + CANARY + flac[42:],
        flac[:42],
        flac[:30],
        b"",
        b"fLaC",
        flac_with_tags(),
        encode(tone(), "FLAC", "PCM_16"),
        encode(tone(), "WAV", "PCM_16"),
    ):
        assert not passes(wrong, recording)


@pytest.mark.parametrize("raw", [b"0&\xb2u\x8ef\xcf\x11\xa6\xd9\0\xaa\0b\xcel", b"ADIF\0\0"], ids=["wma", "adif"])
def test_decode_names_the_containers_that_are_not_taken(raw: bytes) -> None:
    assert reason(raw + CANARY * 4 + b"\0" * 2000) == "audio_unsupported"


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
