"""Private temporary folders that do not outlive us: one that a killed process left is removed by the next one.

What lies in them must not stay: our private key in gpg's home, rows that DuckDB could not keep in memory.
"""

import fcntl
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PREFIX = "courier-"
_LOCK = ".in-use"
_MAX_PARENT = 60  # gpg's agent keeps a socket below; its path must stay under 108 bytes


@contextmanager
def scratch_folder(purpose: str) -> Iterator[Path]:
    """A folder of mode 0700 under the system's temporary one, for as long as the block runs."""
    parent = Path(tempfile.gettempdir())
    if len(str(parent)) > _MAX_PARENT:
        parent = Path("/tmp")  # noqa: S108
    _sweep(parent)
    folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{purpose}-", dir=parent))
    # The kernel lets go of the lock when we end, however we end. It is taken before the file has the name that others
    # look for: between the two they would find it free.
    with (folder / f"{_LOCK}.new").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        (folder / f"{_LOCK}.new").rename(folder / _LOCK)
        try:
            yield folder
        finally:
            _remove(folder)


def _sweep(parent: Path) -> None:
    for lock_file in parent.glob(f"{_PREFIX}*/{_LOCK}"):
        # Another user's is not ours to open; one in use is locked; one that was just removed is gone.
        with suppress(OSError), lock_file.open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove(lock_file.parent)


def _remove(folder: Path) -> None:
    while folder.exists():
        with suppress(FileNotFoundError):  # gpg's agent, as it ends, takes its sockets away at the same time
            shutil.rmtree(folder)
