"""What can go wrong between us and a vendor's server, each for real: docs/faults.md is written from this table.

Every row starts with a batch that is sealed (or cut), delivers into the fault, looks at what the operator is told, what
the ledger says and what lies on the server, puts the fault right and delivers again: then the vendor has it once.
"""

import errno
import hashlib
import json
import os
import re
import resource
import shutil
import signal
import socket
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar, Final

import paramiko
import pytest
from paramiko.sftp import CMD_CLOSE, SFTP_FAILURE, SFTP_OK, SFTP_PERMISSION_DENIED

from clip_courier import sftp
from clip_courier.courier import Courier
from clip_courier.errors import (
    ConnectionInvalid,
    ConnectionLost,
    CourierError,
    HostKeyMismatch,
    KeyUnusable,
    LedgerUnavailable,
    LoginRefused,
    RemoteConflict,
    SealFailed,
    ServerUnreachable,
    TransferFailed,
)
from clip_courier.ledger import Ledger
from clip_courier_demo.keys import make_key
from clip_courier_demo.sftp_server import (
    EmbeddedServer,
    HomeFile,
    HomeFiles,
    RunningServer,
    VendorAccount,
    new_account,
    serve,
)
from clip_courier_demo.stage import Stage, write_vendor
from conftest import NIGHT, NOW
from snapshots import MakeCourier, manifested, returned

BATCH = "aurora-20261120-001"
DROP, READY = f"{BATCH}.tar.pgp", f"{BATCH}.ready.json"
MIB = 1 << 20
TIMEOUT_S = 2
PAGE = Path(__file__).parents[2] / "docs" / "faults.md"


# -- worlds ------------------------------------------------------------------------------------------------------------


@dataclass
class World:
    """What a fault is made of: the vendor's account, the connection to it, and what to do before and after."""

    stage: Stage
    folder: Path
    account: VendorAccount
    connection: dict[str, Any]

    @property
    def outbound(self) -> Path:
        return self.account.home / "outbound"

    def environ(self, **changes: Any) -> dict[str, str]:
        extra = {**self.connection["extra"], **changes.pop("extra", {})}
        return {"AIRFLOW_CONN_SFTP_AURORA": json.dumps({**self.connection, **changes, "extra": extra})}

    def sealed(self) -> bytes:
        return (self.stage.root / "sealed" / DROP).read_bytes()


Fault = Callable[[World], AbstractContextManager[dict[str, str]]]


@contextmanager
def no_fault(world: World) -> Iterator[dict[str, str]]:
    yield world.environ()


def server(account: VendorAccount, running: RunningServer, **extra: Any) -> dict[str, str]:
    """The connection to another server that has the vendor's home."""
    fields = {
        "conn_type": "sftp",
        "host": running.host,
        "port": running.port,
        "login": running.accounts[account.login].login,
        "extra": {
            "private_key": account.private_key,
            "host_key": running.host_key,
            "timeout_s": TIMEOUT_S,
            "max_connections": 1,
            **extra,
        },
    }
    return {"AIRFLOW_CONN_SFTP_AURORA": json.dumps(fields)}


def hostile(files: type[HomeFiles]) -> Fault:
    """A server of our own making, whose answers are those of `files`."""

    @contextmanager
    def world_with(world: World) -> Iterator[dict[str, str]]:
        misbehaving = EmbeddedServer(world.folder, [world.account], files=files)
        try:
            yield server(world.account, misbehaving.running())
        finally:
            misbehaving.stop()

    return world_with


def writing(kind: type[HomeFile]) -> type[HomeFiles]:
    class Files(HomeFiles):
        def open(self, path: str, flags: int, attr: paramiko.SFTPAttributes) -> paramiko.SFTPHandle | int:
            opened = super().open(path, flags, attr)
            return kind(opened.readfile, flags) if isinstance(opened, HomeFile) else opened

    return Files


def fails_from(offset: int, code: int) -> type[HomeFiles]:
    class Full(HomeFile):
        def write(self, at: int, data: Any) -> int:
            if at + len(data) > offset:
                return paramiko.SFTPServer.convert_errno(code)
            return super().write(at, data)

    return writing(Full)


class OnlyTheLast(HomeFile):
    """A disk that is full when the last piece comes: shorter than a whole request."""

    def write(self, offset: int, data: Any) -> int:
        return SFTP_FAILURE if len(data) < 32 << 10 else super().write(offset, data)


class OneRejected(HomeFile):
    """One write in the middle is refused; the size comes out right all the same."""

    def write(self, offset: int, data: Any) -> int:
        if offset == 10 * (32 << 10):
            self.writefile.seek(offset + len(data))
            return SFTP_FAILURE
        return super().write(offset, data)


class Flips(HomeFiles):
    """One bit turns over on the server's disk once a large file is closed."""

    def lstat(self, path: str) -> paramiko.SFTPAttributes | int:
        found = super().lstat(path)
        if ".tar.pgp" in path and isinstance(found, paramiko.SFTPAttributes) and (found.st_size or 0) > MIB:
            with self._inside(path).open("r+b") as file:
                file.seek(MIB)
                byte = file.read(1)[0]
                file.seek(MIB)
                file.write(bytes([byte ^ 1]))
        return found

    stat = lstat


def lies_by(difference: int) -> type[HomeFiles]:
    class Lies(HomeFiles):
        def lstat(self, path: str) -> paramiko.SFTPAttributes | int:
            found = super().lstat(path)
            if isinstance(found, paramiko.SFTPAttributes) and found.st_size and ".tar.pgp" in path:
                found.st_size += difference
            return found

        stat = lstat

    return Lies


class Forgets(HomeFile):
    """Says that it has written, and has not."""

    def write(self, offset: int, data: Any) -> int:
        return SFTP_OK if offset > MIB else super().write(offset, data)


class RefusesToRename(HomeFiles):
    def rename(self, oldpath: str, newpath: str) -> int:
        return SFTP_PERMISSION_DENIED

    posix_rename = rename


class RefusesToAnnounce(HomeFiles):
    """The drop may be written, and what announces it may not."""

    def open(self, path: str, flags: int, attr: paramiko.SFTPAttributes) -> paramiko.SFTPHandle | int:
        return SFTP_PERMISSION_DENIED if READY in path else super().open(path, flags, attr)


class HangsUpAfterTheRename(HomeFiles):
    """The rename takes place, and its answer never comes."""

    def __init__(self, door: paramiko.ServerInterface) -> None:
        super().__init__(door)
        self._door = door

    def rename(self, oldpath: str, newpath: str) -> int:
        done = super().rename(oldpath, newpath)
        if newpath.endswith(DROP):
            for transport in HangsUpAfterTheRename.transports:
                transport.close()
        return int(done)

    transports: ClassVar[list[paramiko.Transport]] = []


@contextmanager
def answer_lost(world: World) -> Iterator[dict[str, str]]:
    misbehaving = EmbeddedServer(world.folder, [world.account], files=HangsUpAfterTheRename)
    HangsUpAfterTheRename.transports = misbehaving._transports
    try:
        yield server(world.account, misbehaving.running())
    finally:
        misbehaving.stop()


class Slow(HomeFile):
    """It answers in time, each time, and takes its time."""

    def write(self, offset: int, data: Any) -> int:
        time.sleep(0.01)
        return super().write(offset, data)


class WrongClock(HomeFiles):
    """A server whose clock stands in another century."""

    def lstat(self, path: str) -> paramiko.SFTPAttributes | int:
        found = super().lstat(path)
        if isinstance(found, paramiko.SFTPAttributes):
            found.st_mtime = found.st_atime = 4_000_000_000
        return found

    stat = lstat


@contextmanager
def line(port: int, carried: int, then: str) -> Iterator[int]:
    """A line to `port` that carries so many bytes of ours and then is cut, takes no more, or goes by single bytes."""

    def carry(source: socket.socket, target: socket.socket, left: int) -> None:
        try:
            while data := source.recv(min(16384, left) if left > 0 else 1):
                target.sendall(data)
                left -= len(data)
                if left <= 0 and then == "cut":
                    for end in (source, target):
                        end.shutdown(socket.SHUT_RDWR)
                elif left <= 0 and over.wait(20 if then == "stop" else 0.1):
                    return
        except OSError:
            return

    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as gate:
        gate.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)

        def pass_on() -> None:
            near, _ = gate.accept()
            with near, socket.create_connection(("127.0.0.1", port)) as far:
                back = threading.Thread(target=carry, args=(far, near, 1 << 40), daemon=True)
                back.start()
                carry(near, far, carried)

        threading.Thread(target=pass_on, daemon=True).start()
        yield int(gate.getsockname()[1])
        over.set()


def bad_line(then: str) -> Fault:
    @contextmanager
    def world_with(world: World) -> Iterator[dict[str, str]]:
        with line(world.connection["port"], 2 * MIB, then) as port:
            yield world.environ(port=port)

    return world_with


def own_sshd(deed: Callable[[RunningServer], None] | None = None, *, is_read_only: bool = False) -> Fault:
    """An OpenSSH of this row's own, to which something is done while the batch is on its way."""

    @contextmanager
    def world_with(world: World) -> Iterator[dict[str, str]]:
        account = replace(world.account, is_read_only=is_read_only)
        with (
            serve(world.folder / "sshd", [account], prefer="openssh") as running,
            pytest.MonkeyPatch.context() as patch,
        ):
            if deed is not None:
                write, requests = sftp.Wire._transmit, [0]

                def interrupted(wire: sftp.Wire, kind: int, *fields: bytes) -> None:
                    requests[0] += kind == sftp.v3.CMD_WRITE
                    if requests[0] == 8 and kind == sftp.v3.CMD_WRITE:
                        deed(running)
                    write(wire, kind, *fields)

                patch.setattr(sftp.Wire, "_transmit", interrupted)
            try:
                yield server(account, running)
            finally:
                for pid in running.pids():
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGCONT)

    return world_with


def stop_processes(running: RunningServer) -> None:
    for pid in running.pids():
        os.kill(pid, signal.SIGSTOP)


def told_otherwise(setting: str) -> Fault:
    """An OpenSSH of this row's own with another setting, from when it runs: ours could not see that it does.

    A caller is there before us and says nothing: the only one whom MaxStartups lets in.
    """

    @contextmanager
    def world_with(world: World) -> Iterator[dict[str, str]]:
        with serve(world.folder / "sshd", [world.account], prefer="openssh") as running:
            settings, log = (world.folder / "sshd" / name for name in ("sshd_config", "sshd.log"))
            settings.write_text(f"{setting}\n{settings.read_text()}")
            assert running.pid
            os.kill(running.pid, signal.SIGHUP)
            while log.read_text().count("Server listening") < 2:
                time.sleep(0.01)
            with socket.create_connection((running.host, running.port), TIMEOUT_S) as caller:
                assert caller.recv(4) == b"SSH-"
                yield server(world.account, running)

    return world_with


@contextmanager
def fails_at_close(world: World) -> Iterator[dict[str, str]]:
    """Every write is taken, and the close of what was written fails, as where a quota is looked at only then."""
    answer = paramiko.SFTPServer._process

    def judged(asked: paramiko.SFTPServer, kind: int, number: int, message: paramiko.Message) -> None:
        if kind == CMD_CLOSE:
            file = asked.file_table.get(message.get_binary())
            message.rewind()
            message.get_int()
            if isinstance(file, HomeFile) and file.writefile.writable():
                asked._send_status(number, SFTP_FAILURE)
                return
        answer(asked, kind, number, message)

    with pytest.MonkeyPatch.context() as patch, hostile(HomeFiles)(world) as environ:
        patch.setattr(paramiko.SFTPServer, "_process", judged)
        yield environ


@contextmanager
def silent_listener(world: World) -> Iterator[dict[str, str]]:
    with socket.create_server(("127.0.0.1", 0)) as gate:
        yield world.environ(port=gate.getsockname()[1])


@contextmanager
def nobody_listens(world: World) -> Iterator[dict[str, str]]:
    yield world.environ(port=1)


@contextmanager
def changed_host_key(world: World) -> Iterator[dict[str, str]]:
    yield world.environ(extra={"host_key": new_account("other", world.folder / "other").public_key})


@contextmanager
def no_host_key(world: World) -> Iterator[dict[str, str]]:
    yield world.environ(extra={"host_key": ""})


@contextmanager
def login_refused(world: World) -> Iterator[dict[str, str]]:
    yield world.environ(extra={"private_key": new_account("other", world.folder / "other").private_key})


@contextmanager
def theirs_is_there(world: World) -> Iterator[dict[str, str]]:
    (world.outbound / DROP).write_bytes(b"theirs")
    yield world.environ()
    (world.outbound / DROP).unlink()


@contextmanager
def ours_is_there(world: World) -> Iterator[dict[str, str]]:
    (world.outbound / DROP).write_bytes(world.sealed())
    yield world.environ()


@contextmanager
def wrong_rest(world: World) -> Iterator[dict[str, str]]:
    """What OpenSSH's `reput` goes on from without looking."""
    (world.outbound / f"{DROP}.0123456789abcdef.part").write_bytes(os.urandom(MIB))
    yield world.environ()


@contextmanager
def our_disk_is_full(world: World) -> Iterator[dict[str, str]]:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 * MIB, limits[1]))
    try:
        yield world.environ()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@contextmanager
def no_room_for_the_ledger(world: World) -> Iterator[dict[str, str]]:
    """Nothing more can be written here from the moment when all of it lies on the server."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with pytest.MonkeyPatch.context() as patch:
        upload = sftp.Drop.upload

        def uploaded(drop: sftp.Drop, *given: Any, **options: Any) -> int:
            sent = upload(drop, *given, **options)
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
            return sent

        patch.setattr(sftp.Drop, "upload", uploaded)
        try:
            yield world.environ()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            # The run that could not give its leases back was a process that has ended; this one goes on.
            with sqlite3.connect(world.stage.root / "ledger.sqlite") as ledger:
                ledger.execute("DELETE FROM leases")


@contextmanager
def key_of_tomorrow(world: World) -> Iterator[dict[str, str]]:
    """By our clock the vendor has made its key in the future: one of the two clocks is wrong."""
    made_at = NOW.now(NOW.tzinfo) + timedelta(days=1)
    write_vendor(world.stage.folder / "vendors", "aurora", make_key("of tomorrow", made_at=made_at), NIGHT)
    yield world.environ()
    write_vendor(world.stage.folder / "vendors", "aurora", world.stage.vendors["aurora"].key, NIGHT)


# -- the table ---------------------------------------------------------------------------------------------------------

NOTHING, UNFINISHED, WHOLE, THEIRS = "nothing", "an unfinished file", "the whole file, not announced", "their file"
CUT_AIRFLOW = "error; **half a file under the final name** (m)"
CUT_SFTP = "status 1; **half a file under the final name** (m)"
SILENT = "**success reported** (m)"


@dataclass(frozen=True)
class Row:
    """`says` is what the operator is told, a regular expression; no `error` means that it was delivered all the same.

    The last three are what others do: (m) measured by running them against the same fault, (r) read.
    """

    fault: str
    make: Fault
    error: type[CourierError] | None
    says: str
    state: str
    left: str
    airflow: str
    openssh: str
    rclone: str
    starts: str = "SEALED"
    resumes: bool = False


ROWS: Final = [
    Row(
        "connection cut in the middle of a file",
        bad_line("cut"),
        ConnectionLost,
        f"outbound/{DROP}: the vendor's server: (it hung up|connection lost .*)",
        "SEALED",
        UNFINISHED,
        CUT_AIRFLOW,
        CUT_SFTP,
        "nothing under the final name; still trying after 75 s (m)",
        resumes=True,
    ),
    Row(
        "server killed in the middle of a file",
        own_sshd(lambda running: running.stop()),
        ConnectionLost,
        f"outbound/{DROP}: the vendor's server: (it hung up|connection lost .*)",
        "SEALED",
        UNFINISHED,
        CUT_AIRFLOW,
        CUT_SFTP,
        "status 5 after a minute of tries; nothing under the final name (m)",
    ),
    Row(
        "vendor's server is down",
        nobody_listens,
        ServerUnreachable,
        "no SFTP session with the vendor's server: Connection refused",
        "SEALED",
        NOTHING,
        "error after 3 tries (m)",
        "status 255 (m)",
        "status 1 after 11 s of tries (m)",
    ),
    Row(
        "server stands still (stopped process)",
        own_sshd(stop_processes),
        ConnectionLost,
        f"outbound/{DROP}: the vendor's server: no answer in time",
        "SEALED",
        UNFINISHED,
        "**hangs** (over 7 minutes, m)",
        "**hangs** (over 7 minutes, m)",
        "**hangs** (over 75 s, m)",
    ),
    Row(
        "line takes no more bytes",
        bad_line("stop"),
        ConnectionLost,
        f"outbound/{DROP}: the vendor's server: .*",
        "SEALED",
        UNFINISHED,
        "**hangs** (over 75 s, m)",
        "**hangs** (over 75 s, m)",
        "**hangs** (over 75 s, m)",
    ),
    Row(
        "line lets single bytes through",
        bad_line("drip"),
        ConnectionLost,
        f"outbound/{DROP}: the vendor's server: .*",
        "SEALED",
        UNFINISHED,
        "**hangs** (over 75 s, m)",
        "**hangs** (over 75 s, m)",
        "**hangs** (over 75 s, m)",
    ),
    Row(
        "listener that never speaks",
        silent_listener,
        ServerUnreachable,
        "no SFTP session with the vendor's server: it did not complete an SSH handshake",
        "SEALED",
        NOTHING,
        "over 75 s: 3 tries of 30 s (m)",
        "**hangs** (over 75 s, m)",
        "**hangs** (over 75 s, m)",
    ),
    Row(
        "server lets in no further session (`MaxSessions`)",
        told_otherwise("MaxSessions 0"),
        ServerUnreachable,
        "no SFTP session with the vendor's server: it lets in no further session",
        "SEALED",
        NOTHING,
        "error after 3 tries (m)",
        "status 255 (m)",
        "status 1 (m)",
    ),
    Row(
        "server takes no further connection (`MaxStartups`)",
        told_otherwise("MaxStartups 1"),
        ServerUnreachable,
        "no SFTP session with the vendor's server: it did not complete an SSH handshake",
        "SEALED",
        NOTHING,
        "error after 3 tries (m)",
        "status 255 (m)",
        "status 1 after 11 s of tries (m)",
    ),
    Row(
        "disk full there",
        hostile(fails_from(2 * MIB, errno.ENOSPC)),
        TransferFailed,
        f"outbound/{DROP}: the vendor's server: Failure",
        "SEALED",
        NOTHING,
        CUT_AIRFLOW,
        CUT_SFTP,
        "status 1, nothing left (m)",
    ),
    Row(
        "disk full there, only for the last write",
        hostile(writing(OnlyTheLast)),
        TransferFailed,
        f"outbound/{DROP}: the vendor's server: Failure",
        "SEALED",
        NOTHING,
        "error; **half a file under the final name** (m); **success without `confirm`** (m)",
        "status 1; **half a file under the final name** (m)",
        "status 1, nothing left (m)",
    ),
    Row(
        "quota used up",
        hostile(fails_from(0, errno.EDQUOT)),
        TransferFailed,
        f"outbound/{DROP}: the vendor's server: Failure",
        "SEALED",
        NOTHING,
        CUT_AIRFLOW,
        CUT_SFTP,
        "status 1, nothing left (m)",
    ),
    Row(
        "disk full here",
        our_disk_is_full,
        SealFailed,
        "gpg did not encrypt: exit status .*",
        "MANIFESTED",
        NOTHING,
        "not comparable",
        "not comparable",
        "not comparable",
        starts="MANIFESTED",
    ),
    Row(
        "disk full here, when the ledger is to be written",
        no_room_for_the_ledger,
        LedgerUnavailable,
        r"the ledger's database does not answer \(.*\)",
        "SEALED",
        UNFINISHED,
        "not comparable",
        "not comparable",
        "not comparable",
    ),
    Row(
        "permission denied",
        own_sshd(is_read_only=True),
        TransferFailed,
        f"outbound/{DROP}: the vendor's server: Permission denied",
        "SEALED",
        NOTHING,
        "PermissionError (m)",
        "status 1 (m)",
        "status 1 (m)",
    ),
    Row(
        "one write of many rejected",
        hostile(writing(OneRejected)),
        TransferFailed,
        f"outbound/{DROP}: the vendor's server: Failure",
        "SEALED",
        NOTHING,
        "error here, since the file comes out short; **success reported** where it does not (m)",
        SILENT,
        "status 1, nothing left (m)",
    ),
    Row(
        "every write is taken, and the close fails",
        fails_at_close,
        TransferFailed,
        f"outbound/{DROP}: the vendor's server: Failure",
        "SEALED",
        NOTHING,
        "**success reported** (m)",
        "status 1; the file stays under the final name (m)",
        "status 1, nothing left (m)",
    ),
    Row(
        "server says that it has written, and has not",
        hostile(writing(Forgets)),
        TransferFailed,
        r".*outbound/.*: \d+ bytes promised, \d+ sent, \d+ on the server",
        "SEALED",
        NOTHING,
        "error; **half a file under the final name** (m)",
        "**success reported, half a file** (m)",
        "status 1, nothing left (m)",
    ),
    Row(
        "wrong size read back (too small)",
        hostile(lies_by(-1)),
        TransferFailed,
        r".*outbound/.*: \d+ bytes promised, \d+ sent, \d+ on the server",
        "SEALED",
        NOTHING,
        "error; the file stays under the final name (m)",
        "success: it never looks (m)",
        "status 1, nothing left (m)",
    ),
    Row(
        "wrong size read back (too large)",
        hostile(lies_by(1)),
        TransferFailed,
        r".*outbound/.*: \d+ bytes promised, \d+ sent, \d+ on the server",
        "SEALED",
        NOTHING,
        "error; the file stays under the final name (m)",
        "success: it never looks (m)",
        "status 1, nothing left (m)",
    ),
    Row(
        "a byte turns over on the server's disk",
        hostile(Flips),
        TransferFailed,
        ".*outbound/.*: what the server holds is not what was sent",
        "SEALED",
        NOTHING,
        "**success reported over a corrupt file** (m)",
        "never looks (r)",
        "compares hashes only where the server lets it run a shell (r)",
    ),
    Row(
        "changed host key",
        changed_host_key,
        HostKeyMismatch,
        "the server showed SHA256:.*, the pin is SHA256:.*",
        "SEALED",
        NOTHING,
        "error after 3 tries (m)",
        "status 255 (m)",
        "**uploads all the same** unless told where the known keys are (m)",
    ),
    Row(
        "no host key pinned",
        no_host_key,
        ConnectionInvalid,
        "connection sftp_aurora: extra.host_key is missing",
        "SEALED",
        NOTHING,
        "error after 3 tries; `no_host_key_check` lets it in (m)",
        "refused (m)",
        "**uploads** (m)",
    ),
    Row(
        "login refused",
        login_refused,
        LoginRefused,
        "the server refused our key for this login",
        "SEALED",
        NOTHING,
        "3 logins: an account may be locked (m)",
        "1 login (m)",
        "1 login (m)",
    ),
    Row(
        "a file of that name is there, not ours",
        theirs_is_there,
        RemoteConflict,
        f"outbound/{DROP} lies on the server of aurora and is not what was sealed",
        "SEALED",
        THEIRS,
        "**overwritten** (m)",
        "**overwritten** (m)",
        "**replaced** (m)",
    ),
    Row(
        "a file of that name is there, ours",
        ours_is_there,
        None,
        "",
        "DELIVERED",
        WHOLE,
        "sent again (m)",
        "sent again (m)",
        "left as it is (m)",
    ),
    Row(
        "an unfinished file of something else is there",
        wrong_rest,
        None,
        "",
        "DELIVERED",
        WHOLE,
        "not comparable",
        "**`reput` makes a corrupt file, success reported** (m)",
        "not comparable",
    ),
    Row(
        "rename refused",
        hostile(RefusesToRename),
        TransferFailed,
        f"outbound/{DROP}: the vendor's server: Permission denied",
        "SEALED",
        NOTHING,
        "does not rename",
        "does not rename",
        "status 1, nothing left (m)",
    ),
    Row(
        "the file that announces it is refused",
        hostile(RefusesToAnnounce),
        TransferFailed,
        f"outbound/{READY}: the vendor's server: Permission denied",
        "RELEASED",
        WHOLE,
        "announces nothing",
        "announces nothing",
        "announces nothing",
    ),
    Row(
        "the answer to the rename is lost",
        answer_lost,
        ConnectionLost,
        f"outbound/{DROP}: the vendor's server: .*",
        "RELEASED",
        WHOLE,
        "does not rename",
        "does not rename",
        "status 1, the file is there (m)",
    ),
    Row(
        "slow server",
        hostile(writing(Slow)),
        None,
        "",
        "DELIVERED",
        WHOLE,
        "delivered (r)",
        "delivered (r)",
        "delivered (r)",
    ),
    Row(
        "the server's clock is wrong",
        hostile(WrongClock),
        None,
        "",
        "DELIVERED",
        WHOLE,
        "delivered (m)",
        "delivered (m)",
        "delivered (m)",
    ),
    Row(
        "the vendor's clock or ours is wrong: its key is of tomorrow",
        key_of_tomorrow,
        KeyUnusable,
        "a key file must hold one public key or two and nothing else; 0 keys were read"
        " that are good by this machine's clock",
        "SEALED",
        NOTHING,
        "not comparable",
        "not comparable",
        "not comparable",
    ),
]


# -- what is done with each --------------------------------------------------------------------------------------------


@pytest.fixture
def world(stage: Stage, make_courier: MakeCourier) -> Iterator[World]:
    """A batch that is sealed, or cut, and the connection to its vendor, which waits only a short time."""
    folder = Path(tempfile.mkdtemp(prefix="cc-"))
    connection = json.loads(stage.environ["AIRFLOW_CONN_SFTP_AURORA"])
    connection["extra"].update(timeout_s=TIMEOUT_S, max_connections=1)
    account = replace(stage.server.accounts["aurora"], login="north")
    yield World(stage, folder, account, connection)
    shutil.rmtree(folder, ignore_errors=True)


def bring_to(state: str, world: World, make_courier: MakeCourier) -> None:
    """Cut, and sealed once for all rows: gpg never makes the same file twice."""
    manifested(world.stage, make_courier)
    if state == "MANIFESTED":
        return
    kept = world.stage.folder / "snapshots" / "sealed"
    if not kept.exists():
        # Sealed, and then the line breaks; what it carried is taken away, so that each row begins with an empty folder.
        with bad_line("cut")(world) as environ, pytest.raises(ConnectionLost):
            make_courier(world.stage, **environ).deliver(NIGHT, "aurora")
        for path in world.outbound.iterdir():
            path.unlink()
        shutil.copytree(world.stage.root, kept)
    shutil.copytree(kept, world.stage.root, dirs_exist_ok=True)


def attempt(courier: Courier) -> CourierError | None:
    """Deliver; what failed, as the operator is told."""
    try:
        outcome = courier.deliver(NIGHT, "aurora")
    except CourierError as failed:
        return failed
    return outcome.failures[0] if outcome.failures else None


def lying(world: World, whole: bytes) -> str:
    """What the vendor's folder holds, in the words of the table."""
    found = {path.name: path for path in world.outbound.iterdir()}
    if DROP in found and found[DROP].read_bytes() == b"theirs":
        return THEIRS
    if DROP in found and READY not in found:
        assert found[DROP].read_bytes() == whole
        return WHOLE
    if not found:
        return NOTHING
    assert all(re.fullmatch(rf"{re.escape(DROP)}\.[0-9a-f]{{16}}\.part", name) for name in found), sorted(found)
    return UNFINISHED


@pytest.mark.parametrize("row", ROWS, ids=[row.fault for row in ROWS])
def test_fault(row: Row, world: World, make_courier: MakeCourier) -> None:
    bring_to(row.starts, world, make_courier)
    ledger = Ledger(f"sqlite:///{world.stage.root / 'ledger.sqlite'}")
    whole = world.sealed() if row.starts == "SEALED" else b""
    begin = time.monotonic()
    with row.make(world) as environ:
        failed = attempt(make_courier(world.stage, **environ))
        took_s = time.monotonic() - begin
        assert (type(failed) if failed else None) is row.error, failed
        assert re.fullmatch(row.says, str(failed or "")), failed
        # A fault is told of in two time-outs at most, and a failure says what to do next.
        assert took_s < 4 * TIMEOUT_S + 4
        batch = ledger.require(BATCH)
        assert batch.state == row.state
        if row.error is not None:
            assert lying(world, whole) == row.left
    if row.error is not None:
        assert failed
        assert failed.way_out
        requests = []
        with pytest.MonkeyPatch.context() as patch:
            upload = sftp.Drop.upload

            def noted(drop: sftp.Drop, *given: Any, **options: Any) -> int:
                requests.append(upload(drop, *given, **options))
                return int(requests[-1])

            patch.setattr(sftp.Drop, "upload", noted)
            assert attempt(make_courier(world.stage, **world.environ())) is None
        # Only when all of it was there already is nothing sent; what broke off goes on, where it was told to.
        assert bool(requests) == (row.left != WHOLE)
        if row.resumes:
            assert requests[0] > 0
    batch = ledger.require(BATCH)
    assert batch.state == "DELIVERED"
    found = {path.name: path.read_bytes() for path in world.outbound.iterdir()}
    assert set(found) == {DROP, READY}
    assert hashlib.sha256(found[DROP]).hexdigest() == batch.sha256 == json.loads(found[READY])["sha256"]
    if whole and row.state != "MANIFESTED":
        assert found[DROP] == whole
    assert world.stage.vendors["aurora"].take(BATCH)
    ledger.verify_chain()


def test_fault_in_a_listing(world: World, make_courier: MakeCourier, tmp_path: Path) -> None:
    """Names that a server's disk can hold and names that only a server can say."""
    returns = world.account.home / "returns"
    good = f"{BATCH}.1.jsonl.pgp"
    for name in (f"..\\{good}", f"{good}\n", f".{good}", f"{good}.part", "\x1b[2J" + good, "x" * 220):
        (returns / name).write_bytes(b"x")
    (returns / good).symlink_to("/etc/passwd")
    (returns / f"{BATCH}.2.jsonl.pgp").mkdir()
    os.mkfifo(returns / f"{BATCH}.3.jsonl.pgp")

    class Hostile(HomeFiles):
        def list_folder(self, path: str) -> list[paramiko.SFTPAttributes] | int:
            real = os.lstat(__file__)
            names = (f"../../{good}", "/etc/passwd", "..", f"a/{good}", f"{good}\0", "")
            said = [paramiko.SFTPAttributes.from_stat(real, name) for name in names]
            found = super().list_folder(path)
            return said + found if isinstance(found, list) else found

    bring_to("SEALED", world, make_courier)
    before = {path: path.stat().st_mtime_ns for path in world.stage.folder.rglob("*") if "locks" not in str(path)}
    for fault in (no_fault, hostile(Hostile)):
        with fault(world) as environ:
            outcome = make_courier(world.stage, **environ).collect("aurora")
        assert not outcome.is_new
        assert not outcome.failures
    after = {path: path.stat().st_mtime_ns for path in world.stage.folder.rglob("*") if "locks" not in str(path)}
    changed = {path.name for path in after if after[path] != before.get(path)}
    assert not {name for name in changed if not name.startswith("ledger") and name not in ("var", "sftp", "sshd.log")}


@pytest.mark.parametrize("difference", [-1, 1])
def test_fault_of_a_returned_file_that_is_not_as_long_as_is_said(
    stage: Stage, world: World, make_courier: MakeCourier, truth: Mapping[str, str], difference: int
) -> None:
    """The server tells of more or fewer bytes than it gives, whoever asks, and the ready file says the same."""
    returned(stage, make_courier, truth)
    ledger = Ledger(f"sqlite:///{stage.root / 'ledger.sqlite'}")
    (good,) = (world.account.home / "returns").glob(f"{BATCH}.1.*.pgp")
    number_two = good.with_name(good.name.replace(".1.", ".2."))
    number_two.write_bytes(good.read_bytes())
    facts = {"size_bytes": good.stat().st_size, "sha256": hashlib.sha256(good.read_bytes()).hexdigest()}
    ready = good.with_name(f"{BATCH}.2.ready.json")
    ready.write_text(json.dumps({**facts, "size_bytes": facts["size_bytes"] + difference}))
    before = [one.n for one in ledger.returns("aurora")]

    class Lies(HomeFiles):
        def list_folder(self, path: str) -> list[paramiko.SFTPAttributes] | int:
            found = super().list_folder(path)
            for entry in found if isinstance(found, list) else []:
                entry.st_size = (entry.st_size or 0) + difference * (entry.filename == number_two.name)
            return found

        def lstat(self, path: str) -> paramiko.SFTPAttributes | int:
            found = super().lstat(path)
            if isinstance(found, paramiko.SFTPAttributes) and path.endswith(number_two.name):
                found.st_size = (found.st_size or 0) + difference
            return found

        stat = lstat

    with hostile(Lies)(world) as environ:
        outcome = make_courier(stage, **environ).collect("aurora")
    assert [one.n for one in ledger.returns("aurora")] == before
    assert [type(failed) for failed in outcome.failures] == [TransferFailed]
    assert list(stage.root.rglob(f"*{BATCH}.2.*")) == []
    ready.write_text(json.dumps(facts))
    assert not make_courier(stage, **world.environ()).collect("aurora").failures
    assert [one.n for one in ledger.returns("aurora") if one.state == "ACCEPTED"] == [*before, 2]


def test_fault_of_one_vendor_leaves_the_other_alone(world: World, make_courier: MakeCourier) -> None:
    """One vendor's server takes the connection and never speaks; the other's batches are delivered meanwhile."""
    bring_to("SEALED", world, make_courier)
    ledger = Ledger(f"sqlite:///{world.stage.root / 'ledger.sqlite'}")
    with silent_listener(world) as environ:
        outcome = make_courier(world.stage, **environ).deliver(NIGHT)
    assert [type(failed) for failed in outcome.failures] == [ServerUnreachable]
    assert {batch.state for batch in ledger.batches(vendor="borealis")} == {"DELIVERED"}
    assert ledger.require(BATCH).state == "SEALED"
    assert make_courier(world.stage).deliver(NIGHT).counts["vendors"]["aurora"]["delivered"] == 1  # type: ignore[index]


def page() -> str:
    """The table in Markdown."""
    told = {
        NOTHING: "nothing of ours",
        UNFINISHED: "a `.part`, which both sides ignore",
        WHOLE: "all of it, not announced yet",
        THEIRS: "their file, untouched",
    }
    again = {True: "finds it there and announces it", False: "sends it"}
    lines = []
    for row in ROWS:
        if row.error is None:
            sees, left, next_run = "delivered", "the drop and its ready file", "nothing to do"
        else:
            message = row.says.replace(BATCH, "<batch>").replace("(it hung up|connection lost .*)", "it hung up")
            message = re.sub(r"\.\*|\\d\+", "…", message.removeprefix(".*")).replace("\\", "")
            sees = f"`{row.error.__name__}: {message}`"
            left = told[row.left]
            next_run = again[row.left == WHOLE]
            if row.left == UNFINISHED:
                next_run = "goes on from the offset that it has verified"
            if row.state == "MANIFESTED":
                next_run = "seals and sends it"
        others = (row.airflow, row.openssh, row.rclone)
        lines.append(f"| {' | '.join((row.fault, sees, row.state, left, next_run, *others))} |")
    lines += [f"| {' | '.join(row)} |" for row in (ONE_OF_TWO, LISTING, LENGTH)]
    columns = ("fault", "the operator sees", "state", "on the server", "the next run", *OTHERS)
    return "\n".join([INTRODUCTION, f"| {' | '.join(columns)} |", "|---" * len(columns) + "|", *lines, ""])


ONE_OF_TWO: Final = (
    "one vendor's server is down or silent, another's is not",
    "the first one's failure; the other is delivered",
    "SEALED; DELIVERED",
    "nothing of ours; the drop and its ready file",
    "sends the first one's",
    "a task for each vendor: the other goes on (r)",
    "one server a call",
    "one server a call",
)
# What is tried with `collect`, for a listing is read there.
LISTING: Final = (
    "listing with hostile names, links, folders and pipes",
    "nothing of them is taken, nothing is written outside",
    "as before",
    "as it was",
    "the same",
    "**a loop over `list_directory` and `retrieve_file` writes outside the folder** (m)",
    "skipped (m)",
    "**links are followed: /etc is fetched** (m)",
)
LENGTH: Final = (
    "returned file that is longer or shorter than the server says",
    "`TransferFailed: returns/<file>: it changed while it was read`, or `End of file`; nothing of it is kept",
    "as before",
    "as it was",
    "takes it, once both are the same",
    "**success reported, short file** where it is shorter (m)",
    "**success reported, short file** where it is shorter (m)",
    "status 1 (m)",
)
OTHERS: Final = ("Airflow's SFTPOperator", "OpenSSH `sftp`", "rclone")
INTRODUCTION: Final = """# Faults

Written from the table in `tests/clip_courier/test_faults.py`, which makes each of them happen to a real delivery; a
test keeps this page fresh (`CLIP_COURIER_WRITE=1` writes it). In every row the fault is put right afterwards, the next
run delivers, and the vendor has one file and one ready file whose hashes agree with the ledger.

The error's own text and what to do next (`errors.py`) are one line of the log. Silence ends a step after `timeout_s`,
30 seconds unless the connection says otherwise. What one vendor's server does never keeps another vendor waiting.

Others, with their defaults: Airflow 3.3.2 with the SFTP provider 7.0.0, OpenSSH 9.2, rclone 1.75.2. (m): measured by
running them against the same fault. (r): read in their documentation or code.
"""


def test_page_is_fresh() -> None:
    if os.environ.get("CLIP_COURIER_WRITE"):
        PAGE.write_text(page(), encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == page()
