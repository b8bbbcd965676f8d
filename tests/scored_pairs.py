"""Pairs of texts as a recogniser makes them, the same on every machine, and what NIST sclite counts on them.

`sclite_counts.parquet` holds sclite's counts (SCTK 1.3, `sclite -s -e utf-8 -i spu_id -o pra`, for characters with
`-c`) and the digest of the pairs that it counted them on. `benchmarks/scoring.py --write` writes it anew where sclite
is installed.
"""

import hashlib
from bisect import bisect
from itertools import accumulate
from pathlib import Path
from random import Random
from typing import Final

from wordfreq import top_n_list

COUNTS: Final = Path(__file__).parent / "clip_courier" / "sclite_counts.parquet"
REALISTIC: Final = 24_000
EXTREME: Final = 2_000
Pair = tuple[str, str]


def pairs() -> list[Pair]:
    """First the realistic ones in three languages and scripts, one word in seven missed; then hopeless ones."""
    languages = [recognised(language, REALISTIC // 3, Random(language)) for language in ("en", "de", "ru")]
    return [pair for part in languages for pair in part] + hopeless(EXTREME, Random("hopeless"))


def recognised(language: str, how_many: int, random: Random, missed: float = 0.14) -> list[Pair]:
    """Words as often as people say them, 12 on average; of the errors half are another word, a quarter a like one."""
    words = [word for word in top_n_list(language, 4000) if word.isalpha()]
    sums = list(accumulate(1 / (place + 5) for place in range(len(words))))

    def word() -> str:
        return words[bisect(sums, random.random() * sums[-1])]

    def heard(said: str) -> list[str]:
        fate = random.random() / missed
        if fate < 0.2:
            return []
        if fate < 0.6:
            return [word()]
        if fate < 0.8:
            place = int(random.random() * len(said))
            return [said[:place] + word()[0] + said[place + 1 :]]
        return [said, word()] if fate < 1 else [said]

    made = []
    for _ in range(how_many):
        said = [word() for _ in range(1 + int(sum(random.random() for _ in range(4)) * 5.5))]
        made.append((" ".join(said), " ".join(w for one in said for w in heard(one))))
    return made


def hopeless(how_many: int, random: Random) -> list[Pair]:
    """Nothing to do with each other, of six words only, so that they meet by chance: the hardest case to align."""

    def text() -> str:
        return " ".join("abcdef"[int(random.random() * 6)] for _ in range(int(random.random() * 25)))

    return [("a " + text(), text()) for _ in range(how_many)]


def digest(made: list[Pair]) -> str:
    return hashlib.sha256("\n".join(f"{said}\t{heard}" for said, heard in made).encode()).hexdigest()
