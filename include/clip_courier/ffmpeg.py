"""Sound in the containers that libsndfile does not read: MP4 and M4A, WebM and Matroska, AAC as a stream (ADTS).

FFmpeg (PyAV packs it) has hundreds of parsers and reaches for files and networks when a file says so. So it is told
which demuxer to use, may use four decoders, and works in a process of its own for each file, which has that file in
memory, no secret, and cannot open anything: no descriptor is left to it for a file or a connection.

Starting an interpreter for each recording would take twenty times as long as decoding it. One is started, imports
PyAV, and makes a copy of itself (fork) for each file; what a file does to the copy ends with it.
"""

import atexit
import importlib
import io
import json
import os
import pkgutil
import resource
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Final

from clip_courier.errors import AudioUnusable, MachineFailed

# The demuxer for each kind of file that is taken.
_DEMUXERS: Final = {"mp4": "mov", "webm": "matroska", "aac": "aac"}
_DECODERS: Final = frozenset({"aac", "alac", "flac", "opus"})
# Boxes that a file of the ISO base media format (ISO/IEC 14496-12) or its ancestor QuickTime begins with.
_FIRST_BOXES: Final = frozenset({b"ftyp", b"styp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot", b"uuid"})
_SOUND_BOXES: Final = frozenset({b"moov", b"moof", b"mdat"})
_EBML: Final = b"\x1aE\xdf\xa3"
_SEGMENT: Final = 0x18538067
_CLUSTER: Final = 0x1F43B675

# What any clip decodes in; address space, of which the libraries take half a gigabyte.
MAX_MEMORY_BYTES = 2 * 1024**3
MAX_CPU_S = 60
_MAX_WAIT_S: Final = 600
# Where the clock of a file and the sound in it come apart by more, `words` would be of other places.
_MAX_GAP_S: Final = 0.05
# An encoder of AAC begins with silence: 1,024 samples (FFmpeg) to 2,112 (Apple). MP4 can say how many, a stream cannot.
_MOST_PRIMING: Final = 2112

_REFUSED, _CRASHED = 3, 4
_REASONS: Final = frozenset({"audio_corrupt", "audio_empty", "audio_too_large", "audio_unsupported"})
# How a process ends that asks for more: killed for its time, or by a library that got no memory.
_AT_THE_BOUNDS: Final = frozenset({signal.SIGXCPU, signal.SIGXFSZ, signal.SIGKILL, signal.SIGABRT})
# What stands before the samples in the answer: Hz, channels, by how many samples the sound may be late.
_HEAD: Final = struct.Struct("<III")
# What is asked: the kind, and at most how many samples, bytes of address space, seconds of the processor.
_ASKED: Final = struct.Struct("<4sQQI")
_STATUS: Final = struct.Struct("<i")
_READY: Final = b"\1"


@dataclass(frozen=True)
class Sound:
    """`samples`: 16 bits each, little endian, channels interleaved. `late`: it may begin so many samples too late."""

    samples: bytes = field(repr=False)
    sample_rate_hz: int
    channels: int
    late: int


def kind_of(raw: bytes) -> str | None:
    """Of what kind that is decoded here a file is, by its first bytes; None for all others."""
    if raw[4:8] in _FIRST_BOXES:
        return "mp4"
    if raw.startswith(_EBML):
        return "webm"
    start = _behind_id3(raw)
    # The layer is 0, which no MP3 has (ISO/IEC 13818-7, 6.2).
    return "aac" if len(raw) > start + 1 and raw[start] == 0xFF and raw[start + 1] & 0xF6 == 0xF0 else None


def decode(raw: bytes, kind: str, max_samples: int) -> Sound:
    """Decode a file of a kind that `kind_of` names, of at most so many samples in all channels together.

    Raises:
        AudioUnusable: `audio_unsupported` (no single track, or of a codec that is not taken), `audio_corrupt`,
            `audio_empty`, `audio_too_large` when it takes more memory or time than any clip does.
        MachineFailed: the process cannot be started or is gone; that says nothing about the file.
    """
    with os.fdopen(os.memfd_create("recording"), "w+b") as asked, os.fdopen(os.memfd_create("sound"), "w+b") as answer:
        asked.write(raw)
        asked.seek(0)
        with _decoder() as decoder:
            code = decoder.run(kind, max_samples, asked, answer)
        if code == _REFUSED:
            raise _refusal(answer)
        if -code in _AT_THE_BOUNDS:
            raise AudioUnusable("audio_too_large", "a recording takes more memory or time than any clip does")
        if code != 0:
            raise _corrupt()
        return _told(answer, max_samples)


def resampled(samples: bytes, rate_hz: int, to_hz: int) -> bytes:
    """One channel of 16-bit samples, little endian, at another rate; every sound stays at its time (libswresample)."""
    import av

    frame = av.AudioFrame(format="s16", layout="mono", samples=len(samples) // 2)
    frame.sample_rate = rate_hz
    frame.planes[0].update(samples)
    resampler = av.AudioResampler(format="s16", layout="mono", rate=to_hz)
    parts = [*resampler.resample(frame), *resampler.resample(None)]
    return b"".join(bytes(part.planes[0])[: 2 * part.samples] for part in parts)


def _refusal(answer: BinaryIO) -> AudioUnusable:
    """What the process said, in words of ours: whoever took it over may say anything."""
    answer.seek(0)
    try:
        said = json.loads(answer.read(1000))
    except ValueError:
        said = None
    reason = said if isinstance(said, str) and said in _REASONS else "audio_corrupt"
    return AudioUnusable(reason, f"a recording cannot be decoded: {reason}")


def _told(answer: BinaryIO, max_samples: int) -> Sound:
    answer.seek(0)
    head, samples = answer.read(_HEAD.size), answer.read(2 * max_samples)
    if len(head) == _HEAD.size:
        rate, channels, late = _HEAD.unpack(head)
        if rate > 0 and channels > 0 and len(samples) % (2 * channels) == 0:
            return Sound(samples, rate, channels, late)
    raise _corrupt()


# -- the process that makes copies of itself -------------------------------------------------------------------


@dataclass(frozen=True)
class _Decoder:
    """It has the other end of a pair of sockets: when ours is closed, or we are killed, it ends."""

    ours: int
    process: "subprocess.Popen[bytes]"
    line: socket.socket

    @staticmethod
    def start() -> "_Decoder":
        line, theirs = socket.socketpair()
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-c", "from clip_courier.ffmpeg import main; main()"],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                # Where our modules and libraries are, wherever this installation keeps them, and nothing else.
                env={"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                start_new_session=True,
            )
        line.settimeout(_MAX_WAIT_S)
        decoder = _Decoder(os.getpid(), process, line)
        if decoder._received(len(_READY)) != _READY:
            decoder.stop()
            raise MachineFailed("the process that decodes MP4 does not start: run bin/bootstrap, or make room for it")
        return decoder

    def run(self, kind: str, max_samples: int, asked: BinaryIO, answer: BinaryIO) -> int:
        """The exit status of the copy, negative for a signal, as subprocess has it."""
        request = _ASKED.pack(kind.encode(), max_samples, MAX_MEMORY_BYTES, MAX_CPU_S)
        try:
            socket.send_fds(self.line, [request], [asked.fileno(), answer.fileno()])
        except OSError:
            raise self._gone() from None
        status = self._received(_STATUS.size)
        if len(status) != _STATUS.size:
            raise self._gone()
        return int(_STATUS.unpack(status)[0])

    def _received(self, size: int) -> bytes:
        try:
            return self.line.recv(size, socket.MSG_WAITALL)
        except OSError:
            return b""

    def _gone(self) -> MachineFailed:
        return MachineFailed("the process that decodes MP4 is gone, or did not answer in time")

    def stop(self) -> None:
        self.line.close()
        # With the copy that may be at work; it has a session, and so a group, of its own.
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


_idle: list[_Decoder] = []
_lock = threading.Lock()


@contextmanager
def _decoder() -> Iterator[_Decoder]:
    """One that nobody else uses meanwhile. What a process inherited by a fork is its parent's."""
    with _lock:
        mine = [one for one in _idle if one.ours == os.getpid()]
        if mine:
            _idle.remove(mine[-1])
    decoder = mine[-1] if mine else _Decoder.start()
    try:
        yield decoder
    except BaseException:
        # Whoever was interrupted has not read the answer.
        decoder.stop()
        raise
    with _lock:
        _idle.append(decoder)


@atexit.register
def _stop_all() -> None:
    for one in _idle:
        if one.ours == os.getpid():
            one.stop()


def main() -> None:
    """The process itself: a file and a place for the answer come by the socket, the status goes back."""
    line = socket.socket(fileno=0)
    _import_all()
    line.sendall(_READY)
    while True:
        message, files, _, _ = socket.recv_fds(line, _ASKED.size, 2)
        if len(message) != _ASKED.size or len(files) != 2:
            return
        kind, max_samples, memory_bytes, cpu_s = _ASKED.unpack(message)
        copy = os.fork()
        if copy == 0:
            code = _CRASHED
            try:
                line.close()
                _confine(memory_bytes, cpu_s, 2 * max_samples + _HEAD.size)
                code = _answered(kind.rstrip(b"\0").decode(), max_samples, *files)
            finally:
                os._exit(code)
        for file in files:
            os.close(file)
        line.sendall(_STATUS.pack(os.waitstatus_to_exitcode(os.waitpid(copy, 0)[1])))


def _import_all() -> None:
    """PyAV with all of its modules: some are imported when they are needed, and no file can be opened by then."""
    import av

    for module in pkgutil.walk_packages(av.__path__, "av."):
        if not module.name.endswith(("__main__", "datasets")):
            importlib.import_module(module.name)


# -- the copy, which has one file ------------------------------------------------------------------------------


def _answered(kind: str, max_samples: int, asked: int, answer: int) -> int:
    """The copy's exit status; what is not caught here ends it as a crash does."""
    try:
        with os.fdopen(asked, "rb") as file, os.fdopen(answer, "wb", closefd=False) as sink:
            raw = file.read()
            sink.write(bytes(_HEAD.size))
            head = _decoded(kind, raw, sink, max_samples)
        os.pwrite(answer, head, 0)
    except (AudioUnusable, MemoryError) as refused:
        reason = refused.reason if isinstance(refused, AudioUnusable) else "audio_too_large"
        os.ftruncate(answer, 0)
        os.pwrite(answer, json.dumps(reason).encode(), 0)
        return _REFUSED
    return 0


def _confine(memory_bytes: int, cpu_s: int, answer_bytes: int) -> None:
    for limit, most in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_CPU, cpu_s),
        (resource.RLIMIT_FSIZE, answer_bytes),
        (resource.RLIMIT_CORE, 0),
        # No file, no socket, no pipe from here on: a file that names another one, or an address, names it in vain.
        (resource.RLIMIT_NOFILE, 0),
    ):
        resource.setrlimit(limit, (most, most))


def _decoded(kind: str, raw: bytes, sink: BinaryIO, max_samples: int) -> bytes:
    """Write the samples of the only track with sound; what stands before them in the answer."""
    import av

    frames = _CHECKS[kind](raw)
    options = {
        "codec_whitelist": ",".join(sorted(_DECODERS)),
        "protocol_whitelist": "none",
        "enable_drefs": "0",
        "use_absolute_path": "0",
    }
    with av.open(
        io.BytesIO(raw), "r", format=_DEMUXERS[kind], container_options=options, metadata_errors="ignore"
    ) as container:
        tracks = container.streams.audio
        if len(tracks) != 1 or tracks[0].codec_context is None or tracks[0].codec_context.name not in _DECODERS:
            raise _unsupported()
        (track,) = tracks
        track.codec_context.thread_count = 1
        track.codec_context.options = {"err_detect": "crccheck+explode"}
        writing = _Writing(sink, max_samples)
        packets = 0
        for packet in container.demux(track):
            if packet.is_corrupt:
                raise _corrupt()
            packets += packet.size > 0
            for frame in packet.decode():
                writing.add(frame, packets, has_clock=kind != "aac")
        if packets != (frames or track.frames or packets):
            raise _corrupt()
        return writing.head(track.codec_context.name)


class _Writing:
    """Frames as they come, converted to 16 bits."""

    def __init__(self, sink: BinaryIO, max_samples: int) -> None:
        self._sink, self._max_samples = sink, max_samples
        self._samples = self._first = self._longest = 0
        self._is_begun_late = False
        self._form: tuple[int, str, str] | None = None
        self._channels = 0
        self._resampler: Any = None

    def add(self, frame: Any, packets: int, *, has_clock: bool) -> None:
        import av

        form = (frame.sample_rate, frame.layout.name, frame.format.name)
        if self._form is None:
            self._form, self._channels = form, len(frame.layout.channels)
            self._resampler = av.AudioResampler(format="s16", layout=frame.layout, rate=frame.sample_rate)
            self._first, self._is_begun_late = frame.samples, packets > 1
        if form != self._form:
            raise _corrupt()
        if has_clock and frame.pts is not None:
            heard_s = self._samples / frame.sample_rate
            if abs(float(frame.pts * frame.time_base) - heard_s) > _MAX_GAP_S:
                raise _corrupt()
        self._samples += frame.samples
        self._longest = max(self._longest, frame.samples)
        if self._samples * self._channels > self._max_samples:
            raise AudioUnusable("audio_too_large", "a recording holds more sound than any clip can")
        for converted in self._resampler.resample(frame):
            self._sink.write(memoryview(converted.planes[0])[: 2 * self._channels * converted.samples])

    def head(self, codec: str) -> bytes:
        if self._form is None or self._samples == 0:
            raise AudioUnusable("audio_empty", "a recording holds no sound")
        # Where the first packet gives less than others do, or nothing, the file said that it is not all sound.
        is_trimmed = self._is_begun_late or self._first < self._longest
        late = 0 if codec != "aac" or is_trimmed else _MOST_PRIMING
        return _HEAD.pack(self._form[0], self._channels, late)


# -- whether a file is whole: FFmpeg makes do with what there is of it -------------------------------------------


def _check_boxes(whole: bytes) -> None:
    """Size, name, content (ISO/IEC 14496-12, 4.2). What stands behind the sound may be anything."""
    start = 0
    found: set[bytes] = set()
    while start + 8 <= len(whole):
        size, name = int.from_bytes(whole[start : start + 4], "big"), whole[start + 4 : start + 8]
        if size == 1:
            size = int.from_bytes(whole[start + 8 : start + 16], "big")
        end = start + size if size else len(whole)
        if {b"moov", b"mdat"} <= found and name not in _SOUND_BOXES and not start + 8 <= end <= len(whole):
            return
        if end > len(whole) or end < start + 8:
            raise _corrupt()
        found.add(name)
        start = end


def _check_elements(whole: bytes) -> None:
    """Id, size, content (RFC 8794). Segment and clusters of unknown size are looked into, as live writers make them."""
    start = 0
    while start < len(whole):
        name, start = _vint(whole, start)
        size, content = _vint(whole, start)
        unknown = (1 << 7 * (content - start)) - 1
        size -= 1 << 7 * (content - start)
        is_open = size == unknown
        if name == _SEGMENT or (name == _CLUSTER and is_open):
            size = 0 if is_open or content + size <= len(whole) else len(whole)
        start = content + size
        if start > len(whole):
            raise _corrupt()


def _vint(whole: bytes, start: int) -> tuple[int, int]:
    """A number with its marker, and where it ends."""
    first = whole[start] if start < len(whole) else 0
    size = 9 - first.bit_length()
    if not first or start + size > len(whole):
        raise _corrupt()
    return int.from_bytes(whole[start : start + size], "big"), start + size


def _check_frames(whole: bytes) -> int:
    """Every frame says how long it is (ISO/IEC 13818-7, 6.2); tags may stand before the first and behind the last."""
    start, frames = _behind_id3(whole), 0
    while start < len(whole) and whole[start : start + 3] != b"TAG" and whole[start : start + 8] != b"APETAGEX":
        head = whole[start : start + 7]
        size = int.from_bytes(head[3:6], "big") >> 5 & 0x1FFF
        if len(head) < 7 or head[0] != 0xFF or head[1] & 0xF6 != 0xF0 or size < 7 or start + size > len(whole):
            raise _corrupt()
        start += size
        frames += 1
    return frames


def _behind_id3(raw: bytes) -> int:
    """Where what an ID3v2 tag stands before begins."""
    if raw[:3] != b"ID3" or len(raw) < 10:
        return 0
    a, b, c, d = raw[6:10]
    has_footer = bool(raw[5] & 0x10)
    return 10 + (a << 21 | b << 14 | c << 7 | d) + 10 * has_footer


# Each may say how many frames there must be.
_CHECKS: Final[Mapping[str, Callable[[bytes], int | None]]] = {
    "mp4": _check_boxes,
    "webm": _check_elements,
    "aac": _check_frames,
}


def _corrupt() -> AudioUnusable:
    return AudioUnusable("audio_corrupt", "a recording cannot be decoded")


def _unsupported() -> AudioUnusable:
    return AudioUnusable("audio_unsupported", "a recording has no single track of a kind that is taken")
