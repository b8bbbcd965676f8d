"""The folder that gpg keeps keys in, for as long as one `with` block."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from clip_courier.scratch import scratch_folder


@contextmanager
def temporary_home() -> Iterator[Path]:
    """A private GNUPGHOME, removed together with its agent."""
    with scratch_folder("gpg") as home:
        try:
            yield home
        finally:
            with suppress(FileNotFoundError):  # no gpgconf: then an agent ends by itself once its home is gone
                for ending in (["--kill", "all"], ["--remove-socketdir"]):
                    subprocess.run(["gpgconf", "--homedir", home, *ending], capture_output=True, check=False)
