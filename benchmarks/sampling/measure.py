"""What a process and all that it starts cost: wall time, CPU time and memory, as Linux counts them."""

import ctypes
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36
_INTERVAL_S = 0.02
_PAGE_MIB = os.sysconf("SC_PAGE_SIZE") / 2**20


@dataclass(frozen=True)
class Cost:
    """`peak_mib`: the largest sum of resident memory of all processes, seen every 20 ms, or of one, seen by the kernel."""

    wall_s: float
    cpu_s: float
    peak_mib: float


class Failed(Exception):
    """The process ended with an error; the text is the last line it wrote."""


def measured(command: Sequence[str], environ: Mapping[str, str], cores: Sequence[int]) -> tuple[Cost, str]:
    """Run a command on `cores` alone; its cost and what it wrote to stdout.

    Raises:
        Failed: it did not end well.
    """
    # A process whose parent ends becomes ours, so that its time is counted too: Spark's Java does so.
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    since = time.monotonic()
    with subprocess.Popen(
        command,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: os.sched_setaffinity(0, cores),  # noqa: PLW1509 - there are no threads here
    ) as child:
        output, complaint = _streams(child)
        ended, peak = _watched(child.pid)
    wall = time.monotonic() - since
    return None
