"""Scoring by several processes beside each other: Python holds one core, and what is scored are millions of texts.

Texts go to a process, and scores come back, as Arrow streams through pipes. A process is given nothing else: no secret
is in its environment, nothing that was said touches the disk, and it ends when whoever started it ends, however.
"""

import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from queue import SimpleQueue
from typing import Final

import pyarrow as pa

from clip_courier import scoring
from clip_courier.errors import MachineFailed

# To start a process takes as long as to score half as many rows.
WORTH_IT: Final = 100_000
_ASKED: Final = pa.schema([(name, pa.string()) for name in ("text", "locale", "hypothesis", "chosen_hypothesis")])
_PROGRAM: Final = "from clip_courier.scorers import serve; serve()"


class Scorers:
    """Scores parts of tables, by processes or, without any, in this one."""

    def __init__(self, processes: list["_Process"], threads: ThreadPoolExecutor) -> None:
        self._is_alone, self._threads = not processes, threads
        self._idle: SimpleQueue[_Process] = SimpleQueue()
        for process in processes:
            self._idle.put(process)

    def score(self, parts: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """`scoring.score` of each part, in their order. Processes begin at once, whenever the scores are asked for.

        Raises:
            MachineFailed: a process ended before it answered.
        """
        if self._is_alone:
            return map(scoring.score, parts)
        return self._threads.map(self._by_another, parts)

    def _by_another(self, part: pa.RecordBatch) -> pa.RecordBatch:
        process = self._idle.get()
        try:
            return process.score(part)
        finally:
            self._idle.put(process)


@contextmanager
def scorers(rows: int, most: int | None = None) -> Iterator[Scorers]:
    """For about so many rows: a process a core (or `most`) where that is worth it. They end with the block."""
    processes = (most or len(os.sched_getaffinity(0))) if rows >= WORTH_IT else 0
    with ExitStack() as started:
        # Left last: it waits for threads that wait for processes.
        threads = started.enter_context(ThreadPoolExecutor(max(1, processes)))
        yield Scorers([started.enter_context(_started()) for _ in range(processes)], threads)


class _Process:
    """One that runs `serve`."""

    def __init__(self, running: "subprocess.Popen[bytes]") -> None:
        self._running = running
        self._asked: pa.ipc.RecordBatchStreamWriter | None = None
        self._told: pa.ipc.RecordBatchStreamReader | None = None

    def score(self, part: pa.RecordBatch) -> pa.RecordBatch:
        try:
            if self._asked is None:
                self._asked = pa.ipc.new_stream(self._running.stdin, _ASKED)
            self._asked.write_batch(part.select(_ASKED.names).cast(_ASKED))
            self._running.stdin.flush()  # type: ignore[union-attr]
            if self._told is None:
                self._told = pa.ipc.open_stream(self._running.stdout)
            return self._told.read_next_batch()
        except (OSError, ValueError, pa.ArrowException, StopIteration):
            raise MachineFailed("a process that scores ended before it answered, perhaps for want of memory") from None


@contextmanager
def _started() -> Iterator[_Process]:
    environ = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "ARROW_DEFAULT_MEMORY_POOL": "system"}
    running = subprocess.Popen(
        [sys.executable, "-c", _PROGRAM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environ,
    )
    try:
        yield _Process(running)
    finally:
        running.kill()
        # What it was not told, or did not tell, is of no use any more.
        with suppress(OSError), running:
            pass


def serve() -> None:
    """The process itself: parts on standard input, their scores on standard output, until there are no more."""
    pa.set_cpu_count(1)
    answer = sys.stdout.buffer
    with pa.ipc.open_stream(sys.stdin.buffer) as asked, pa.ipc.new_stream(answer, scoring.SCORE) as told:
        for part in asked:
            told.write_batch(scoring.score(part))
            answer.flush()
