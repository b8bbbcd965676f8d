"""Returned files are parsed in a process of its own: no parser is trusted with what a stranger wrote.

A file that makes it run out of memory or time, or crash, is refused with the reason, and the run goes on. The process
is given the bytes and nothing else: no secret is in its environment, and what was said stays in memory (memfd).
"""

import json
import os
import resource
import signal
import subprocess
import sys
from contextlib import ExitStack
from datetime import datetime
from typing import BinaryIO, Final

import pyarrow as pa

from clip_courier.errors import ReturnUnreadable
from clip_courier.returned_files import MAX_ROWS, MAX_TABLE_BYTES, blocks
from clip_courier.returned_rows import RETURNED

# The largest file that is read needs a third of this; address space, of which the libraries alone take 0.4 GB.
MAX_MEMORY_BYTES: Final = 3 * 1024**3
# A million rows take ten seconds.
MAX_CPU_S: Final = 120
_MAX_WAIT_S: Final = 600
_REASONS: Final = frozenset({"bad_format", "too_many_rows", "too_large"})
_REFUSED: Final = 3
# How a process ends that asks for more: killed for its time, or by a library that got no memory.
_AT_THE_BOUNDS: Final = (signal.SIGXCPU, signal.SIGXFSZ, signal.SIGKILL, signal.SIGABRT)
# Padding, and the ends of the streams; the process cannot write more than this.
_MAX_ANSWER_BYTES: Final = MAX_TABLE_BYTES + MAX_TABLE_BYTES // 4


def read_confined(content: bytes, file_format: str, at: datetime) -> pa.Table:
    """`returned_files.read_returned`, bounded in memory and time, with its errors.

    Raises:
        ReturnUnreadable: also `too_large` when the process reached its bounds, `bad_format` when it crashed.
    """
    with ExitStack() as files:
        asked, answer = (files.enter_context(os.fdopen(os.memfd_create(n), "w+b")) for n in ("returned", "rows"))
        asked.write(content)
        asked.seek(0)
        bounds = f"{MAX_MEMORY_BYTES}, {MAX_CPU_S}"
        program = f"from clip_courier.confined import main; main({file_format!r}, {at.isoformat()!r}, {bounds})"
        command = [sys.executable, "-c", program]
        try:
            # Where our modules and libraries are, wherever this installation keeps them, and nothing else.
            environ = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "ARROW_DEFAULT_MEMORY_POOL": "system"}
            done = subprocess.run(
                command,
                stdin=asked,
                stdout=answer,
                stderr=subprocess.DEVNULL,
                env=environ,
                timeout=_MAX_WAIT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise _unbounded() from None
        if done.returncode == 0:
            return _rows(answer)
        if done.returncode == _REFUSED:
            raise _refusal(answer)
        if -done.returncode in _AT_THE_BOUNDS:
            raise _unbounded()
        raise ReturnUnreadable("bad_format", f"the file is not readable as {file_format}")


def _unbounded() -> ReturnUnreadable:
    return ReturnUnreadable("too_large", "the file takes more memory or time to read than any return does")


def _refusal(answer: BinaryIO) -> ReturnUnreadable:
    """What the process said, in words of ours: whoever took it over may say anything."""
    answer.seek(0)
    try:
        said = json.loads(answer.read(1000))
    except ValueError:
        said = None
    reason = said if isinstance(said, str) and said in _REASONS else "bad_format"
    return ReturnUnreadable(reason, f"the file cannot be read: {reason}")


def _rows(answer: BinaryIO) -> pa.Table:
    answer.seek(0)
    try:
        table = pa.ipc.open_stream(answer).read_all()
        table.validate(full=True)
    except (pa.ArrowException, OSError):
        raise _unbounded() from None
    if not table.schema.equals(RETURNED) or table.num_rows > MAX_ROWS:
        raise ReturnUnreadable("bad_format", "the file cannot be read")
    return table


def main(file_format: str, at: str, memory_bytes: int, cpu_s: int) -> None:
    """The process itself: a file on standard input, its rows as an Arrow stream on standard output."""
    for limit, most in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_CPU, cpu_s),
        (resource.RLIMIT_FSIZE, _MAX_ANSWER_BYTES),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(limit, (most, most))
    pa.set_cpu_count(1)
    answer = sys.stdout.buffer
    try:
        with pa.ipc.new_stream(answer, RETURNED) as stream:
            for block in blocks(sys.stdin.buffer.read(), file_format, datetime.fromisoformat(at)):
                stream.write_table(block)
    except (ReturnUnreadable, MemoryError) as refused:
        reason = refused.reason if isinstance(refused, ReturnUnreadable) else "too_large"
        answer.flush()
        os.ftruncate(answer.fileno(), 0)
        os.pwrite(answer.fileno(), json.dumps(reason).encode(), 0)
        sys.exit(_REFUSED)
    sys.stdout.flush()
