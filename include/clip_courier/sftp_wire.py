"""SFTP version 3 as it goes over the wire (draft-ietf-secsh-filexfer-02): a bounded window, every reply read.

Below `sftp`, which gives it meaning; the channel is paramiko's.
"""

import itertools
import struct
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import paramiko
from paramiko import sftp as v3

MAX_ENTRIES = 100_000  # a listing must end
MAX_REPLY_BYTES = 1 << 20  # OpenSSH sends 256 KiB at most
SAFE_REQUEST_BYTES = 32 << 10  # what every server must take (draft 3), for those that announce no limits
MAX_REQUEST_BYTES = 255 << 10  # OpenSSH's limit
IN_FLIGHT_BYTES = 4 << 20  # measured: less starves a line of 50 ms, more is up to four times slower
RECEIVE_BYTES = 1 << 20  # at once: paramiko moves its whole buffer at each call, and what is received is copied
MAX_IN_FLIGHT = 64  # requests; OpenSSH's own client stops there
FSYNC, LIMITS, CHECK_FILE = b"fsync@openssh.com", b"limits@openssh.com", b"check-file-name"
FAULTS = (OSError, EOFError, paramiko.SSHException)
NO_ATTRIBUTES = bytes(4)


class Refusal(Exception):
    """The server answered with a status other than OK; the session goes on."""

    def __init__(self, code: int) -> None:
        # never the server's own words: they may hold anything
        super().__init__(v3.SFTP_DESC[code] if code < len(v3.SFTP_DESC) else f"status {code}")
        self.code = code


class Lost(Exception):
    """The server fell silent, hung up or made no sense: nothing more can be asked in this session."""


class Attributes(NamedTuple):
    size_bytes: int
    mode: int


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked, and the kind of reply that is wanted."""

    kind: int
    fields: tuple[bytes, ...]
    wanted: int = v3.CMD_STATUS


Task: TypeAlias = Generator[Request, Any, None]


class Wire:
    """SFTP version 3 on a channel. Requests go out ahead; every reply is matched to its request and judged.

    The channel's timeout bounds each packet as a whole: a server that lets single bytes through is as good as silent.
    """

    def __init__(self, channel: paramiko.Channel) -> None:
        self._channel, self._numbers, self._lost = channel, itertools.count(1), ""
        self._timeout_s = channel.gettimeout() or float("inf")
        self._hashes = True  # until the server says that it does not know how
        self._received, self._used = b"", 0
        self._replies: dict[int, tuple[int, paramiko.Message]] = {}  # came while another one was awaited
        self.request_bytes = SAFE_REQUEST_BYTES
        self._transmit(v3.CMD_INIT, struct.pack(">I", 3))
        kind, hello = self._receive()
        if kind != v3.CMD_VERSION or hello.get_int() != 3:
            raise self._lose("it does not speak SFTP version 3")
        offered = set()
        while hello.get_remainder():
            offered.add(hello.get_string())
            hello.get_string()
        self._syncs = FSYNC in offered
        if LIMITS in offered:
            self.request_bytes = self._limit(LIMITS)
        self._ahead = min(MAX_IN_FLIGHT, IN_FLIGHT_BYTES // self.request_bytes)

    @property
    def is_lost(self) -> bool:
        """Whether the server fell silent, hung up or made no sense."""
        return bool(self._lost)

    def ask(self, kind: int, *fields: bytes, wanted: int = v3.CMD_STATUS) -> paramiko.Message:
        """Send a request and await its reply, which must be of the kind `wanted`."""
        return self._await(self._send(kind, *fields), wanted)

    def ask_unless(
        self, status: int, kind: int, *fields: bytes, wanted: int = v3.CMD_STATUS
    ) -> paramiko.Message | None:
        """The same; None when the server refuses with this status."""
        try:
            return self.ask(kind, *fields, wanted=wanted)
        except Refusal as refusal:
            if refusal.code != status:
                raise
            return None

    def together(self, tasks: Iterable[Task], at_once: int = MAX_IN_FLIGHT // 2) -> None:
        """Work through tasks side by side, so that a round trip is waited for once and not once a task.

        A task asks by yielding a Request and is given the reply. What one raises ends all of them; a Refusal is raised
        inside the task, which may know what to do.
        """
        waiting, under_way = iter(tasks), dict[int, tuple[Task, Request]]()
        for task in itertools.islice(waiting, at_once):
            self._go_on(task, None, under_way)
        while under_way:
            number = next(iter(under_way))
            task, request = under_way.pop(number)
            try:
                reply: paramiko.Message | Refusal = self._await(number, request.wanted)
            except Refusal as refusal:
                reply = refusal
            if not self._go_on(task, reply, under_way) and (new := next(waiting, None)) is not None:
                self._go_on(new, None, under_way)

    def _go_on(self, task: Task, reply: paramiko.Message | Refusal | None, under_way: dict[int, Any]) -> bool:
        """Give a task its reply and send what it asks next; False when it has come to its end."""
        try:
            request = task.throw(reply) if isinstance(reply, Refusal) else task.send(reply)
        except StopIteration:
            return False
        under_way[self._send(request.kind, *request.fields)] = task, request
        return True

    def attributes(self, kind: int, target: str | bytes) -> Attributes | None:
        """Of the path or handle, by the STAT request given; None when there is no such file."""
        reply = self.ask_unless(v3.SFTP_NO_SUCH_FILE, kind, string(target), wanted=v3.CMD_ATTRS)
        return None if reply is None else attributes_of(reply)

    def open(self, path: str, flags: int) -> bytes:
        """The handle of a file that is to be `finish`ed."""
        opened = self.ask(v3.CMD_OPEN, string(path), struct.pack(">I", flags), NO_ATTRIBUTES, wanted=v3.CMD_HANDLE)
        return opened.get_string()

    @contextmanager
    def opened(self, path: str, flags: int) -> Iterator[bytes]:
        """The handle of a file. Its close is judged as well: a full disk may show only there."""
        handle = self.open(path, flags)
        try:
            yield handle
        finally:
            self.ask(v3.CMD_CLOSE, string(handle))

    def write(self, handle: bytes, chunks: Iterable[bytes], start: int = 0) -> int:
        """Write the chunks one after another from `start`; where they end, once every write was acknowledged."""
        window, offset = deque[int](), start
        for chunk in chunks:
            place = struct.pack(">QI", offset, len(chunk))
            window.append(self._send(v3.CMD_WRITE, string(handle), place, chunk))
            offset += len(chunk)
            if len(window) >= self._ahead:
                self._await(window.popleft())
        while window:
            self._await(window.popleft())
        return offset

    def finish(self, handle: bytes, path: str) -> Attributes:
        """Bring what was written to the server's disk where it knows how, close it, and look at it: one round trip.

        A server answers in the order it was asked (draft §7), so the last answer is of the closed file.
        """
        syncing = [self._send(v3.CMD_EXTENDED, string(FSYNC), string(handle))] if self._syncs else []
        closing = self._send(v3.CMD_CLOSE, string(handle))
        looking = self._send(v3.CMD_LSTAT, string(path))
        try:
            for number in (*syncing, closing):
                self._await(number)
        except Refusal:
            with suppress(Refusal):  # the answers behind it must be taken all the same
                self._await(looking, v3.CMD_ATTRS)
            raise
        return attributes_of(self._await(looking, v3.CMD_ATTRS))

    def sha256(self, path: str, size: int) -> bytes | None:
        """What the server says is the SHA-256 of a file's first `size` bytes; None where it cannot tell.

        `check-file` of draft-ietf-secsh-filexfer-extensions-00 §3, as ProFTPD and Bitvise have it.
        """
        if not self._hashes or not size:  # a length of 0 would mean all of it
            return None
        wanted = string(CHECK_FILE), string(path), string("sha256"), struct.pack(">QQI", 0, size, 0)
        try:
            reply = self.ask(v3.CMD_EXTENDED, *wanted, wanted=v3.CMD_EXTENDED_REPLY).get_remainder()
        except Refusal:
            self._hashes = False
            return None
        return reply[-32:] if b"sha256" in reply[:-32] else None

    def read(self, handle: bytes, size: int, start: int = 0) -> Iterator[bytes]:
        """The bytes from `start` to `size` in order. A file that ends before them is a refusal."""
        window, asked = deque[tuple[int, int, int]](), start
        while asked < size or window:
            while asked < size and len(window) < self._ahead:
                length = min(self.request_bytes, size - asked)
                window.append((self._send_read(handle, asked, length), asked, length))
                asked += length
            number, offset, length = window.popleft()
            data = self._await(number, v3.CMD_DATA).get_string()
            if not 0 < len(data) <= length:
                raise self._lose("it answered with no data or with more than was asked")
            yield data
            offset, length = offset + len(data), length - len(data)
            if length:  # a server may answer with less than was asked
                window.appendleft((self._send_read(handle, offset, length), offset, length))

    def entries(self, folder: str) -> Iterator[tuple[str, Attributes]]:
        """Names and attributes in a folder, links unresolved; none when there is no such folder."""
        opened = self.ask_unless(v3.SFTP_NO_SUCH_FILE, v3.CMD_OPENDIR, string(folder), wanted=v3.CMD_HANDLE)
        if opened is None:
            return
        handle, seen = string(opened.get_string()), 0
        while (names := self.ask_unless(v3.SFTP_EOF, v3.CMD_READDIR, handle, wanted=v3.CMD_NAME)) is not None:
            count = names.get_int()
            seen += count
            if not count or seen > MAX_ENTRIES:
                raise self._lose("it lists a folder without end")
            for _ in range(count):
                # bytes that are not UTF-8 become characters that no safe name may hold
                name, _long = names.get_string().decode("utf-8", "surrogateescape"), names.get_string()
                yield name, attributes_of(names)
        self.ask(v3.CMD_CLOSE, handle)

    def _limit(self, extension: bytes) -> int:
        limits = self.ask(v3.CMD_EXTENDED, string(extension), wanted=v3.CMD_EXTENDED_REPLY)
        _packet, read, write = limits.get_int64(), limits.get_int64(), limits.get_int64()
        return max(SAFE_REQUEST_BYTES, min(read, write, MAX_REQUEST_BYTES))  # 0 says nothing

    def _send_read(self, handle: bytes, offset: int, length: int) -> int:
        return self._send(v3.CMD_READ, string(handle), struct.pack(">QI", offset, length))

    def _send(self, kind: int, *fields: bytes) -> int:
        number = next(self._numbers)
        self._transmit(kind, struct.pack(">I", number), *fields)
        return number

    def _await(self, number: int, wanted: int = v3.CMD_STATUS) -> paramiko.Message:
        while number not in self._replies:
            kind, reply = self._receive()
            self._replies[reply.get_int()] = kind, reply
            if len(self._replies) > MAX_IN_FLIGHT:
                raise self._lose("it answers what was not asked")
        kind, reply = self._replies.pop(number)
        if kind == v3.CMD_STATUS and (code := reply.get_int()) != v3.SFTP_OK:
            raise Refusal(code)
        if kind != wanted:
            raise self._lose("it answered with a reply of the wrong kind")
        return reply

    def _transmit(self, kind: int, *fields: bytes) -> None:
        if self._lost:  # asking again would wait for a second timeout
            raise Lost(self._lost)
        # paramiko sends 32 KiB at once: what is left must not be copied each time
        packet = memoryview(b"".join((struct.pack(">IB", 1 + sum(map(len, fields)), kind), *fields)))
        deadline = time.monotonic() + self._timeout_s
        try:
            while packet:
                if not (sent := self._channel.send(packet)):  # type: ignore[arg-type]
                    raise EOFError
                packet = packet[sent:]
                if packet and time.monotonic() > deadline:
                    raise TimeoutError
        except FAULTS as fault:
            raise self._lose(reason(fault)) from fault

    def _receive(self) -> tuple[int, paramiko.Message]:
        length = int.from_bytes(self._take(4), "big")
        if not 5 <= length <= MAX_REPLY_BYTES:
            raise self._lose("it does not speak SFTP")
        packet = self._take(length)
        return packet[0], paramiko.Message(bytes(packet[1:]))

    def _take(self, size: int) -> memoryview:
        """The next bytes from the channel; received in large pieces, since paramiko moves its whole buffer at each."""
        if len(self._received) - self._used < size:
            parts = [self._received[self._used :]]
            deadline = time.monotonic() + self._timeout_s
            while sum(map(len, parts)) < size:
                try:
                    parts.append(self._channel.recv(RECEIVE_BYTES))
                    if time.monotonic() > deadline:
                        raise TimeoutError
                except FAULTS as fault:
                    raise self._lose(reason(fault)) from fault
                if not parts[-1]:
                    raise self._lose("it hung up")
            self._received, self._used = b"".join(parts), 0
        self._used += size
        return memoryview(self._received)[self._used - size : self._used]

    def _lose(self, reason: str) -> Lost:
        self._lost = reason
        return Lost(reason)


def string(text: str | bytes) -> bytes:
    raw = text.encode() if isinstance(text, str) else text
    return struct.pack(">I", len(raw)) + raw


def attributes_of(reply: paramiko.Message) -> Attributes:
    """The attributes in a reply."""
    flags = reply.get_int()
    size = reply.get_int64() if flags & 1 else -1
    reply.get_bytes(8 if flags & 2 else 0)  # owner and group
    mode = reply.get_int() if flags & 4 else 0
    reply.get_bytes(8 if flags & 8 else 0)  # times
    for _ in range(min(reply.get_int(), MAX_IN_FLIGHT) if flags & 1 << 31 else 0):
        reply.get_string(), reply.get_string()
    return Attributes(size, mode)


def reason(fault: BaseException) -> str:
    """Why, without words of the server's."""
    if isinstance(fault, TimeoutError):
        return "no answer in time"
    if isinstance(fault, Refusal | Lost):
        return str(fault)
    if isinstance(fault, paramiko.ChannelException):
        return "it lets in no further session"
    return getattr(fault, "strerror", None) or f"connection lost ({type(fault).__name__})"
