"""A vendor's drop over SFTP: one pinned host key, one login, and no final name on a file that is not whole.

The only module that imports paramiko. It takes paramiko's SSH and speaks SFTP version 3 itself
(draft-ietf-secsh-filexfer-02): paramiko's own client drops the statuses of its last hundred pipelined writes, so
a write that the server rejected leaves a hole that the size check does not see. Here every reply is read.
"""

import hashlib
import io
import logging
import posixpath
import socket
import stat
import struct
import sys
import threading
from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import BinaryIO, NamedTuple, TypeAlias

import paramiko
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from paramiko import sftp as v3

from clip_courier.errors import (
    ConnectionInvalid,
    ConnectionLost,
    HostKeyMismatch,
    LoginRefused,
    RemoteConflict,
    ServerUnreachable,
    TransferFailed,
)
from clip_courier.sftp_wire import (
    FAULTS,
    IN_FLIGHT_BYTES,
    NO_ATTRIBUTES,
    Lost,
    Refusal,
    Request,
    Task,
    Wire,
    attributes_of,
    reason,
    string,
)

POSIX_RENAME = "posix-rename@openssh.com"
PART = ".part"  # contract 3: an unfinished file, ignored by both sides
MAX_NAME_BYTES = 200  # leaves room for our own suffixes under the 255 bytes of most file systems
KEEPALIVE_S = 30
GOODBYE_S = 1.0  # for a server that has nothing more to say
# After a broken line the last window may hold gaps, which read as zeros; what lies before them is kept.
RESUME_SLACK_BYTES = 2 * IN_FLIGHT_BYTES
# AES-GCM needs no separate MAC pass: 1.3 times faster than paramiko's first choice. CTR is for old servers.
CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "aes256-ctr", "aes128-ctr")
MACS = ("hmac-sha2-256-etm@openssh.com", "hmac-sha2-512-etm@openssh.com", "hmac-sha2-256", "hmac-sha2-512")
# paramiko logs failures with tracebacks besides raising them; what is raised here says it once.
WIRE_LOG = "clip_courier.sftp.wire"
logging.getLogger(WIRE_LOG).setLevel(logging.CRITICAL)


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
    """Open the vendor's drop: one attempt. `timeout_s` bounds each step of it, and each later silence of the server.

    Raises ConnectionInvalid, HostKeyMismatch, LoginRefused or ServerUnreachable.
    """
    pin, key = _host_key(endpoint), _private_key(endpoint)
    with ExitStack() as opened:
        try:
            sock = opened.enter_context(socket.create_connection((endpoint.host, endpoint.port), timeout_s))
            transport = _transport(sock, pin, timeout_s)
            opened.callback(transport.close)
            opened.callback(_hang_up, sock)
            _authenticate(transport, pin, endpoint.login, key, timeout_s)
            wire = Wire(_sftp_channel(transport, timeout_s))
        except (*FAULTS, Refusal, Lost) as fault:
            raise ServerUnreachable(f"no SFTP session with the vendor's server: {reason(fault)}") from fault
        try:
            yield Drop(wire, endpoint.remote_root)
        finally:
            if not wire.is_lost:
                _say_goodbye(sock, transport)


def _hang_up(sock: socket.socket) -> None:
    """End the connection now, before its place is another's.

    Closing alone waits for paramiko's thread, which may be reading from it, and for whatever process of ours is being
    started at this moment and still holds a copy of the socket.
    """
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


def _say_goodbye(sock: socket.socket, transport: paramiko.Transport) -> None:
    """See the server hang up as well: as long as it has not, it counts this connection."""
    with suppress(OSError):
        sock.shutdown(socket.SHUT_WR)
    transport.join(GOODBYE_S)


class Drop:
    """A vendor's folders. What fails is a TransferFailed or RemoteConflict that names the folder and the file."""

    def __init__(self, wire: "Wire", remote_root: str) -> None:
        self._wire, self._root = wire, remote_root

    def size(self, folder: str, name: str) -> int | None:
        """Bytes of a file, None when there is none."""
        with _naming(folder, name):
            found = self._wire.attributes(v3.CMD_LSTAT, self._path(folder, name))
            return None if found is None else found.size_bytes

    def put(self, folder: str, name: str, source: BinaryIO, size_bytes: int, *, replace: bool = False) -> None:
        """Write a file whole or not at all: `upload` and `publish` under one name that both sides ignore.

        A name that is taken is a RemoteConflict, unless `replace`; then nothing and otherwise little is left behind.
        """
        final = self._path(folder, name)
        self.ensure(folder)
        with _naming(folder, name):
            if not replace and self._wire.attributes(v3.CMD_LSTAT, final) is not None:
                raise RemoteConflict(f"{folder}/{name}: the name is taken")
        with self._discarding(final + PART):
            with _naming(folder, name):
                self._write(final + PART, source, size_bytes)
            self._publish(folder, name, final + PART, replace)

    def upload(
        self, folder: str, name: str, source: BinaryIO, size_bytes: int, *, attempt: str, is_read_back: bool = True
    ) -> int:
        """Bring a file to the server under `<name>.<attempt>.part`; gives the offset from which it was sent.

        What an earlier upload of the attempt left there is compared with `source`, byte by byte or by the server's own
        SHA-256, and kept as far as it is the same. At the end every write was acknowledged and the size is right, and
        with `is_read_back` so is what the server holds. Raises ConnectionLost, after which the next upload goes on, or
        TransferFailed, after which nothing is left.
        """
        part = self.part(folder, name, attempt)
        self.ensure(folder)
        with self._discarding(part), _naming(folder, name):
            start = self._resumes_at(part, source, size_bytes)
            source.seek(start)
            self._write(part, source, size_bytes, start)
            if is_read_back and self._same(part, source, size_bytes, start) < size_bytes:
                raise TransferFailed(f"{part}: what the server holds is not what was sent")
        return start

    def publish(self, folder: str, name: str, *, attempt: str) -> None:
        """Give an uploaded file its name, which must be free. Raises RemoteConflict, TransferFailed, ConnectionLost.

        Only after ConnectionLost it is open whether the file has its name: `size` and `parts` tell.
        """
        self._publish(folder, name, self.part(folder, name, attempt), replace=False)

    def parts(self, folder: str, name: str) -> list[str]:
        """The attempts of which an unfinished file of this name lies there."""
        with _naming(folder, name):
            there = [entry for entry, _ in self._wire.entries(posixpath.join(self._root, folder))]
        lying = [entry for entry in there if entry.startswith(f"{name}.") and entry.endswith(PART)]
        attempts = (entry[len(name) + 1 : -len(PART)] for entry in lying)
        return sorted(attempt for attempt in attempts if attempt.isalnum())

    def take_over(self, folder: str, name: str, *, attempt: str, other: str) -> None:
        """Make another attempt's unfinished file this attempt's: whoever still works at it finds it gone.

        Raises TransferFailed when it is gone itself.
        """
        names = string(self.part(folder, name, other)) + string(self.part(folder, name, attempt))
        with _naming(folder, name):
            self._wire.ask(v3.CMD_RENAME, names)

    def part(self, folder: str, name: str, attempt: str) -> str:
        """The path of an attempt's unfinished file."""
        return self._path(folder, f"{name}.{attempt}{PART}")

    def put_bytes(self, folder: str, name: str, data: bytes, *, replace: bool = False) -> None:
        """Write a small file whole, over an old one only with `replace`."""
        self.put(folder, name, io.BytesIO(data), len(data), replace=replace)

    def put_many(self, folder: str, files: Mapping[str, bytes]) -> None:
        """Write small files whole, over old ones of their names, side by side: over a far line a round trip is dear.

        After a failure some have their names, each of these whole; the others may lie there as `.part`.
        """
        self.ensure(folder)
        with _naming(folder):
            self._wire.together(self._putting(self._path(folder, name), data) for name, data in files.items())

    def _putting(self, final: str, data: bytes) -> Task:
        part, size = string(final + PART), self._wire.request_bytes
        flags = struct.pack(">I", v3.SFTP_FLAG_WRITE | v3.SFTP_FLAG_CREATE | v3.SFTP_FLAG_TRUNC)
        opened = yield Request(v3.CMD_OPEN, (part, flags, NO_ATTRIBUTES), v3.CMD_HANDLE)
        handle = string(opened.get_string())
        for offset in range(0, len(data), size):
            at = struct.pack(">Q", offset)
            yield Request(v3.CMD_WRITE, (handle, at, string(data[offset : offset + size])))
        yield Request(v3.CMD_CLOSE, (handle,))
        found = attributes_of((yield Request(v3.CMD_LSTAT, (part,), v3.CMD_ATTRS)))
        if found.size_bytes != len(data):
            raise TransferFailed(f"{final}: {len(data)} bytes sent, {found.size_bytes} on the server")
        try:
            yield Request(v3.CMD_EXTENDED, (string(POSIX_RENAME), part, string(final)))
        except Refusal as refusal:
            if refusal.code != v3.SFTP_OP_UNSUPPORTED:
                raise
            with suppress(Refusal):
                yield Request(v3.CMD_REMOVE, (string(final),))
            yield Request(v3.CMD_RENAME, (part, string(final)))

    def get(self, folder: str, name: str, sink: BinaryIO, *, max_bytes: int) -> tuple[int, str]:
        """Copy a regular file into `sink`; gives its size in bytes and its SHA-256 in hex."""
        return self._read(folder, name, sink.write, max_bytes)

    def sha256(self, folder: str, name: str) -> str:
        """SHA-256 in hex of what the server holds, by reading all of it back."""
        return self._read(folder, name, len, sys.maxsize)[1]

    def remove(self, folder: str, name: str) -> None:
        """Remove a file; that it is gone already is fine."""
        with _naming(folder, name):
            self._wire.ask_unless(v3.SFTP_NO_SUCH_FILE, v3.CMD_REMOVE, string(self._path(folder, name)))

    def ensure(self, folder: str) -> None:
        """Make the folder when it is missing."""
        path = posixpath.join(self._root, folder)
        with _naming(folder):
            if self._wire.attributes(v3.CMD_STAT, path) is None:
                # a failure may mean that the vendor made it first; if not, the next request fails and says so
                self._wire.ask_unless(v3.SFTP_FAILURE, v3.CMD_MKDIR, string(path), NO_ATTRIBUTES)

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

    def _resumes_at(self, part: str, source: BinaryIO, size_bytes: int) -> int:
        """How many bytes of `source` lie there already. What is there and is not of it goes: a file made anew shares
        nothing with one that a lost session may still write to."""
        found = self._wire.attributes(v3.CMD_LSTAT, part)
        if found is None:
            return 0
        is_sane = stat.S_ISREG(found.mode) and 0 < found.size_bytes <= size_bytes
        same = self._same(part, source, found.size_bytes) if is_sane else 0
        if not same or same < found.size_bytes - RESUME_SLACK_BYTES:
            self._wire.ask(v3.CMD_REMOVE, string(part))
            return 0
        return same

    def _same(self, part: str, source: BinaryIO, size_bytes: int, start: int = 0) -> int:
        """How far the server's file and ours are the same from `start` on, up to `size_bytes`; in whole requests."""
        source.seek(0)
        digest = self._wire.sha256(part, size_bytes)
        if digest is not None and digest == _sha256(source, size_bytes):
            return size_bytes
        source.seek(start)
        same = start
        with self._wire.opened(part, v3.SFTP_FLAG_READ) as handle:
            # All is read, also behind a difference: replies that are under way would be taken for others'.
            is_same = True
            for data in self._wire.read(handle, size_bytes, start):
                is_same = is_same and data == source.read(len(data))
                same += len(data) if is_same else 0
        return same

    def _write(self, part: str, source: BinaryIO, size_bytes: int, start: int = 0) -> None:
        flags = v3.SFTP_FLAG_WRITE | v3.SFTP_FLAG_CREATE | (0 if start else v3.SFTP_FLAG_TRUNC)
        handle = self._wire.open(part, flags)
        try:
            sent = self._wire.write(handle, iter(lambda: source.read(self._wire.request_bytes), b""), start)
        except BaseException:
            with suppress(Refusal, Lost):
                self._wire.ask(v3.CMD_CLOSE, string(handle))
            raise
        held = self._wire.finish(handle, part).size_bytes
        if not size_bytes == sent == held:
            raise TransferFailed(f"{part}: {size_bytes} bytes promised, {sent} sent, {held} on the server")

    def _publish(self, folder: str, name: str, part: str, replace: bool) -> None:
        with _naming(folder, name):
            self._rename(part, self._path(folder, name), replace)

    def _rename(self, part: str, final: str, replace: bool) -> None:
        names = string(part) + string(final)
        if replace:
            posix = string(POSIX_RENAME)
            if self._wire.ask_unless(v3.SFTP_OP_UNSUPPORTED, v3.CMD_EXTENDED, posix, names):
                return
            self._wire.ask_unless(v3.SFTP_NO_SUCH_FILE, v3.CMD_REMOVE, string(final))
        try:
            self._wire.ask(v3.CMD_RENAME, names)  # version 3 refuses when the new name exists
        except Refusal as refusal:
            if self._wire.attributes(v3.CMD_LSTAT, final) is None:
                raise
            raise RemoteConflict(f"{final}: the name was taken meanwhile") from refusal

    @contextmanager
    def _discarding(self, part: str) -> Iterator[None]:
        """Take away what a failure leaves; not what a lost connection leaves, which can be gone on from."""
        try:
            yield
        except ConnectionLost:
            raise
        except BaseException:
            with suppress(Refusal, Lost):  # the failure that led here is the one to report
                self._wire.ask(v3.CMD_REMOVE, string(part))
            raise

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
    text = _as_openssh(endpoint)
    for kind in (paramiko.Ed25519Key, paramiko.ECDSAKey, paramiko.RSAKey):
        with suppress(paramiko.SSHException, ValueError, LookupError, TypeError):
            return kind.from_private_key(io.StringIO(text), endpoint.private_key_passphrase)
    raise ConnectionInvalid("private_key: missing, not an OpenSSH or PEM private key, or its passphrase is wrong")


def _as_openssh(endpoint: SftpEndpoint) -> str:
    """The key as paramiko reads it: PKCS#8, which it does not know, is rewritten."""
    if "PRIVATE KEY-----" not in endpoint.private_key or "BEGIN OPENSSH" in endpoint.private_key:
        return endpoint.private_key
    passphrase = endpoint.private_key_passphrase
    secret = passphrase.encode() if passphrase else None
    with suppress(ValueError, TypeError, UnsupportedAlgorithm):
        key = load_pem_private_key(endpoint.private_key.encode(), secret)
        protection = BestAvailableEncryption(secret) if secret else NoEncryption()
        return key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, protection).decode("ascii")
    return endpoint.private_key


def _transport(sock: socket.socket, pin: paramiko.PKey, timeout_s: float) -> paramiko.Transport:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # without it every small file waits 40 ms for an ACK
    if sys.platform == "linux":  # ends a write into a connection whose other end no longer takes anything
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(timeout_s * 1000))
    transport = paramiko.Transport(sock)
    transport.set_log_channel(WIRE_LOG)
    transport.banner_timeout = transport.handshake_timeout = timeout_s
    options = transport.get_security_options()
    options.ciphers, options.digests = CIPHERS, MACS  # works before the handshake only
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
        raise Lost("it did not complete an SSH handshake") from transport.get_exception()
    shown = transport.get_remote_server_key()
    if shown != pin:
        raise HostKeyMismatch(f"the server showed {shown.fingerprint}, the pin is {pin.fingerprint}")
    done = threading.Event()
    transport.auth_publickey(login, key, event=done)
    if not done.wait(timeout_s):
        raise Lost("it did not answer the login in time")
    if not transport.is_authenticated():
        fault = transport.get_exception()
        if fault is None or isinstance(fault, paramiko.AuthenticationException):  # None: it said goodbye
            raise LoginRefused("the server refused our key for this login") from fault
        raise Lost(reason(fault)) from fault


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


def _sha256(source: BinaryIO, size_bytes: int) -> bytes:
    digest = hashlib.sha256()
    while size_bytes and (data := source.read(min(size_bytes, IN_FLIGHT_BYTES))):
        digest.update(data)
        size_bytes -= len(data)
    return digest.digest()


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
    except Refusal as fault:
        raise TransferFailed(f"{what}: the vendor's server: {fault}") from fault
    except Lost as fault:
        raise ConnectionLost(f"{what}: the vendor's server: {fault}") from fault
    except OSError as fault:
        raise TransferFailed(f"{what}: our own file: {reason(fault)}") from fault
