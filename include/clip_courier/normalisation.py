"""Texts as they are compared: by the rules of the Whisper paper (Radford et al. 2022, appendix C), a set a language.

The rules are those of the library whisper_normalizer. English: contractions, titles, spelled-out numbers and British
spellings become one form, hesitations and what stands in brackets go. French, Spanish, Arabic, Russian, Chinese and the
Indic languages have sets of their own; every other language has the basic one: what is in brackets goes, symbols and
punctuation become spaces, letters are lower case, marks stay (they are vowels in many scripts).

What stands for words that nobody could hear goes in every language: `[beep]`, and the masks of a hypothesis.

Where a language is written without spaces its words are its characters as read (grapheme clusters), as in that paper.
"""

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib.metadata import version
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import regex
from whisper_normalizer.basic import BasicTextNormalizer
from whisper_normalizer.english import EnglishTextNormalizer
from whisper_normalizer.indic import (
    BengaliNormalizer,
    DevanagariNormalizer,
    GujaratiNormalizer,
    HindiNormalizer,
    KannadaNormalizer,
    MalayalamNormalizer,
    OdiaNormalizer,
    PunjabiNormalizer,
    TamilNormalizer,
    TeluguNormalizer,
)
from whisper_normalizer.international import (
    ArabicTextNormalizer,
    ChineseTextNormalizer,
    FrenchTextNormalizer,
    RussianTextNormalizer,
    SpanishTextNormalizer,
)

# Stored beside every score: a score is comparable only under the same rules. The last number is that of this module.
RULES: Final = f"whisper-normalizer {version('whisper-normalizer')} r3"

_Rules = Callable[[str], str]
# For fewer texts the tables of `_english_texts` cost more than they save.
_MANY: Final = 64
# What a person says has a bracket now and then; a text of nothing else would keep the library busy for seconds.
_MOST_BRACKETS: Final = 20
_BRACKETS: Final = str.maketrans("([<", "   ")
# What the drop's README tells transcribers to write for a tone, and what stands in a hypothesis for a word.
_INAUDIBLE: Final = re.compile(r"\[(?i:beep)\]|‹[A-Z_]+›")
# With I and İ the Turkic languages have two letters where others have one.
_TURKIC: Final = str.maketrans({"I": "\N{LATIN SMALL LETTER DOTLESS I}", "İ": "i"})

_basic = BasicTextNormalizer(preserve_marks=True)
_english = EnglishTextNormalizer()


def _graphemes(text: str) -> str:
    return " ".join(regex.findall(r"\X", text))


def _indic(normalizer: type[HindiNormalizer], *arguments: str) -> _Rules:
    by_script = normalizer(*arguments).normalize
    return lambda text: _basic(by_script(text))


def _chinese(text: str) -> str:
    return _graphemes(_chinese_script(text))


_chinese_script = ChineseTextNormalizer()

# Letters, marks of the sentence and apostrophes inside of words; a full stop ends its word. Nothing is tried twice.
_PLAIN: Final = re.compile(r"(?:[a-z]++(?:'[a-z]++)*+|[ ,?!;:-]|\.(?= |\Z))*+")
# A contraction that the library reads together with the next word, unless more than a space parts them.
_PARTED: Final = re.compile(r"'[a-z]+(?! [a-z])[ ,?!;:.-]+(?:been|gone|done|got)\b")
# The one rule that reads across words that no rule names.
_AND_A_HALF: Final = frozenset({"and", "a", "half"})
_MARKS: Final = str.maketrans(",?!;:-.", "       ")
# Every word that the library treats otherwise than as itself, or that changes how it treats its neighbours.
_HEARD: Final = frozenset(
    {
        *_english.standardize_numbers.words,
        *_english.standardize_spellings.mapping,
        *re.findall("[a-z]+", " ".join([_english.ignore_patterns, *_english.replacers]).replace(r"\b", " ")),
    }
)


def english(text: str) -> str:
    """What the library makes of an English text, six times as fast.

    It looks through the whole text for each of its rules. Here only the words that a rule names are given to it, with
    those beside them that a rule names too: everything between is plain words, which it leaves as they are and which
    end a number.
    """
    lower = text.lower()
    is_bare = lower.isascii() and lower.replace(" ", "").isalpha()
    if not is_bare and (not _PLAIN.fullmatch(lower) or _PARTED.search(lower)):
        return str(_english(text))
    spoken = (lower if is_bare else lower.translate(_MARKS)).split()
    if "half" in lower and _AND_A_HALF.issubset(spoken):
        return str(_english(text))
    if _HEARD.isdisjoint(spoken) and (is_bare or "'" not in lower):
        return " ".join(spoken)
    words: list[str] = []
    run: list[str] = []
    for word in spoken:
        if word in _HEARD or "'" in word:
            run.append(word)
            continue
        if run:
            words.append(_english_run(" ".join(run)))
            run.clear()
        words.append(word)
    words.append(_english_run(" ".join(run)))
    return " ".join(words)


@lru_cache(maxsize=2**16)
def _english_run(words: str) -> str:
    return " ".join(_english(words).split())


class _Token(NamedTuple):
    """What stands between two spaces of an English text: its words, and in bits what it says of the whole text."""

    words: tuple[str, ...]
    says: int


# It is one for `english`; it has a contraction; it has something that may part one from the next word.
_IS_ODD, _CONTRACTS, _PARTS = 1, 2, 4
_HALVES: Final = {"and": 8, "a": 16, "half": 32}


@lru_cache(maxsize=2**16)
def _token(token: str) -> _Token:
    if not _PLAIN.fullmatch(token):
        return _Token((), _IS_ODD)
    words, contracts = tuple(token.translate(_MARKS).split()), "'" in token
    parts = not words or not token[0].isalpha() or (contracts and words != (token,))
    halves = sum(_HALVES.get(word, 0) for word in set(words))
    return _Token(words, contracts * _CONTRACTS | parts * _PARTS | halves)


def _english_texts(texts: list[str]) -> list[str]:
    """`english` of many texts: what a word, or a run of words, becomes is looked up once for all of them."""
    written = pc.split_pattern(pc.ascii_lower(pa.array(texts, pa.string())), " ")
    starts = written.offsets.to_numpy()
    coded = written.values.dictionary_encode()
    tokens = [_token(token) for token in coded.dictionary.to_pylist()]
    which = coded.indices.to_numpy()
    said = np.bitwise_or.reduceat(np.array([token.says for token in tokens], np.uint8)[which], starts[:-1])
    is_odd = (said & _IS_ODD) > 0
    for all_of in (_CONTRACTS | _PARTS, sum(_HALVES.values())):
        is_odd |= (said & all_of) == all_of
    is_plain = np.repeat(~is_odd, np.diff(starts))
    which, of_text = which[is_plain], np.repeat(np.arange(len(texts)), np.diff(starts))[is_plain]

    # Their words, as numbers, text after text.
    numbers: dict[str, int] = {}
    listed = [[numbers.setdefault(word, len(numbers)) for word in token.words] for token in tokens]
    words = pa.array(listed, pa.list_(pa.int32())).take(pa.array(which)).flatten().to_numpy()
    of_text = np.repeat(of_text, np.array(list(map(len, listed)))[which])
    becomes, is_heard = [], []
    for word in numbers:
        is_heard.append(word in _HEARD or "'" in word)
        becomes.append(_english_run(word) if is_heard[-1] else word)

    # A run of words that rules name is one unit, every other word is one by itself.
    heard = np.array(is_heard, bool)[words]
    goes_on = np.zeros(len(words), bool)
    goes_on[1:] = heard[1:] & heard[:-1] & (of_text[1:] == of_text[:-1])
    first = np.flatnonzero(~goes_on)
    lengths = np.diff(np.append(first, len(words)))
    units, is_run = words[first], lengths > 1
    spelled = pa.array(list(numbers), pa.string()).take(pa.array(words[np.repeat(is_run, lengths)]))
    runs = _joined(np.cumsum(lengths[is_run]), spelled).dictionary_encode()
    units[is_run] = len(becomes) + runs.indices.to_numpy()
    becomes += map(_english_run, runs.dictionary.to_pylist())

    is_there = np.array(list(map(bool, becomes)), bool)[units]
    counts = np.bincount(of_text[first][is_there], minlength=len(texts))
    made = pa.array(becomes, pa.string()).take(pa.array(units[is_there]))
    found: list[str] = _joined(np.cumsum(counts), made).to_pylist()
    for place in np.flatnonzero(is_odd).tolist():
        found[place] = _normalised(texts[place], "en")
    return found


def _joined(ends: npt.NDArray[np.int64], words: pa.Array) -> pa.Array:
    """Texts of the words up to each end."""
    return pc.binary_join(pa.ListArray.from_arrays(np.append(0, ends).astype(np.int32), words), " ")


def _turkic(text: str) -> str:
    return str(_basic(text.translate(_TURKIC)))


_BY_LANGUAGE: Final[dict[str, _Rules]] = {
    "en": english,
    "fr": FrenchTextNormalizer(),
    "es": SpanishTextNormalizer(),
    "ar": ArabicTextNormalizer(),
    "ru": RussianTextNormalizer(),
    **dict.fromkeys(("zh", "yue"), _chinese),
    **dict.fromkeys(("ja", "th", "lo", "km", "my", "bo"), BasicTextNormalizer(split_letters=True, preserve_marks=True)),
    **dict.fromkeys(("tr", "az"), _turkic),
    "hi": _indic(HindiNormalizer),
    **{language: _indic(DevanagariNormalizer, language) for language in ("mr", "ne", "sa")},
    "pa": _indic(PunjabiNormalizer),
    "gu": _indic(GujaratiNormalizer),
    "or": _indic(OdiaNormalizer),
    "bn": _indic(BengaliNormalizer),
    "ta": _indic(TamilNormalizer),
    "te": _indic(TeluguNormalizer),
    "kn": _indic(KannadaNormalizer),
    "ml": _indic(MalayalamNormalizer),
}


def rules_of(locale: str) -> str:
    """The name of the rules for a BCP 47 locale, with their version."""
    language = _language(locale)
    return f"{language if language in _BY_LANGUAGE else 'basic'}: {RULES}"


def normalise(texts: Sequence[str], locales: Sequence[str]) -> list[str]:
    """Each text by the rules of its locale (BCP 47), its words parted by single spaces."""
    languages = [_language(locale) for locale in locales]
    english_ones = [place for place, language in enumerate(languages) if language == "en"]
    if len(english_ones) < _MANY:
        return [_normalised(text, language) for text, language in zip(texts, languages, strict=True)]
    found = _english_texts([texts[place] for place in english_ones])
    if len(found) == len(texts):
        return found
    by_place = dict(zip(english_ones, found, strict=True))
    return [
        by_place[place] if place in by_place else _normalised(text, languages[place])
        for place, text in enumerate(texts)
    ]


@lru_cache(maxsize=1024)
def _language(locale: str) -> str:
    return locale.split("-", 1)[0].lower()


def _normalised(text: str, language: str) -> str:
    if "[" in text or "‹" in text:
        text = _INAUDIBLE.sub(" ", text)
    if sum(map(text.count, "([<")) > _MOST_BRACKETS:
        text = text.translate(_BRACKETS)
    try:
        said = _BY_LANGUAGE.get(language, _basic)(text)
    except (ArithmeticError, AssertionError, LookupError, ValueError):
        # Numbers of thousands of digits are beyond the library; no vendor's row may keep all others from being scored.
        said = _basic(text)
    return " ".join(said.split())
