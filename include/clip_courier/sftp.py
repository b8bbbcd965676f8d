"""A vendor's drop over SFTP: one pinned host key, one login, and no final name on a file that is not whole.

The only module that imports paramiko. It takes paramiko's SSH and speaks SFTP version 3 itself
(draft-ietf-secsh-filexfer-02): paramiko's own client drops the statuses of its last hundred pipelined writes, so
a write that the server rejected leaves a hole that the size check does not see. Here every reply is read.
"""

import hashlib
import io
import itertools
import logging
import posixpath
import socket
import stat
import struct
import sys
import threading
from base64 import b64decode
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import BinaryIO, NamedTuple, TypeAlias

import paramiko
from paramiko import sftp as v3

from clip_courier.errors import (
    ConnectionInvalid,
    HostKeyMismatch,
    LoginRefused,
    RemoteConflict,
    ServerUnreachable,
    TransferFailed,
)

PART = ".part"  # contract 3: an unfinished file, ignored by both sides
MAX_NAME_BYTES = 200  # leaves room for our own suffixes under the 255 bytes of most file systems
MAX_ENTRIES = 100_000  # a listing must end
MAX_REPLY_BYTES = 1 << 20  # OpenSSH sends 256 KiB at most
SAFE_REQUEST_BYTES = 32 << 10  # what every server must take (draft 3), for those that announce no limits
MAX_REQUEST_BYTES = 255 << 10  # OpenSSH's limit
IN_FLIGHT_BYTES = 4 << 20  # measured: less starves a line of 50 ms, more is up to four times slower
MAX_IN_FLIGHT = 64  # requests; OpenSSH's own client stops there
KEEPALIVE_S = 30
# AES-GCM needs no separate MAC pass: 1.3 times faster than paramiko's first choice. CTR is for old servers.
CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "aes256-ctr", "aes128-ctr")
# paramiko logs failures with tracebacks besides raising them; what is raised here says it once.
WIRE_LOG = "clip_courier.sftp.wire"
logging.getLogger(WIRE_LOG).setLevel(logging.CRITICAL)
_FAULTS = (OSError, EOFError, paramiko.SSHException)
_NO_ATTRIBUTES = bytes(4)


@dataclass(frozen=True)
class SftpEndpoint:
    """Where a vendor's account is, and how both sides prove who they are."""

    host: str
    port: int
    login: str
    host_key: str  # "ssh-ed25519 AAAA…"
    private_key: str = field(repr=False)  # PEM or OpenSSH text
    private_key_passphrase: str | None = field(default=None, repr=False)
    remote_root: str = ""


class RemoteFile(NamedTuple):
    name: str
    size_bytes: int


Listing: TypeAlias = list[RemoteFile]  # an alias because a method of Drop is called list


@contextmanager
def connect(endpoint: SftpEndpoint, *, timeout_s: float = 30) -> Iterator["Drop"]:
    """Open the vendor's drop: one attempt, `timeout_s` for all of it and then for each silence of the server.

    Raises ConnectionInvalid, HostKeyMismatch, LoginRefused or ServerUnreachable.
    """
    pin, key = _host_key(endpoint), _private_key(endpoint)
    with ExitStack() as opened:
        try:
            sock = opened.enter_context(socket.create_connection((endpoint.host, endpoint.port), timeout_s))
            transport = _transport(sock, pin, timeout_s)
            opened.callback(transport.close)
            _authenticate(transport, pin, endpoint.login, key, timeout_s)
            wire = _Wire(_sftp_channel(transport, timeout_s))
        except (*_FAULTS, _Refusal, _Lost) as fault:
            raise ServerUnreachable(f"no SFTP session with the vendor's server: {_reason(fault)}") from fault
        yield Drop(wire, endpoint.remote_root)


class Drop:
    """A vendor's folders. What fails is a TransferFailed or RemoteConflict that names the folder and the file."""

    def __init__(self, wire: "_Wire", remote_root: str) -> None:
        self._wire, self._root = wire, remote_root

    def size(self, folder: str, name: str) -> int | None:
        """Bytes of a file, None when there is none."""
        with _naming(folder, name):
            found = self._wire.attributes(v3.CMD_LSTAT, self._path(folder, name))
            return None if found is None else found.size_bytes

    def put(
        self,
        folder: str,
        name: str,
        source: BinaryIO,
        size_bytes: int,
        *,
        before_rename: Callable[[], None] | None = None,
        replace: bool = False,
    ) -> None:
        """Write a file whole or not at all: under `.part`, its size read back, then renamed to a name that is free.

        `before_rename` is the last word before the vendor can see the file: if it raises, nothing is left behind and
        its exception passes. When only the answer to the rename is lost, TransferFailed leaves the whole file under
        its name: compare `size` and `sha256`. A name that is taken is a RemoteConflict, unless `replace`.
        """
        final = self._path(folder, name)
        self.ensure(folder)
        with ExitStack() as undo:
            with _naming(folder, name):
                if not replace and self._wire.attributes(v3.CMD_LSTAT, final) is not None:
                    raise RemoteConflict(f"{folder}/{name}: the name is taken")
                undo.callback(self._discard, final + PART)
                self._write(final + PART, source, size_bytes)
            if before_rename is not None:
                before_rename()
            with _naming(folder, name):
                self._rename(final + PART, final, replace)
            undo.pop_all()

    def put_bytes(self, folder: str, name: str, data: bytes, *, replace: bool = False) -> None:
        """Write a small file whole, over an old one only with `replace`."""
        self.put(folder, name, io.BytesIO(data), len(data), replace=replace)

    def get(self, folder: str, name: str, sink: BinaryIO, *, max_bytes: int) -> tuple[int, str]:
        """Copy a regular file into `sink`; gives its size in bytes and its SHA-256 in hex."""
        return self._read(folder, name, sink.write, max_bytes)

    def sha256(self, folder: str, name: str) -> str:
        """SHA-256 in hex of what the server holds, by reading all of it back."""
        return self._read(folder, name, len, sys.maxsize)[1]

    def remove(self, folder: str, name: str) -> None:
        """Remove a file; that it is gone already is fine."""
        with _naming(folder, name):
            self._wire.ask_unless(v3.SFTP_NO_SUCH_FILE, v3.CMD_REMOVE, _string(self._path(folder, name)))

    def ensure(self, folder: str) -> None:
        """Make the folder when it is missing."""
        path = posixpath.join(self._root, folder)
        with _naming(folder):
            if self._wire.attributes(v3.CMD_STAT, path) is None:
                # a failure may mean that the vendor made it first; if not, the next request fails and says so
                self._wire.ask_unless(v3.SFTP_FAILURE, v3.CMD_MKDIR, _string(path), _NO_ATTRIBUTES)

    def list(self, folder: str) -> Listing:
        """Finished regular files with safe names, sorted; links are left out; empty when there is no such folder."""
        with _naming(folder):
            entries = self._wire.entries(posixpath.join(self._root, folder))
            return sorted(
                RemoteFile(name, found.size_bytes)
                for name, found in entries
                if stat.S_ISREG(found.mode) and _is_safe(name) and not name.endswith(PART)
            )

    def _path(self, folder: str, name: str) -> str:
        """The only place where the path of a file is made."""
        if not _is_safe(name):
            raise TransferFailed(f"{folder}: a file name that is not safe was refused")
        return posixpath.join(self._root, folder, name)

    def _write(self, part: str, source: BinaryIO, size_bytes: int) -> None:
        with self._wire.opened(part, v3.SFTP_FLAG_WRITE | v3.SFTP_FLAG_CREATE | v3.SFTP_FLAG_TRUNC) as handle:
            sent = self._wire.write(handle, iter(lambda: source.read(self._wire.request_bytes), b""))
        found = self._wire.attributes(v3.CMD_LSTAT, part)
        held = -1 if found is None else found.size_bytes
        if not size_bytes == sent == held:
            raise TransferFailed(f"{part}: {size_bytes} bytes promised, {sent} sent, {held} on the server")

    def _rename(self, part: str, final: str, replace: bool) -> None:
        names = _string(part) + _string(final)
        if replace:
            posix = _string("posix-rename@openssh.com")
            if self._wire.ask_unless(v3.SFTP_OP_UNSUPPORTED, v3.CMD_EXTENDED, posix, names):
                return
            self._wire.ask_unless(v3.SFTP_NO_SUCH_FILE, v3.CMD_REMOVE, _string(final))
        try:
            self._wire.ask(v3.CMD_RENAME, names)  # version 3 refuses when the new name exists
        except _Refusal as refusal:
            if self._wire.attributes(v3.CMD_LSTAT, final) is None:
                raise
            raise RemoteConflict(f"{final}: the name was taken meanwhile") from refusal

    def _discard(self, part: str) -> None:
        with suppress(_Refusal, _Lost):  # the failure that led here is the one to report
            self._wire.ask(v3.CMD_REMOVE, _string(part))

    def _read(self, folder: str, name: str, take: Callable[[bytes], object], max_bytes: int) -> tuple[int, str]:
        path, digest, what = self._path(folder, name), hashlib.sha256(), f"{folder}/{name}"
        with _naming(folder, name):
            found = self._wire.attributes(v3.CMD_LSTAT, path)
            if found is None or not stat.S_ISREG(found.mode):
                raise TransferFailed(f"{what}: there is no such regular file")
            if found.size_bytes > max_bytes:
                raise TransferFailed(f"{what}: {found.size_bytes} bytes, {max_bytes} allowed")
            with self._wire.opened(path, v3.SFTP_FLAG_READ) as handle:
                for data in self._wire.read(handle, found.size_bytes):
                    digest.update(data)
                    take(data)
                if self._wire.attributes(v3.CMD_FSTAT, handle) != found:
                    raise TransferFailed(f"{what}: it changed while it was read")
        return found.size_bytes, digest.hexdigest()


# -- SSH -------------------------------------------------------------------------------------------------------


def _host_key(endpoint: SftpEndpoint) -> paramiko.PKey:
    kind, blob = [*endpoint.host_key.split(), "", ""][:2]
    try:
        raw = b64decode(blob, validate=True)
        pin = paramiko.PKey.from_type_string(kind, raw)
        if pin.asbytes() == raw:  # paramiko fills up a key that was cut short with zeros
            return pin
    except (paramiko.SSHException, paramiko.pkey.UnknownKeyType, ValueError) as fault:
        raise ConnectionInvalid("host_key: missing or not a public key such as 'ssh-ed25519 AAAA…'") from fault
    raise ConnectionInvalid("host_key: the public key is cut short")


def _private_key(endpoint: SftpEndpoint) -> paramiko.PKey:
    for kind in (paramiko.Ed25519Key, paramiko.ECDSAKey, paramiko.RSAKey):
        with suppress(paramiko.SSHException, ValueError, LookupError, TypeError):
            return kind.from_private_key(io.StringIO(endpoint.private_key), endpoint.private_key_passphrase)
    raise ConnectionInvalid("private_key: missing, not an OpenSSH or PEM private key, or its passphrase is wrong")


def _transport(sock: socket.socket, pin: paramiko.PKey, timeout_s: float) -> paramiko.Transport:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # without it every small file waits 40 ms for an ACK
    if sys.platform == "linux":  # ends a write into a connection whose other end no longer takes anything
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(timeout_s * 1000))
    transport = paramiko.Transport(sock)
    transport.set_log_channel(WIRE_LOG)
    transport.banner_timeout = transport.handshake_timeout = timeout_s
    options = transport.get_security_options()
    options.ciphers = CIPHERS  # works before the handshake only
    pinned = {"ssh-rsa": ("rsa-sha2-512", "rsa-sha2-256")}.get(pin.get_name(), (pin.get_name(),))
    options.key_types = sorted(options.key_types, key=lambda kind: kind not in pinned)
    return transport


def _authenticate(
    transport: paramiko.Transport, pin: paramiko.PKey, login: str, key: paramiko.PKey, timeout_s: float
) -> None:
    """Handshake, then the pin, then one login with one key. Events, because a timeout here is no refusal."""
    done = threading.Event()
    transport.start_client(event=done)
    if not done.wait(timeout_s) or not transport.is_active():
        raise _Lost("it did not complete an SSH handshake") from transport.get_exception()
    shown = transport.get_remote_server_key()
    if shown != pin:
        raise HostKeyMismatch(f"the server showed {shown.fingerprint}, the pin is {pin.fingerprint}")
    done = threading.Event()
    transport.auth_publickey(login, key, event=done)
    if not done.wait(timeout_s):
        raise _Lost("it did not answer the login in time")
    if not transport.is_authenticated():
        fault = transport.get_exception()
        if fault is None or isinstance(fault, paramiko.AuthenticationException):  # None: it said goodbye
            raise LoginRefused("the server refused our key for this login") from fault
        raise _Lost(_reason(fault)) from fault


def _sftp_channel(transport: paramiko.Transport, timeout_s: float) -> paramiko.Channel:
    alarm = threading.Timer(timeout_s, transport.close)  # paramiko awaits the subsystem without a timeout
    alarm.start()
    try:
        transport.set_keepalive(KEEPALIVE_S)
        channel = transport.open_session(window_size=4 * IN_FLIGHT_BYTES, timeout=timeout_s)
        channel.settimeout(timeout_s)
        channel.invoke_subsystem("sftp")
        return channel
    finally:
        alarm.cancel()


# -- SFTP ------------------------------------------------------------------------------------------------------


class _Refusal(Exception):
    """The server answered with a status other than OK; the session goes on."""

    def __init__(self, code: int) -> None:
        # never the server's own words: they may hold anything
        super().__init__(v3.SFTP_DESC[code] if code < len(v3.SFTP_DESC) else f"status {code}")
        self.code = code


class _Lost(Exception):
    """The server fell silent, hung up or made no sense: nothing more can be asked in this session."""


class _Attributes(NamedTuple):
    size_bytes: int
    mode: int


class _Wire:
    """SFTP version 3 on a channel. Requests go out ahead; every reply is matched to its request and judged."""

    def __init__(self, channel: paramiko.Channel) -> None:
        self._channel, self._numbers, self._lost = channel, itertools.count(1), ""
        self._received, self._used = b"", 0
        self._replies: dict[int, tuple[int, paramiko.Message]] = {}  # came while another one was awaited
        self.request_bytes = SAFE_REQUEST_BYTES
        self._transmit(v3.CMD_INIT, struct.pack(">I", 3))
        kind, hello = self._receive()
        if kind != v3.CMD_VERSION or hello.get_int() != 3:
            raise self._lose("it does not speak SFTP version 3")
        while hello.get_remainder():
            if (name := hello.get_string()) == b"limits@openssh.com":
                self.request_bytes = self._limit(name)
            hello.get_string()
        self._ahead = min(MAX_IN_FLIGHT, IN_FLIGHT_BYTES // self.request_bytes)

    def ask(self, kind: int, *fields: bytes, wanted: int = v3.CMD_STATUS) -> paramiko.Message:
        """Send a request and await its reply, which must be of the kind `wanted`."""
        return self._await(self._send(kind, *fields), wanted)

    def ask_unless(
        self, status: int, kind: int, *fields: bytes, wanted: int = v3.CMD_STATUS
    ) -> paramiko.Message | None:
        """The same; None when the server refuses with this status."""
        try:
            return self.ask(kind, *fields, wanted=wanted)
        except _Refusal as refusal:
            if refusal.code != status:
                raise
            return None

    def attributes(self, kind: int, target: str | bytes) -> _Attributes | None:
        """Of the path or handle, by the STAT request given; None when there is no such file."""
        reply = self.ask_unless(v3.SFTP_NO_SUCH_FILE, kind, _string(target), wanted=v3.CMD_ATTRS)
        return None if reply is None else _attributes(reply)

    @contextmanager
    def opened(self, path: str, flags: int) -> Iterator[bytes]:
        """The handle of a file. Its close is judged as well: a full disk may show only there."""
        opened = self.ask(v3.CMD_OPEN, _string(path), struct.pack(">I", flags), _NO_ATTRIBUTES, wanted=v3.CMD_HANDLE)
        handle = opened.get_string()
        try:
            yield handle
        finally:
            self.ask(v3.CMD_CLOSE, _string(handle))

    def write(self, handle: bytes, chunks: Iterable[bytes]) -> int:
        """Write the chunks one after another; the bytes written, once every write was acknowledged."""
        window, offset = deque[int](), 0
        for chunk in chunks:
            window.append(self._send(v3.CMD_WRITE, _string(handle), struct.pack(">Q", offset), _string(chunk)))
            offset += len(chunk)
            if len(window) >= self._ahead:
                self._await(window.popleft())
        while window:
            self._await(window.popleft())
        return offset

    def read(self, handle: bytes, size: int) -> Iterator[bytes]:
        """The first `size` bytes in order. A file that ends before them is a refusal."""
        window, asked = deque[tuple[int, int, int]](), 0
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

    def entries(self, folder: str) -> Iterator[tuple[str, _Attributes]]:
        """Names and attributes in a folder, links unresolved; none when there is no such folder."""
        opened = self.ask_unless(v3.SFTP_NO_SUCH_FILE, v3.CMD_OPENDIR, _string(folder), wanted=v3.CMD_HANDLE)
        if opened is None:
            return
        handle, seen = _string(opened.get_string()), 0
        while (names := self.ask_unless(v3.SFTP_EOF, v3.CMD_READDIR, handle, wanted=v3.CMD_NAME)) is not None:
            count = names.get_int()
            seen += count
            if not count or seen > MAX_ENTRIES:
                raise self._lose("it lists a folder without end")
            for _ in range(count):
                # bytes that are not UTF-8 become characters that no safe name may hold
                name, _long = names.get_string().decode("utf-8", "surrogateescape"), names.get_string()
                yield name, _attributes(names)
        self.ask(v3.CMD_CLOSE, handle)

    def _limit(self, extension: bytes) -> int:
        limits = self.ask(v3.CMD_EXTENDED, _string(extension), wanted=v3.CMD_EXTENDED_REPLY)
        _packet, read, write = limits.get_int64(), limits.get_int64(), limits.get_int64()
        return max(SAFE_REQUEST_BYTES, min(read, write, MAX_REQUEST_BYTES))  # 0 says nothing

    def _send_read(self, handle: bytes, offset: int, length: int) -> int:
        return self._send(v3.CMD_READ, _string(handle), struct.pack(">QI", offset, length))

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
            raise _Refusal(code)
        if kind != wanted:
            raise self._lose("it answered with a reply of the wrong kind")
        return reply

    def _transmit(self, kind: int, *fields: bytes) -> None:
        if self._lost:  # asking again would wait for a second timeout
            raise _Lost(self._lost)
        packet = b"".join((struct.pack(">IB", 1 + sum(map(len, fields)), kind), *fields))
        try:
            self._channel.sendall(packet)
        except _FAULTS as fault:
            raise self._lose(_reason(fault)) from fault

    def _receive(self) -> tuple[int, paramiko.Message]:
        length = int.from_bytes(self._take(4), "big")
        if not 5 <= length <= MAX_REPLY_BYTES:
            raise self._lose("it does not speak SFTP")
        packet = self._take(length)
        return packet[0], paramiko.Message(packet[1:])

    def _take(self, size: int) -> bytes:
        """The next bytes from the channel; received in large pieces, since paramiko moves its whole buffer at each."""
        if len(self._received) - self._used < size:
            parts = [self._received[self._used :]]
            while sum(map(len, parts)) < size:
                try:
                    parts.append(self._channel.recv(IN_FLIGHT_BYTES))
                except _FAULTS as fault:
                    raise self._lose(_reason(fault)) from fault
                if not parts[-1]:
                    raise self._lose("it hung up")
            self._received, self._used = b"".join(parts), 0
        self._used += size
        return self._received[self._used - size : self._used]

    def _lose(self, reason: str) -> _Lost:
        self._lost = reason
        return _Lost(reason)


def _string(text: str | bytes) -> bytes:
    raw = text.encode() if isinstance(text, str) else text
    return struct.pack(">I", len(raw)) + raw


def _attributes(reply: paramiko.Message) -> _Attributes:
    flags = reply.get_int()
    size = reply.get_int64() if flags & 1 else -1
    reply.get_bytes(8 if flags & 2 else 0)  # owner and group
    mode = reply.get_int() if flags & 4 else 0
    reply.get_bytes(8 if flags & 8 else 0)  # times
    for _ in range(min(reply.get_int(), MAX_IN_FLIGHT) if flags & 1 << 31 else 0):
        reply.get_string(), reply.get_string()
    return _Attributes(size, mode)


def _is_safe(name: str) -> bool:
    """A plain, visible file name: nothing in it can leave the folder, hide, or forge a line of a log."""
    return (
        name.isprintable()
        and not name.startswith(".")
        and not {"/", "\\"} & set(name)
        and 0 < len(name.encode()) <= MAX_NAME_BYTES
    )


@contextmanager
def _naming(folder: str, name: str = "") -> Iterator[None]:
    """Turn what went wrong into a TransferFailed that says with which file."""
    what = f"{folder}/{name}" if name else folder
    try:
        yield
    except (_Refusal, _Lost) as fault:
        raise TransferFailed(f"{what}: the vendor's server: {fault}") from fault
    except OSError as fault:
        raise TransferFailed(f"{what}: our own file: {_reason(fault)}") from fault


def _reason(fault: BaseException) -> str:
    """Why, without words of the server's."""
    if isinstance(fault, TimeoutError):
        return "no answer in time"
    if isinstance(fault, _Refusal | _Lost):
        return str(fault)
    return getattr(fault, "strerror", None) or f"connection lost ({type(fault).__name__})"
