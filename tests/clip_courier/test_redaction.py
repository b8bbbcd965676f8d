"""What may be read of a hypothesis: only words that are known to be harmless, and not even those where they add up."""

import time
import unicodedata
from pathlib import Path

import pytest
import regex
import wordfreq
from hypothesis import given, settings
from hypothesis import strategies as st

from clip_courier.known_names import is_name
from clip_courier.redaction import ADDRESS, EMAIL, MASKS, NAME, NUMBER, WORD, Redactor, harmless_words
from clip_courier_demo.stage import Stage

LANGUAGES = ("en", "de", "fr", "hi")
# As if everybody had said every word of the dictionary: then nothing is rare, and only the other rules are left.
EVERYTHING = harmless_words({language: frozenset(wordfreq.get_frequency_dict(language)) for language in LANGUAGES})

COMMON = {
    "en": "turn on the light in the kitchen please and call my mother at the station tomorrow".split(),
    "de": "mach bitte das licht in der küche an und ruf morgen meine mutter".split(),
    "fr": "allume la lumière dans la cuisine et appelle demain ma mère".split(),
    "hi": "कल सुबह मेरी माँ को फ़ोन करो और घर की बत्ती जला दो".split(),
}


def redact(text: str, locale: str = "en-US") -> str:
    """Without the model: what has to hold whatever a model finds."""
    return Redactor(EVERYTHING, uses_model=False).redact(text, locale)


def cores(text: str) -> list[str]:
    """The words that are left, without masks and without the punctuation around them."""
    bare = (regex.sub(r"^[\p{P}\p{S}]+|[\p{P}\p{S}]+$", "", word) for word in text.split() if word not in MASKS)
    return [unicodedata.normalize("NFC", word).lower() for word in bare]


# -- the property ----------------------------------------------------------------------------------------------


def hostile_words(language: str) -> st.SearchStrategy[str]:
    common = st.sampled_from(COMMON[language])
    glue = st.sampled_from(["'", "’", "-", "@", ".", "_", "\u200b", "\u0301", "/", ""])
    return st.one_of(
        common,
        common,
        st.text(min_size=1, max_size=8),
        st.text(alphabet="0123456789٣५½Ⅷ", min_size=1, max_size=6),
        st.text(alphabet="abcdefghij.@-'", min_size=1, max_size=9),
        st.tuples(common, glue, common).map("".join),
        st.sampled_from([*MASKS, "‹NAME", "NAME›", "@", "dot", "at", "com", "street", "one", "two", "nine", "j", "o"]),
        st.sampled_from(
            ["rue", "straße", "name", "is", "नाम", "एक", "दो", "un", "ein", "zwei", "double", "bee", "hotel"]
        ),
    )


@st.composite
def texts(draw: st.DrawFn) -> tuple[str, str]:
    language = draw(st.sampled_from(LANGUAGES))
    return language, " ".join(draw(st.lists(hostile_words(language), max_size=14)))


@settings(max_examples=600, deadline=None)
@given(texts())
def test_redact_lets_only_harmless_words_through(case: tuple[str, str]) -> None:
    language, text = case
    shown = redact(text, f"{language}-XX")
    left = regex.sub("|".join(MASKS), "", shown)
    assert "@" not in left
    assert not any(c.isnumeric() for c in left)
    for word in cores(shown):
        pieces = word.replace("’", "'").split("'")
        assert word.replace("’", "'") in EVERYTHING[language] or any(p in EVERYTHING[language] for p in pieces)
        assert len(pieces) <= 2
        assert all(p in EVERYTHING[language] or len(p) <= 7 for p in pieces)
        assert word in unicodedata.normalize("NFC", text).lower()


@settings(max_examples=600, deadline=None)
@given(texts())
def test_redact_twice_is_once(case: tuple[str, str]) -> None:
    language, text = case
    once = redact(text, language)
    assert redact(once, language) == once


@given(st.text(), st.sampled_from(["xx-XX", "tlh", "", "zz", "cy-GB"]))
def test_redact_masks_everything_without_a_dictionary(text: str, locale: str) -> None:
    assert set(redact(text, locale).split()) <= set(MASKS)


@given(st.lists(st.sampled_from(COMMON["en"]), max_size=10))
def test_redact_shows_nothing_that_few_people_said(words: list[str]) -> None:
    said = {"en": frozenset(COMMON["en"][:3])}
    shown = Redactor(harmless_words(said), uses_model=False).redact(" ".join(words), "en-GB")
    assert set(cores(shown)) <= said["en"]


# -- what must never be read -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "secret",
    [
        "zoe.marrow@example.com",
        "+1-555-0123456",
        "555 012 34 56",
        "SN-01E8C468F95F1F17",
        "2001:db8:26a::f2e4",
        "10.0.0.17",
        "five five five four three three zero",
        "five, uh, five, and then five, oh nine",
        "double five treble nine one",
        "oh seven seven hundred nine",
        "j o h n",
        "J. O. H. N.",
        "j-o-h-n",
        "j.o.h.n",
        "j'o'h'n",
        "jo'hn",
        "bee ar aitch jay",
        "hotel india november golf",
        "happy cat at gmail dot com",
        "happy dot cat at post dot example",
        "red house at gmail",
        "happy cat dot org",
        "twelve oak street",
        "oak street",
        "four green court",
        "quelodrel brundenkozane",
        "emily johnson",
        "hel\u200blo",
        "ｊｏｈｎ",
    ],
)
def test_redact_masks_what_identifies_however_often_it_is_said(secret: str) -> None:
    shown = redact(f"please take {secret} now")
    assert set(MASKS) & set(shown.split())
    assert not set(cores(shown)) & (set(cores(secret)) - {"at", "and", "then", "uh"})


@pytest.mark.parametrize(
    ("text", "locale", "expected"),
    [
        ("my name is will may", "en-US", f"my name is {NAME}"),
        ("je m'appelle rose blanche", "fr-FR", f"je m'appelle {NAME}"),
        ("mein name ist ernst kaiser", "de-DE", f"mein name ist {NAME}"),
        ("मेरा नाम सूरज प्रकाश", "hi-IN", f"मेरा नाम {NAME}"),
        ("null eins sieben einundzwanzig", "de-DE", NUMBER),
        ("zéro six quatre-vingt douze", "fr-FR", NUMBER),
        ("नौ आठ सात छह", "hi-IN", NUMBER),
        ("९८७ ६५४", "hi-IN", NUMBER),
        ("douze rue de la paix", "fr-FR", ADDRESS),
        ("in der Hauptstraße", "de-DE", f"in der {ADDRESS}"),
        ("katze punkt haus ät post punkt de", "de-DE", EMAIL),
    ],
)
def test_redact_masks_what_is_dictated_in_every_language(text: str, locale: str, expected: str) -> None:
    assert redact(text, locale) == expected


def test_redact_masks_every_name_that_is_no_common_word() -> None:
    names = ["emily", "johnson", "müller", "françois", "राजेश", "lakshmi"]
    for name in names:
        assert is_name(name, "en")
        assert redact(f"please call {name} now") == f"please call {NAME} now"


def test_redact_says_nothing_about_how_long_a_secret_was() -> None:
    assert redact("call 5550123") == redact("call 555 0123") == redact("call five five five oh one") == f"call {NUMBER}"


def test_redact_finds_no_canary_of_the_demo_world(session_stage: Stage, canaries: list[str]) -> None:
    texts_, seen = [f"please call {canary} now" for canary in canaries], 0
    for locale in ("en-US", "de-DE", "fr-FR", "hi-IN"):
        redactor = Redactor(EVERYTHING, uses_model=False)
        for canary, text in zip(canaries, texts_, strict=True):
            assert canary.lower() not in redactor.redact(text, locale).lower()
            seen += 1
    assert seen == 4 * len(canaries) > 1000
    assert Path(session_stage.folder, "world").is_dir()


# -- what must never be heard ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "locale", "heard"),
    [
        ("please call emily johnson at home", "en-US", "please call at home"),
        ("my number is five five five oh one two three thanks", "en-US", "my number is thanks"),
        ("the sarcophagus stood under the portico", "en-US", "the sarcophagus stood under the portico"),
        ("mein name ist ernst kaiser", "de-DE", "mein name ist"),
    ],
)
def test_spoken_marks_what_identifies_and_no_rare_word(text: str, locale: str, heard: str) -> None:
    words = text.split()
    marks = Redactor({}).spoken(words, locale)
    assert " ".join(word for word, is_marked in zip(words, marks, strict=True) if not is_marked) == heard


def test_spoken_answers_for_every_word_however_it_is_cut() -> None:
    assert Redactor({}, uses_model=False).spoken(["", "j. o. h. n.", "ok", " "], "en-US") == [False, True, False, False]


# -- what should be read ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "locale"),
    [
        ("Turn on the light in the kitchen, please.", "en-US"),
        ("I don't know, it's cold today!", "en-GB"),
        ("We’ll be at the station at two.", "en-GB"),
        ("Ich habe ein Haus und ein Auto.", "de-DE"),
        ("L'homme est là, qu'il parle aujourd'hui.", "fr-FR"),
        ("मैं घर जा रहा हूँ।", "hi-IN"),
        ("I need a table for two people", "en-US"),
        ("what is the point of this", "en-US"),
    ],
)
def test_redact_leaves_everyday_speech_as_it_is(text: str, locale: str) -> None:
    assert redact(text, locale) == text


def test_redact_reads_combining_marks_however_they_are_written() -> None:
    text = "मैं फ़ोन नहीं कर सकता"
    forms = {redact(unicodedata.normalize(form, text), "hi-IN") for form in ("NFC", "NFD", "NFKC", "NFKD")}
    assert forms == {unicodedata.normalize("NFC", text)}


def test_redact_drops_punctuation_but_for_the_marks_of_a_sentence() -> None:
    assert redact('"hello" (there) you?') == "hello there you?"
    assert redact(">>> hello") == f"{WORD} hello"


def test_redact_counts_its_masks() -> None:
    redactor = Redactor(EVERYTHING, uses_model=False)
    redactor.redact("call emily at 5550123, emily", "en-US")
    redactor.redact("the light", "en-US")
    assert redactor.masks == {NAME: 2, NUMBER: 1}


def test_redact_is_fast_enough_for_a_night() -> None:
    """A night's sample has some ten thousand hypotheses of ten words."""
    sentences = [" ".join(COMMON["en"]), "call five five five zero one two at home", "my name is emily johnson"] * 300
    redactor, words = Redactor(EVERYTHING, uses_model=False), sum(len(s.split()) for s in sentences)
    redactor.redact(sentences[0], "en-US")
    begun = time.process_time()
    for sentence in sentences:
        redactor.redact(sentence, "en-US")
    assert words / (time.process_time() - begun) > 30_000
