"""What a file holds, as streams of bytes to look through: the file as it lies there, and whatever is packed in it.

Parquet gives up its columns (dictionaries whole, with entries that no row uses), DuckDB and SQL databases their tables,
archives and compressed files their members, FLAC its metadata apart from its sound. A kind is told by the first bytes,
never by a name.
"""

import bz2
import gzip
import io
import json
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Final, cast
from urllib.parse import quote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from clip_courier.errors import LedgerUnavailable, QueryFailed
from clip_courier.ledger import every_row
from clip_courier.scratch import scratch_folder
from clip_courier.tables import Tables

PIECE_BYTES: Final = 1 << 20
# The column under which names are looked through: of files, of members, of columns.
NAME: Final = "(name)"
_HEAD_BYTES: Final = 512
_DEEPEST: Final = 4
# What packed files may come to together; a few kilobytes can stand for terabytes.
_MOST_UNPACKED_BYTES: Final = 1 << 36
_CELLS: Final = 65_536
# What libraries raise when a file is not what its first bytes say, or is cut off.
_BROKEN: Final = (
    OSError,
    EOFError,
    ValueError,
    zlib.error,
    lzma.LZMAError,
    zipfile.BadZipFile,
    tarfile.TarError,
    RuntimeError,  # also what zipfile has no decoder for
    pa.ArrowException,
    QueryFailed,
    LedgerUnavailable,
)


@dataclass(frozen=True)
class Part:
    """A stream of a place: of a member, and of a column of it, where there are any. `pieces` can be read once."""

    place: str
    member: str
    column: str
    pieces: Iterator[bytes] = field(repr=False)
    is_sound: bool = False


@dataclass
class Unpacking:
    """Opens files; `unopened` are the places that could not be read to their end."""

    unopened: list[str] = field(default_factory=list)
    _unpacked_bytes: int = 0

    def file(self, path: Path, place: str) -> Iterator[Part]:
        """All parts of a file; its name, which is `place`, is the first."""
        yield Part(place, "", NAME, iter([place.encode("utf-8", "surrogateescape")]))
        yield from self._parts(lambda: path.open("rb"), place, "", 0, path)

    def content(self, octets: bytes, place: str) -> Iterator[Part]:
        """All parts of what is in memory, and its name."""
        yield Part(place, "", NAME, iter([place.encode("utf-8", "surrogateescape")]))
        yield from self._parts(lambda: io.BytesIO(octets), place, "", 0, None)

    def database(self, url: str, place: str, member: str = "") -> Iterator[Part]:
        """Every cell of every table."""
        for table, names, rows in every_row(url):
            for name, cells in zip(names, zip(*rows, strict=True), strict=True):
                yield Part(place, member + table, name, iter([b"\n".join(map(_cell, cells))]))
                for octets in cells:
                    if isinstance(octets, bytes | memoryview) and _packer(bytes(octets[:_HEAD_BYTES])):
                        packed = bytes(octets)
                        yield from self._packed(partial(io.BytesIO, packed), place, f"{member}{table}", 0, None)

    def _parts(
        self, opens: Callable[[], BinaryIO], place: str, member: str, depth: int, path: Path | None
    ) -> Iterator[Part]:
        with opens() as stream:
            head = stream.read(_HEAD_BYTES)
        if head.startswith(b"fLaC"):
            yield from _flac(opens, place, member)
            return
        yield Part(place, member, "", _pieces(opens))
        if depth < _DEEPEST and _packer(head):
            yield from self._packed(opens, place, member, depth, path)

    def _packed(
        self, opens: Callable[[], BinaryIO], place: str, member: str, depth: int, path: Path | None
    ) -> Iterator[Part]:
        with opens() as stream:
            kind = _packer(stream.read(_HEAD_BYTES))
        try:
            match kind:
                case "parquet" | "zip" | "tar" if path is None:
                    # In memory: members are read from their beginning to their end alone.
                    content = b"".join(_pieces(opens))
                    yield from self._archive(str(kind), partial(io.BytesIO, content), place, member, depth)
                case "parquet" | "zip" | "tar":
                    yield from self._archive(str(kind), opens, place, member, depth)
                case "duckdb" | "sqlite" if path is None:
                    with scratch_folder("database") as folder:
                        (folder / "database").write_bytes(b"".join(_pieces(opens)))
                        yield from self._packed(opens, place, member, depth, folder / "database")
                case "duckdb":
                    with Tables(path, is_read_only=True) as tables:
                        for table, batch in tables.contents():
                            yield from _columns(batch, place, member + table)
                case "sqlite":
                    # A name in a URI, and that within a URL.
                    name = quote(quote(str(path)))
                    yield from self.database(f"sqlite:///file:{name}?mode=ro&uri=true", place, member)
                case _:
                    yield from self._compressed(str(kind), opens, place, member, depth)
        except _BROKEN:
            self.unopened.append(f"{place}:{member}" if member else place)

    def _archive(self, kind: str, opens: Callable[[], BinaryIO], place: str, member: str, depth: int) -> Iterator[Part]:
        with opens() as stream:
            if kind == "parquet":
                yield from _parquet(stream, place, member)
            elif kind == "tar":
                with tarfile.open(fileobj=stream, mode="r:") as tar:
                    yield from self._tar(tar, place, member, depth)
            else:
                with zipfile.ZipFile(stream) as archive:
                    yield from self._zip(archive, place, member, depth)

    def _compressed(
        self, kind: str, opens: Callable[[], BinaryIO], place: str, member: str, depth: int
    ) -> Iterator[Part]:
        inside = f"{member}/({kind})"
        yield from self._parts(lambda: self._counted(_DECOMPRESSED[kind](opens())), place, inside, depth + 1, None)

    def _tar(self, tar: tarfile.TarFile, place: str, member: str, depth: int) -> Iterator[Part]:
        for one in tar:
            # Their headers were looked through with the file as it lies there.
            if one.isreg():
                inside = f"{member}/{one.name}"
                yield from self._parts(partial(_extracted, tar, one), place, inside, depth + 1, None)

    def _zip(self, archive: zipfile.ZipFile, place: str, member: str, depth: int) -> Iterator[Part]:
        for one in archive.infolist():
            inside = f"{member}/{one.filename}"
            about = b"\n".join([one.filename.encode("utf-8", "surrogateescape"), one.comment])
            yield Part(place, inside, "(header)", iter([about]))
            yield from self._parts(partial(self._member, archive, one), place, inside, depth + 1, None)

    def _member(self, archive: zipfile.ZipFile, one: zipfile.ZipInfo) -> BinaryIO:
        return self._counted(archive.open(one))

    def _counted(self, stream: Any) -> BinaryIO:
        return cast(BinaryIO, _Bounded(stream, self))

    def _count(self, octets: int) -> None:
        self._unpacked_bytes += octets
        if self._unpacked_bytes > _MOST_UNPACKED_BYTES:
            raise EOFError("packed files hold more than can be looked through")


class _Bounded(io.RawIOBase):
    """Reads what is unpacked, up to a bound over everything."""

    def __init__(self, stream: Any, unpacking: Unpacking) -> None:
        self._stream, self._unpacking = stream, unpacking

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        octets = bytes(self._stream.read(PIECE_BYTES if size < 0 else size))
        self._unpacking._count(len(octets))
        return octets

    def close(self) -> None:
        self._stream.close()
        super().close()


def _packer(head: bytes) -> str | None:
    """What packed it, by its first bytes."""
    for kind, begin, at in _MARKS:
        if head[at : at + len(begin)] == begin:
            return kind
    return None


_MARKS: Final = (
    ("parquet", b"PAR1", 0),
    ("sqlite", b"SQLite format 3\0", 0),
    ("duckdb", b"DUCK", 8),
    ("gzip", b"\x1f\x8b\x08", 0),
    ("zip", b"PK\x03\x04", 0),
    ("bzip2", b"BZh", 0),
    ("xz", b"\xfd7zXZ\0", 0),
    ("zstd", b"\x28\xb5\x2f\xfd", 0),
    ("zlib", b"\x78\x9c", 0),
    ("zlib", b"\x78\xda", 0),
    ("zlib", b"\x78\x01", 0),
    ("tar", b"ustar", 257),
)


def _inflated(stream: BinaryIO) -> BinaryIO:
    return io.BytesIO(zlib.decompress(stream.read()))


_DECOMPRESSED: Final[dict[str, Callable[[BinaryIO], Any]]] = {
    "gzip": lambda stream: gzip.GzipFile(fileobj=stream),
    "bzip2": bz2.BZ2File,
    "xz": lzma.LZMAFile,
    "zstd": lambda stream: pa.CompressedInputStream(stream, "zstd"),
    "zlib": _inflated,
}


def _extracted(tar: tarfile.TarFile, one: tarfile.TarInfo) -> BinaryIO:
    return cast(BinaryIO, tar.extractfile(one))


def _pieces(opens: Callable[[], BinaryIO]) -> Iterator[bytes]:
    with opens() as stream:
        while piece := stream.read(PIECE_BYTES):
            yield piece


def _flac(opens: Callable[[], BinaryIO], place: str, member: str) -> Iterator[Part]:
    """Metadata blocks (RFC 9639, 8), and what comes behind the last of them."""
    with opens() as stream:
        octets = stream.read()
    end, is_last = 4, False
    while not is_last and end + 4 <= len(octets):
        is_last = bool(octets[end] & 0x80)
        end += 4 + int.from_bytes(octets[end + 1 : end + 4], "big")
    yield Part(place, member, "(metadata)", iter([octets[:end]]))
    yield Part(place, member, "(sound)", iter([octets[end:]]), is_sound=True)


def _parquet(stream: BinaryIO, place: str, member: str) -> Iterator[Part]:
    """The footer (key-value metadata, statistics) is not packed: it was looked through with the file."""
    schema = pq.ParquetFile(stream).schema
    texts = [c.path for c in map(schema.column, range(len(schema))) if c.physical_type == "BYTE_ARRAY"]
    stream.seek(0)
    given: dict[str, pa.Array] = {}
    for batch in pq.ParquetFile(stream, read_dictionary=texts).iter_batches(batch_size=_CELLS):
        yield from _columns(batch, place, member, given)


def _columns(
    batch: pa.RecordBatch, place: str, member: str, given: dict[str, pa.Array] | None = None
) -> Iterator[Part]:
    """`given`: the dictionary of each column in the batch before. Every batch has it whole, and what it adds is new."""
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        for path, cells in leaves(column, name):
            new = cells
            if given is not None and (pa.types.is_string(cells.type) or pa.types.is_binary(cells.type)):
                before, given[path] = given.get(path, cells[:0]), cells
                new = cells[len(before) :] if cells[: len(before)].equals(before) else cells
            yield Part(place, member, path, iter([joined(new)]))


def leaves(cells: pa.Array, path: str) -> Iterator[tuple[str, pa.Array]]:
    """The flat arrays in a nested one, each with its dotted path."""
    kind = cells.type
    if isinstance(cells, pa.ExtensionArray):
        yield from leaves(cells.storage, path)
    elif pa.types.is_struct(kind):
        for one in range(kind.num_fields):
            yield from leaves(cells.field(one), f"{path}.{kind.field(one).name}")
    elif pa.types.is_map(kind):
        yield from leaves(cells.keys, f"{path}.key")
        yield from leaves(cells.items, f"{path}.value")
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        yield from leaves(cells.values, path)
    elif pa.types.is_dictionary(kind):
        yield from leaves(cells.dictionary, path)
    else:
        yield path, cells


def joined(cells: pa.Array) -> bytes:
    """All cells of a flat array, one a line."""
    if pa.types.is_null(cells.type):
        return b""
    if not (pa.types.is_binary(cells.type) or pa.types.is_large_binary(cells.type)):
        is_bytes = pa.types.is_fixed_size_binary(cells.type)
        cells = cells.cast(pa.binary()) if is_bytes else cells.cast(pa.string()).cast(pa.binary())
    values = cells.drop_null().cast(pa.binary())
    return bytes(pc.binary_join(pa.ListArray.from_arrays([0, len(values)], values), b"\n")[0].as_py())


def _cell(cell: object) -> bytes:
    if isinstance(cell, str):
        return cell.encode("utf-8", "surrogatepass")
    if isinstance(cell, bytes | memoryview):
        return bytes(cell)
    if isinstance(cell, dict | list):
        return json.dumps(cell, default=str, ensure_ascii=False).encode("utf-8")
    return b"" if cell is None else str(cell).encode("utf-8")
