"""The landing zone, contracts §1: read-only to us, checked file by file before anything is believed.

Any place that Arrow's filesystems reach will do: a folder, or a URL such as `s3://bucket/landing`.
"""

import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import date
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from clip_courier.errors import AudioUnusable, LandingMissing, LandingSchemaBroken, LandingUnreadable
from clip_courier.model import CLIPS, CONSENT_EVENTS, PERSONS
from clip_courier.tables import Tables

# A clip is half a minute of speech; what is larger than this is something else.
MAX_AUDIO_BYTES = 256 * 1024 * 1024
_PARTITION = re.compile(r"recorded_date=(\d{4}-\d{2}-\d{2})")


@dataclass(frozen=True)
class _File:
    path: str
    partition: date | None


class Landing:
    """`location` is a folder or a URL. The relations it gives to a session are `clips`, `consent_events`, `persons`."""

    def __init__(self, location: str) -> None:
        self._is_local = "://" not in location
        if self._is_local:
            self._files, self._base = pafs.LocalFileSystem(), str(Path(location).absolute())
        else:
            try:
                self._files, self._base = pafs.FileSystem.from_uri(location)
            except (pa.ArrowInvalid, OSError) as error:
                raise LandingMissing(f"landing {location.split('://')[0]}://… cannot be opened") from error
            self._is_local = isinstance(self._files, pafs.LocalFileSystem)

    def attach(self, tables: Tables, oldest: date, cleanup: ExitStack) -> int:
        """Register the three relations; partitions before `oldest` are counted, not read. Returns that count of clips.

        Raises:
            LandingMissing: there is no partition in the window, or no consent events or persons at all.
            LandingUnreadable: a file is not Parquet.
            LandingSchemaBroken: a column is missing or has another type than the contract's.
        """
        clips = self._list("clips")
        inside = [f.path for f in clips if f.partition is None or f.partition >= oldest]
        if not inside:
            newest = max((f.partition for f in clips if f.partition), default=None)
            raise LandingMissing(f"no partition clips/recorded_date=… since {oldest}; the newest is {newest or 'none'}")
        self._attach(tables, "clips", inside, CLIPS, cleanup)
        self.attach_people(tables, cleanup)
        outside = (f.path for f in clips if f.partition is not None and f.partition < oldest)
        return sum(self._footer(path).num_rows for path in outside)

    def attach_people(self, tables: Tables, cleanup: ExitStack) -> None:
        """Register `consent_events` and `persons` alone."""
        self._attach(tables, "consent_events", self._required("consent_events"), CONSENT_EVENTS, cleanup)
        self._attach(tables, "persons", self._required("persons"), PERSONS, cleanup)

    def audio(self, uri: str) -> bytes:
        """The bytes of a recording.

        Raises:
            AudioUnusable: `audio_outside`, `audio_missing` or `audio_too_large`.
        """
        files, path = self._locate(uri)
        try:
            if files.get_file_info(path).size is None or files.get_file_info(path).type != pafs.FileType.File:
                raise AudioUnusable("audio_missing", "a recording is not where its row says")
            if files.get_file_info(path).size > MAX_AUDIO_BYTES:
                raise AudioUnusable("audio_too_large", "a recording is larger than any clip can be")
            with files.open_input_file(path) as stream:
                return bytes(stream.read())
        except (OSError, pa.ArrowInvalid):
            # The cause names the file, and the name may identify someone.
            raise AudioUnusable("audio_missing", "a recording is not where its row says") from None

    def _locate(self, uri: str) -> tuple[pafs.FileSystem, str]:
        outside = AudioUnusable("audio_outside", "a recording's address leads out of landing/audio")
        if not uri or any(ord(c) < 32 for c in uri) or "\\" in uri or ".." in PurePosixPath(uri).parts:
            raise outside
        if "://" in uri and not uri.startswith("file:"):
            try:
                return pafs.FileSystem.from_uri(uri)
            except (pa.ArrowInvalid, OSError):
                raise AudioUnusable("audio_missing", "a recording's address cannot be opened") from None
        audio = f"{self._base}/audio"
        path = uri.removeprefix("file://") if uri.startswith("file://") else f"{audio}/{uri}"
        if uri.startswith("/") or not self._inside(audio, path):
            raise outside
        return self._files, path

    def _inside(self, folder: str, path: str) -> bool:
        """Also when a link stands in the way."""
        if not self._is_local:
            return path.startswith(folder + "/")
        return Path(path).resolve().is_relative_to(Path(folder).resolve())

    def _list(self, relation: str) -> list[_File]:
        selector = pafs.FileSelector(f"{self._base}/{relation}", allow_not_found=True, recursive=True)
        found = []
        for info in self._files.get_file_info(selector):
            name = PurePosixPath(info.path).name
            if info.type != pafs.FileType.File or not name.endswith(".parquet") or name[0] in "._":
                continue
            match = _PARTITION.search(info.path)
            found.append(_File(info.path, date.fromisoformat(match.group(1)) if match else None))
        return sorted(found, key=lambda f: f.path)

    def _required(self, relation: str) -> list[str]:
        paths = [f.path for f in self._list(relation)]
        if not paths:
            raise LandingMissing(f"no {relation}/*.parquet in landing")
        return paths

    def _footer(self, path: str) -> pq.FileMetaData:
        try:
            with self._files.open_input_file(path) as stream:
                return pq.ParquetFile(stream).metadata
        except (pa.ArrowInvalid, OSError) as error:
            raise LandingUnreadable(f"{self._relative(path)} is not a Parquet file") from error

    def _relative(self, path: str) -> str:
        return path.removeprefix(self._base).lstrip("/")

    def _attach(self, tables: Tables, name: str, paths: Sequence[str], contract: pa.Schema, cleanup: ExitStack) -> None:
        for path in paths:
            for problem in schema_problems(self._footer(path).schema.to_arrow_schema(), contract):
                raise LandingSchemaBroken(f"{self._relative(path)}: {problem}")
        if not self._is_local:
            tables.register(name, ds.dataset(list(paths), filesystem=self._files, schema=contract, format="parquet"))
            return
        # An empty file with the contract's schema gives a nullable column that a file lacks its name and type.
        folder = Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="landing-")))
        pq.write_table(contract.empty_table(), folder / "contract.parquet")
        tables.view(name, [folder / "contract.parquet", *paths])


def schema_problems(found: pa.Schema, contract: pa.Schema) -> Iterator[str]:
    """What keeps a file from being read as the contract says, in names and types. Columns beside the contract's may stand."""
    for wanted in contract:
        if wanted.name not in found.names:
            if not wanted.nullable or contract is not CLIPS:
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
        return bool(pa.types.is_integer(found))
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
