"""Which words are names, which are everyday words, and which of the two a word is sooner.

A name is weighed against the word: "Johnson" is sooner a name, "list" sooner a list, though persons are called both.

Sources: word frequencies: wordfreq; names and how many bear them: the 1990 US census (package `names`), and for the
rest of the world the lists that Faker keeps for its locales. They are imported where they are asked: a process that
only delivers does not ask.
"""

import importlib
import math
import pkgutil
from collections.abc import Mapping
from functools import lru_cache
from importlib import resources
from typing import Final

import regex

# On wordfreq's Zipf scale (log10 of occurrences per billion words). Below: not an everyday word.
EVERYDAY_ZIPF: Final = 3.0
_COMMON_ZIPF: Final = 4.3
# Of so rare words most are names: one word in 200 of running text is.
_UNKNOWN_ZIPF: Final = 2.0

# Of a hundred words that are spoken one is somebody's name.
_NAMES_PER_BILLION_WORDS: Final = 1e7
# What a list of a locale's names says of a name's weight: no list says how many bear it. The first is for the
# language's own locales, the other for all other names of the world, which are rare among those who speak it.
_OWN_LIST_ZIPF: Final = 4.0
_FOREIGN_LIST_ZIPF: Final = 3.0
# The census rounds to thousandths of a per cent.
_LEAST_CENSUS_PER_CENT: Final = 0.0004
# A word may be commoner than its name by so many powers of ten and is still taken for the name: where only harmless
# words are shown, and where everything is shown but what identifies.
_STRICT_MARGIN: Final = 1.5
_SOONER_MARGIN: Final = 0.7
_NEIGHBOUR_MARGIN: Final = 2.2
# A name that so many bear is one before another name, however common the word is: "Will Rose", "May Johnson".
_GIVEN_ZIPF: Final = 3.0

# Somebody is called each of these, and each is said every day of something else.
_NO_NAMES: Final = frozenset(
    "monday tuesday wednesday thursday friday saturday sunday mother father sister brother son daughter"
    " mum mom dad home work world"
    " montag dienstag mittwoch donnerstag freitag samstag sonntag mutter vater schwester bruder sohn tochter"
    " lundi mardi mercredi jeudi vendredi samedi dimanche mère père sœur frère fils fille".split()
)

_LETTERS = regex.compile(r"[\p{L}\p{M}]+")


@lru_cache(maxsize=32)
def _frequencies(language: str) -> Mapping[str, float]:
    """Word → share of all words; empty for a language without a dictionary."""
    import wordfreq

    # Asked for a language that it lacks, wordfreq would answer with its nearest one.
    if language not in wordfreq.available_languages():
        return {}
    return wordfreq.get_frequency_dict(language)


def has_dictionary(language: str) -> bool:
    return bool(_frequencies(language))


def _zipf(word: str, language: str) -> float:
    share = _frequencies(language).get(word, 0.0)
    return math.log10(share) + 9 if share else 0.0


def is_everyday(word: str, language: str) -> bool:
    return _zipf(word, language) >= EVERYDAY_ZIPF


def is_common(word: str, language: str) -> bool:
    """Whether the word is so common that it is no town's, street's or person's."""
    return _zipf(word, language) >= _COMMON_ZIPF


def is_unknown(word: str, language: str) -> bool:
    """Whether the word is so rare in the language that it is sooner a name. Without a dictionary nothing is unknown."""
    return has_dictionary(language) and _zipf(word, language) < _UNKNOWN_ZIPF


@lru_cache(maxsize=1)
def _census() -> Mapping[str, float]:
    """Name → Zipf value of those who bear it: 88,799 family names from all over the world, 5,163 given names."""
    shares: dict[str, float] = {}
    for file, all_of_them in (("dist.all.last", 100), ("dist.female.first", 200), ("dist.male.first", 200)):
        for line in resources.files("names").joinpath(file).read_text(encoding="ascii").splitlines():
            name, per_cent = line.split()[:2]
            share = max(float(per_cent), _LEAST_CENSUS_PER_CENT) / all_of_them
            shares[name.lower()] = shares.get(name.lower(), 0.0) + share
    return {name: math.log10(share * _NAMES_PER_BILLION_WORDS) for name, share in shares.items()}


@lru_cache(maxsize=1)
def _listed() -> Mapping[str, frozenset[str]]:
    """Given and family names of every locale that Faker knows, in lower case → the languages of these locales."""
    import faker.providers.person

    found: dict[str, set[str]] = {}
    for module in pkgutil.iter_modules(faker.providers.person.__path__):
        provider = importlib.import_module(f"faker.providers.person.{module.name}").Provider
        for attribute in dir(provider):
            values = getattr(provider, attribute)
            if "name" in attribute and isinstance(values, list | tuple | dict):
                for value in values:
                    for piece in _LETTERS.findall(str(value).lower()):
                        if len(piece) > 1:
                            found.setdefault(piece, set()).add(module.name.split("_")[0])
    return {name: frozenset(languages) for name, languages in found.items()}


def _name_zipf(word: str, language: str) -> float | None:
    """How common the name is among those who speak the language; None if nobody is known to be called so."""
    if word in _NO_NAMES:
        return None
    counted, languages = _census().get(word), _listed().get(word, frozenset())
    if language == "en" and counted is not None:
        return counted
    if language in languages:
        return _OWN_LIST_ZIPF
    if languages:
        return _FOREIGN_LIST_ZIPF
    return None if counted is None else min(counted - 1, _FOREIGN_LIST_ZIPF)


def is_name(word: str, language: str) -> bool:
    """Whether somebody may be called that; words that are far commoner than the name are not names."""
    name_zipf = _name_zipf(word, language)
    return name_zipf is not None and name_zipf + _STRICT_MARGIN >= _zipf(word, language)


def is_sooner_name(word: str, language: str) -> bool:
    """Whether a word that is heard by itself is sooner the name than the word."""
    name_zipf = _name_zipf(word, language)
    return name_zipf is not None and name_zipf + _SOONER_MARGIN >= _zipf(word, language)


def may_be_name(word: str, language: str) -> bool:
    """Whether it is a name beside another name, or where a name is expected: "Grace Young"."""
    name_zipf = _name_zipf(word, language)
    if name_zipf is None:
        return is_unknown(word, language)
    return name_zipf + _NEIGHBOUR_MARGIN >= _zipf(word, language)


def is_borne_by_many(word: str, language: str) -> bool:
    """Whether it is a common name, were the word far commoner: "Will", "May"."""
    name_zipf = _name_zipf(word, language)
    return name_zipf is not None and name_zipf >= _GIVEN_ZIPF


def is_on_a_list(word: str, language: str) -> bool:
    """Whether anybody is called so, however common the word is: "Will", "May"."""
    return _name_zipf(word, language) is not None
