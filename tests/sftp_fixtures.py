"""A real SFTP server for the tests: OpenSSH's sshd with two vendors, `north` and `south`, for the whole session.

    pytest_plugins = ["sftp_fixtures"]

A machine without sshd fails these tests and says so; it does not skip them.
"""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from clip_courier_demo.sftp_server import NotStarted, RunningServer, new_account, serve


@pytest.fixture(scope="session")
def sshd() -> Iterator[RunningServer]:
    """OpenSSH on a free port of 127.0.0.1; `sshd.endpoint("north")` is what sftp.connect takes."""
    # not pytest's own folder: its paths grow long and may hold blanks, which sshd cannot serve
    folder = Path(tempfile.mkdtemp(prefix="cc-sshd-"))
    accounts = [new_account(name, folder / name) for name in ("north", "south")]
    try:
        with serve(folder / "server", accounts, prefer="openssh") as server:
            yield server
    except NotStarted as fault:
        pytest.fail(f"the tests need a real sshd (Debian: apt-get install openssh-server): {fault}", pytrace=False)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
