"""Word and character errors of a hypothesis against a transcript.

Counts are those of NIST sclite, whose alignment weighs a substitution 4 and an insertion or deletion 3: the least cost
under (3, 3, 4) minus three times the edit distance is the number of substitutions, and the lengths give the rest.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from rapidfuzz.distance import Levenshtein

# Stored beside every score: a score is comparable only under the same rules.
RULES: Final = "nfkc-lower-alnum-1"


@dataclass(frozen=True)
class Errors:
    """Of one pair: length of the reference, and how it was missed."""

    length: int
    substitutions: int
    deletions: int
    insertions: int

    @property
    def hits(self) -> int:
        return self.length - self.substitutions - self.deletions


def normalise(text: str) -> str:
    """NFKC, lower case, apostrophes dropped, everything but letters, marks and digits a space."""
    folded = unicodedata.normalize("NFKC", text).lower().replace("'", "").replace("’", "")  # noqa: RUF001
    kept = "".join(c if unicodedata.category(c)[0] in "LMN" else " " for c in folded)
    return " ".join(kept.split())


def word_errors(reference: str, hypothesis: str) -> Errors:
    return _errors(normalise(reference).split(), normalise(hypothesis).split())


def character_errors(reference: str, hypothesis: str) -> Errors:
    return _errors(normalise(reference).replace(" ", ""), normalise(hypothesis).replace(" ", ""))


def _errors(reference: Sequence[str], hypothesis: Sequence[str]) -> Errors:
    distance = Levenshtein.distance(reference, hypothesis)
    substitutions = Levenshtein.distance(reference, hypothesis, weights=(3, 3, 4)) - 3 * distance
    gaps = distance - substitutions
    deletions = (gaps + len(reference) - len(hypothesis)) // 2
    return Errors(len(reference), substitutions, deletions, gaps - deletions)
