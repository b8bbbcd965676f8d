"""The folder that gpg keeps keys in, for as long as one `with` block."""

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

MAX_TEMP_PATH = 60  # an agent's socket path must stay under 108 bytes; above it gpg only says "General error"


@contextmanager
def temporary_home() -> Iterator[Path]:
    """A private GNUPGHOME (mode 0700) under the system's temporary folder, removed together with its agent."""
    parent = tempfile.gettempdir()
    home = Path(tempfile.mkdtemp(prefix="courier-gpg-", dir=parent if len(parent) <= MAX_TEMP_PATH else "/tmp"))  # noqa: S108
    try:
        yield home
    finally:
        with suppress(FileNotFoundError):  # no gpgconf: then an agent ends by itself once its home is gone
            for ending in (["--kill", "all"], ["--remove-socketdir"]):
                subprocess.run(["gpgconf", "--homedir", home, *ending], capture_output=True, check=False)
        while home.exists():
            with suppress(FileNotFoundError):  # the agent, as it ends, takes its sockets away at the same time
                shutil.rmtree(home)
