"""Scores from other processes: the same as from this one, and a named error when one of them is gone."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pytest

from clip_courier import scoring
from clip_courier.errors import MachineFailed
from clip_courier.scorers import WORTH_IT, scorers


def parts(count: int, rows: int = 40) -> list[pa.RecordBatch]:
    said = [[f"the {word} sat on number {part}" for word in ("cat", "dog", "émeu", "")] * rows for part in range(count)]
    return [
        pa.RecordBatch.from_pydict(
            {
                "clip_key": ["k"] * len(texts),
                "text": texts,
                "hypothesis": [text.replace("cat", "hat") for text in texts],
                "chosen_hypothesis": pa.array([None, *texts[1:]], pa.string()),
                "locale": ["en-GB", "fr-FR"] * (len(texts) // 2),
            }
        )
        for texts in said
    ]


def children() -> set[int]:
    tasks = Path("/proc/self/task").glob("*/children")
    return {int(pid) for task in tasks for pid in task.read_text(encoding="ascii").split()}


def test_score_by_processes_says_what_this_one_says() -> None:
    some, before = parts(7), children()
    with scorers(WORTH_IT, 2) as counting:
        assert len(children() - before) == 2
        found = list(counting.score(some))
    assert children() == before
    assert [part.to_pylist() for part in found] == [scoring.score(part).to_pylist() for part in some]


def test_score_of_few_rows_starts_no_process() -> None:
    (some,), before = parts(1), children()
    with scorers(WORTH_IT - 1) as counting:
        assert list(counting.score([some])) == [scoring.score(some)]
        assert children() == before


def test_score_tells_that_a_process_is_gone() -> None:
    before = children()
    with scorers(WORTH_IT, 1) as counting:
        assert list(counting.score(parts(1)))
        (pid,) = children() - before
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(MachineFailed):
            list(counting.score(parts(3)))


def test_a_process_ends_with_whoever_started_it() -> None:
    program = (
        "import os, signal; from clip_courier import scorers; s = scorers.scorers(10**6, 1); s.__enter__();"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    marked = {**os.environ, "PYTHONPATH": os.pathsep.join(["/marked-by-a-test", *filter(None, sys.path)])}
    subprocess.run([sys.executable, "-c", program], env=marked, check=False)
    deadline = time.monotonic() + 20
    while _marked() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _marked()


def _marked() -> list[Path]:
    """Processes that were told the mark, but for those that ended while they were looked at."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if b"/marked-by-a-test" in (process / "environ").read_bytes():
                found.append(process)
        except OSError:
            continue
    return found


def test_a_process_is_given_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_CLIP_COURIER_PGP", "canary-of-a-secret")
    before = children()
    with scorers(WORTH_IT, 1):
        (pid,) = children() - before
        assert b"canary-of-a-secret" not in Path(f"/proc/{pid}/environ").read_bytes()
