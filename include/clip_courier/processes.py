"""Who we are among all processes of all machines, and whether another one is known to be gone.

A lease of a killed worker then ends with the worker where that can be seen, and by its time where it cannot.
"""

import functools
import os
import secrets
from pathlib import Path

_PROC = Path("/proc")


@functools.cache
def _place() -> str:
    """This boot of this machine and, in it, the set of process numbers that we can see; empty without /proc."""
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}/{(_PROC / 'self/ns/pid').readlink()}"
    except OSError:
        return ""


def identity() -> str:
    """A name for something that this process holds: place, process number, its start, and chance."""
    pid = os.getpid()
    return f"{_place()} {pid} {_started(pid)} {secrets.token_hex(8)}"


def is_gone(named: str) -> bool:
    """Whether the process of an `identity` has ended for certain; False for one that we could not see."""
    place, pid, started, _ = [*named.split(" "), "", "", ""][:4]
    return bool(_place()) and place == _place() and pid.isdecimal() and _started(int(pid)) != started


def _started(pid: int) -> str:
    """When the kernel started it, in ticks since boot: a number used again has another one. Zombies are gone."""
    try:
        fields = (_PROC / str(pid) / "stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]
