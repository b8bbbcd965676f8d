"""The landing zone, contracts §1: read-only to us, checked file by file before anything is believed.

Any place that Arrow's filesystems reach will do: a folder, or a URL such as `s3://bucket/landing`.
"""

import errno
import hashlib
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from clip_courier.errors import (
    AudioStoreDown,
    AudioUnusable,
    LandingMissing,
    LandingSchemaBroken,
    LandingUnreadable,
    QueryFailed,
)
from clip_courier.model import CLIPS, CONSENT_EVENTS, PERSONS
from clip_courier.scratch import scratch_folder
from clip_courier.tables import Tables

if TYPE_CHECKING:
    import pyarrow.dataset as ds

# A clip is half a minute of speech; what is larger than this is something else.
MAX_AUDIO_BYTES = 256 * 1024 * 1024
# A file of clips may lack these columns: the contract lets them be null, and nothing is decided by them. A person's
# columns may be null as well, but where `is_restricted` is missing altogether nobody would be restricted.
_MAY_LACK = frozenset({"call_id", "audio_sha256", "words"})
# Where a row may say that its recording lies outside of landing. Arrow knows more schemes, and some of them lead to any
# file of this machine (`local://`, `fsspec+file://`).
_REMOTE = frozenset({"s3", "gs", "gcs", "abfs", "abfss", "hdfs"})
# What says something about one file alone (`ELOOP`, a name that is too long or holds a NUL), and of object stores, too.
_ABOUT_THE_FILE = frozenset({errno.ENOENT, errno.EACCES, errno.ELOOP, errno.ENAMETOOLONG, errno.EINVAL, errno.ENXIO})
_ABOUT_THE_OBJECT = frozenset({"ACCESS_DENIED", "NO_SUCH_BUCKET", "NO_SUCH_KEY", "RESOURCE_NOT_FOUND"})
_AWS_ERROR = re.compile(r"AWS Error ([A-Z_]{1,40})")
# Enough for what Parquet tells of a file at its end.
_END_BYTES = 16 * 1024
# DuckDB's own columns: the place of a row's file in the list of files, and of the row in its file.
_PLACES = {"file_index": "file_no", "file_row_number": "row_no"}
_CONTRACTS = {"clips": CLIPS, "consent_events": CONSENT_EVENTS, "persons": PERSONS}
_PARTITION = re.compile(r"(?:^|/)recorded_date=(\d{4}-\d{2}-\d{2})/")


# What DuckDB calls the columns that number rows; a file of landing may have such columns of its own.
_NUMBERS = ("filename", "file_row_number")


@dataclass(frozen=True)
class LandingFile:
    """`place`: below its relation's folder. Size in bytes; `changed_ns` is None where the store does not say."""

    path: str
    place: str
    partition: date | None
    size: int
    changed_ns: int | None

    @property
    def written(self) -> str:
        """Another one means that the file was written anew."""
        return f"{self.size} {self.changed_ns}"


@dataclass(frozen=True)
class Reading:
    """Files with how many rows each has; `is_together`: DuckDB reads and numbers them, so they may be many."""

    files: tuple[tuple[LandingFile, int], ...]
    is_together: bool


@dataclass(frozen=True)
class Landed:
    """What is attached. `outside`: how many clips the older partitions hold. The rest: file → what it is like.

    No clips where files cannot be told apart: behind a URL, or where a column has the name by which DuckDB tells them.
    `empty`: a folder of empty files as the contract says.
    """

    outside: int
    clips: Mapping[str, str]
    consent_events: Mapping[str, str]
    persons: Mapping[str, str]
    empty: Path

    @property
    def people(self) -> dict[str, str]:
        return {**self.consent_events, **self.persons}

    def attach_clips(self, tables: Tables, name: str, paths: Sequence[str]) -> None:
        """Some of the files of clips under `name`; `file_no` is the place in `paths`, `row_no` that in the file."""
        columns = [*CLIPS.names, *(f"{theirs} AS {ours}" for theirs, ours in _PLACES.items())]
        tables.view(name, [*paths, self.empty / "clips.parquet"], columns)

    def attach_people(self, tables: Tables, without: Set[str]) -> None:
        """As `new_events` and `new_persons` those files that are not among `without`."""
        for name, relation, files in (
            ("new_events", "consent_events", self.consent_events),
            ("new_persons", "persons", self.persons),
        ):
            tables.view(name, [self.empty / f"{relation}.parquet", *(path for path in files if path not in without)])


class Landing:
    """`location` is a folder or a URL. The relations it gives to a session are `clips`, `consent_events`, `persons`."""

    def __init__(self, location: str) -> None:
        if "://" in location:
            try:
                self._files, base = pafs.FileSystem.from_uri(location)
            except (pa.ArrowException, OSError, ImportError):
                # The address may hold a password, and the cause repeats it.
                raise LandingMissing(f"landing {location.split('://')[0]}://… cannot be opened") from None
            self._base = base.rstrip("/")
        else:
            self._files, self._base = pafs.LocalFileSystem(), str(Path(location).absolute())
        self._is_local = isinstance(self._files, pafs.LocalFileSystem)
        self._real_folder: Path | None = None

    @contextmanager
    def attached(self, tables: Tables, oldest: date) -> Iterator[Landed]:
        """The three relations for the block; partitions before `oldest` are only counted.

        Raises:
            LandingMissing: there is no partition in the window, or no consent events or persons at all.
            LandingUnreadable: a file is not Parquet, or turns out to be damaged in the block.
            LandingSchemaBroken: a column is missing or has another type than the contract's.
        """
        inside, people = self.clip_files(oldest), self._people()
        outside = (f.path for f in self._list("clips") if f.partition is not None and f.partition < oldest)
        # What a file is like is told before it is read: one that is replaced meanwhile is a new one on the next night.
        alike = {name: self._likeness(files) for name, files in {"clips": inside, **people}.items()}
        with self._attached(tables, {"clips": inside, **people}) as (empty, names):
            if names & set(_PLACES):
                alike["clips"] = {}
            yield Landed(sum(self._footer(path).num_rows for path in outside), **alike, empty=empty)

    def clip_files(self, oldest: date) -> list[LandingFile]:
        """The files of the partitions of `oldest` and later, and of those whose name is no date.

        Raises:
            LandingMissing: there is none.
        """
        clips = self._list("clips")
        inside = [f for f in clips if f.partition is None or f.partition >= oldest]
        if not inside:
            newest = max((f.partition for f in clips if f.partition), default=None)
            raise LandingMissing(f"no partition clips/recorded_date=… since {oldest}; the newest is {newest or 'none'}")
        return inside

    def readings(self, files: Sequence[LandingFile]) -> list[Reading]:
        """Files of clips in parts that can be attached at once: together where DuckDB reads them, else one by one.

        Raises:
            LandingUnreadable, LandingSchemaBroken: as `attached` does; each footer is read here, and once.
        """
        footers = {file: self._footer(file.path) for file in files}
        schemas = {file: self._checked(file.path, footer, CLIPS) for file, footer in footers.items()}
        # A file may have columns of its own by the names that DuckDB gives to its numbers.
        odd = [f for f in files if not self._is_local or {name.lower() for name in schemas[f].names} & set(_NUMBERS)]
        parts = [[f for f in files if f not in odd], *([f] for f in odd)]
        return [Reading(tuple((f, footers[f].num_rows) for f in part), part[0] not in odd) for part in parts if part]

    @contextmanager
    def attached_clips(self, tables: Tables, reading: Reading) -> Iterator[None]:
        """`clips`, of these files alone, and numbered: `filename` is the file's path, `file_row_number` from 0 on.

        Raises:
            LandingUnreadable: a file turns out to be damaged in the block.
        """
        paths = [file.path for file, _ in reading.files]
        with self._undamaged(paths), scratch_folder("landing") as folder:
            if reading.is_together:
                self._attach(tables, "clips", paths, folder, is_numbered=True)
            else:
                tables.register("clips", self._numbered(paths[0]))
            yield

    @contextmanager
    def attached_people(self, tables: Tables) -> Iterator[None]:
        """`consent_events` and `persons` alone; raises as `attached` does."""
        with self._attached(tables, self._people()):
            yield

    def rows(
        self, relation: str, oldest: date | None, columns: Callable[[pa.Schema], Sequence[str]]
    ) -> Iterator[pa.RecordBatch]:
        """Every row, file by file, whatever types it has, with those columns that `columns` picks of a file's.

        Partitions before `oldest` are not read, nor are files of which nothing is picked. Raises LandingUnreadable.
        """
        for file in self._since(relation, oldest):
            try:
                with self._files.open_input_file(file.path) as stream:
                    parquet = pq.ParquetFile(stream)
                    if picked := columns(parquet.schema_arrow):
                        yield from parquet.iter_batches(columns=picked)
            except (pa.ArrowException, OSError) as error:
                raise LandingUnreadable(f"{self._relative(file.path)} is not a whole Parquet file") from error

    def row_count(self, relation: str, oldest: date) -> int:
        """How many rows `rows` gives. Raises LandingUnreadable."""
        return sum(self._footer(file.path).num_rows for file in self._since(relation, oldest))

    def written(self, oldest: date) -> str | None:
        """Another one means that a file was written anew, came or went; None where the store does not tell."""
        alike = [self._likeness(self._since(relation, oldest)) for relation in _CONTRACTS]
        return hashlib.sha256(repr(alike).encode("utf-8", "surrogateescape")).hexdigest() if self._is_local else None

    def _since(self, relation: str, oldest: date | None) -> list[LandingFile]:
        files = self._list(relation)
        return [f for f in files if oldest is None or f.partition is None or f.partition >= oldest]

    def _likeness(self, files: Sequence[LandingFile]) -> dict[str, str]:
        """File → its size, its time and its end, where Parquet keeps what it tells of all the rest."""
        return {f.path: f"{f.written} {self._end(f.path)}" for f in files} if self._is_local else {}

    def _end(self, path: str) -> str:
        try:
            with Path(path).open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - _END_BYTES))
                return hashlib.sha256(file.read()).hexdigest()
        except OSError as error:
            raise LandingUnreadable(f"{self._relative(path)} is not a Parquet file") from error

    def audio(self, uri: str) -> bytes:
        """The bytes of a recording.

        Raises:
            AudioUnusable: `audio_outside`, `audio_missing` or `audio_too_large`.
            AudioStoreDown: it cannot be told, because the store does not answer or is not there.
        """
        files, path = self._locate(uri)
        try:
            info = files.get_file_info(path)
            if info.type != pafs.FileType.File or info.size is None:
                self._check_store(files, path)
                raise AudioUnusable("audio_missing", "a recording is not where its row says")
            if info.size > MAX_AUDIO_BYTES:
                raise AudioUnusable("audio_too_large", "a recording is larger than any clip can be")
            with files.open_input_file(path) as stream:
                return bytes(stream.read())
        except (OSError, pa.ArrowException) as fault:
            # The cause names the file, and the name may identify someone.
            if _is_outage(fault, is_ours=path.startswith(f"{self._base}/")):
                raise AudioStoreDown(f"the store of the recordings does not answer ({_kind(fault)})") from None
            self._check_store(files, path)
            raise AudioUnusable("audio_missing", "a recording is not where its row says") from None

    def _check_store(self, files: pafs.FileSystem, path: str) -> None:
        """A folder that is gone or empty, as when its mount is lost, says nothing about a recording in it.

        An object store has no folders: what it does not have, it says it does not have.
        """
        folder = f"{self._base}/audio"
        if not isinstance(files, pafs.LocalFileSystem) or not path.startswith(f"{folder}/"):
            return
        try:
            if next(Path(folder).iterdir(), None) is not None:
                return
        except OSError:
            pass
        raise AudioStoreDown("audio/ in landing is empty or cannot be read")

    def _locate(self, uri: str) -> tuple[pafs.FileSystem, str]:
        outside = AudioUnusable("audio_outside", "a recording's address leads out of landing/audio")
        scheme, mark, rest = uri.partition("://")
        if mark and scheme.lower() in _REMOTE:
            # A row may not bring a login or name the server that we ask.
            if "?" in uri or "@" in rest.split("/")[0]:
                raise outside
            return _remote(uri)
        if (mark and scheme.lower() != "file") or (uri.startswith("/") and not mark):
            raise outside
        audio = f"{self._base}/audio"
        path = unquote(rest) if mark else f"{audio}/{uri}"
        is_odd = "\\" in path or any(unicodedata.category(c) in ("Cc", "Cs") for c in path)
        if not uri or is_odd or ".." in PurePosixPath(path).parts or not self._is_inside(audio, path):
            raise outside
        return self._files, path

    def _is_inside(self, folder: str, path: str) -> bool:
        """Also when a link stands in the way."""
        if not self._is_local:
            return path.startswith(folder + "/")
        try:
            real = Path(path).resolve()
            # What the folder was a moment ago is looked up anew only when it would keep a recording out.
            if self._real_folder is None or not real.is_relative_to(self._real_folder):
                self._real_folder = Path(folder).resolve()
            return real.is_relative_to(self._real_folder)
        except (OSError, RuntimeError):
            # Links that lead in a circle lead nowhere.
            return False

    def _list(self, relation: str) -> list[LandingFile]:
        """The Parquet files of a relation; what a writer hides (`_temporary/`, `.part`) is not finished."""
        folder = f"{self._base}/{relation}"
        try:
            infos = self._files.get_file_info(pafs.FileSelector(folder, allow_not_found=True, recursive=True))
        except (pa.ArrowException, OSError):
            raise LandingMissing(f"{relation}/ in landing cannot be listed") from None
        found = []
        for info in infos:
            inner = info.path.removeprefix(folder).lstrip("/")
            is_hidden = any(part[0] in "._" for part in inner.split("/"))
            if info.type == pafs.FileType.File and inner.endswith(".parquet") and not is_hidden:
                found.append(LandingFile(info.path, inner, _partition_of(inner), info.size, info.mtime_ns))
        return sorted(found, key=lambda f: f.path)

    def _people(self) -> dict[str, Sequence[LandingFile]]:
        found = {relation: self._list(relation) for relation in ("consent_events", "persons")}
        for relation, files in found.items():
            if not files:
                raise LandingMissing(f"no {relation}/*.parquet in landing")
        return dict(found)

    @contextmanager
    def _attached(self, tables: Tables, found: Mapping[str, Sequence[LandingFile]]) -> Iterator[tuple[Path, set[str]]]:
        """Gives a folder of empty files, and the names of all columns in small letters."""
        files = {name: [f.path for f in listed] for name, listed in found.items()}
        names: set[str] = set()
        for name, paths in files.items():
            for path in paths:
                schema = self._checked(path, self._footer(path), _CONTRACTS[name])
                names |= {column.lower() for column in schema.names}
        with self._undamaged([path for paths in files.values() for path in paths]), scratch_folder("landing") as folder:
            for name, paths in files.items():
                self._attach(tables, name, paths, folder)
            yield folder, names

    @contextmanager
    def _undamaged(self, paths: Sequence[str]) -> Iterator[None]:
        """A statement that fails over damaged files is told as what it is."""
        try:
            yield
        except QueryFailed:
            damaged = next((path for path in paths if not self._is_whole(path)), None)
            if damaged is None:
                raise
            raise LandingUnreadable(f"{self._relative(damaged)} is damaged") from None

    def _attach(
        self, tables: Tables, name: str, paths: Sequence[str], folder: Path, *, is_numbered: bool = False
    ) -> None:
        contract = _CONTRACTS[name]
        if not self._is_local:
            # Only a landing zone behind a URL needs it.
            import pyarrow.dataset as ds

            rows = ds.dataset(list(paths), filesystem=self._files, schema=contract, format="parquet")
            tables.register(name, _fetched(rows, name) if isinstance(self._files, pafs.PyFileSystem) else rows)
            return
        # An empty file with the contract's schema gives a nullable column that a file lacks its name and type.
        pq.write_table(contract.empty_table(), folder / f"{name}.parquet")
        tables.view(name, [folder / f"{name}.parquet", *paths], is_numbered=is_numbered)

    def _numbered(self, path: str) -> pa.Table:
        """The contract's columns of one file, as it has them, and its rows' numbers; in memory."""
        try:
            with self._files.open_input_file(path) as stream:
                file = pq.ParquetFile(stream)
                names = [name for name in CLIPS.names if name in file.schema_arrow.names]
                rows = file.read(columns=names).select(names)
        except (pa.ArrowException, OSError) as error:
            raise QueryFailed(f"relation clips: {type(error).__name__}") from None
        for lacking in (f for f in CLIPS if f.name not in names):
            rows = rows.append_column(lacking, pa.nulls(rows.num_rows, lacking.type))
        numbers = (pa.repeat(path, rows.num_rows), pa.array(np.arange(rows.num_rows)))
        for name, values in zip(_NUMBERS, numbers, strict=True):
            rows = rows.append_column(name, values)
        return rows

    def _footer(self, path: str) -> pq.FileMetaData:
        try:
            with self._files.open_input_file(path) as stream:
                return pq.ParquetFile(stream).metadata
        except (pa.ArrowException, OSError) as error:
            raise LandingUnreadable(f"{self._relative(path)} is not a Parquet file") from error

    def _checked(self, path: str, footer: pq.FileMetaData, contract: pa.Schema) -> pa.Schema:
        """The columns of a file that can be read as the contract says."""
        try:
            schema = footer.schema.to_arrow_schema()
        except pa.ArrowException as error:
            raise LandingUnreadable(f"{self._relative(path)} has columns of a kind that cannot be read") from error
        for problem in schema_problems(schema, contract):
            raise LandingSchemaBroken(f"{self._relative(path)}: {problem}")
        return schema

    def _is_whole(self, path: str) -> bool:
        """Read to the end; asked only when something has failed."""
        try:
            with self._files.open_input_file(path) as stream:
                for _ in pq.ParquetFile(stream).iter_batches():
                    pass
        except (pa.ArrowException, OSError):
            return False
        return True

    def _relative(self, path: str) -> str:
        return path.removeprefix(self._base).lstrip("/")


def _fetched(rows: "ds.Dataset", name: str) -> pa.Table:
    """All rows in memory, where it is Python that reads the files (`fsspec+…://`).

    DuckDB scans a dataset with the interpreter's lock in its hand. Python's reads need that lock while they hold one of
    Arrow's, so the two came to wait for each other for ever.
    """
    try:
        return rows.to_table()
    except (pa.ArrowException, OSError) as error:
        raise QueryFailed(f"relation {name}: {type(error).__name__}") from None


def _is_outage(fault: BaseException, *, is_ours: bool) -> bool:
    """Whether a failure is the store's and not the recording's: errors of a disk, a mount or a line.

    Arrow's object stores have no numbers; there the store's own word decides, and none means that nobody answered. In
    our own store a refused login is our trouble; a row may name a bucket that never was ours to read.
    """
    if not isinstance(fault, OSError) or isinstance(fault, FileNotFoundError | IsADirectoryError | NotADirectoryError):
        return False
    if fault.errno is not None:
        return fault.errno not in _ABOUT_THE_FILE
    said = _AWS_ERROR.search(str(fault))
    return said is None or said[1] not in (_ABOUT_THE_OBJECT - {"ACCESS_DENIED"} if is_ours else _ABOUT_THE_OBJECT)


def _kind(fault: BaseException) -> str:
    """What may be shown of it."""
    said = _AWS_ERROR.search(str(fault))
    return said[1] if said else getattr(fault, "strerror", None) or type(fault).__name__


def _partition_of(inner: str) -> date | None:
    """None, so always read, when the folder's name is no date: a row is judged by its own time anyway."""
    match = _PARTITION.search(inner)
    try:
        return date.fromisoformat(match.group(1)) if match else None
    except ValueError:
        return None


def _remote(uri: str) -> tuple[pafs.FileSystem, str]:
    try:
        files, path = pafs.FileSystem.from_uri(uri)
    except (pa.ArrowException, OSError, ImportError):
        raise AudioUnusable("audio_missing", "a recording's address cannot be opened") from None
    return files, path


def schema_problems(found: pa.Schema, contract: pa.Schema) -> Iterator[str]:
    """What keeps a file from being read as the contract says, in names and types. Other columns may stand beside."""
    spelt = Counter(name.lower() for name in found.names)
    for wanted in contract:
        if spelt[wanted.name] > (wanted.name in found.names):
            # SQL does not tell them apart, so another column could be read in its place.
            yield f"column {wanted.name} stands twice, or in other letters"
        elif wanted.name not in found.names:
            if contract is not CLIPS or wanted.name not in _MAY_LACK:
                yield f"column {wanted.name} is missing"
        elif not _fits(found.field(wanted.name).type, wanted.type):
            yield f"column {wanted.name} is {found.field(wanted.name).type}, must be {wanted.type}"


def _fits(found: pa.DataType, wanted: pa.DataType) -> bool:
    """Whether values of one type can stand for the other without loss of meaning; widths of numbers may differ."""
    if pa.types.is_dictionary(found):
        found = found.value_type
    if pa.types.is_null(found):
        return True
    if pa.types.is_string(wanted):
        return bool(pa.types.is_string(found) or pa.types.is_large_string(found))
    if pa.types.is_integer(wanted):
        # What is too large for any of our numbers would become one that Parquet cannot hold.
        return bool(pa.types.is_integer(found)) and found != pa.uint64()
    if pa.types.is_floating(wanted):
        return bool(pa.types.is_floating(found))
    if pa.types.is_timestamp(wanted):
        return bool(pa.types.is_timestamp(found)) and found.tz in ("UTC", "+00:00", "Etc/UTC", "Z")
    if pa.types.is_list(wanted):
        return bool(pa.types.is_list(found) or pa.types.is_large_list(found)) and _fits(
            found.value_type, wanted.value_type
        )
    if pa.types.is_struct(wanted):
        names = {found.field(i).name for i in range(found.num_fields)} if pa.types.is_struct(found) else set()
        return all(
            wanted.field(i).name in names and _fits(found.field(wanted.field(i).name).type, wanted.field(i).type)
            for i in range(wanted.num_fields)
        )
    return bool(found == wanted)
