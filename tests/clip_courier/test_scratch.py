"""Scratch folders: private, gone afterwards, also when the process is killed."""

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from clip_courier.gpg_home import temporary_home
from clip_courier.scratch import scratch_folder

INCLUDE = Path(__file__).resolve().parents[2] / "include"
HOLD = """
import sys, time
from clip_courier.scratch import scratch_folder
with scratch_folder("test") as folder:
    (folder / "secret").write_text("private")
    print(folder, flush=True)
    time.sleep(60)
"""


def start_holder() -> tuple[subprocess.Popen[str], Path]:
    environ = {**os.environ, "PYTHONPATH": str(INCLUDE)}
    holder = subprocess.Popen([sys.executable, "-c", HOLD], env=environ, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    return holder, Path(holder.stdout.readline().strip())


def test_scratch_folder_is_private_and_gone_afterwards() -> None:
    with scratch_folder("test") as folder:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        (folder / "inside").mkdir()
    assert not folder.exists()


def test_scratch_folder_is_gone_after_an_error() -> None:
    with pytest.raises(ValueError, match="so"), scratch_folder("test") as folder:
        raise ValueError("so")
    assert not folder.exists()


def test_scratch_folder_of_a_killed_process_is_removed_by_the_next_one_and_one_in_use_is_not() -> None:
    (killed, left), (working, held) = start_holder(), start_holder()
    try:
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        assert (left / "secret").exists()
        with scratch_folder("test"):
            assert not left.exists()
            assert (held / "secret").exists()
    finally:
        working.kill()
        working.wait()


def test_temporary_home_of_a_killed_gpg_user_is_removed() -> None:
    with temporary_home() as home:
        subprocess.run(["gpg", "--homedir", str(home), "--list-keys"], capture_output=True, check=True)
    assert not home.exists()


def test_scratch_folders_of_many_processes_do_not_remove_each_other() -> None:
    code = """
from clip_courier.scratch import scratch_folder
for n in range(150):
    with scratch_folder("test") as folder:
        (folder / "mine").write_text(str(n))
        assert (folder / "mine").read_text() == str(n)
"""
    environ = {**os.environ, "PYTHONPATH": str(INCLUDE)}
    workers = [subprocess.Popen([sys.executable, "-c", code], env=environ) for _ in range(4)]
    assert [worker.wait() for worker in workers] == [0, 0, 0, 0]
