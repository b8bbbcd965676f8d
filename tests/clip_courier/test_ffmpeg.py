"""MP4, AAC and WebM: whole, in time, and by a process that can do nothing else; files that are built to hurt."""

import os
import re
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random

import numpy as np
import numpy.typing as npt
import pytest

import av_files
from clip_courier import audio, ffmpeg
from clip_courier.errors import AudioUnusable, MachineFailed

RATE = 16_000
CANARY = "Zoe Quandlebrook-Marrow"
Samples = npt.NDArray[np.int16]

OURS = {"PYTHONPATH": os.pathsep.join(sys.path)}

# Containers and codecs by FFmpeg's names, and by how many ms a sound may be off that a file tells the place of.
TAKEN = [
    ("mp4", "aac", 1),
    ("ipod", "aac", 1),
    ("mov", "aac", 1),
    ("3gp", "aac", 1),
    ("matroska", "aac", 1),
    ("ipod", "alac", 1),
    ("mp4", "flac", 1),
    ("mp4", "libopus", 6),
    ("webm", "libopus", 1),
    ("matroska", "flac", 1),
]


def noise(seconds: float = 1.0, rate: int = RATE, channels: int = 1) -> Samples:
    drawn = np.random.default_rng(3).normal(0, 3000, (int(rate * seconds), channels))
    return np.asarray(np.clip(drawn, -32768, 32767), np.int16)


def click(at_s: float, rate: int, seconds: float = 2.0) -> Samples:
    """All but silent, and at one time a click of three samples."""
    samples = np.zeros((int(rate * seconds), 1), np.int16)
    samples[::50] = 3
    samples[int(rate * at_s) :][:3] = 20_000
    return samples


def heard_at(recording: audio.Recording) -> float:
    loudest = int(np.abs(recording.samples[:, 0].astype(int)).argmax())
    return loudest / recording.sample_rate_hz


def reason(raw: bytes) -> str:
    with pytest.raises(AudioUnusable) as refused:
        audio.decode(raw)
    assert CANARY not in f"{refused.value} {refused.value.__cause__!r}"
    return refused.value.reason


# -- what is taken ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [8_000, 16_000, 48_000])
@pytest.mark.parametrize(("container", "codec", "off_ms"), TAKEN)
def test_a_click_is_heard_when_it_was_made(container: str, codec: str, off_ms: int, rate: int) -> None:
    """What an encoder adds at the beginning is taken away again, so that `words` are where they were said."""
    recording = audio.decode(av_files.encode(click(0.777, rate), rate, container, codec))
    assert recording.sample_rate_hz == (48_000 if codec == "libopus" else rate)
    assert abs(heard_at(recording) - 0.777) * 1000 <= off_ms
    assert recording.late_ms == 0
    # The last frame of AAC is filled up with silence.
    assert 2000 <= recording.duration_ms <= 2000 + 1024_000 / rate + 1


@pytest.mark.parametrize("rate", [8_000, 16_000, 48_000])
@pytest.mark.parametrize("container", ["adts", "no edit list", "fragments"])
def test_what_may_be_late_says_by_how_much(container: str, rate: int) -> None:
    """A stream of AAC does not say how much silence its encoder began with; nor does MP4 of some writers."""
    options = {
        "adts": {},
        "no edit list": {"use_editlist": "0"},
        "fragments": {"movflags": "frag_keyframe+empty_moov", "use_editlist": "0"},
    }[container]
    raw = av_files.encode(click(0.777, rate), rate, "adts" if container == "adts" else "mp4", **options)
    recording = audio.decode(raw)
    assert recording.late_ms == -(-2112_000 // rate)
    assert -0.001 <= heard_at(recording) - 0.777 <= recording.late_ms / 1000


@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize("codec", ["aac", "alac", "flac"])
def test_channels_and_loudness_stay(codec: str, channels: int) -> None:
    samples = noise(0.5, channels=channels) * (1 + np.arange(channels, dtype=np.int16)) // channels
    heard = audio.decode(av_files.encode(samples, RATE, "mp4", codec, ab="256k" if codec == "aac" else "0")).samples
    assert heard.shape[1] == channels
    if codec == "aac":
        loud = [np.sqrt(np.mean(s[2000:6000].astype(np.float64) ** 2, axis=0)) for s in (samples, heard)]
        if channels < 6:  # the sixth is for the lowest notes alone
            assert loud[1] == pytest.approx(loud[0], rel=0.2)
    elif channels < 6:
        assert np.array_equal(heard[: len(samples)], samples)


def test_the_kind_is_told_by_what_a_file_begins_with() -> None:
    aac = av_files.encode(noise(0.1), RATE, "adts")
    tag = b"ID3\4\0\0\0\0\0\x0a" + b"\0" * 10
    kinds = {
        "mp4": [av_files.encode(noise(0.1), RATE, c) for c in ("mp4", "mov", "3gp")],
        "webm": [av_files.encode(noise(0.1), RATE, "webm", "libopus")],
        "aac": [aac, tag + aac],
        None: [b"", b"RIFF", b"\xff\xfb\x90\0", tag + b"\xff\xfb\x90\0", b"#EXTM3U\n", b"ffconcat version 1.0\n"],
    }
    for kind, files in kinds.items():
        assert [ffmpeg.kind_of(raw) for raw in files] == [kind] * len(files)
    assert len(audio.decode(tag + aac).samples) == len(audio.decode(aac).samples)


def test_the_same_file_gives_the_same_samples() -> None:
    raw = av_files.encode(noise(), RATE)
    assert np.array_equal(audio.decode(raw).samples, audio.decode(raw).samples)


# -- what is refused -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.98])
@pytest.mark.parametrize(
    ("container", "codec"),
    [("mp4", "aac"), ("ipod", "alac"), ("mp4", "libopus"), ("adts", "aac"), ("webm", "libopus"), ("matroska", "flac")],
)
def test_decode_refuses_a_file_that_was_cut_off(container: str, codec: str, kept: float) -> None:
    raw = av_files.encode(noise(), RATE, container, codec)
    assert reason(raw[: int(len(raw) * kept)]) == "audio_corrupt"


@pytest.mark.parametrize("options", [{"moov_size": "20000"}, {"movflags": "frag_keyframe+empty_moov"}])
def test_decode_refuses_an_mp4_whose_sound_was_cut_off(options: dict[str, str]) -> None:
    """What describes the sound stands before it, so that there is something to decode."""
    raw = av_files.encode(noise(), RATE, **options)
    assert audio.decode(raw).duration_ms >= 1000
    for kept in (0.3, 0.6, 0.9):
        assert reason(raw[: int(len(raw) * kept)]) == "audio_corrupt"


def test_decode_refuses_a_live_webm_that_was_cut_off() -> None:
    """Its writer did not know its length, so the segment does not say any."""
    raw = av_files.encode(noise(), RATE, "webm", "libopus", live="1")
    assert audio.decode(raw).duration_ms == 1000
    assert reason(raw[: len(raw) // 2]) == "audio_corrupt"


def test_decode_refuses_an_mp4_whose_samples_lie_elsewhere() -> None:
    """The table of places points behind the end of the file."""
    raw = av_files.rebuilt(
        av_files.encode(noise(), RATE), "moov/trak/mdia/minf/stbl/stco", lambda b: b[:8] + b"\x7f" * (len(b) - 8)
    )
    assert reason(raw) in ("audio_corrupt", "audio_empty")


@pytest.mark.parametrize(
    ("container", "codec", "tracks"), [("mp4", "aac", 2), ("mp4", "ac3", 1), ("mp4", "libmp3lame", 1)]
)
def test_decode_refuses_what_it_has_no_decoder_for(container: str, codec: str, tracks: int) -> None:
    """Also two tracks: nobody knows in which of them the words were timed."""
    assert reason(av_files.encode(noise(rate=48_000), 48_000, container, codec, tracks=tracks)) == "audio_unsupported"


def test_decode_refuses_more_sound_than_is_asked_for() -> None:
    raw = av_files.encode(noise(), RATE)
    assert len(ffmpeg.decode(raw, "mp4", 17_000).samples) == 2 * 16_384
    with pytest.raises(AudioUnusable) as refused:
        ffmpeg.decode(raw, "mp4", 10_000)
    assert refused.value.reason == "audio_too_large"


def test_decode_refuses_a_hole_in_time() -> None:
    """An edit list that begins with a pause: nobody knows whether the recogniser's clock ran in it."""

    def with_pause(body: bytes) -> bytes:
        pause = struct.pack(">IiI", 400, -1, 0x10000)
        return body[:4] + struct.pack(">I", 1 + int.from_bytes(body[4:8], "big")) + pause + body[8:]

    raw = av_files.encode(noise(), RATE)
    assert audio.decode(raw).duration_ms >= 1000
    assert reason(av_files.rebuilt(raw, "moov/trak/edts/elst", with_pause)) == "audio_corrupt"


@pytest.mark.parametrize("container", ["mp4", "adts", "webm"])
def test_decode_survives_what_was_damaged(container: str) -> None:
    """Bytes turned over anywhere: samples, or a named refusal, and this process lives."""
    good = bytearray(av_files.encode(noise(0.3), RATE, container, "libopus" if container == "webm" else "aac"))
    random = Random(7)
    for _ in range(int(os.environ.get("DAMAGED_FILES", "15"))):
        bad = good.copy()
        for _ in range(random.choice([1, 8, 60])):
            # What describes the sound stands at the ends.
            place = random.choice([random.randrange(len(bad)), random.randrange(200), -random.randrange(1, 800)])
            bad[place] = random.randrange(256)
        with suppress(AudioUnusable):
            assert audio.decode(bytes(bad)).samples.dtype == np.int16


# -- a process that can do nothing else ------------------------------------------------------------------------


def with_reference(raw: bytes, entry: bytes) -> bytes:
    """The MP4 with its sound said to lie elsewhere (ISO/IEC 14496-12, 8.7.2)."""
    return av_files.rebuilt(raw, "moov/trak/mdia/minf/dinf/dref", lambda body: body[:4] + struct.pack(">I", 1) + entry)


def alias(path: str) -> bytes:
    """A QuickTime alias record with an absolute path, as FFmpeg reads it."""
    file = path.encode()
    head = b"\0" * 4 + b"\0" * 6 + b"\0" * 4 + bytes([1]) + b"x".ljust(27, b"\0") + b"\0" * 12
    head += bytes([1]) + b"x".ljust(63, b"\0") + b"\0" * 16 + struct.pack(">hh", 0, 0) + b"\0" * 16
    records = b"".join(struct.pack(">HH", kind, len(file)) + file + b"\0" * (len(file) % 2) for kind in (2, 18))
    return av_files.box(b"alis", head + records + struct.pack(">H", 0xFFFF) + b"\0" * 60)


@pytest.fixture
def listening() -> socket.socket:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.1)
        yield server


def test_nothing_outside_of_a_file_is_reached(tmp_path: Path, listening: socket.socket) -> None:
    """References to another file and to an address, in MP4 and in lists that FFmpeg would follow if it was asked to."""
    secret, address = tmp_path / "secret.m4a", f"http://127.0.0.1:{listening.getsockname()[1]}/secret.m4a"
    secret.write_bytes(loud := av_files.encode(noise(), RATE))
    # It describes the sound of the other file, whose samples lie at the same places.
    own = av_files.rebuilt(loud, "mdat", lambda body: bytes(len(body)))
    elsewhere = [str(secret), address, f"file:{secret}"]
    hostile = [with_reference(own, alias(place)) for place in elsewhere]
    hostile += [with_reference(own, av_files.box(b"url ", b"\0" * 4 + place.encode() + b"\0")) for place in elsewhere]
    for raw in hostile:
        # A reference that is not followed: there is nothing, or what the file has itself.
        with suppress(AudioUnusable):
            assert np.abs(audio.decode(raw).samples.astype(int)).max() < 50
    lists = [f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{place}\n#EXT-X-ENDLIST\n" for place in elsewhere] + [
        f"ffconcat version 1.0\nfile '{place}'\n" for place in elsewhere
    ]
    lists += ["v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=audio 5004 RTP/AVP 0\n", "[playlist]\nFile1=x\n"]
    for text in lists:
        assert reason(text.encode()) == "audio_corrupt"
        # Nor where the beginning is that of an MP4.
        assert reason(av_files.box(b"ftyp", b"isom\0\0\2\0isom") + text.encode()) == "audio_corrupt"
    with pytest.raises(TimeoutError):
        listening.accept()


def test_the_process_can_open_nothing() -> None:
    program = """
import socket
from clip_courier import ffmpeg
ffmpeg._import_all()
ffmpeg._confine(2 << 30, 60, 1 << 20)
for what in (lambda: open("/etc/hostname"), socket.socket, socket.socketpair):
    try:
        what()
    except OSError as refused:
        print(refused.errno, end=" ")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=OURS)
    assert done.stdout.split() == ["24"] * 3


def test_the_process_sees_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_CLIP_COURIER_PGP", CANARY)
    with fresh() as raw:
        audio.decode(raw)
        (decoder,) = ffmpeg._idle
        environment = Path(f"/proc/{decoder.process.pid}/environ").read_bytes()
    assert b"PYTHONPATH=" in environment
    assert CANARY.encode() not in environment


@contextmanager
def fresh() -> Iterator[bytes]:
    """For the block there is no process yet; gives a file to decode."""
    ffmpeg._stop_all()
    ffmpeg._idle.clear()
    try:
        yield av_files.encode(noise(0.2), RATE)
    finally:
        ffmpeg._stop_all()
        ffmpeg._idle.clear()


@pytest.mark.parametrize(("bound", "value"), [("MAX_MEMORY_BYTES", 100 << 20), ("MAX_CPU_S", 1)])
def test_a_file_that_takes_too_much_is_refused_by_name(bound: str, value: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is decoded within the bounds is refused beyond them: they are the process's."""
    frames = av_files.encode(noise(0.5, 48_000), 48_000, "adts")
    raw = frames * (4000 if bound == "MAX_CPU_S" else 1)
    if bound == "MAX_MEMORY_BYTES":
        assert audio.decode(raw).duration_ms >= 500
    monkeypatch.setattr(ffmpeg, bound, value)
    began = time.monotonic()
    assert reason(raw) == "audio_too_large"
    assert time.monotonic() - began < 30


def test_a_file_can_do_no_harm_to_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever becomes of the process that has one file, the others get what is theirs."""
    raw = av_files.encode(noise(0.2), RATE)
    expected = audio.decode(raw).samples
    monkeypatch.setattr(ffmpeg, "MAX_MEMORY_BYTES", 1)
    with suppress(AudioUnusable):
        audio.decode(raw)
    monkeypatch.undo()
    assert np.array_equal(audio.decode(raw).samples, expected)


def test_several_files_at_once_do_not_mix() -> None:
    files = [av_files.encode(np.full((1600 * n, 1), 100 * n, np.int16), RATE, "ipod", "alac") for n in range(1, 9)]
    with ThreadPoolExecutor(max_workers=4) as pool:
        for n, recording in enumerate(pool.map(audio.decode, files * 3)):
            assert (recording.samples == 100 * (n % 8 + 1)).all()
            assert len(recording.samples) == 1600 * (n % 8 + 1)
    assert len(ffmpeg._idle) <= 4 + 1


def test_a_process_that_is_gone_is_not_the_fault_of_the_file() -> None:
    with fresh() as raw:
        expected = audio.decode(raw).samples
        os.kill(ffmpeg._idle[0].process.pid, signal.SIGKILL)
        ffmpeg._idle[0].process.wait()
        with pytest.raises(MachineFailed):
            audio.decode(raw)
        assert np.array_equal(audio.decode(raw).samples, expected)


def test_a_process_that_does_not_start_is_not_the_fault_of_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    with fresh() as raw:
        monkeypatch.setattr(sys, "executable", "/bin/false")
        with pytest.raises(MachineFailed, match="does not start"):
            audio.decode(raw)


def test_a_fork_does_not_use_what_is_its_parents() -> None:
    """Airflow's workers are forks of a process that may have decoded before."""
    with fresh() as raw:
        expected = audio.decode(raw).samples
        child = os.fork()
        if child == 0:
            status = 1
            try:
                status = 0 if np.array_equal(audio.decode(raw).samples, expected) and len(ffmpeg._idle) == 2 else 1
                ffmpeg._stop_all()
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert np.array_equal(audio.decode(raw).samples, expected)


def test_nothing_outlives_a_killed_courier(tmp_path: Path) -> None:
    file = tmp_path / "clip.m4a"
    file.write_bytes(av_files.encode(noise(0.2), RATE))
    program = f"""
import os, signal, pathlib
from clip_courier import audio, ffmpeg
audio.decode(pathlib.Path({str(file)!r}).read_bytes())
print(ffmpeg._idle[0].process.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=OURS)
    assert done.returncode == -signal.SIGKILL
    pid = int(re.fullmatch(r"(\d+)\n", done.stdout)[1])
    deadline = time.monotonic() + 10
    while is_alive(pid):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
