"""Texts of one sound under one form, and the short way through English against the library's own."""

import os
import time
import unicodedata
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from whisper_normalizer.english import EnglishTextNormalizer
from wordfreq import top_n_list

from clip_courier.normalisation import RULES, english, normalise, rules_of

LIBRARY = EnglishTextNormalizer()
NUMBERS = sorted(LIBRARY.standardize_numbers.words)
OTHERS = (
    "cat the a john's i'd they've been got gone done won't can't mr uh hmm half colour favourites y'all cause 12 $5 x2"
)
WORDS = st.sampled_from(NUMBERS) | st.sampled_from(OTHERS.split())
MARKS = st.sampled_from([" ", " ", " ", " ", ", ", ". ", "-", "? ", " - ", "; ", "...", " '", "  ", " (", ") ", "\n"])


# The library makes 4,000 of them a second: more are for whoever changes the short way.
TEXTS = int(os.environ.get("NORMALISED_TEXTS", "4000"))


@settings(max_examples=500, deadline=None)
@given(st.lists(st.tuples(WORDS, MARKS), max_size=9))
def test_english_says_what_the_library_says(spoken: list[tuple[str, str]]) -> None:
    text = "".join(word + mark for word, mark in spoken)
    assert english(text).split() == LIBRARY(text).split()


def test_normalise_says_of_many_texts_what_the_library_says_of_each() -> None:
    random, everyday = Random(5), top_n_list("en", 20_000)
    special = [*NUMBERS, *OTHERS.split(), "and", "a", "uh", "one", "o'clock", "twenty-one", "3rd", "café", "K", "mr."]
    marks = [" "] * 20 + [", ", ". ", "-", "? ", " - ", "...", " '", "  ", " (", ") ", "\n", ".", ",", "'"]

    def word() -> str:
        said = random.choice(special if random.random() < 0.4 else everyday)
        return said.capitalize() if random.random() < 0.1 else said

    texts = ["".join(word() + random.choice(marks) for _ in range(random.randrange(14))) for _ in range(TEXTS)]
    texts += [f"{word()} and{mark}a{mark}half {word()}" for mark in (" ", " uh ", ", ", "-") for _ in range(20)]
    # Parts of another language stand between them.
    places = [random.random() < 0.9 for _ in texts]
    found = normalise(texts, ["en-GB" if is_english else "de-DE" for is_english in places])
    wrong = [
        (text, said)
        for text, said, is_english in zip(texts, found, places, strict=True)
        if is_english and said.split() != LIBRARY(text).split()
    ]
    assert wrong == []
    assert [said for said, is_english in zip(found, places, strict=True) if not is_english] == [
        normalise([text], ["de-DE"])[0] for text, is_english in zip(texts, places, strict=True) if not is_english
    ]


@pytest.mark.parametrize(
    ("locale", "one", "other"),
    [
        ("en-GB", "Don't stop!", "do not stop"),
        ("en-US", "Mr. Smith's favourite, twenty-one dollars", "mister smith is favorite $21"),
        ("en", "[noise] well (uh) yes", "well yes"),
        ("fr-FR", "l’heure, vingt-trois", "L'heure 23"),
        ("es-MX", "veintitrés mil euros", "23000 euros"),
        ("ru-RU", "Ещё раз.", "еще раз"),
        ("ar-EG", "أَهْلًا، ٣", "اهلا 3"),
        ("zh-CN", "我有二十三个苹果。", "我 有 23 个苹果"),
        ("ja-JP", "今日は、晴れ。", "今日は 晴れ"),
        ("hi-IN", "हिन्दी, में।", "हिन्दी में"),
        ("tr-TR", "IŞIK İstanbul", "ışık istanbul"),
        ("de-DE", "Straße – ＡＢＣ １２", "straße abc 12"),
        ("cs-CZ", unicodedata.normalize("NFD", "Příště"), "příště"),
    ],
)
def test_normalise_brings_what_sounds_alike_together(locale: str, one: str, other: str) -> None:
    first, second = normalise([one, other], [locale, locale])
    assert first == second
    assert first == " ".join(first.split())


def test_normalise_keeps_apart_what_sounds_differently() -> None:
    assert normalise(["कि", "का"], ["hi-IN", "hi-IN"]) == ["कि", "का"]
    assert normalise(["ık", "ik"], ["tr-TR", "tr-TR"]) == ["ık", "ik"]
    assert normalise(["año", "ano"], ["es-ES", "es-ES"]) == ["año", "ano"]


def test_normalise_parts_what_is_written_without_spaces() -> None:
    assert normalise(["你好", "ありがとう"], ["zh-TW", "ja"]) == ["你 好", "あ り が と う"]


@settings(max_examples=100, deadline=None)
@given(
    st.text(max_size=60), st.sampled_from(["en", "fr", "es", "ar", "ru", "zh", "th", "tr", "hi", "bn", "de", "xx-YY"])
)
def test_normalise_any_text(text: str, locale: str) -> None:
    (said,) = normalise([text], [locale])
    assert said == " ".join(said.split())


@pytest.mark.parametrize(
    "text",
    [
        "9" * 20_000,
        "(" * 20_000,
        "<[" * 10_000,
        "a" * 20_000,
        "one " * 5_000,
        "' " * 10_000,
        ", " * 10_000,
        "a'" * 10_000,
    ],
    ids=lambda text: text[:4],
)
def test_normalise_is_not_kept_busy(text: str) -> None:
    start = time.process_time()
    normalise([text] * 2, ["en-GB", "de-DE"])
    assert time.process_time() - start < 1


def test_rules_of_names_the_set_and_its_version() -> None:
    assert rules_of("en-GB") == f"en: {RULES}"
    assert rules_of("sv-SE") == f"basic: {RULES}"
    assert "whisper-normalizer" in RULES


@pytest.mark.parametrize(
    "locale", ["en-US", "de-DE", "fr-FR", "es-MX", "ru-RU", "ar-EG", "zh-CN", "ja-JP", "hi-IN", "tr-TR"]
)
def test_normalise_leaves_out_what_stands_for_words_that_nobody_could_hear(locale: str) -> None:
    """Also where there are so many that the library would not have them as brackets."""
    text = "x [beep] [BEEP], ‹NAME› y ‹NUMBER› z " + "[beep] " * 30
    assert normalise([text, "x y z", "‹y›"], [locale] * 3) == ["x y z", "x y z", "y"]
