"""What a process and all that it starts cost, as Linux counts it: wall time, CPU time and memory."""

import ctypes
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36
_INTERVAL_S = 0.05
_MIB = 1 << 20


@dataclass(frozen=True)
class Cost:
    """`cpu_s`: user and system, of all processes. `peak_mib`: resident memory, the larger of what all of them had
    together, looked at every 50 ms, and what one alone had at most, as the kernel counted it.
    """

    wall_s: float
    cpu_s: float
    peak_mib: float


class Failed(Exception):
    """A process ended with an error; the text is the end of what it complained."""


def measured(command: Sequence[str], environ: Mapping[str, str]) -> tuple[Cost, str]:
    """Run a command to its end, and to the end of all it started: the cost, and what it wrote to stdout.

    The caller has no other process running, and little memory of its own: the kernel counts it to the new process.

    Raises:
        Failed: it did not end well.
    """
    # A process whose parent ends becomes ours, so that its time is counted too: Spark's Java outlives its Python.
    if ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError("prctl: the processes that a contender starts cannot be counted here")
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as complaint:
        since = time.monotonic()
        redirected = [(os.POSIX_SPAWN_DUP2, f.fileno(), fd) for fd, f in ((1, output), (2, complaint))]
        pid = os.posix_spawn(command[0], command, environ, file_actions=redirected)
        code, cpu_s, peak = _ended(pid)
        wall_s = time.monotonic() - since
        texts = []
        for stream in (output, complaint):
            stream.seek(0)
            texts.append(stream.read().decode("utf-8", "replace"))
    if code != 0:
        raise Failed(f"ended with {code}: {texts[1].strip()[-2000:]}")
    return Cost(wall_s, cpu_s, peak / _MIB), texts[0]


def world_of(folder: Path, clips: int, threads: int, environ: Mapping[str, str]) -> Path:
    """The made-up landing zone with so many clips below a folder; made if it is not there yet."""
    world = folder / (f"{clips // 1_000_000}m" if clips % 1_000_000 == 0 else str(clips))
    if not world.exists():
        print(f"making {clips:,} clips in {world} …", file=sys.stderr)
        folder.mkdir(parents=True, exist_ok=True)
        measured([sys.executable, "-m", "sampling.world", str(clips), str(world), "--threads", str(threads)], environ)
    return world


def _ended(first: int) -> tuple[int, float, int]:
    """Exit code of the process, CPU seconds and peak bytes of it and all below, once none of them is left."""
    code, cpu_s, peak = 0, 0.0, 0
    while True:
        try:
            pid, status, usage = os.wait4(-1, os.WNOHANG)
        except ChildProcessError:
            return code, cpu_s, peak
        if pid == 0:
            peak = max(peak, sum(_resident(p) for p in _below(os.getpid())))
            time.sleep(_INTERVAL_S)
            continue
        cpu_s += usage.ru_utime + usage.ru_stime
        peak = max(peak, usage.ru_maxrss * 1024)
        if pid == first:
            code = os.waitstatus_to_exitcode(status)


def _below(pid: int) -> Iterator[int]:
    """The processes that a process started, and those that they started."""
    # One that ends while we look has none.
    with suppress(OSError):
        for task in list(Path(f"/proc/{pid}/task").iterdir()):
            with suppress(OSError):
                for child in (task / "children").read_text().split():
                    yield int(child)
                    yield from _below(int(child))


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
