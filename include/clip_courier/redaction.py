"""Free text leaves in layers that fail closed: what is not known to be harmless becomes a typed mask.

(a) A model that was trained on text finds names and places (recognisers.py; English and French). (b) What is dictated,
spelled, introduced or sooner a name than a word is found by its form (speech_patterns.py). (c) Of all other words
only those stay that at least k distinct persons said in the landing window (`said_by_many`), that the language's
dictionary knows as everyday words, and that are nobody's name: an allow-list.

`strict` is all three. `entities` is (a) and (b), where there is a model for the language; elsewhere it is `strict`, and
a language without a dictionary is masked whole. docs/redaction.md has the figures.

Source: k-anonymity, Sweeney 2002 (doi:10.1142/S0218488502001648), applied to vocabulary.
"""

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from itertools import accumulate
from pathlib import Path
from typing import Final, Literal, NamedTuple

import regex

from clip_courier import known_names, recognisers, speech_lexicon, speech_patterns
from clip_courier.speech_patterns import bare, core

NAME: Final = speech_patterns.NAME
NUMBER: Final = speech_patterns.NUMBER
WORD: Final = speech_patterns.WORD
ADDRESS: Final = speech_patterns.ADDRESS
EMAIL: Final = speech_patterns.EMAIL
MASKS: Final = speech_patterns.MASKS

Level = Literal["strict", "entities"]

_RANKS: Final = {mask: rank for rank, mask in enumerate(MASKS, start=1)}
# As str.split() tells words apart.
_TOKEN = regex.compile(r"[^\s\x1c-\x1f]+")
_HARMLESS_EDGE: Final = frozenset(".,!?;:…।")

# What stands on one side of an apostrophe and says nothing by itself.
_ELISIONS: Final[Mapping[str, frozenset[str]]] = {
    "en": speech_lexicon.words_of("s t d m ll re ve"),
    "de": speech_lexicon.words_of("s"),
    "fr": speech_lexicon.words_of("l d j m t s n c qu jusqu lorsqu puisqu"),
    "it": speech_lexicon.words_of("l d c un dell all nell dall sull quell"),
}


def rules() -> str:
    """Digest of what decides on masks: by another one the same text is masked otherwise."""
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for module in (known_names, recognisers, speech_lexicon, speech_patterns):
        digest.update(Path(str(module.__file__)).read_bytes())
    packages = ("wordfreq", "names", "faker", *recognisers.PACKAGES)
    digest.update(" ".join(version(package) for package in packages).encode())
    return digest.hexdigest()


def harmless_words(said_by_many: Mapping[str, frozenset[str]]) -> dict[str, frozenset[str]]:
    """Of the words that enough distinct persons said, by language, those that are everyday words and nobody's name."""
    shown = {}
    for language, words in said_by_many.items():
        said = {unicodedata.normalize("NFC", word) for word in words}
        # Who said "j'ai" said "ai".
        said |= {_content(word, language) for word in said}
        shown[language] = frozenset(
            w for w in said if known_names.is_everyday(w, language) and not known_names.is_name(w, language)
        )
    return shown


@dataclass(frozen=True)
class Finding:
    """What is masked of a text: from `start` to `end`, in characters, by which mask."""

    start: int
    end: int
    mask: str


class _Token(NamedTuple):
    """A word of the text, or a mask in the place of one or several; `end` is the first character behind it."""

    shown: str
    start: int
    end: int


@dataclass(frozen=True)
class Redactor:
    """Masks text. `harmless`: language → the words that may be shown under `strict`.

    Without the model (layer a), `strict` still shows nothing but harmless words, a thousand times as fast; `entities`
    is then `strict`.
    """

    harmless: Mapping[str, frozenset[str]]
    level: Level = "strict"
    uses_model: bool = True
    masks: Counter[str] = field(default_factory=Counter)
    _judged: dict[tuple[str, str], str] = field(default_factory=dict, repr=False, compare=False)

    def redact(self, text: str, locale: str) -> str:
        """The text with every word masked that may not be shown; counts the masks by kind.

        Redacting what is redacted changes nothing.
        """
        tokens = self._masked(text, locale)
        self.masks.update(token.shown for token in tokens if token.shown in _RANKS)
        return _joined(tokens)

    def findings(self, text: str, locale: str) -> list[Finding]:
        """What `redact` masks, by its place in the text as it was given; counts nothing."""
        return [Finding(t.start, t.end, t.shown) for t in self._masked(text, locale) if t.shown in _RANKS]

    def spoken(self, words: Sequence[str], locale: str) -> list[bool]:
        """Which of an utterance's words, in their order, identify somebody when they are heard.

        That is what layers (a) and (b) mask: names, dictated numbers, addresses and codes; never a word because few
        persons say it.
        """
        language = _language(locale)
        # What a recogniser timed as one word may be several: "j. o. h. n.".
        pieces = [_TOKEN.findall(unicodedata.normalize("NFC", word)) for word in words]
        flat = [piece for of_word in pieces for piece in of_word]
        found = [False] * len(flat)
        spans = speech_patterns.find(flat, language)
        if self.uses_model:
            tokens = list(_tokens(" ".join(flat)))
            spans += _model_spans(" ".join(flat), tokens, language)
        for start, end, _ in spans:
            found[start:end] = [True] * (end - start)
        ends = list(accumulate(map(len, pieces)))
        return [any(found[end - len(of_word) : end]) for end, of_word in zip(ends, pieces, strict=True)]

    def _masked(self, text: str, locale: str) -> list[_Token]:
        language = _language(locale)
        tokens = list(_tokens(text))
        has_model = self.uses_model and recognisers.knows(language)
        if has_model:
            # First of the text as it is, with all that capitals and commas tell.
            spans = speech_patterns.find([t.shown for t in tokens], language) + _model_spans(text, tokens, language)
            tokens = self._settled(_with_spans(tokens, spans), language, is_strict=False)
        if self.level == "strict" or not has_model:
            # What `entities` masks is masked already: `strict` shows a part of what `entities` shows.
            tokens = self._settled(tokens, language, is_strict=True, has_model=has_model)
        return tokens

    def _settled(self, tokens: list[_Token], language: str, *, is_strict: bool, has_model: bool = True) -> list[_Token]:
        """Masked again and again, until nothing changes: then redacting the result changes nothing either.

        It ends, for words only become masks, masks only greater ones, and runs of them only shorter.
        """
        asked = ""
        while True:
            masked = self._once(tokens, language, is_strict=is_strict)
            if [t.shown for t in masked] != [t.shown for t in tokens]:
                tokens = masked
                continue
            if not has_model or (text := _joined(tokens)) == asked:
                return masked
            asked = text
            tokens = _with_spans(masked, _model_spans(text, list(_tokens(text)), language))

    def _once(self, tokens: list[_Token], language: str, *, is_strict: bool) -> list[_Token]:
        shown = [t.shown for t in tokens]
        if is_strict:
            judged = [self._judge(word, language) for word in shown]
            tokens = [t if t.shown == j else t._replace(shown=j) for t, j in zip(tokens, judged, strict=True)]
        else:
            tokens = [t._replace(shown=_tidy(t.shown)) for t in tokens]
        return _with_spans(tokens, speech_patterns.find(shown, language))

    def _judge(self, word: str, language: str) -> str:
        """The word as it is shown, or its mask."""
        known = self._judged.get((word, language))
        if known is None:
            known = self._judged[word, language] = self._judge_anew(word, language)
        return known

    def _judge_anew(self, word: str, language: str) -> str:
        if word in _RANKS:
            return word
        if any(c.isnumeric() for c in word):
            return NUMBER
        plain = bare(word)
        if self._is_harmless(plain, language) or all(c in _HARMLESS_EDGE for c in word):
            return _tidy(word)
        return NAME if any(known_names.is_name(piece, language) for piece in plain.split("'")) else WORD

    def _is_harmless(self, plain: str, language: str) -> bool:
        if len(plain) == 1 and plain not in speech_lexicon.LETTER_WORDS.get(language, ()):
            return False
        if "-" in plain:
            # "well-known", "fera-t-il": as harmless as its parts, unless they are a name together.
            parts = [part for part in plain.split("-") if not (language == "fr" and part == "t")]
            is_name = known_names.is_name("".join(parts), language)
            return not is_name and len(parts) > 1 and all(self._is_harmless(part, language) for part in parts)
        shown = self.harmless.get(language, frozenset())
        word = plain if plain in shown else _content(plain, language)
        return word in shown and not known_names.is_name(word, language)


def _content(word: str, language: str) -> str:
    """What stands beside an elision: of "j'ai" the second half; empty if there is none."""
    elisions = _ELISIONS.get(language, frozenset())
    left, _, right = word.partition("'")
    return right if left in elisions else left if right in elisions else ""


def _language(locale: str) -> str:
    return locale.split("-")[0].lower()


def _tokens(text: str) -> Iterator[_Token]:
    is_composed = unicodedata.is_normalized("NFC", text)
    for found in _TOKEN.finditer(text):
        word = found[0]
        yield _Token(word if is_composed else unicodedata.normalize("NFC", word), *found.span())


def _joined(tokens: Sequence[_Token]) -> str:
    return " ".join(token.shown for token in tokens)


def _tidy(word: str) -> str:
    """Without the punctuation around it, but for what ends a sentence or a part of one."""
    inner = core(word)
    if word in _RANKS or not inner:
        return word
    return inner + (word[-1] if word[-1] in _HARMLESS_EDGE else "")


def _model_spans(text: str, tokens: Sequence[_Token], language: str) -> list[speech_patterns.Span]:
    """What the model finds in the text, as spans of its tokens; of masks it knows nothing."""
    return [
        (place, place + 1, mask)
        for start, end, mask in recognisers.find(text, language)
        for place, token in enumerate(tokens)
        if token.start < end and start < token.end and token.shown not in _RANKS
    ]


def _with_spans(tokens: list[_Token], spans: Sequence[speech_patterns.Span]) -> list[_Token]:
    """The tokens with the spans' masks, the greater one where two meet; a run of masks of one kind is one mask.

    Its length would say how long the number or the name was.
    """
    if not spans and not any(t.shown in _RANKS for t in tokens):
        return tokens
    masks = [t.shown if t.shown in _RANKS else "" for t in tokens]
    for start, end, mask in spans:
        for place in range(start, end):
            if _RANKS.get(masks[place], 0) < _RANKS[mask]:
                masks[place] = mask
    kept: list[_Token] = []
    for token, mask in zip(tokens, masks, strict=True):
        if mask and kept and kept[-1].shown == mask:
            kept[-1] = kept[-1]._replace(end=token.end)
        else:
            kept.append(token._replace(shown=mask) if mask else token)
    return kept
