"""The drop against real servers: OpenSSH's sshd, the embedded one, and some that misbehave on purpose."""

import hashlib
import io
import os
import shutil
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from typing import Any, ClassVar

import paramiko
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from paramiko.sftp import SFTP_FAILURE

from clip_courier import sftp
from clip_courier.errors import (
    ConnectionInvalid,
    ConnectionLost,
    HostKeyMismatch,
    LoginRefused,
    RemoteConflict,
    ServerUnreachable,
    TransferFailed,
)
from clip_courier_demo.sftp_server import (
    EmbeddedServer,
    HomeFile,
    HomeFiles,
    RunningServer,
    new_account,
    serve,
    start_detached,
    stop_detached,
)

pytest_plugins = ["sftp_fixtures"]

MIB = 1 << 20
BATCH = os.urandom(5 * MIB + 17)  # longer than one window, and no multiple of any request


@pytest.fixture
def short() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="cc-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module", params=["openssh", "embedded"])
def shared(request: pytest.FixtureRequest) -> Iterator[RunningServer]:
    folder = Path(tempfile.mkdtemp(prefix="cc-"))
    with serve(folder / "server", [new_account("north", folder / "north")], prefer=request.param) as running:
        yield running
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def server(shared: RunningServer) -> RunningServer:
    """Both kinds, with an empty home. For tests that do the server no harm."""
    shutil.rmtree(home(shared))
    home(shared).mkdir()
    return shared


@pytest.fixture(params=["openssh", "embedded"])
def victim(request: pytest.FixtureRequest, short: Path) -> Iterator[RunningServer]:
    """Both kinds, for tests that kill them."""
    with serve(short / "server", [new_account("north", short / "north")], prefer=request.param) as running:
        yield running


@pytest.fixture
def drop(server: RunningServer) -> Iterator[sftp.Drop]:
    with sftp.connect(server.endpoint("north"), timeout_s=10) as opened:
        yield opened


def home(server: RunningServer) -> Path:
    return server.accounts["north"].home


class Source(io.BytesIO):
    """A batch that does something to the world when `after` bytes of it have been read."""

    def __init__(self, data: bytes, after: int, deed: Callable[[], None]) -> None:
        super().__init__(data)
        self._after, self._deed = after, deed

    def read(self, size: int | None = -1, /) -> bytes:
        if self.tell() >= self._after:
            deed, self._deed = self._deed, lambda: None
            deed()
        return super().read(size)


class Sink(io.BytesIO):
    """A file of ours that does something to the world at its first write."""

    def __init__(self, deed: Callable[[], None]) -> None:
        super().__init__()
        self._deed = deed

    def write(self, data: Any, /) -> int:
        deed, self._deed = self._deed, lambda: None
        deed()
        return super().write(data)


# -- what both servers do --------------------------------------------------------------------------------------


def test_put_and_get_round_trip(drop: sftp.Drop, server: RunningServer) -> None:
    drop.put("outbound", "b1.tar.pgp", io.BytesIO(BATCH), len(BATCH))
    back = io.BytesIO()
    digest = hashlib.sha256(BATCH).hexdigest()
    assert drop.get("outbound", "b1.tar.pgp", back, max_bytes=len(BATCH)) == (len(BATCH), digest)
    assert back.getvalue() == BATCH == (home(server) / "outbound/b1.tar.pgp").read_bytes()
    assert drop.sha256("outbound", "b1.tar.pgp") == digest
    assert drop.size("outbound", "b1.tar.pgp") == len(BATCH)
    assert drop.list("outbound") == [sftp.RemoteFile("b1.tar.pgp", len(BATCH))]


@pytest.mark.parametrize("size", [0, 1, 32 << 10, 255 << 10, 4 * MIB])
def test_put_keeps_every_byte_at_the_edges_of_a_request(drop: sftp.Drop, server: RunningServer, size: int) -> None:
    drop.put("outbound", "edge", io.BytesIO(BATCH[:size]), size)
    assert (home(server) / "outbound/edge").read_bytes() == BATCH[:size]
    assert drop.sha256("outbound", "edge") == hashlib.sha256(BATCH[:size]).hexdigest()


def deliver(drop: sftp.Drop, name: str, data: bytes, attempt: str = "a1", **options: Any) -> int:
    start = drop.upload("outbound", name, io.BytesIO(data), len(data), attempt=attempt, **options)
    drop.publish("outbound", name, attempt=attempt)
    return start


def test_upload_shows_no_name_before_the_file_is_published(drop: sftp.Drop, server: RunningServer) -> None:
    seen: list[list[str]] = []

    def look() -> None:
        with sftp.connect(server.endpoint("north"), timeout_s=10) as other:
            seen.append([file.name for file in other.list("outbound")])
            seen.append(sorted(path.name for path in (home(server) / "outbound").iterdir()))

    source = Source(BATCH, 2 * MIB, look)
    drop.upload("outbound", "b1.tar.pgp", source, len(BATCH), attempt="a1")
    look()
    assert seen == [[], ["b1.tar.pgp.a1.part"], [], ["b1.tar.pgp.a1.part"]]
    drop.publish("outbound", "b1.tar.pgp", attempt="a1")
    assert [file.name for file in drop.list("outbound")] == ["b1.tar.pgp"]
    assert [path.name for path in (home(server) / "outbound").iterdir()] == ["b1.tar.pgp"]


# What an interrupted upload may have left, and from where the next one may go on.
LEFT: dict[str, tuple[Callable[[], bytes], int]] = {
    "a beginning": (lambda: BATCH[:MIB], MIB),
    "one byte": (lambda: BATCH[:1], 1),
    "all of it": (lambda: BATCH, len(BATCH)),
    "a gap of the last window": (lambda: BATCH[: 2 * MIB] + bytes(MIB) + BATCH[3 * MIB : 4 * MIB], 2 * MIB),
    "another file": (lambda: os.urandom(MIB), 0),
    "more than all of it": (lambda: BATCH + b"x", 0),
    "nothing": (lambda: b"", 0),
}


@pytest.mark.parametrize("left", LEFT)
def test_upload_goes_on_from_what_was_verified(drop: sftp.Drop, server: RunningServer, left: str) -> None:
    content, offset = LEFT[left]
    (home(server) / "outbound").mkdir()
    (home(server) / "outbound/b1.a1.part").write_bytes(content())
    start = deliver(drop, "b1", BATCH)
    # A gap is found to the request in which it begins.
    assert start == offset or offset - drop._wire.request_bytes < start < offset
    assert [path.read_bytes() for path in (home(server) / "outbound").iterdir()] == [BATCH]


def test_upload_goes_on_after_the_line_broke(victim: RunningServer, short: Path) -> None:
    """A real cut in the middle; what arrived by then is not sent again."""
    batch = BATCH * 4
    with sftp.connect(victim.endpoint("north"), timeout_s=10) as drop:
        source = Source(batch, 12 * MIB, victim.stop)
        with pytest.raises(ConnectionLost):
            drop.upload("outbound", "b1", source, len(batch), attempt="a1")
    account = replace(victim.accounts["north"], login="north")
    with (
        serve(short / "server", [account], prefer=victim.kind) as again,
        sftp.connect(again.endpoint("north"), timeout_s=10) as drop,
    ):
        assert drop.parts("outbound", "b1") == ["a1"]
        drop.take_over("outbound", "b1", attempt="a2", other="a1")
        assert deliver(drop, "b1", batch, "a2") > 4 * MIB
    assert [path.read_bytes() for path in (home(victim) / "outbound").iterdir()] == [batch]


def test_upload_into_a_full_quota_or_a_refusal_leaves_nothing(short: Path) -> None:
    class Full(HomeFile):
        def write(self, offset: int, data: Any) -> int:
            return SFTP_FAILURE if offset > 2 * MIB else super().write(offset, data)

    with misbehaving(short, files_with(Full)) as (drop, folder):
        with pytest.raises(TransferFailed, match="Failure"):
            drop.upload("outbound", "b1", io.BytesIO(BATCH), len(BATCH), attempt="a1")
        assert list((folder / "outbound").iterdir()) == []


def flipping(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(3 * MIB)
        byte = file.read(1)
        file.seek(3 * MIB)
        file.write(bytes([byte[0] ^ 1]))


class Flips(HomeFiles):
    """A server on whose disk one bit turns over once a file is written and closed."""

    def lstat(self, path: str) -> paramiko.SFTPAttributes | int:
        found = super().lstat(path)
        if path.endswith(".part") and isinstance(found, paramiko.SFTPAttributes) and found.st_size == len(BATCH):
            flipping(self._inside(path))
        return found


def test_upload_notices_a_byte_that_turned_over_on_the_server(short: Path) -> None:
    with misbehaving(short, Flips) as (drop, folder):
        with pytest.raises(TransferFailed, match="not what was sent"):
            drop.upload("outbound", "b1", io.BytesIO(BATCH), len(BATCH), attempt="a1")
        assert list((folder / "outbound").iterdir()) == []
        # Whoever asks for the size alone gets the size alone.
        drop.upload("outbound", "b1", io.BytesIO(BATCH), len(BATCH), attempt="a1", is_read_back=False)


class Hashes(paramiko.SFTPServer):
    """A server that hashes its files when it is asked to, as ProFTPD answers; a lie on request."""

    asked: ClassVar[list[str]] = []
    lies = False

    def _process(self, t: int, request_number: int, msg: paramiko.Message) -> None:
        if t != sftp.v3.CMD_EXTENDED or (name := msg.get_text()) != "check-file-name":
            msg.rewind() if t == sftp.v3.CMD_EXTENDED else None
            if t == sftp.v3.CMD_EXTENDED:
                msg.get_int()
            super()._process(t, request_number, msg)  # type: ignore[misc]
            return
        path, kinds = msg.get_text(), msg.get_text()
        start, size = msg.get_int64(), msg.get_int64()
        Hashes.asked.append(name)
        data = self.server._inside(path).read_bytes()[start : start + size]  # type: ignore[attr-defined]
        answer = paramiko.Message()
        answer.add_int(request_number)
        answer.add_string("sha256")
        answer.add_bytes(hashlib.sha256(data).digest() if kinds == "sha256" and not self.lies else bytes(32))
        self._send_packet(sftp.v3.CMD_EXTENDED_REPLY, answer)  # type: ignore[attr-defined]


def test_upload_takes_the_servers_own_hash_for_reading_back(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paramiko, "SFTPServer", Hashes)
    reads: list[int] = []

    class Counting(HomeFile):
        def read(self, offset: int, length: int) -> bytes | int:
            reads.append(offset)
            return super().read(offset, length)

    with misbehaving(short, files_with(Counting)) as (drop, folder):
        deliver(drop, "b1", BATCH)
        assert (Hashes.asked, reads) == (["check-file-name"], [])
        (folder / "outbound/b2.a1.part").write_bytes(BATCH[:MIB])
        assert deliver(drop, "b2", BATCH) == MIB
        assert reads == []
        # A hash that differs is no verdict yet: all of it is read.
        monkeypatch.setattr(Hashes, "lies", True)
        deliver(drop, "b3", BATCH)
        assert reads


def test_take_over_leaves_nothing_to_whoever_had_it(drop: sftp.Drop, server: RunningServer) -> None:
    drop.upload("outbound", "b1", io.BytesIO(BATCH), len(BATCH), attempt="old")
    drop.take_over("outbound", "b1", attempt="new", other="old")
    with pytest.raises(TransferFailed):
        drop.publish("outbound", "b1", attempt="old")
    with pytest.raises(TransferFailed):
        drop.take_over("outbound", "b1", attempt="newer", other="old")
    drop.publish("outbound", "b1", attempt="new")
    assert [path.name for path in (home(server) / "outbound").iterdir()] == ["b1"]


def test_parts_are_those_of_the_name_alone(drop: sftp.Drop, server: RunningServer) -> None:
    (home(server) / "outbound").mkdir()
    for name in ("b1.a.part", "b1.b.part", "b1.part", "b10.a.part", "b1.a.b.part", "b1..part", "b1.a"):
        (home(server) / "outbound" / name).write_bytes(b"x")
    assert drop.parts("outbound", "b1") == ["a", "b"]
    assert drop.parts("nowhere", "b1") == []


def test_put_refuses_a_name_that_is_taken(drop: sftp.Drop, server: RunningServer) -> None:
    drop.put_bytes("outbound", "b1.tar.pgp", b"theirs")
    with pytest.raises(RemoteConflict, match=r"outbound/b1\.tar\.pgp"):
        drop.put("outbound", "b1.tar.pgp", io.BytesIO(b"ours"), 4)
    assert [path.read_bytes() for path in (home(server) / "outbound").iterdir()] == [b"theirs"]


def test_publish_refuses_a_name_that_is_taken_at_the_last_moment(drop: sftp.Drop, server: RunningServer) -> None:
    drop.upload("outbound", "b1.tar.pgp", io.BytesIO(b"ours"), 4, attempt="a1")
    (home(server) / "outbound/b1.tar.pgp").write_bytes(b"theirs")
    with pytest.raises(RemoteConflict):
        drop.publish("outbound", "b1.tar.pgp", attempt="a1")
    assert (home(server) / "outbound/b1.tar.pgp").read_bytes() == b"theirs"


def test_put_truncates_an_old_part(drop: sftp.Drop, server: RunningServer) -> None:
    (home(server) / "outbound").mkdir()
    (home(server) / "outbound/b1.part").write_bytes(b"x" * 1000)
    drop.put_bytes("outbound", "b1", b"new")
    assert [path.read_bytes() for path in (home(server) / "outbound").iterdir()] == [b"new"]


@pytest.mark.parametrize("promised", [len(BATCH) - 1, len(BATCH) + 1])
def test_put_refuses_a_source_of_another_length(drop: sftp.Drop, server: RunningServer, promised: int) -> None:
    with pytest.raises(TransferFailed, match=f"{promised} bytes promised"):
        drop.put("outbound", "b1", io.BytesIO(BATCH), promised)
    assert list((home(server) / "outbound").iterdir()) == []


def test_put_bytes_replaces_only_when_told(drop: sftp.Drop, server: RunningServer) -> None:
    drop.put_bytes("reports", "r.json", b"one")
    drop.put_bytes("reports", "r.json", b"two", replace=True)
    drop.put_bytes("reports", "new.json", b"new", replace=True)
    with pytest.raises(RemoteConflict):
        drop.put_bytes("reports", "r.json", b"three")
    assert {path.name: path.read_bytes() for path in (home(server) / "reports").iterdir()} == {
        "r.json": b"two",
        "new.json": b"new",
    }


def test_put_many_writes_each_whole_and_over_an_old_one(drop: sftp.Drop, server: RunningServer) -> None:
    files = {f"n{number}.json": BATCH[: number * 9000] for number in range(90)}
    drop.put_bytes("recalls", "n5.json", b"the one before")
    drop.put_many("recalls", files)
    assert {path.name: path.read_bytes() for path in (home(server) / "recalls").iterdir()} == files
    drop.put_many("recalls", {})
    assert len(drop.list("recalls")) == 90  # the session is still good


def test_put_many_names_what_went_wrong(drop: sftp.Drop, server: RunningServer) -> None:
    (home(server) / "recalls/n2.json").mkdir(parents=True)
    with pytest.raises(TransferFailed, match="recalls: the vendor's server"):
        drop.put_many("recalls", {f"n{number}.json": b"x" for number in range(4)})
    assert [f.name for f in drop.list("recalls") if f.size_bytes != 1] == []
    with pytest.raises(TransferFailed, match="not safe"):
        drop.put_many("recalls", {"../x": b"x"})


@pytest.mark.parametrize("lie", ["refuses", "forgets"])
def test_put_many_believes_no_write_that_it_was_not_told_of(short: Path, lie: str) -> None:
    class Bad(HomeFile):
        def write(self, offset: int, data: Any) -> int:
            if data != b"bad":
                return super().write(offset, data)
            return SFTP_FAILURE if lie == "refuses" else 0

    with misbehaving(short, files_with(Bad)) as (drop, folder):
        with pytest.raises(TransferFailed):
            drop.put_many("recalls", {"a": b"good", "b": b"bad", "c": b"good"})
        assert "b" not in {path.name for path in (folder / "recalls").iterdir()}


def test_put_many_waits_for_the_line_once_and_not_once_a_file(sshd: RunningServer) -> None:
    """200 files over a line of 20 ms; one after another they would take seven round trips each: 28 seconds."""
    with delayed(sshd.port, 0.01) as port, sftp.connect(replace(sshd.endpoint("north"), port=port)) as drop:
        begin = time.monotonic()
        drop.put_many("recalls", {f"far-{number}": bytes(16 << 10) for number in range(200)})
        assert time.monotonic() - begin < 7
        assert len([f for f in drop.list("recalls") if f.name.startswith("far-")]) == 200


@contextmanager
def delayed(port: int, delay_s: float) -> Iterator[int]:
    """A line to `port` on which everything takes `delay_s` each way."""

    def take_in(source: socket.socket, way: "SimpleQueue[tuple[float, bytes]]") -> None:
        data = b"x"
        while data:
            try:
                data = source.recv(65536)
            except OSError:
                data = b""
            way.put((time.monotonic() + delay_s, data))

    def let_out(sink: socket.socket, way: "SimpleQueue[tuple[float, bytes]]") -> None:
        while (piece := way.get())[1]:
            time.sleep(max(0.0, piece[0] - time.monotonic()))
            try:
                sink.sendall(piece[1])
            except OSError:
                return

    with socket.create_server(("127.0.0.1", 0)) as gate, socket.create_connection(("127.0.0.1", port)) as far:

        def pass_on() -> None:
            near, _ = gate.accept()
            for source, sink in ((near, far), (far, near)):
                source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                way: SimpleQueue[tuple[float, bytes]] = SimpleQueue()
                threading.Thread(target=take_in, args=(source, way), daemon=True).start()
                threading.Thread(target=let_out, args=(sink, way), daemon=True).start()

        threading.Thread(target=pass_on, daemon=True).start()
        yield int(gate.getsockname()[1])


def test_remove_and_size_and_list_are_calm_about_what_is_not_there(drop: sftp.Drop) -> None:
    drop.ensure("returns")
    drop.ensure("returns")
    drop.put_bytes("returns", "a", b"x")
    drop.remove("returns", "a")
    drop.remove("returns", "a")
    assert drop.size("returns", "a") is None
    assert drop.size("nowhere", "a") is None
    assert drop.list("returns") == drop.list("nowhere") == []


@pytest.mark.parametrize("root", ["", ".", "deep"])
def test_remote_root_is_where_the_folders_are(server: RunningServer, root: str) -> None:
    (home(server) / "deep").mkdir()
    with sftp.connect(replace(server.endpoint("north"), remote_root=root), timeout_s=10) as drop:
        drop.put_bytes("outbound", "a", b"x")
    assert (home(server) / root / "outbound/a").read_bytes() == b"x"


def test_list_leaves_out_links_folders_parts_and_hostile_names(drop: sftp.Drop, server: RunningServer) -> None:
    folder = home(server) / "returns"
    folder.mkdir()
    (folder / "sub").mkdir()
    for name in (
        "good.jsonl.pgp",
        "b1.part",
        ".hidden",
        "new\nline",
        "tab\t",
        "bidi\u202egpj",
        "back\\slash",
        "a" * 201,
    ):
        (folder / name).write_bytes(b"x")
    (folder / "link").symlink_to("/etc/passwd")
    (folder / "dangling").symlink_to("nowhere")
    os.mkfifo(folder / "pipe")
    Path(os.fsdecode(os.fsencode(folder) + b"/latin\xe9")).write_bytes(b"x")
    assert [file.name for file in drop.list("returns")] == ["good.jsonl.pgp"]


@pytest.mark.parametrize("name", ["../b1", "/etc/passwd", "..", "", "a/b", ".hidden", "a\nb", "\udce9"])
def test_unsafe_names_are_refused_before_the_server_sees_them(drop: sftp.Drop, name: str) -> None:
    for deed in (
        lambda: drop.size("returns", name),
        lambda: drop.remove("returns", name),
        lambda: drop.put_bytes("returns", name, b"x"),
        lambda: drop.get("returns", name, io.BytesIO(), max_bytes=1),
    ):
        with pytest.raises(TransferFailed, match="not safe"):
            deed()


def test_get_refuses_what_is_no_regular_file(drop: sftp.Drop, server: RunningServer) -> None:
    folder = home(server) / "returns"
    (folder / "sub").mkdir(parents=True)
    (folder / "link").symlink_to("/etc/passwd")
    os.mkfifo(folder / "pipe")
    for name in ("sub", "link", "pipe", "missing"):
        with pytest.raises(TransferFailed, match=f"returns/{name}: there is no such regular file"):
            drop.get("returns", name, io.BytesIO(), max_bytes=MIB)


def test_get_refuses_more_than_the_cap_before_it_reads(drop: sftp.Drop) -> None:
    drop.put_bytes("returns", "big", b"x" * 1001)
    sink = io.BytesIO()
    with pytest.raises(TransferFailed, match="1001 bytes, 1000 allowed"):
        drop.get("returns", "big", sink, max_bytes=1000)
    assert sink.getvalue() == b""


@pytest.mark.parametrize("new_size", [MIB, 3 * len(BATCH) + 1], ids=["shrinks", "grows"])
def test_get_refuses_a_file_that_changes_while_it_is_read(
    drop: sftp.Drop, server: RunningServer, new_size: int
) -> None:
    path = home(server) / "returns/r.pgp"
    path.parent.mkdir()
    path.write_bytes(BATCH * 3)
    with pytest.raises(TransferFailed, match=r"returns/r\.pgp"):
        drop.get("returns", "r.pgp", Sink(lambda: os.truncate(path, new_size)), max_bytes=99 * MIB)


def test_get_says_whose_disk_is_full(drop: sftp.Drop) -> None:
    def fill() -> None:
        raise OSError(28, "No space left on device")

    drop.put_bytes("returns", "r", b"x")
    with pytest.raises(TransferFailed, match="our own file: No space left on device"):
        drop.get("returns", "r", Sink(fill), max_bytes=MIB)
    assert drop.size("returns", "r") == 1


@pytest.mark.parametrize("kind", ["openssh", "embedded"])
def test_permission_denied_is_named(short: Path, kind: str) -> None:
    account = new_account("north", short / "north", is_read_only=True)
    (account.home / "outbound").mkdir()
    with (
        serve(short / "server", [account], prefer=kind) as server,
        sftp.connect(server.endpoint("north"), timeout_s=10) as drop,
    ):
        with pytest.raises(TransferFailed, match=r"outbound/b1: the vendor's server: Permission denied"):
            drop.put_bytes("outbound", "b1", b"x")
        with pytest.raises(TransferFailed, match=r"^reports: the vendor's server: Permission denied"):
            drop.ensure("reports")


# -- who is there ----------------------------------------------------------------------------------------------


def refuse(
    endpoint: sftp.SftpEndpoint, error: type[Exception], match: str | None = None, timeout_s: float = 10
) -> Exception:
    with pytest.raises(error, match=match) as raised, sftp.connect(endpoint, timeout_s=timeout_s):
        pass
    assert endpoint.private_key not in str(raised.value)
    return raised.value


def test_two_vendors_do_not_see_each_other(sshd: RunningServer) -> None:
    with sftp.connect(sshd.endpoint("north")) as north, sftp.connect(sshd.endpoint("south")) as south:
        north.put_bytes("outbound", "for-north", b"x")
        assert south.list("outbound") == []


def test_connect_refuses_another_host_key(server: RunningServer, short: Path) -> None:
    other = new_account("other", short / "other").public_key
    refuse(replace(server.endpoint("north"), host_key=other), HostKeyMismatch, "the server showed SHA256:")


def test_connect_refuses_a_host_key_of_another_type(server: RunningServer) -> None:
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    line = key.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()
    refuse(replace(server.endpoint("north"), host_key=line), HostKeyMismatch)


def test_connect_shows_no_login_to_a_server_with_another_host_key(short: Path) -> None:
    account = new_account("north", short / "north")
    server = EmbeddedServer(short, [])
    try:
        running = server.running()
        other = new_account("other", short / "other").public_key
        refuse(sftp.SftpEndpoint(running.host, running.port, "north", other, account.private_key), HostKeyMismatch)
        assert server.refused_logins == 0
    finally:
        server.stop()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda key: "",
        lambda key: "ssh-ed25519",
        lambda key: key.split()[1],
        lambda key: "ssh-ed25519 !!!!",
        lambda key: key[:-12],
        lambda key: "ssh-rsa " + key.split()[1],
        lambda key: "ssh-nonsense " + key.split()[1],
    ],
    ids=["missing", "type-only", "blob-only", "no-base64", "cut-short", "wrong-type", "unknown-type"],
)
def test_connect_needs_a_whole_host_key(sshd: RunningServer, spoil: Callable[[str], str]) -> None:
    refuse(replace(sshd.endpoint("north"), host_key=spoil(sshd.host_key)), ConnectionInvalid, "host_key")


@pytest.mark.parametrize(
    "spoil", [lambda key: "", lambda key: "nonsense", lambda key: key.replace("b3BlbnNz", "b3BlbnNy")]
)
def test_connect_needs_a_private_key(sshd: RunningServer, spoil: Callable[[str], str]) -> None:
    endpoint = sshd.endpoint("north")
    with (
        pytest.raises(ConnectionInvalid, match="private_key"),
        sftp.connect(replace(endpoint, private_key=spoil(endpoint.private_key))),
    ):
        pass


@pytest.mark.parametrize("passphrase", ["right", "wrong", None])
@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_connect_takes_keys_of_every_kind_with_their_passphrase(
    sshd: RunningServer, kind: str, passphrase: str | None
) -> None:
    key = {
        "ed25519": lambda: serialization.load_ssh_private_key(sshd.endpoint("north").private_key.encode(), None),
        "ecdsa": lambda: ec.generate_private_key(ec.SECP256R1()),
        "rsa": lambda: rsa.generate_private_key(65537, 2048),
    }[kind]()
    form = serialization.PrivateFormat.OpenSSH
    text = key.private_bytes(serialization.Encoding.PEM, form, serialization.BestAvailableEncryption(b"right")).decode()
    endpoint = replace(sshd.endpoint("north"), private_key=text, private_key_passphrase=passphrase)
    if passphrase != "right":
        refuse(endpoint, ConnectionInvalid, "passphrase")
    elif kind == "ed25519":
        with sftp.connect(endpoint) as drop:
            drop.list("outbound")
    else:  # readable, but not installed on the server
        refuse(endpoint, LoginRefused)


def test_secrets_are_not_in_the_endpoints_repr(sshd: RunningServer) -> None:
    endpoint = replace(sshd.endpoint("north"), private_key_passphrase="hush-hush")
    assert "PRIVATE KEY" not in repr(endpoint)
    assert "hush-hush" not in repr(endpoint)


def test_connect_tries_a_refused_login_once(short: Path) -> None:
    stranger = new_account("north", short / "stranger")
    with serve(short / "server", [new_account("north", short / "north")], prefer="openssh") as server:
        refuse(replace(server.endpoint("north"), private_key=stranger.private_key), LoginRefused)
        log = (short / "server/sshd.log").read_text()
    assert log.count("Failed publickey") == 1


def test_connect_tries_a_login_refused_by_the_embedded_server_once(short: Path) -> None:
    stranger = new_account("north", short / "stranger")
    server = EmbeddedServer(short, [new_account("north", short / "north")])
    try:
        refuse(replace(server.running().endpoint("north"), private_key=stranger.private_key), LoginRefused)
        assert server.refused_logins == 1
    finally:
        server.stop()


# -- what breaks -----------------------------------------------------------------------------------------------


@contextmanager
def listener(answer: bytes = b"") -> Iterator[int]:
    """A port that takes connections, says `answer` and nothing more."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        held: list[socket.socket] = []

        def accept() -> None:
            try:
                while True:
                    sock, _ = server.accept()
                    sock.sendall(answer)
                    held.append(sock)
            except OSError:
                return

        threading.Thread(target=accept, daemon=True).start()
        yield int(server.getsockname()[1])
        server.shutdown(socket.SHUT_RDWR)
        for sock in held:
            sock.close()


def test_connect_names_a_port_where_nobody_listens(sshd: RunningServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    refuse(replace(sshd.endpoint("north"), port=port), ServerUnreachable, "Connection refused")


def test_connect_names_a_host_that_does_not_exist(sshd: RunningServer) -> None:
    refuse(replace(sshd.endpoint("north"), host="nowhere.invalid"), ServerUnreachable)


@pytest.mark.parametrize("answer", [b"", b"SSH-2.0-Silent\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
def test_connect_ends_in_time_with_a_listener_that_is_no_ssh_server(
    sshd: RunningServer, answer: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    begin = time.monotonic()
    with listener(answer) as port:
        refuse(replace(sshd.endpoint("north"), port=port), ServerUnreachable, "handshake", timeout_s=1)
    assert time.monotonic() - begin < 2
    assert caplog.records == []  # paramiko logs a traceback here, besides raising it


def test_connect_ends_in_time_with_a_server_that_was_stopped(short: Path) -> None:
    with serve(short / "server", [new_account("north", short / "north")], prefer="openssh") as server:
        os.kill(server.pids()[0], signal.SIGSTOP)
        begin = time.monotonic()
        refuse(server.endpoint("north"), ServerUnreachable, timeout_s=1)
        assert time.monotonic() - begin < 2


def test_put_leaves_no_final_name_when_the_server_dies(victim: RunningServer) -> None:
    begin = time.monotonic()
    with sftp.connect(victim.endpoint("north"), timeout_s=10) as drop:
        source = Source(BATCH * 4, 6 * MIB, victim.stop)
        with pytest.raises(TransferFailed, match=r"outbound/b1\.tar\.pgp: the vendor's server"):
            drop.put("outbound", "b1.tar.pgp", source, len(BATCH) * 4)
    assert [path.name for path in (home(victim) / "outbound").iterdir()] in ([], ["b1.tar.pgp.part"])
    assert time.monotonic() - begin < 5


def test_get_fails_when_the_server_dies(victim: RunningServer) -> None:
    (home(victim) / "returns").mkdir()
    (home(victim) / "returns/r").write_bytes(BATCH * 8)
    with sftp.connect(victim.endpoint("north"), timeout_s=10) as drop, pytest.raises(TransferFailed):
        drop.get("returns", "r", Sink(victim.stop), max_bytes=99 * MIB)


@pytest.mark.parametrize("direction", ["put", "get"])
def test_transfer_ends_in_time_when_the_server_is_stopped(short: Path, direction: str) -> None:
    account = new_account("north", short / "north")
    (account.home / "returns").mkdir()
    (account.home / "returns/r").write_bytes(BATCH * 8)

    def stop_it() -> None:
        for pid in server.pids():
            os.kill(pid, signal.SIGSTOP)

    with serve(short / "server", [account], prefer="openssh") as server:
        begin = time.monotonic()
        with sftp.connect(server.endpoint("north"), timeout_s=1.5) as drop:
            transfer = {
                "put": lambda: drop.put("outbound", "b1", Source(BATCH * 8, 6 * MIB, stop_it), len(BATCH) * 8),
                "get": lambda: drop.get("returns", "r", Sink(stop_it), max_bytes=99 * MIB),
            }[direction]
            with pytest.raises(TransferFailed, match="no answer in time"):
                transfer()
            with pytest.raises(TransferFailed):  # at once: nothing more is asked of a lost session
                drop.list("outbound")
        assert time.monotonic() - begin < 2.8


@contextmanager
def choking_line(port: int, after: int) -> Iterator[int]:
    """A line to `port` whose far end takes `after` bytes from us and then no more, without hanging up."""

    def carry(source: socket.socket, target: socket.socket, limit: float) -> None:
        carried = 0
        try:
            while carried < limit and (data := source.recv(4096)):
                target.sendall(data)
                carried += len(data)
            if carried >= limit:
                over.wait(20)
        except OSError:
            return

    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as gate, socket.create_connection(("127.0.0.1", port)) as far:
        gate.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # what the kernel would take in our stead

        def pass_on() -> None:
            near, _ = gate.accept()
            threading.Thread(target=carry, args=(far, near, float("inf")), daemon=True).start()
            with near:
                carry(near, far, after)

        threading.Thread(target=pass_on, daemon=True).start()
        yield int(gate.getsockname()[1])
        over.set()


def test_put_ends_in_time_when_the_line_takes_no_more(sshd: RunningServer) -> None:
    """paramiko waits for the socket without end there; its timeout covers its own windows only."""
    batch = BATCH * 4
    with choking_line(sshd.port, 3 * MIB) as port:
        begin = time.monotonic()
        with (
            sftp.connect(replace(sshd.endpoint("north"), port=port), timeout_s=2) as drop,
            pytest.raises(TransferFailed, match="outbound/choked"),
        ):
            drop.put("outbound", "choked", io.BytesIO(batch), len(batch))
        assert time.monotonic() - begin < 6


@contextmanager
def misbehaving(short: Path, files: type[HomeFiles]) -> Iterator[tuple[sftp.Drop, Path]]:
    account = new_account("north", short / "north")
    server = EmbeddedServer(short, [account], files=files)
    try:
        with sftp.connect(server.running().endpoint("north"), timeout_s=5) as drop:
            yield drop, account.home
    finally:
        server.stop()


def files_with(kind: type[HomeFile]) -> type[HomeFiles]:
    """A server whose open files are of this kind."""

    class Files(HomeFiles):
        def open(self, path: str, flags: int, attr: paramiko.SFTPAttributes) -> paramiko.SFTPHandle | int:
            opened = super().open(path, flags, attr)
            return kind(opened.readfile, flags) if isinstance(opened, HomeFile) else opened

    return Files


@pytest.mark.parametrize("bad", [0, 1, 63, 64, 65, 120, 159, 160])
def test_put_notices_any_single_write_that_was_refused(short: Path, bad: int) -> None:
    """The hole that paramiko's and OpenSSH's own clients report as success; 161 writes of 32 KiB."""

    class OneBadWrite(HomeFile):
        def write(self, offset: int, data: Any) -> int:
            if offset == bad * 32768 and bad < 160:
                self.writefile.seek(offset + len(data))  # the size comes out right all the same
                return SFTP_FAILURE
            if bad == 160 == offset // 32768:
                return SFTP_FAILURE
            return super().write(offset, data)

    with misbehaving(short, files_with(OneBadWrite)) as (drop, folder):
        with pytest.raises(TransferFailed, match="outbound/b1: the vendor's server: Failure"):
            drop.put("outbound", "b1", io.BytesIO(BATCH), len(BATCH))
        assert list((folder / "outbound").iterdir()) == []


def test_put_notices_a_server_that_holds_less_than_it_acknowledged(short: Path) -> None:
    class Forgetful(HomeFile):
        def write(self, offset: int, data: Any) -> int:
            return 0 if offset > MIB else super().write(offset, data)

    with misbehaving(short, files_with(Forgetful)) as (drop, folder):
        with pytest.raises(TransferFailed, match="on the server"):
            drop.put("outbound", "b1", io.BytesIO(BATCH), len(BATCH))
        assert list((folder / "outbound").iterdir()) == []


def test_get_refuses_a_file_shorter_than_the_server_says(short: Path) -> None:
    class Files(HomeFiles):
        def lstat(self, path: str) -> paramiko.SFTPAttributes | int:
            found = super().lstat(path)
            if isinstance(found, paramiko.SFTPAttributes) and path.endswith("short") and found.st_size is not None:
                found.st_size += 1
            return found

    with misbehaving(short, Files) as (drop, folder):
        (folder / "returns").mkdir()
        (folder / "returns/short").write_bytes(BATCH)
        with pytest.raises(TransferFailed, match="returns/short: the vendor's server: End of file"):
            drop.get("returns", "short", io.BytesIO(), max_bytes=99 * MIB)


def test_get_asks_again_where_a_server_answers_with_less(short: Path) -> None:
    class Stingy(HomeFile):
        def read(self, offset: int, length: int) -> bytes | int:
            return super().read(offset, min(length, 10_000))

    with misbehaving(short, files_with(Stingy)) as (drop, folder):
        (folder / "r").write_bytes(BATCH)
        sink = io.BytesIO()
        drop.get("", "r", sink, max_bytes=99 * MIB)
        assert sink.getvalue() == BATCH


def test_list_leaves_out_names_that_lead_elsewhere(short: Path) -> None:
    class Files(HomeFiles):
        def list_folder(self, path: str) -> list[paramiko.SFTPAttributes] | int:
            real = os.lstat(__file__)
            names = ("../../x", "/etc/passwd", "..", "a\0b", "", "fine")
            return [paramiko.SFTPAttributes.from_stat(real, name) for name in names]

    with misbehaving(short, Files) as (drop, _):
        assert [file.name for file in drop.list("returns")] == ["fine"]


def test_the_embedded_server_lets_nobody_out_of_its_home(short: Path) -> None:
    (short / "secret").write_bytes(b"x")
    with misbehaving(short, HomeFiles) as (drop, folder):
        (folder / "out").symlink_to(short)
        assert drop.size("../..", "secret") is None
        with pytest.raises(TransferFailed, match="Permission denied"):
            drop.list("out")
        with pytest.raises(TransferFailed, match="Permission denied"):
            drop.put_bytes("out", "planted", b"x")
    assert not (short / "planted").exists()


# -- the server itself -----------------------------------------------------------------------------------------


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("kind", ["openssh", "embedded"])
def test_detached_server_lives_until_it_is_stopped(short: Path, kind: str) -> None:
    server = start_detached(short / "server", [new_account("north", short / "north")], prefer=kind)
    try:
        with sftp.connect(server.endpoint("north"), timeout_s=10) as drop:
            drop.put_bytes("outbound", "a", b"x")
            pids = server.pids()
            assert all(map(is_alive, pids))
            stop_detached(short / "server")
            assert not any(map(is_alive, pids))
        refuse(server.endpoint("north"), ServerUnreachable)
        stop_detached(short / "server")
    finally:
        server.stop()


def test_stop_leaves_no_session_behind(short: Path) -> None:
    with (
        serve(short / "server", [new_account("north", short / "north")], prefer="openssh") as server,
        sftp.connect(server.endpoint("north"), timeout_s=10),
    ):
        pids = server.pids()
        assert len(pids) > 1
        server.stop()
        assert not any(map(is_alive, pids))


def test_server_keeps_its_host_key_when_it_starts_again(short: Path) -> None:
    keys = []
    for kind in ("openssh", "embedded"):
        with serve(short / "server", [new_account("north", short / "north")], prefer=kind) as server:
            keys.append(server.host_key)
    assert keys[0] == keys[1]


@pytest.mark.parametrize("passphrase", [None, "open sesame"])
def test_connect_takes_a_pkcs8_key(sshd: RunningServer, passphrase: str | None) -> None:
    openssh = sshd.endpoint("north").private_key
    key = serialization.load_ssh_private_key(openssh.encode(), None)
    protection = (
        serialization.BestAvailableEncryption(passphrase.encode()) if passphrase else serialization.NoEncryption()
    )
    pkcs8 = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, protection).decode()
    assert "BEGIN OPENSSH" not in pkcs8
    endpoint = replace(sshd.endpoint("north"), private_key=pkcs8, private_key_passphrase=passphrase)
    with sftp.connect(endpoint) as drop:
        assert drop.list("nothing here") == []
