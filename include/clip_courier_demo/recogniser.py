"""The demo's speech recogniser: it hears what was said, with errors of a known rate for each locale, and ranks guesses.

Identifying words are heard correctly, so that whatever must not leave is there to be found.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np

from clip_courier_demo.locales import Locale
from clip_courier_demo.sentences import PHRASEBOOKS
from clip_courier_demo.speech import Times
from clip_courier_demo.utterances import Utterance, tokens

# Of all errors; the rest are insertions.
_SUBSTITUTED, _DELETED = 0.6, 0.2

# Later guesses err more often.
_WORSE = (1.0, 1.4, 1.8)


@dataclass(frozen=True)
class Hypothesis:
    """What the recogniser understood, best first from rank 1, with its own confidence."""

    rank: int
    text: str
    confidence: float
    engine: str


@dataclass(frozen=True)
class Heard:
    """One recording's hypotheses, the timing of the first one's words (word, start_ms, end_ms), and its errors."""

    hypotheses: tuple[Hypothesis, ...]
    words: tuple[tuple[str, int, int], ...]
    spoken_words: int
    errors: int


def hear(random: np.random.Generator, utterance: Utterance, locale: Locale, times: Times) -> Heard:
    """One to three different hypotheses of an utterance; `times` are those of its tokens."""
    spoken = tokens(utterance.text)
    kept = {token for secret in utterance.secrets for token in tokens(secret.text)}
    engine = str(random.choice(("listener-2026.1", "listener-2025.4")))
    confidence = 1.0
    guesses: list[Hypothesis] = []
    first: tuple[list[str], list[int], int] = ([], [], 0)
    for factor in _WORSE[: int(random.integers(1, 4))]:
        words, sources, errors = _misheard(random, spoken, kept, locale, factor)
        text = " ".join(words)
        if any(text == guess.text for guess in guesses):
            continue
        first = first if guesses else (words, sources, errors)
        doubt = 0.03 + 0.8 * errors / len(spoken) + abs(random.normal(0, 0.05))
        confidence = max(0.05, min(confidence * 0.95, 1 - doubt))
        guesses.append(Hypothesis(len(guesses) + 1, text, round(confidence, 3), engine))
    return Heard(tuple(guesses), _timed(first[0], first[1], times), len(spoken), first[2])


def _misheard(
    random: np.random.Generator, spoken: list[str], kept: set[str], locale: Locale, factor: float
) -> tuple[list[str], list[int], int]:
    """The words with substitutions, deletions and insertions, never empty; which spoken one each is; and the errors."""
    chance, kind, choice = random.random((3, len(spoken)))
    heard: list[str] = []
    sources: list[int] = []
    errors = 0
    for position, word in enumerate(spoken):
        if word in kept or chance[position] >= locale.error_rate * factor:
            heard.append(word)
            sources.append(position)
            continue
        errors += 1
        if kind[position] < _SUBSTITUTED or len(spoken) == 1:
            heard.append(_pick(_alike(locale.language, word), choice[position]))
            sources.append(position)
        elif kind[position] >= _SUBSTITUTED + _DELETED:
            heard += [word, _pick(_short_words(locale.language), choice[position])]
            sources += [position, position]
    return (heard, sources, errors) if heard else (spoken, list(range(len(spoken))), 0)


def _pick(words: tuple[str, ...], uniform: float) -> str:
    return words[int(uniform * len(words))]


@cache
def _vocabulary(language: str) -> tuple[str, ...]:
    book = PHRASEBOOKS[language]
    fillers = (filler for group in book.slots.values() for filler in group)
    texts = (*book.everyday, *fillers, *book.answers)
    return tuple(sorted({token for text in texts for token in tokens(text) if "{" not in token}))


@cache
def _alike(language: str, word: str) -> tuple[str, ...]:
    """Other everyday words with the same first letter, or failing that of the same length, or any."""
    others = [other for other in _vocabulary(language) if other != word]
    alike = [other for other in others if other[0] == word[0]]
    return tuple(alike or [other for other in others if len(other) == len(word)] or others)


@cache
def _short_words(language: str) -> tuple[str, ...]:
    return tuple(word for word in _vocabulary(language) if len(word) <= 3)


def _timed(words: list[str], sources: list[int], times: Times) -> tuple[tuple[str, int, int], ...]:
    """Each word at the time of the spoken one that it was made of; what was put in has the second half of it."""
    found = []
    for place, (word, source) in enumerate(zip(words, sources, strict=True)):
        start, end = times[source]
        middle = (start + end) // 2
        is_put_in = place > 0 and sources[place - 1] == source
        is_parted = place + 1 < len(words) and sources[place + 1] == source
        found.append((word, middle if is_put_in else start, middle if is_parted else end))
    return tuple(found)
