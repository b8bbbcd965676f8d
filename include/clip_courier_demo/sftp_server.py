"""The vendors' SFTP server for the demonstration and the tests: one account a vendor, on 127.0.0.1.

OpenSSH's sshd where it is installed and starts, else a server made with paramiko. Neither needs root. sshd puts each
key into its vendor's home but is no jail: its vendors are all the operating system's one user, told apart by key.
The embedded server confines each vendor to its home.
"""

import functools
import json
import os
import posixpath
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO, ParamSpec, TypeVar, cast

import paramiko
from cryptography.hazmat.primitives import serialization as keys
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from paramiko.common import AUTH_FAILED, AUTH_SUCCESSFUL, OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED, OPEN_SUCCEEDED
from paramiko.sftp import SFTP_OK

from clip_courier.errors import CourierError, ServerUnreachable
from clip_courier.sftp import SftpEndpoint, connect

HOST = "127.0.0.1"
START_S = 15
HOST_KEY = "host_key"  # kept in the folder, so that a server started again is the same server
RUNNING = "running.json"
PROBE = "probe"  # our own account: a server that does not let it in is no server
SSHD_PLACES = ("/usr/sbin/sshd", "/usr/local/sbin/sshd", "/opt/homebrew/sbin/sshd")
# sshd splits the forced command at blanks and expands %, and there is no quoting for either
PLAIN_PATH = re.compile(r"[A-Za-z0-9_./+@=:,-]+")
SSHD_CONFIG = """\
ListenAddress {host}:{port}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
PidFile none
PubkeyAuthentication yes
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
UsePAM no
StrictModes no
UseDNS no
LogLevel VERBOSE
Subsystem sftp internal-sftp
"""
# OpenSSH 9.8 shuts out an address after a refused login; older ones do not know the word
NO_PENALTIES = "PerSourcePenalties no\n"

P = ParamSpec("P")
T = TypeVar("T")


class NotStarted(CourierError):
    """Install OpenSSH's server (Debian: apt-get install openssh-server), or read sshd.log in the server's folder."""


@dataclass
class VendorAccount:
    """One vendor on the server. `private_key` is what our side connects with."""

    login: str
    home: Path
    private_key: str = field(repr=False)
    public_key: str
    is_read_only: bool = False


@dataclass
class RunningServer:
    """A server that answers. `accounts` are under the logins asked for and hold the logins to use."""

    host: str
    port: int
    host_key: str
    kind: str  # "openssh" or "embedded"
    accounts: Mapping[str, VendorAccount]
    stop: Callable[[], None] = field(repr=False)  # kills sessions as well; returns when all are gone
    pid: int | None = None  # of the process that listens; None when it is a thread of this one

    def endpoint(self, name: str) -> SftpEndpoint:
        """How our side reaches the account of that name."""
        account = self.accounts[name]
        return SftpEndpoint(self.host, self.port, account.login, self.host_key, account.private_key)

    def pids(self) -> list[int]:
        """The server's processes, sessions included."""
        return [] if self.pid is None else [self.pid, *_descendants(self.pid)]


def new_account(login: str, home: Path, *, is_read_only: bool = False) -> VendorAccount:
    """An account with a key pair of its own; makes its home."""
    home.mkdir(parents=True, exist_ok=True)
    private, public = _new_key()
    return VendorAccount(login, home.resolve(), private, public, is_read_only)


@contextmanager
def serve(
    folder: Path, accounts: Sequence[VendorAccount], *, port: int = 0, prefer: str | None = None
) -> Iterator[RunningServer]:
    """Run a server as long as the block runs; `folder` keeps its key, settings and log. See `start`."""
    server = start(folder, accounts, port=port, prefer=prefer)
    try:
        yield server
    finally:
        server.stop()


def start(
    folder: Path, accounts: Sequence[VendorAccount], *, port: int = 0, prefer: str | None = None
) -> RunningServer:
    """Start a server on `port`, or on a free one. With `prefer` ("openssh", "embedded") that one or NotStarted."""
    folder.mkdir(parents=True, exist_ok=True)
    if prefer != "embedded":
        try:
            return _start_openssh(folder.resolve(), accounts, port)
        except NotStarted:
            if prefer == "openssh":
                raise
    return EmbeddedServer(folder.resolve(), accounts, port).running()


def start_detached(
    folder: Path, accounts: Sequence[VendorAccount], *, port: int = 0, prefer: str | None = None
) -> RunningServer:
    """The same in a process that outlives this one, until `stop_detached(folder)`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RUNNING).unlink(missing_ok=True)
    public = [[a.login, str(a.home), a.public_key, a.is_read_only] for a in accounts]
    (folder / "wanted.json").write_text(json.dumps({"accounts": public, "port": port, "prefer": prefer}))
    with (folder / "server.log").open("ab") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "clip_courier_demo.sftp_server", str(folder)],
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # a Ctrl-C meant for the caller is not meant for it
        )
    for _ in _ticks(2 * START_S):
        if child.poll() is not None:
            break
        if (folder / RUNNING).exists():
            facts = json.loads((folder / RUNNING).read_text())
            logins = facts.pop("logins")
            usable = {a.login: replace(a, login=logins[a.login]) for a in accounts}
            return RunningServer(**facts, accounts=usable, stop=lambda: _stop_process(child.pid, child))
    _stop_process(child.pid, child)
    raise NotStarted(f"the server did not start: {folder / 'server.log'}")


def stop_detached(folder: Path) -> None:
    """Stop what `start_detached` left running; nothing when it is gone already."""
    with suppress(FileNotFoundError):
        pid = json.loads((folder / RUNNING).read_text())["pid"]
        (folder / RUNNING).unlink()
        # the number may be another process's by now; without /proc there is no telling
        if "clip_courier_demo.sftp_server" in _command_line(pid) or not Path("/proc/self").exists():
            _stop_process(pid)


# -- OpenSSH ---------------------------------------------------------------------------------------------------


def _start_openssh(folder: Path, accounts: Sequence[VendorAccount], port: int) -> RunningServer:
    sshd = shutil.which("sshd") or next(filter(os.path.exists, SSHD_PLACES), None)
    if sshd is None:
        raise NotStarted("sshd is not installed")
    if not all(PLAIN_PATH.fullmatch(str(path)) for path in (folder, *(account.home for account in accounts))):
        raise NotStarted("sshd cannot serve a path with blanks or other special characters")
    probe = new_account(PROBE, folder / PROBE, is_read_only=True)
    host_key = _host_key(folder)
    port = port or _free_port()
    _write_settings(sshd, folder, [*accounts, probe], port)
    with (folder / "sshd.log").open("ab") as log:
        process = subprocess.Popen(
            [sshd, "-D", "-e", "-f", str(folder / "sshd_config")],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    user = pwd.getpwuid(os.geteuid()).pw_name
    usable = {account.login: replace(account, login=user) for account in (*accounts, probe)}
    stop = functools.partial(_stop_process, process.pid, process)
    server = RunningServer(HOST, port, host_key, "openssh", usable, stop, process.pid)
    try:
        _await_login(server, process)
    except CourierError as fault:
        server.stop()
        raise NotStarted(f"sshd does not serve ({fault}): {folder / 'sshd.log'}") from fault
    return server


def _write_settings(sshd: str, folder: Path, accounts: Sequence[VendorAccount], port: int) -> None:
    lines = []
    for account in accounts:
        read_only = "-R " if account.is_read_only else ""
        lines.append(f'restrict,command="internal-sftp {read_only}-d {account.home}" {account.public_key}\n')
    (folder / "authorized_keys").write_text("".join(lines))
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # sshd started by root insists on it
    config = SSHD_CONFIG.format(host=HOST, port=port, folder=folder)
    complaint = ""
    for text in (config + NO_PENALTIES, config):
        (folder / "sshd_config").write_text(text)
        check = subprocess.run([sshd, "-t", "-f", str(folder / "sshd_config")], capture_output=True, check=False)
        if check.returncode == 0:
            return
        complaint = check.stderr.decode(errors="replace").strip()
    raise NotStarted(f"sshd refuses its settings: {complaint}")


def _await_login(server: RunningServer, process: subprocess.Popen[bytes]) -> None:
    """Until our own account gets in: a container may let sshd start and still stop every session."""
    for _ in _ticks(START_S):
        if process.poll() is not None:
            raise NotStarted(f"it ended with status {process.returncode}")
        with suppress(ServerUnreachable), connect(server.endpoint(PROBE), timeout_s=START_S) as drop:
            drop.list("")
            return
    raise NotStarted("it does not answer")


def _stop_process(pid: int, child: subprocess.Popen[bytes] | None = None) -> None:
    """Kill the process and what it started: sshd's sessions leave its process group, and outlive it."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGSTOP)  # so that it starts nothing while we look
    victims = [*_descendants(pid), pid]
    for victim in victims:
        with suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)
    if child is not None:
        child.wait(START_S)
    for _ in _ticks(START_S):  # the sessions are nobody's children now: only looking tells when they are gone
        if not any(map(_is_alive, victims)):
            return


def _descendants(pid: int) -> list[int]:
    """Children, and theirs, by /proc; where there is none, sessions end when their clients do."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parents.setdefault(int(entry.read_text().rpartition(")")[2].split()[1]), []).append(int(entry.parent.name))
    found = list(parents.get(pid, []))
    for child in found:
        found += parents.get(child, [])
    return found


def _is_alive(pid: int) -> bool:
    """Without /proc nobody is: then there was nothing to look for either."""
    try:
        return (
            Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()[0] != "Z"
        )
    except OSError:
        return False


def _command_line(pid: int) -> str:
    """Empty when there is no such process, or only what is left of it."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


# -- embedded --------------------------------------------------------------------------------------------------


class EmbeddedServer:
    """An SFTP server in threads of this process; `files` is what stands behind its requests."""

    def __init__(
        self,
        folder: Path,
        accounts: Sequence[VendorAccount],
        port: int = 0,
        files: "type[HomeFiles] | None" = None,
    ) -> None:
        self.accounts = {account.login: account for account in accounts}
        self.refused_logins = 0
        self._files = files or HomeFiles
        self._host_key = _host_key(folder)
        self._key = paramiko.Ed25519Key.from_private_key_file(str(folder / HOST_KEY))
        self._listener = socket.create_server((HOST, port))
        self._listener.settimeout(0.2)  # how long stop() waits for the thread to notice
        self._stopping = threading.Event()
        self._transports: list[paramiko.Transport] = []
        self._thread = threading.Thread(target=self._accept, name="sftp-server", daemon=True)
        self._thread.start()

    def running(self) -> RunningServer:
        return RunningServer(
            HOST, self._listener.getsockname()[1], self._host_key, "embedded", self.accounts, self.stop
        )

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()
        self._listener.close()
        for transport in self._transports:
            transport.close()

    def _accept(self) -> None:
        while not self._stopping.is_set():
            with suppress(OSError):  # a timeout, or a caller that hung up already
                sock, _ = self._listener.accept()
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                transport = paramiko.Transport(sock)
                transport.set_log_channel("clip_courier.sftp.wire")  # silent: callers that hang up are no news
                transport.add_server_key(self._key)
                transport.set_subsystem_handler("sftp", paramiko.SFTPServer, self._files)
                self._transports.append(transport)
                transport.start_server(event=threading.Event(), server=_Door(self))


class _Door(paramiko.ServerInterface):
    """Lets a vendor in by its key alone."""

    def __init__(self, server: EmbeddedServer) -> None:
        self._server = server
        self.account: VendorAccount | None = None

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        account = self._server.accounts.get(username)
        if account is None or account.public_key.split()[1] != key.get_base64():
            self._server.refused_logins += 1
            return AUTH_FAILED
        self.account = account
        return AUTH_SUCCESSFUL

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return OPEN_SUCCEEDED if kind == "session" else OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED


def _as_status(call: Callable[P, T]) -> Callable[P, T | int]:
    """Errors of the file system become SFTP's status codes."""

    @functools.wraps(call)
    def coded(*args: P.args, **kwargs: P.kwargs) -> T | int:
        try:
            return call(*args, **kwargs)
        except OSError as fault:
            return paramiko.SFTPServer.convert_errno(fault.errno or 0)

    return coded


class HomeFiles(paramiko.SFTPServerInterface):
    """A vendor's home as the root of its world; links are never followed."""

    def __init__(self, server: paramiko.ServerInterface) -> None:
        super().__init__(server)
        self._account = cast(VendorAccount, cast(_Door, server).account)

    @_as_status
    def list_folder(self, path: str) -> list[paramiko.SFTPAttributes]:
        with os.scandir(self._inside(f"{path}/x").parent) as entries:
            return [
                paramiko.SFTPAttributes.from_stat(entry.stat(follow_symlinks=False), entry.name)
                for entry in entries
                if entry.name.isprintable()  # paramiko cannot send a name that is not UTF-8
            ]

    @_as_status
    def lstat(self, path: str) -> paramiko.SFTPAttributes:
        return paramiko.SFTPAttributes.from_stat(self._inside(path).lstat())

    stat = lstat

    @_as_status
    def open(self, path: str, flags: int, attr: paramiko.SFTPAttributes) -> paramiko.SFTPHandle:
        is_writing = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        local = self._writable(path) if is_writing else self._inside(path)
        # O_NONBLOCK: a named pipe must not hold the thread
        descriptor = os.open(local, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644)
        mode = "r+b" if flags & os.O_RDWR else "wb" if flags & os.O_WRONLY else "rb"
        return HomeFile(cast(BinaryIO, os.fdopen(descriptor, mode)), flags)

    @_as_status
    def remove(self, path: str) -> int:
        self._writable(path).unlink()
        return SFTP_OK

    @_as_status
    def rename(self, oldpath: str, newpath: str) -> int:
        old, new = self._writable(oldpath), self._writable(newpath)
        os.link(old, new, follow_symlinks=False)  # unlike a rename, refused when the new name exists
        old.unlink()
        return SFTP_OK

    @_as_status
    def posix_rename(self, oldpath: str, newpath: str) -> int:
        self._writable(oldpath).replace(self._writable(newpath))
        return SFTP_OK

    @_as_status
    def mkdir(self, path: str, attr: paramiko.SFTPAttributes) -> int:
        self._writable(path).mkdir()
        return SFTP_OK

    @_as_status
    def rmdir(self, path: str) -> int:
        self._writable(path).rmdir()
        return SFTP_OK

    def _inside(self, path: str) -> Path:
        home = self._account.home.resolve()
        parts = posixpath.normpath("/" + path).strip("/")
        local = home / parts
        if local != home and local.parent.resolve() != home.joinpath(parts).parent:
            raise PermissionError(13, "a link leads there")
        return local

    def _writable(self, path: str) -> Path:
        if self._account.is_read_only:
            raise PermissionError(13, "read only")
        return self._inside(path)


class HomeFile(paramiko.SFTPHandle):
    """An open file; paramiko reads and writes it under these two names."""

    def __init__(self, file: BinaryIO, flags: int) -> None:
        super().__init__(flags)
        self.readfile = self.writefile = file

    def stat(self) -> paramiko.SFTPAttributes:
        return paramiko.SFTPAttributes.from_stat(os.fstat(self.readfile.fileno()))


# -- both ------------------------------------------------------------------------------------------------------


def _new_key() -> tuple[str, str]:
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(keys.Encoding.PEM, keys.PrivateFormat.OpenSSH, keys.NoEncryption())
    public = key.public_key().public_bytes(keys.Encoding.OpenSSH, keys.PublicFormat.OpenSSH)
    return private.decode(), public.decode()


def _host_key(folder: Path) -> str:
    """The public line of the server's key, which is made at the first start."""
    place = folder / HOST_KEY
    if not place.exists():
        private, public = _new_key()
        place.touch(mode=0o600)
        place.write_text(private)
        place.with_suffix(".pub").write_text(public)
    return place.with_suffix(".pub").read_text().strip()


def _free_port() -> int:
    with socket.create_server((HOST, 0)) as listener:
        return cast(int, listener.getsockname()[1])


def _ticks(seconds: float) -> Iterator[None]:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield
        time.sleep(0.03)


def _main(folder: Path) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    wanted = json.loads((folder / "wanted.json").read_text())
    accounts = [VendorAccount(login, Path(home), "", public, ro) for login, home, public, ro in wanted["accounts"]]
    with serve(folder, accounts, port=wanted["port"], prefer=wanted["prefer"]) as server:
        facts = {name: getattr(server, name) for name in ("host", "port", "host_key", "kind")}
        facts |= {"pid": os.getpid(), "logins": {name: account.login for name, account in server.accounts.items()}}
        (folder / "running.part").write_text(json.dumps(facts))
        (folder / "running.part").replace(folder / RUNNING)
        threading.Event().wait()


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
