"""Looks for the demo world's canaries in everything that left or was written, as a stranger with the files would.

The search is the product's own (`clip_courier.leaks`); what it looks for here is what the world was seeded with.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from clip_courier.leaks import files_under, search
from clip_courier.unpacking import Part, Unpacking
from clip_courier.wanted import Wanted

# Where raw values may stand: the landing zone, what joins refs to persons, and the keys.
PRIVATE = frozenset({"landing", "crosswalk", "world", "keys.json"})


def read_canaries(world: Path) -> list[str]:
    """Every identifying string that the world was seeded with."""
    kinds = json.loads((world / "demo" / "canaries.json").read_text(encoding="utf-8"))
    return sorted({value for values in kinds.values() for value in values})


def find_leaks(
    canaries: Iterable[str], things: Mapping[str, bytes | str], folder: Path | None = None
) -> dict[str, int]:
    """How many canaries stand in each of the things, and in each file under a folder outside the private places."""

    def places(unpacking: Unpacking) -> Iterator[Part]:
        for name, content in things.items():
            yield from unpacking.content(content.encode() if isinstance(content, str) else content, name)
        for path, name in files_under(folder, PRIVATE) if folder else ():
            yield from unpacking.file(path, name)

    wanted = Wanted()
    wanted.add_values("canary", canaries)
    searched = search([wanted.watch()], places)
    found = dict.fromkeys(searched.unopened, 0)
    for leak in searched.leaks:
        found[leak.place] = found.get(leak.place, 0) + leak.count
    return found


def members(drop: Mapping[str, bytes], name: str) -> dict[str, bytes]:
    """The members of an opened drop, by the names under which they are told."""
    return {f"{name}/{member}": content for member, content in drop.items()}
