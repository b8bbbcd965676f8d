"""Seal and send: wall, CPU seconds, memory, disk and wire, beside its parts and beside what is usually written.

    python benchmarks/delivery.py [--mib 512] [--clips 2000] [--rounds 3] [--large] [--only STEP,…]
                                  [--provider-python PYTHON] [--rclone PROGRAM] [--lftp PROGRAM]

Every step runs in a process of its own against OpenSSH's server on this machine. `--provider-python` is an interpreter
that has Airflow's SFTP provider, for the pipeline a data engineer would write. `--large` adds 2 GiB. A line of 50 ms is
a proxy that holds back what passes for 25 ms each way; the rows that go over it say so. `wire` counts what goes through
such a proxy, `disk` what is written to files, by strace.
"""

import argparse
import contextlib
import io
import itertools
import json
import os
import re
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from queue import SimpleQueue

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile as sf

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "include"))

from clip_courier import audio, sftp
from clip_courier.courier import Courier
from clip_courier.errors import ConnectionLost
from clip_courier.gpg_home import temporary_home
from clip_courier.model import CLIPS, CONSENT_EVENTS, PERSONS, PURPOSE
from clip_courier.pgp import OPTIONS, SEALING
from clip_courier.settings import INCLUDE, credentials_from, load_settings
from clip_courier_demo.keys import KeyPair, make_key
from clip_courier_demo.sftp_server import new_account, serve
from clip_courier_demo.stage import secret_of, write_vendor

NIGHT, NOW = date(2026, 11, 20), datetime(2026, 11, 20, 2, tzinfo=UTC)
MIB = 1 << 20
BATCH_ID = "aurora-20261120-001"
RATE_HZ = 16_000
OTHERS = ("paramiko_put", "openssh_put", "lftp_put", "rclone_put")


# -- the world: recordings, a night that is cut, keys, an account ------------------------------------------------------


def make_world(folder: Path, mib: int, clips: int, keys: dict[str, KeyPair]) -> None:
    """A landing zone of so many clips, each of another person, whose recordings are so many MiB of WAV together, and
    a night that is cut into one batch of them: by the courier itself, kept to begin each delivery with."""
    frames = mib * MIB // clips // 2
    noise = np.random.default_rng(1).normal(0, 1, frames + clips * 16)
    # Noise of a falling spectrum: FLAC makes about as much of it as of speech.
    sound = np.convolve(noise, np.hanning(24), "same")
    sound = (sound / np.abs(sound).max() * 20_000).astype(np.int16)
    landing = folder / "landing"
    (landing / "audio").mkdir(parents=True)
    for n in range(clips):
        sf.write(landing / "audio" / f"{n}.wav", sound[n * 16 : n * 16 + frames], RATE_HZ, subtype="PCM_16")
    _write_rows(landing, clips, frames)
    (folder / "keys.json").write_text(json.dumps({name: asdict(key) for name, key in keys.items()}))
    own = {"batch_max_bytes": 1 << 40, "hours_per_night": 1000}
    write_vendor(folder / "vendors", "aurora", keys["aurora"], NIGHT, **own)
    shutil.copytree(INCLUDE / "policy", folder / "policy")
    plan = folder / "policy" / "sampling.yaml"
    plan.write_text(plan.read_text().replace("ceiling: 0.5", "ceiling: 1000"))
    environ = environ_of(folder, 0)
    subprocess.run(
        [sys.executable, __file__, "--step", "cut", "--folder", str(folder)],
        check=True,
        env=environ,
        stdout=subprocess.DEVNULL,
    )
    (folder / "var").rename(folder / "cut")


def _write_rows(landing: Path, clips: int, frames: int) -> None:
    """Each with a name that is said: a tone goes over it."""
    digits = np.random.default_rng(2).bytes(16 * clips).hex()
    ids = [digits[n * 32 : n * 32 + 32] for n in range(clips)]
    at = NOW - timedelta(days=3)
    said = ["please", "call", "maria", "gonzalez", "today"]
    words = [{"word": word, "start_ms": 300 * n, "end_ms": 300 * n + 250} for n, word in enumerate(said)]
    fixed = {"product": "translator", "activation": "call", "locale": "en-GB", "country": "GB", "recorded_at": at}
    fixed |= {"duration_ms": round(frames * 1000 / RATE_HZ), "sample_rate_hz": RATE_HZ, "channels": 1}
    fixed |= {"hypotheses": [{"rank": 1, "text": " ".join(said), "confidence": 0.9, "engine": "r1"}], "words": words}
    rows = [
        {"clip_id": f"clip-{one}", "audio_uri": f"{n}.wav", **fixed, "participants": [{"person_id": f"person-{one}"}]}
        for n, one in enumerate(ids)
    ]
    told = {"purpose": PURPOSE, "decision": "granted", "notice_version": "2026-02", "language": "en", "country": "GB"}
    told |= {"occurred_at": at - timedelta(days=9), "received_at": at - timedelta(days=9)}
    events = [{"record_id": f"consent-{one}", "person_id": f"person-{one}", **told} for one in ids]
    persons = [{"person_id": f"person-{one}", "birth_year": 1980} for one in ids]
    for name, content, schema in (
        (f"clips/recorded_date={at.date()}", rows, CLIPS),
        ("consent_events", events, CONSENT_EVENTS),
        ("persons", persons, PERSONS),
    ):
        (landing / name).mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(content, schema), landing / name / "part.parquet")


def keys_of(folder: Path) -> dict[str, KeyPair]:
    return {name: KeyPair(**fields) for name, fields in json.loads((folder / "keys.json").read_text()).items()}


def environ_of(folder: Path, port: int, **extra: object) -> dict[str, str]:
    """What the command line is told by; `extra` is of the vendor's connection."""
    endpoint, ours = endpoint_of(folder, port), keys_of(folder)["ours"]
    account = {"private_key": endpoint.private_key, "host_key": endpoint.host_key, "max_connections": 1, **extra}
    server = {"conn_type": "sftp", "host": endpoint.host, "port": port or 22, "login": endpoint.login, "extra": account}
    epochs = {"bench": {"key": secret_of(1, "pseudonyms"), "from": (NIGHT - timedelta(days=90)).isoformat()}}
    pgp = {"conn_type": "generic", "extra": {"private_key": ours.private_key, "fingerprint": ours.fingerprint}}
    return {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).resolve().parents[1] / "include"),
        "CLIP_COURIER_ROOT": str(folder / "var"),
        "CLIP_COURIER_LANDING": str(folder / "landing"),
        "CLIP_COURIER_VENDORS": str(folder / "vendors"),
        "CLIP_COURIER_POLICY": str(folder / "policy"),
        "AIRFLOW_CONN_SFTP_AURORA": json.dumps(server),
        "AIRFLOW_CONN_CLIP_COURIER_PGP": json.dumps(pgp),
        "AIRFLOW_CONN_CLIP_COURIER_PSEUDONYMS": json.dumps({"conn_type": "generic", "extra": {"epochs": epochs}}),
        "AIRFLOW_CONN_CLIP_COURIER_SAMPLING": json.dumps(
            {"conn_type": "generic", "password": secret_of(1, "sampling")}
        ),
    }


def courier_of(environ: Mapping[str, str]) -> Courier:
    return Courier(load_settings(environ), lambda conn_id: credentials_from(environ, conn_id), lambda: NOW)


def endpoint_of(folder: Path, port: int) -> sftp.SftpEndpoint:
    fields = json.loads((folder.parent / "server.json").read_text())
    return replace(sftp.SftpEndpoint(**fields), port=port)


# -- the steps, each in a process of its own ---------------------------------------------------------------------------


def cut(folder: Path, port: int) -> None:
    """Not measured: the night up to the batch."""
    courier = courier_of(os.environ)
    for verb in (courier.select, courier.validate, courier.manifest):
        assert not verb(NIGHT).failures


def ours(folder: Path, port: int) -> None:
    """deliver: consent, the gates, FLAC → tar → gpg → upload → read back → rename → ready file."""
    _deliver(folder, port)


def ours_by_size(folder: Path, port: int) -> None:
    """The same without reading back."""
    _deliver(folder, port, read_back="size")


def _deliver(folder: Path, port: int, **extra: object) -> None:
    counts = courier_of(environ_of(folder, port, **extra)).deliver(NIGHT, "aurora").counts
    assert counts["delivered"] == 1, counts
    assert counts["withheld"] == 0, counts


# What is usually written: a tar on disk, python-gnupg's encrypt_file, SFTPHook.store_file. A script, because its
# interpreter has Airflow's provider and none of ours.
NAIVE = """
import json, resource, shutil, sys, tarfile, tempfile, time
from pathlib import Path
import gnupg
from airflow.providers.sftp.hooks.sftp import SFTPHook

def used():
    both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in both)

folder, place = Path(sys.argv[1]), Path(tempfile.mkdtemp(prefix="nv-"))
keys = json.loads((folder / "keys.json").read_text())
cpu, begin = used(), time.perf_counter()
with tarfile.open(place / "batch.tar", "w") as tar:
    for path in sorted((folder / "landing" / "audio").iterdir()):
        tar.add(path, f"audio/{path.name}")
(place / "gpg").mkdir(mode=0o700)
gpg = gnupg.GPG(gnupghome=str(place / "gpg"))
for name, field in (("ours", "private_key"), ("aurora", "public_key")):
    gpg.import_keys(keys[name][field])
recipient, signer = (keys[name]["fingerprint"] for name in ("aurora", "ours"))
sealed = str(place / "batch.tar.pgp")
done = gpg.encrypt_file(str(place / "batch.tar"), recipient, sign=signer, always_trust=True, output=sealed)
assert done.ok, done.status
SFTPHook(ssh_conn_id="bench").store_file("outbound/naive.tar.pgp", sealed)
wall, cpu = time.perf_counter() - begin, used() - cpu
status = Path("/proc/self/status").read_text().splitlines()
shutil.rmtree(place)
peak = int(next(line for line in status if line.startswith("VmHWM")).split()[1]) / 1024
print(json.dumps({"wall": wall, "cpu": cpu, "rss_mib": peak}))
"""


def seal(folder: Path, port: int) -> None:
    """The same up to a sealed file, checked and on disk: the line breaks when it is to be sent."""

    def broken(*given: object, **options: object) -> int:
        raise ConnectionLost("for the measurement")

    sftp.Drop.upload = broken  # type: ignore[method-assign]
    with contextlib.suppress(ConnectionLost):
        _deliver(folder, port)


def flac(folder: Path, port: int) -> None:
    """libsndfile alone: decoding and encoding, one after another."""
    for path in (folder / "landing" / "audio").iterdir():
        samples, rate = sf.read(io.BytesIO(path.read_bytes()), dtype="int16", always_2d=True)
        sf.write(io.BytesIO(), samples, rate, format="FLAC", subtype="PCM_16")


def gpg(folder: Path, port: int) -> None:
    """gpg alone, with our settings, over as many bytes as the tar has, from a file into a file."""
    keys = keys_of(folder)
    with temporary_home() as home:
        command = ["gpg", "--homedir", str(home), "--batch", "--quiet", *OPTIONS]
        for text in (keys["ours"].private_key, keys["aurora"].public_key):
            subprocess.run([*command, "--import"], input=text.encode(), check=True, capture_output=True)
        names = ["-u", keys["ours"].fingerprint, "-r", keys["aurora"].fingerprint]
        sealing = [*command, *SEALING, *names, "-o", str(folder / "sealed"), "-se", str(folder / "payload")]
        subprocess.run(sealing, check=True, capture_output=True)
    (folder / "sealed").unlink()


def put(folder: Path, port: int) -> None:
    """Our upload alone, size read back."""
    with sftp.connect(endpoint_of(folder, port)) as drop, (folder / "payload").open("rb") as source:
        size = (folder / "payload").stat().st_size
        drop.upload("outbound", "put.bin", source, size, attempt="a", is_read_back=False)
        drop.publish("outbound", "put.bin", attempt="a")


def put_read_back(folder: Path, port: int) -> None:
    """Our upload alone, every byte read back."""
    with sftp.connect(endpoint_of(folder, port)) as drop, (folder / "payload").open("rb") as source:
        size = (folder / "payload").stat().st_size
        drop.upload("outbound", "put.bin", source, size, attempt="a")


def paramiko_put(folder: Path, port: int) -> None:
    """paramiko's own client as it comes."""
    import paramiko

    endpoint = endpoint_of(folder, port)
    with paramiko.Transport((endpoint.host, port)) as transport:
        key = paramiko.Ed25519Key.from_private_key(io.StringIO(endpoint.private_key))
        transport.connect(username=endpoint.login, pkey=key)
        client = paramiko.SFTPClient.from_transport(transport)
        assert client
        client.put(str(folder / "payload"), "outbound/put.bin")


def openssh_put(folder: Path, port: int) -> None:
    """OpenSSH's sftp with the cipher that we use."""
    endpoint = endpoint_of(folder, port)
    command = ["sftp", "-q", "-b", "-", "-P", str(port), *_ssh_options(folder, port)]
    batch = f"put {folder / 'payload'} outbound/put.bin\n"
    subprocess.run([*command, f"{endpoint.login}@{endpoint.host}"], input=batch.encode(), check=True)


def lftp_put(folder: Path, port: int) -> None:
    """lftp over OpenSSH's ssh with the cipher that we use."""
    endpoint = endpoint_of(folder, port)
    ssh = " ".join(["ssh", "-a", "-x", *_ssh_options(folder, port)])
    orders = (
        f'set sftp:connect-program "{ssh}"; set net:max-retries 1; set xfer:clobber yes',
        f"open -u {endpoint.login},none -p {port} sftp://{endpoint.host}",
        f"put {folder / 'payload'} -o outbound/put.bin",
    )
    command = [os.environ["LFTP"], "--norc", "-c", "; ".join(orders)]
    subprocess.run(command, check=True, capture_output=True)


def _ssh_options(folder: Path, port: int) -> list[str]:
    endpoint = endpoint_of(folder, port)
    known = folder.parent / "known_hosts"
    known.write_text(f"[{endpoint.host}]:{port} {endpoint.host_key}\n")
    options = [f"UserKnownHostsFile={known}", "IdentitiesOnly=yes", "Ciphers=aes128-gcm@openssh.com"]
    return ["-i", str(_key_file(folder)), *(f"-o{option}" for option in options)]


def rclone_put(folder: Path, port: int) -> None:
    """rclone as it comes."""
    endpoint = endpoint_of(folder, port)
    key = ["--sftp-key-file", str(_key_file(folder))]
    where = ["--sftp-host", endpoint.host, "--sftp-port", str(port), "--sftp-user", endpoint.login]
    command = [os.environ["RCLONE"], "copyto", "--config", "/dev/null", *key, *where]
    subprocess.run([*command, str(folder / "payload"), ":sftp:outbound/put.bin"], check=True, capture_output=True)


def _key_file(folder: Path) -> Path:
    key = folder.parent / "key"
    if not key.exists():
        key.touch(mode=0o600)
        key.write_text(endpoint_of(folder, 0).private_key)
    return key


def nothing(folder: Path, port: int) -> None:
    """What the imports alone take of memory."""


def small_files(folder: Path, port: int) -> None:
    """200 files of 64 KiB, each whole under its name, side by side on one connection."""
    with sftp.connect(endpoint_of(folder, port)) as drop:
        drop.put_many("outbound", {f"small-{n}": os.urandom(64 << 10) for n in range(200)})


STEPS: dict[str, Callable[[Path, int], None]] = {
    step.__name__: step
    for step in (
        ours,
        ours_by_size,
        seal,
        flac,
        gpg,
        put,
        put_read_back,
        paramiko_put,
        openssh_put,
        lftp_put,
        rclone_put,
        small_files,
        nothing,
        cut,
    )
}


def run_step(name: str, folder: Path, port: int) -> None:
    """In the child: do it, and print what it took. Imports are over before the clock starts."""
    before = _used()
    begin = time.perf_counter()
    STEPS[name](folder, port)
    wall = time.perf_counter() - begin
    after = _used()
    print(json.dumps({"wall": wall, "cpu": after - before, "rss_mib": _peak_mib()}))


def _peak_mib() -> float:
    """Of this process: getrusage would tell the largest of those that it was forked from."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


def _used() -> float:
    """CPU seconds of this process and of its children that have ended."""
    both = (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in both)


# -- a line of 50 ms ---------------------------------------------------------------------------------------------------


def delay_line(target: int, delay_s: float) -> None:
    """In a child: print a port; what goes through it to `target` is held back for `delay_s` each way.

    At the end of each connection it prints how many bytes went to the target.
    """
    gate = socket.create_server(("127.0.0.1", 0))
    print(gate.getsockname()[1], flush=True)
    while True:
        near, _ = gate.accept()
        far = socket.create_connection(("127.0.0.1", target))
        for source, sink in ((near, far), (far, near)):
            source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            on_the_way: SimpleQueue[tuple[float, bytes]] = SimpleQueue()
            is_ours = source is near
            for end, given in ((_take_in, (source, on_the_way, delay_s)), (_let_out, (sink, on_the_way, is_ours))):
                threading.Thread(target=end, args=given, daemon=True).start()


def _take_in(source: socket.socket, on_the_way: "SimpleQueue[tuple[float, bytes]]", delay_s: float) -> None:
    data = b"x"
    while data:
        try:
            data = source.recv(1 << 17)
        except OSError:
            data = b""
        on_the_way.put((time.monotonic() + delay_s, data))


def _let_out(sink: socket.socket, on_the_way: "SimpleQueue[tuple[float, bytes]]", is_counted: bool) -> None:
    sent = 0
    with contextlib.suppress(OSError):
        while True:
            due, data = on_the_way.get()
            time.sleep(max(0.0, due - time.monotonic()))
            if not data:
                if is_counted:
                    print(sent, flush=True)
                sink.shutdown(socket.SHUT_WR)
                return
            sink.sendall(data)
            sent += len(data)


@contextmanager
def line_of(rtt_ms: int, port: int) -> Iterator[int]:
    if not rtt_ms:
        yield port
        return
    with _proxy(rtt_ms, port) as (through, _):
        yield through


@contextmanager
def _proxy(rtt_ms: int, port: int) -> Iterator[tuple[int, Callable[[], int]]]:
    """A port that leads to `port`, and how many bytes a connection that has ended brought there."""
    command = [sys.executable, __file__, "--line", str(port), "--delay-ms", str(rtt_ms / 2)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as proxy:
        told = proxy.stdout
        assert told
        try:
            yield int(told.readline()), lambda: int(told.readline())
        finally:
            proxy.kill()


# -- the measurement ---------------------------------------------------------------------------------------------------


class Measured:
    """Runs steps and prints a line for each: the median of the rounds."""

    def __init__(self, asked: argparse.Namespace, port: int, home: Path) -> None:
        self._asked, self._port, self._home = asked, port, home
        self._cost: dict[str, tuple[float, float]] = {}

    def step(self, name: str, folder: Path, mib: float, rtt_ms: int = 0, rounds: int | None = None) -> None:
        if self._asked.only and name not in self._asked.only:
            return
        python = self._asked.provider_python if name == "naive" else sys.executable
        needed = {"naive": python, "rclone_put": self._asked.rclone, "lftp_put": self._asked.lftp}
        if not needed.get(name, True):
            print(f"{name:15} not measured: its program was not given")
            return
        found = []
        for _ in range(rounds or self._asked.rounds):
            self._clear(folder)
            with line_of(rtt_ms, self._port) as port:
                found.append(self._once(python, name, folder, port))
        middle = sorted(found, key=lambda one: one["wall"])[len(found) // 2]
        cpu = statistics.median(one["cpu"] for one in found)
        best = min(one["wall"] for one in found)
        self._cost.setdefault(name, (middle["wall"], cpu))
        over = f" over {rtt_ms} ms" if rtt_ms else ""
        print(
            f"{name:15} {middle['wall']:7.2f} s (best {best:6.2f})  {cpu:6.2f} CPU s  {mib / middle['wall']:6.1f} MiB/s"
            f"  peak {middle['rss_mib']:5.0f} MiB  [{mib:.0f} MiB{over}]",
            flush=True,
        )

    def beside(self) -> None:
        """Each of ours beside the sum of its parts and beside what is usually written."""
        parts = [self._cost[name] for name in ("flac", "gpg", "openssh_put") if name in self._cost]
        for name in ("ours", "ours_by_size"):
            if name in self._cost and len(parts) == 3:
                cpu = self._cost[name][1]
                of_parts = sum(one for _, one in parts)
                print(f"{name:15} {cpu / of_parts:.2f} times the CPU s of FLAC, gpg and sftp alone ({of_parts:.2f})")
            if name in self._cost and "naive" in self._cost:
                print(f"{name:15} naive takes {self._cost['naive'][0] / self._cost[name][0]:.1f} times as long")

    def wire(self, folder: Path) -> None:
        """What passes on the way to the server, beside the tar that the vendor's own gpg finds in it."""
        if self._asked.only and "wire" not in self._asked.only:
            return
        self._clear(folder)
        with _proxy(0, self._port) as (port, passed):
            self._once(sys.executable, "ours_by_size", folder, port)
            on_the_wire = passed()
        tar = _tar_bytes(self._home / "outbound" / f"{BATCH_ID}.tar.pgp", keys_of(folder)["aurora"])
        print(f"wire            {on_the_wire} bytes for a tar of {tar}: {on_the_wire / tar:.4f} times", flush=True)

    def disk(self, folder: Path) -> None:
        """What a delivery writes to files, by strace: the sealed file, and what else."""
        if self._asked.only and "disk" not in self._asked.only:
            return
        if not shutil.which("strace"):
            print("disk            not measured: there is no strace")
            return
        self._clear(folder)
        log = folder / "strace"
        kinds = "trace=write,writev,pwrite64,pwritev,pwritev2,sendfile,splice,copy_file_range,fallocate,ftruncate"
        calls = ["strace", "-f", "-y", "-s", "0", "-e", kinds, "-o", str(log)]
        self._once(sys.executable, "ours_by_size", folder, self._port, before=calls)
        written = _written(log)
        sealed = sum(size for path, size in written.items() if ".tar.pgp" in path)
        others = {path: size for path, size in written.items() if ".tar.pgp" not in path}
        print(f"disk            {sealed} bytes into the sealed file, {sum(others.values())} into all other files:")
        for path, size in sorted(others.items(), key=lambda one: -one[1]):
            print(f"                {size:8} {path.replace(str(folder), '<world>')}", flush=True)

    def memory(self, folder: Path, mib: int) -> None:
        """The command itself, as it is called: its own peak, and that of all its processes together."""
        if self._asked.only and "memory" not in self._asked.only:
            return
        self._clear(folder)
        command = [sys.executable, "-P", "-m", "clip_courier", "deliver", "--night", str(NIGHT), "--vendor", "aurora"]
        environ = environ_of(folder, self._port)
        given = [*command, "--now", f"{NOW:%Y-%m-%dT%H:%M:%SZ}", "--json"]
        with subprocess.Popen(given, env=environ, stdout=subprocess.PIPE, text=True) as running:
            peak, together = _watched(running)
            assert running.stdout
            counts = json.loads(running.stdout.read())
        assert counts["delivered"] == 1, counts
        print(
            f"memory          deliver of {mib} MiB: its process {peak:.0f} MiB, with gpg {together:.0f} MiB", flush=True
        )

    def _clear(self, folder: Path) -> None:
        for path in (self._home / "outbound").iterdir():
            path.unlink()
        shutil.rmtree(folder / "var", ignore_errors=True)
        shutil.copytree(folder / "cut", folder / "var")

    def _once(self, python: str, name: str, folder: Path, port: int, before: Sequence[str] = ()) -> dict[str, float]:
        endpoint = endpoint_of(folder, port)
        extra = {"private_key": endpoint.private_key, "host_key": endpoint.host_key}
        connection = {"conn_type": "sftp", "host": endpoint.host, "port": port, "login": endpoint.login, "extra": extra}
        programs = {"RCLONE": self._asked.rclone or "", "LFTP": self._asked.lftp or ""}
        environ = {**os.environ, "AIRFLOW_CONN_BENCH": json.dumps(connection), **programs}
        environ["PYTHONPATH"] = str(Path(__file__).resolve().parents[1] / "include")
        step = ["-c", NAIVE, str(folder)] if name == "naive" else [__file__, "--step", name, "--folder", str(folder)]
        command = [*before, python, *step, *([] if name == "naive" else ["--port", str(port)])]
        ran = subprocess.run(command, capture_output=True, text=True, env=environ, check=False)
        if ran.returncode:
            raise SystemExit(f"{name}: {ran.stderr[-2000:]}")
        return dict(json.loads(ran.stdout.splitlines()[-1]))


def _watched(running: subprocess.Popen[str]) -> tuple[float, float]:
    """Until it ends: MiB at the peak of the process, and of it and all that it started, as often as one can look."""
    peak = together = 0
    while running.poll() is None:
        found = [_memory(pid) for pid in (running.pid, *_children(running.pid))]
        peak, together = max(peak, found[0][0]), max(together, sum(now for _, now in found))
        time.sleep(0.02)
    return peak / 1024, together / 1024


def _children(pid: int) -> Iterator[int]:
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in map(int, (task / "children").read_text(encoding="ascii").split()):
                yield child
                yield from _children(child)


def _memory(pid: int) -> tuple[int, int]:
    """The highest and the present resident set of a process in KiB; 0 when it has ended."""
    with contextlib.suppress(OSError):
        lines = [line.split() for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()]
        sizes = {line[0]: int(line[1]) for line in lines if line and line[0] in ("VmHWM:", "VmRSS:")}
        return sizes.get("VmHWM:", 0), sizes.get("VmRSS:", 0)
    return 0, 0


def _tar_bytes(sealed: Path, vendor: KeyPair) -> int:
    """How long the plaintext is that the vendor's gpg finds in a sealed file."""
    with temporary_home() as home, sealed.open("rb") as source:
        command = ["gpg", "--homedir", str(home), "--batch", "--quiet", *OPTIONS]
        subprocess.run([*command, "--import"], input=vendor.private_key.encode(), check=True, capture_output=True)
        with subprocess.Popen([*command, "-d"], stdin=source, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as gpg:
            assert gpg.stdout
            return sum(len(piece) for piece in iter(lambda: gpg.stdout.read(MIB), b""))


def _written(log: Path) -> dict[str, int]:
    """Bytes that went into regular files, by path, from strace's lines: `7 write(5</a/path>, …) = 4096`.

    A call during which others are told of is told in two lines: `7 write(5</a/path>, … <unfinished ...>` comes first.
    """
    written: dict[str, int] = {}
    begun: dict[str, str] = {}
    for line in log.read_text(errors="replace").splitlines():
        process = line.split()[0]
        named = re.search(r"^\d+ +\w+\(\d+<(/[^>]*)>", line)
        if line.endswith("<unfinished ...>"):
            begun[process] = named[1] if named else ""
        elif done := re.search(r" = (\d+)$", line):
            path = named[1] if named else begun.pop(process, "") if " resumed>" in line else ""
            if path and not path.startswith("/dev/"):
                written[path] = written.get(path, 0) + int(done[1])
    return written


def main() -> None:
    asked = _arguments()
    if asked.line:
        delay_line(asked.line, asked.delay_ms / 1000)
    if asked.step:
        run_step(asked.step, asked.folder, asked.port)
        return
    made_at = NOW - timedelta(days=30)
    keys = {name: make_key(name, made_at=made_at) for name in ("ours", "aurora")}
    with tempfile.TemporaryDirectory(prefix="cc-") as place:
        base = Path(place)
        account = new_account("aurora", base / "home")
        (account.home / "outbound").mkdir()
        with serve(base / "sshd", [account], prefer="openssh") as server:
            endpoint = server.endpoint("aurora")
            (base / "server.json").write_text(json.dumps(asdict(endpoint)))
            (base / "server.json").chmod(0o600)
            measured = Measured(asked, server.port, account.home)
            _measure(asked, measured, base, keys)


def _measure(asked: argparse.Namespace, measured: Measured, base: Path, keys: dict[str, KeyPair]) -> None:
    world = base / "world"
    make_world(world, asked.mib, asked.clips, keys)
    flacs = _flac_bytes(world)
    print(f"{asked.clips} clips, {asked.mib} MiB of WAV, {flacs / MIB:.0f} MiB of FLAC; medians of {asked.rounds}")
    _payload(world, flacs)
    for name in ("ours", "ours_by_size", "naive", "seal", "flac"):
        measured.step(name, world, asked.mib)
    for name in ("gpg", "put", "put_read_back", *OTHERS):
        measured.step(name, world, flacs / MIB)
    measured.beside()
    measured.wire(world)
    _payload(world, 64 * MIB)
    for name in ("put", "put_read_back", *OTHERS):
        measured.step(name, world, 64, rtt_ms=50)
    measured.step("small_files", world, 12.5)
    measured.step("small_files", world, 12.5, rtt_ms=50, rounds=1)
    measured.step("nothing", world, 0, rounds=1)
    for mib in (64, *([2048] if asked.large else [])):
        make_world(base / f"world-{mib}", mib, mib * 4, keys)
        measured.memory(base / f"world-{mib}", mib)
        if mib == 64:
            measured.disk(base / f"world-{mib}")
        shutil.rmtree(base / f"world-{mib}")


def _flac_bytes(world: Path) -> int:
    """What the FLACs of the batch come to, by a sample of them."""
    some = list(itertools.islice((world / "landing" / "audio").iterdir(), 20))
    sizes = [len(audio.to_flac(audio.decode(path.read_bytes()))) for path in some]
    return round(statistics.mean(sizes) * len(list((world / "landing" / "audio").iterdir())))


def _payload(world: Path, size: int) -> None:
    """As many bytes as a sealed batch, and as little to be compressed."""
    with (world / "payload").open("wb") as file:
        while size > 0:
            file.write(os.urandom(min(size, 4 * MIB)))
            size -= 4 * MIB


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", type=int, default=512)
    parser.add_argument("--clips", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--only", type=lambda text: text.split(","))
    parser.add_argument("--provider-python")
    parser.add_argument("--rclone", default=shutil.which("rclone"))
    parser.add_argument("--lftp", default=shutil.which("lftp"))
    for name, kind in (("step", str), ("folder", Path), ("port", int), ("line", int), ("delay-ms", float)):
        parser.add_argument(f"--{name}", type=kind, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
