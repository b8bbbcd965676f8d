"""Looks for the demo world's canaries in everything that left or was written, as a stranger with the files would.

What is packed is unpacked: Parquet and DuckDB to text, the members of a drop that a vendor opened as they are.
"""

import io
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import duckdb
import pyarrow.parquet as pq

# Where raw values may stand: the landing zone, what joins refs to persons, and the keys.
PRIVATE = frozenset({"landing", "crosswalk", "world", "keys.json"})


def read_canaries(world: Path) -> list[str]:
    """Every identifying string that the world was seeded with."""
    kinds = json.loads((world / "demo" / "canaries.json").read_text(encoding="utf-8"))
    return sorted({value for values in kinds.values() for value in values})


def find_leaks(canaries: Iterable[str], things: Iterable[tuple[str, bytes]]) -> dict[str, list[str]]:
    """Name of a thing → the canaries in it, letter case aside."""
    wanted = [(canary, canary.lower().encode("utf-8")) for canary in canaries]
    found: dict[str, list[str]] = {}
    for name, content in things:
        text = _lower(content)
        hits = [canary for canary, needle in wanted if needle in text or needle in name.lower().encode("utf-8")]
        if hits:
            found[name] = hits
    return found


def written_under(folder: Path, private: frozenset[str] = PRIVATE) -> Iterator[tuple[str, bytes]]:
    """Every file outside the private places, as it lies there and, where it is packed, as text."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.is_symlink() or not path.is_file() or private & set(name.parts):
            continue
        content = path.read_bytes()
        yield str(name), content
        if path.suffix == ".parquet":
            yield f"{name} (rows)", as_text(content)
        elif path.suffix == ".duckdb":
            yield from _tables(path, str(name))


def members(drop: Mapping[str, bytes], name: str) -> Iterator[tuple[str, bytes]]:
    """The members of an opened drop, and the manifest's rows as text."""
    for member, content in drop.items():
        yield f"{name}/{member}", content
        if member.endswith(".parquet"):
            yield f"{name}/{member} (rows)", as_text(content)


def as_text(parquet: bytes) -> bytes:
    rows = pq.read_table(io.BytesIO(parquet)).to_pylist()
    return json.dumps(rows, default=str, ensure_ascii=False).encode("utf-8")


def _tables(path: Path, name: str) -> Iterator[tuple[str, bytes]]:
    with duckdb.connect(str(path), read_only=True) as connection:
        for (table,) in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall():
            rows = connection.table(table).to_arrow_table().to_pylist()
            yield f"{name} ({table})", json.dumps(rows, default=str, ensure_ascii=False).encode("utf-8")


def _lower(content: bytes) -> bytes:
    """Lower case, also of letters beyond ASCII where the bytes are text."""
    try:
        return content.decode("utf-8").lower().encode("utf-8")
    except UnicodeDecodeError:
        return content.lower()
