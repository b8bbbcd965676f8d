"""The last gate: everything that is about to leave for a vendor is looked through for what identifies.

What is looked for is everything in the landing window that identifies. Where that is too much, it is everything about
the night's clips and their people, which is kept on the private side for the runs and processes that deliver of the
night: as long as landing's files, the night's own lists of clips and these rules are what they were.
"""

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from datetime import date, timedelta
from pathlib import Path
from threading import Lock
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from clip_courier import wanted
from clip_courier.batch_files import read_own
from clip_courier.errors import CourierError, CrosswalkMissing
from clip_courier.landing import Landing
from clip_courier.leaks import LeakScan
from clip_courier.model import NightFolder, Root, locked, write_parquet
from clip_courier.wanted import Wanted, Watch

# A batch is mostly sound, in which few places are looked up: being ready soon counts for more than speed.
_MOST_GRAMS: Final = 500_000
# Under this key what is kept says what it was made of.
_BASIS: Final = b"basis"
_OWN_COPY: Final = ["clip_id", "call_id", "audio_uri", "audio_sha256", "participants"]


class LeakGate:
    """Of one run. What is looked for is made when it is first asked for, once for the same nights."""

    def __init__(self, landing: Landing) -> None:
        self._landing = landing
        self._watches: dict[tuple[date, ...], Watch] = {}
        self._making = Lock()

    def scan(self, *folders: NightFolder) -> LeakScan:
        """Begins to look through something that leaves of these nights.

        Raises:
            CrosswalkMissing: none of the lists of a night's clips can be read.
        """
        nights = tuple(sorted({folder.night for folder in folders}))
        with self._making:
            if nights not in self._watches:
                self._watches[nights] = _watch(self._landing, folders)
            return LeakScan(self._watches[nights])

    def check(self, content: bytes, name: str, *folders: NightFolder) -> None:
        """A small file may leave.

        Raises:
            LeakFound, ScanIncomplete: as `LeakScan.check`.
        """
        scan = self.scan(*folders)
        scan.take_content(content, name)
        scan.check("")


def shown_words(folder: NightFolder) -> set[str]:
    """What hypotheses of a night may show."""
    if not folder.vocabulary.exists():
        return set()
    with pq.ParquetFile(folder.vocabulary) as file:
        return set(file.read(["word"])["word"].to_pylist())


def forget(root: Root, landing: Landing) -> None:
    """Delete what was kept about people where anything was written anew since: it may have been rid of somebody."""
    for folder in root.nights():
        try:
            about = json.loads(pq.read_metadata(folder.identifying).metadata[_BASIS])
            clips = _own_lists(folder)
            if about == _basis(landing, clips, date.fromisoformat(about["oldest"])):
                continue
        except FileNotFoundError:
            continue
        except (CourierError, OSError, pa.ArrowException, KeyError, TypeError, ValueError):
            pass  # what cannot be told is deleted, too
        folder.identifying.unlink(missing_ok=True)


def _watch(landing: Landing, folders: Sequence[NightFolder]) -> Watch:
    clips = pa.concat_tables([_own_lists(folder) for folder in folders])
    words = {word for folder in folders for word in shown_words(folder)}
    first = pc.min(clips["recorded_at"]).as_py()
    oldest = (first.date() if first else min(folder.night for folder in folders)) - timedelta(days=1)
    found = wanted.of_window(landing, words, oldest)
    if found is None and len(folders) == 1:
        found = _kept(landing, folders[0], words, clips, oldest)
    elif found is None:
        found = wanted.of_clips(landing, words, oldest, clips)
    # Also of clips that are no longer in landing, and those that were recalled.
    found.add("clips", clips.select(_OWN_COPY))
    for folder in folders:
        for path in sorted(folder.root.recalled.glob(f"*-{folder.night:%Y%m%d}-*.parquet")):
            found.add("clips", read_own(path, f"tombstone {path.name}", ["clip_id"]))
    return found.watch(_MOST_GRAMS)


def _kept(landing: Landing, folder: NightFolder, words: set[str], clips: pa.Table, oldest: date) -> Wanted:
    """What is kept of a night, if it is still true, else made and kept; by one process at a time."""
    with locked(folder.root.lock(f"identifying-{folder.night}")):
        basis = _basis(landing, clips, oldest)
        with suppress(CrosswalkMissing, OSError, pa.ArrowException, KeyError, TypeError, ValueError):
            if json.loads(pq.read_metadata(folder.identifying).metadata[_BASIS]) == basis and basis["written"]:
                return Wanted.of(read_own(folder.identifying, "what identifies"), words)
        made = wanted.of_clips(landing, words, oldest, clips)
        if basis["written"]:
            write_parquet(made.kept().replace_schema_metadata({_BASIS: json.dumps(basis)}), folder.identifying)
        return made


def _basis(landing: Landing, clips: pa.Table, oldest: date) -> dict[str, str | None]:
    """What is kept follows from this."""
    lists = json.dumps([sorted(map(str, ids.to_pylist())) for ids in (clips["clip_id"], wanted.people_of(clips))])
    return {
        "oldest": oldest.isoformat(),
        "written": landing.written(oldest),
        "clips": hashlib.sha256(lists.encode()).hexdigest(),
        "rules": hashlib.sha256(Path(wanted.__file__).read_bytes()).hexdigest(),
    }


def _own_lists(folder: NightFolder) -> pa.Table:
    """The clips of a night as we wrote them down: those of the sample and of its batches."""
    found = []
    for path in (folder.selected, *sorted(folder.private.glob("*.crosswalk.parquet"))):
        # A damaged crosswalk keeps its own batch back; the night's sample has its clips, too.
        with suppress(CrosswalkMissing):
            found.append(read_own(path, "a list of clips", [*_OWN_COPY, "recorded_at"]))
    if not found:
        raise CrosswalkMissing(f"no list of the clips of the night {folder.night} can be read")
    return pa.concat_tables(found)
