"""Free text leaves word by word, and only what is known to be harmless: an allow-list, never a deny-list.

A word stays when at least k distinct persons said it in the landing window (`said_by_many`), the language's dictionary
knows it as an everyday word, and it is not a name. Everything else becomes a typed mask: `‹NAME›`, `‹NUMBER›`, `‹WORD›`.
Runs of spoken digits and of spelled-out letters are masked whole. A language without a dictionary is masked whole.

Sources: k-anonymity, Sweeney 2002 (doi:10.1142/S0218488502001648), applied to vocabulary; word frequencies: wordfreq;
names: the lists that Faker keeps for its locales.
"""

import importlib
import pkgutil
import unicodedata
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

import faker.providers.person
import regex
import wordfreq

NAME: Final = "‹NAME›"
NUMBER: Final = "‹NUMBER›"
WORD: Final = "‹WORD›"

# On wordfreq's Zipf scale (log10 of occurrences per billion words). Below: not an everyday word.
EVERYDAY_ZIPF: Final = 3.0
# Above, a word that is also somebody's name ("will", "said") is read as the word.
COMMONER_THAN_NAMES_ZIPF: Final = 5.5

_TOKEN = regex.compile(r"\S+")
_LETTERS = regex.compile(r"[\p{L}\p{M}]+")
_EDGE = regex.compile(r"^[\p{P}\p{S}]+|[\p{P}\p{S}]+$")
_HARMLESS_EDGE: Final = frozenset(".,!?;:…।")
_APOSTROPHE = regex.compile("['’]")  # noqa: RUF001
_RUN_OF_NUMBERS: Final = 3
_RUN_OF_LETTERS: Final = 2

# Words that are spoken for digits, and those that join them.
_SPOKEN_NUMBERS: Final[Mapping[str, frozenset[str]]] = {
    "en": frozenset(
        "zero oh one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen"
        " eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred double triple".split()
    ),
    "de": frozenset(
        "null eins ein zwei zwo drei vier fünf sechs sieben acht neun zehn elf zwölf zwanzig dreißig vierzig fünfzig"
        " sechzig siebzig achtzig neunzig hundert doppel".split()
    ),
    "fr": frozenset(
        "zéro un deux trois quatre cinq six sept huit neuf dix onze douze treize quatorze quinze seize vingt trente"
        " quarante cinquante soixante cent double triple".split()
    ),
    "hi": frozenset("शून्य एक दो तीन चार पांच पाँच छह छः सात आठ नौ दस".split()),
}


def harmless_words(said_by_many: Mapping[str, frozenset[str]]) -> dict[str, frozenset[str]]:
    """Of the words that enough distinct persons said, by language, those that are everyday words and nobody's name."""
    return {
        language: frozenset(
            w for w in words if _is_commoner_than(EVERYDAY_ZIPF, w, language) and not is_name(w, language)
        )
        for language, words in said_by_many.items()
    }


@dataclass(frozen=True)
class Redactor:
    """Masks text. `harmless`: language → the words that may be shown."""

    harmless: Mapping[str, frozenset[str]]
    masks: Counter[str] = field(default_factory=Counter)

    def redact(self, text: str, locale: str) -> str:
        """The text with every word masked that is not known to be harmless; counts the masks by kind."""
        language = locale.split("-")[0].lower()
        words = [unicodedata.normalize("NFC", token) for token in _TOKEN.findall(text)]
        spoken = self._runs(words, language)
        shown = [mask or self._judge(word, language) for word, mask in zip(words, spoken, strict=True)]
        kept: list[str] = []
        for word in shown:
            # A run of masks of one kind is one mask: its length would say how long the number or the name was.
            if not (kept and word == kept[-1] and word in (NAME, NUMBER, WORD)):
                kept.append(word)
        self.masks.update(word for word in kept if word in (NAME, NUMBER, WORD))
        return " ".join(kept)

    def _runs(self, words: list[str], language: str) -> list[str | None]:
        """The mask of each word that stands in a run of spoken digits or of single letters."""
        bare = [_bare(word) for word in words]
        numbers = _SPOKEN_NUMBERS.get(language, frozenset())
        masks: list[str | None] = [None] * len(words)
        _mask_runs(masks, [b in numbers or any(c.isdigit() for c in b) for b in bare], _RUN_OF_NUMBERS, NUMBER)
        _mask_runs(masks, [len(b) == 1 for b in bare], _RUN_OF_LETTERS, WORD)
        return masks

    def _judge(self, word: str, language: str) -> str:
        bare = _bare(word)
        if any(c.isnumeric() for c in word):
            return NUMBER
        pieces = _APOSTROPHE.split(bare)
        is_common = _is_commoner_than(COMMONER_THAN_NAMES_ZIPF, bare, language)
        if not is_common and any(is_name(piece, language) for piece in pieces):
            return NAME
        if not all(self._is_harmless(piece, language, is_piece=len(pieces) > 1) for piece in pieces):
            return WORD
        return _core(word) + (word[-1] if word[-1] in _HARMLESS_EDGE else "")

    def _is_harmless(self, piece: str, language: str, *, is_piece: bool) -> bool:
        if is_piece and len(piece) <= 2 and piece.isalpha():
            return True
        return piece in self.harmless.get(language, frozenset())


def _mask_runs(masks: list[str | None], belongs: list[bool], shortest: int, mask: str) -> None:
    start = 0
    for place in range(len(belongs) + 1):
        if place < len(belongs) and belongs[place]:
            continue
        if place - start >= shortest:
            masks[start:place] = [mask] * (place - start)
        start = place + 1


def _core(word: str) -> str:
    return _EDGE.sub("", word)


def _bare(word: str) -> str:
    return _core(word).lower()


@lru_cache(maxsize=32)
def _frequencies(language: str) -> Mapping[str, float]:
    """Word → share of all words; empty for a language without a dictionary."""
    try:
        return wordfreq.get_frequency_dict(language)
    except LookupError:
        return {}


def _is_commoner_than(zipf: float, word: str, language: str) -> bool:
    return _frequencies(language).get(word, 0.0) >= 10 ** (zipf - 9)


@lru_cache(maxsize=1)
def _names() -> frozenset[str]:
    """Given and family names of every locale that Faker knows, in lower case."""
    found: set[str] = set()
    for module in pkgutil.iter_modules(faker.providers.person.__path__):
        provider = importlib.import_module(f"faker.providers.person.{module.name}").Provider
        for attribute in dir(provider):
            values = getattr(provider, attribute)
            if "name" in attribute and isinstance(values, list | tuple | dict):
                found.update(
                    piece for value in values for piece in _LETTERS.findall(str(value).lower()) if len(piece) > 1
                )
    return frozenset(found)


def is_name(word: str, language: str) -> bool:
    """Whether somebody may be called that; words that are far commoner than any name are not names."""
    return word in _names() and not _is_commoner_than(COMMONER_THAN_NAMES_ZIPF, word, language)
