"""Free text leaves word by word, and only what is known to be harmless: an allow-list, never a deny-list.

A word stays when at least k distinct persons said it in the landing window (`said_by_many`), the language's dictionary
knows it as an everyday word, and it is not a name. All else becomes a typed mask: `‹NAME›`, `‹NUMBER›`, `‹WORD›`.
Harmless words can still spell out something that is not: what is dictated (numbers, letters, addresses, a name after
"my name is") is masked as a whole. A language without a dictionary is masked whole.

Sources: k-anonymity, Sweeney 2002 (doi:10.1142/S0218488502001648), applied to vocabulary; word frequencies: wordfreq;
names: the lists that Faker keeps for its locales.
"""

import hashlib
import importlib
import pkgutil
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, reduce
from importlib import resources
from itertools import accumulate
from operator import or_
from pathlib import Path
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
# The same for the long tail of family names, of which most are words, too ("lion", "gather").
COMMONER_THAN_RARE_NAMES_ZIPF: Final = 4.3

_MASKS: Final = frozenset({NAME, NUMBER, WORD})

_TOKEN = regex.compile(r"\S+")
_LETTERS = regex.compile(r"[\p{L}\p{M}]+")
_EDGE = regex.compile(r"^[\p{P}\p{S}]+|[\p{P}\p{S}]+$")
_HARMLESS_EDGE: Final = frozenset(".,!?;:…।")
_TYPOGRAPHIC_APOSTROPHE: Final = "’"  # noqa: RUF001


def _words(text: str) -> frozenset[str]:
    """In the form that words are compared in."""
    return frozenset(unicodedata.normalize("NFC", text).split())


# What stands on one side of an apostrophe and says nothing by itself.
_ELISIONS: Final[Mapping[str, frozenset[str]]] = {
    "en": _words("s t d m ll re ve"),
    "de": _words("s"),
    "fr": _words("l d j m t s n c qu jusqu lorsqu puisqu"),
    "it": _words("l d c un dell all nell dall sull quell"),
}

# Words that are spoken for digits, and those that join them.
_SPOKEN_NUMBERS: Final[Mapping[str, frozenset[str]]] = {
    "en": _words(
        "zero oh nought naught one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen"
        " sixteen seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand"
        " double triple treble"
    ),
    "de": _words(
        "null eins zwei zwo drei vier fünf sechs sieben acht neun zehn elf zwölf dreizehn vierzehn fünfzehn sechzehn"
        " siebzehn achtzehn neunzehn zwanzig dreißig vierzig fünfzig sechzig siebzig achtzig neunzig hundert tausend"
        " doppel"
    ),
    "fr": _words(
        "zéro deux trois quatre cinq six sept huit neuf dix onze douze treize quatorze quinze seize vingt trente"
        " quarante cinquante soixante septante huitante nonante cent cents mille double triple"
    ),
    "hi": _words(
        "शून्य ज़ीरो जीरो दो तीन चार पांच पाँच छह छः छे सात आठ नौ दस"
        " ग्यारह बारह तेरह चौदह पंद्रह पन्द्रह सोलह सत्रह अठारह उन्नीस"
        " बीस इक्कीस बाईस तेईस चौबीस पच्चीस छब्बीस सत्ताईस अट्ठाईस उनतीस"
        " तीस इकतीस बत्तीस तैंतीस चौंतीस पैंतीस छत्तीस सैंतीस अड़तीस"
        " उनतालीस चालीस इकतालीस बयालीस तैंतालीस चवालीस पैंतालीस छियालीस"
        " सैंतालीस अड़तालीस उनचास पचास इक्यावन बावन तिरपन चौवन पचपन"
        " छप्पन सत्तावन अट्ठावन उनसठ साठ इकसठ बासठ तिरसठ चौंसठ पैंसठ"
        " छियासठ सड़सठ अड़सठ उनहत्तर सत्तर इकहत्तर बहत्तर तिहत्तर"
        " चौहत्तर पचहत्तर छिहत्तर सतहत्तर अठहत्तर उनासी अस्सी इक्यासी"
        " बयासी तिरासी चौरासी पचासी छियासी सत्तासी अट्ठासी नवासी नब्बे"
        " इक्यानवे बानवे तिरानवे चौरानवे पचानवे छियानवे सत्तानवे"
        " अट्ठानवे निन्यानवे सौ हज़ार हजार डबल"
    ),
}
# Whoever speaks one language dictates a number in another.
_ANY_NUMBER: Final = frozenset().union(*_SPOKEN_NUMBERS.values())
# Digits that are also articles: they count as digits beside another one.
_ARTICLES: Final[Mapping[str, frozenset[str]]] = {
    "de": _words("ein eine"),
    "fr": _words("un une"),
    "hi": _words("एक"),
}
_GERMAN_COMPOUND = regex.compile(r"(ein|zwei|drei|vier|fünf|sechs|sieben|acht|neun)und\p{L}+ßig|(\p{L}+)und\p{L}+zig")
# So many numbers, with at most so many other words between one and the next ("uh", "then", "area code").
_DICTATED_NUMBERS: Final = 3
_WORDS_BETWEEN: Final = 2

# One letter that is a word; any other letter that stands alone is being spelled.
_LETTER_WORDS: Final[Mapping[str, frozenset[str]]] = {
    "en": _words("a i"),
    "fr": _words("a à y ô"),
    "hi": _words("न व"),
    "es": _words("a e o u y"),
    "it": _words("a e è i o"),
    "pt": _words("a e o à é"),
}
# Names of letters, as recognisers write them, and the alphabets that are used to spell over a bad line.
_SPELLING: Final = _words(
    "bee cee dee ee eff gee aitch haitch jay kay ell em en pee cue ess tee vee ex zed zee ar alpha alfa bravo charlie"
    " delta echo foxtrot golf hotel india juliet juliett kilo lima mike november oscar papa quebec romeo sierra"
    " tango uniform victor whiskey xray yankee zulu"
)
# Elsewhere some of them are common words ("en").
_SPELLED_SO_IN: Final = _words("en hi")

# How an e-mail or web address is dictated.
_AT: Final = _words("at arobase ät klammeraffe एट ऐट")
_DOT: Final = _words("dot punkt point period डॉट")
_DOMAINS: Final = _words("com net org info biz io co edu gov eu uk us ca de fr ch at be in कॉम इन")
_MAIL_PROVIDERS: Final = _words(
    "gmail googlemail hotmail yahoo outlook icloud gmx protonmail wanadoo laposte rediffmail"
)
_LONGEST_LOCAL_PART: Final = 6
_LONGEST_HOST: Final = 4

# Kinds of streets. The first are always part of an address; the others are where a number stands before them.
_STREETS: Final = _words(
    "street road avenue boulevard lane crescent straße strasse gasse allee rue chemin impasse quai मार्ग गली"
)
_PLACES: Final = _words("court drive square terrace yard close place way grove row weg platz नगर कॉलोनी")
_STREET_ENDING = regex.compile(r"\p{L}{3,}(straße|strasse|gasse|allee)")

# What somebody says before a name; the words after it are masked whatever they are.
_NAME_CUES: Final[tuple[tuple[str, ...], ...]] = (
    *(("name", "is"), ("name's",), ("surname", "is")),
    *(("name", "ist"), ("heiße",)),
    *(("m'appelle",), ("nom", "est"), ("prénom", "est")),
    *(("नाम",),),
)
_LONGEST_NAME: Final = 3
# How people are addressed; a name follows.
_TITLES: Final = _words(
    "frau herr herrn familie doktor dr mr mrs ms mister madame monsieur mademoiselle mme docteur señor señora signor"
    " signora श्री श्रीमती"
)
_LONGEST_TITLED_NAME: Final = 2


def rules() -> str:
    """Digest of this module: by another one the same text is masked otherwise."""
    return hashlib.sha256(Path(__file__).read_bytes()).hexdigest()


def harmless_words(said_by_many: Mapping[str, frozenset[str]]) -> dict[str, frozenset[str]]:
    """Of the words that enough distinct persons said, by language, those that are everyday words and nobody's name."""
    return {
        language: frozenset(
            w
            for w in (unicodedata.normalize("NFC", word) for word in words)
            if _is_commoner_than(EVERYDAY_ZIPF, w, language) and not is_name(w, language)
        )
        for language, words in said_by_many.items()
    }


@dataclass(frozen=True)
class Redactor:
    """Masks text. `harmless`: language → the words that may be shown."""

    harmless: Mapping[str, frozenset[str]]
    masks: Counter[str] = field(default_factory=Counter)
    _judged: dict[tuple[str, str], str] = field(default_factory=dict, repr=False, compare=False)

    def redact(self, text: str, locale: str) -> str:
        """The text with every word masked that is not known to be harmless; counts the masks by kind.

        Redacting what is redacted changes nothing.
        """
        language = locale.split("-")[0].lower()
        words = [unicodedata.normalize("NFC", token) for token in _TOKEN.findall(text)]
        while (shown := self._once(words, language)) != words:
            words = shown
        self.masks.update(word for word in words if word in _MASKS)
        return " ".join(words)

    def spoken(self, words: Sequence[str], locale: str) -> list[bool]:
        """Which of an utterance's words, in their order, identify somebody when they are heard.

        That is names, dictated numbers, addresses and codes; never a word because few persons say it.
        """
        language = locale.split("-")[0].lower()
        # What a recogniser timed as one word may be several: "j. o. h. n.".
        pieces = [[_bare(unicodedata.normalize("NFC", t)) for t in _TOKEN.findall(word)] for word in words]
        flat = [piece for of_word in pieces for piece in of_word]
        found = [any(is_name(part, language) for part in piece.split("'")) for piece in flat]
        for start, end, _ in _dictated(flat, language):
            found[start:end] = [True] * (end - start)
        ends = list(accumulate(map(len, pieces)))
        return [any(found[end - len(of_word) : end]) for end, of_word in zip(ends, pieces, strict=True)]

    def _once(self, words: list[str], language: str) -> list[str]:
        shown = [self._judge(word, language) for word in words]
        for start, end, mask in _dictated([_bare(word) for word in words], language):
            shown[start:end] = [mask] * (end - start)
        # A run of masks of one kind is one mask: its length would say how long the number or the name was.
        return [
            word for place, word in enumerate(shown) if word not in _MASKS or place == 0 or word != shown[place - 1]
        ]

    def _judge(self, word: str, language: str) -> str:
        """The word as it is shown, or its mask."""
        known = self._judged.get((word, language))
        if known is None:
            known = self._judged[word, language] = self._judge_anew(word, language)
        return known

    def _judge_anew(self, word: str, language: str) -> str:
        if word in _MASKS:
            return word
        if any(c.isnumeric() for c in word):
            return NUMBER
        bare = _bare(word)
        if self._is_harmless(bare, language):
            return _core(word) + (word[-1] if word[-1] in _HARMLESS_EDGE else "")
        return NAME if any(is_name(piece, language) for piece in bare.split("'")) else WORD

    def _is_harmless(self, bare: str, language: str) -> bool:
        if len(bare) == 1 and bare not in _LETTER_WORDS.get(language, ()):
            return False
        shown, elisions = self.harmless.get(language, frozenset()), _ELISIONS.get(language, frozenset())
        if bare in shown:
            return not is_name(bare, language)
        left, _, right = bare.partition("'")
        content = right if left in elisions else left if right in elisions else ""
        return content in shown and not is_name(content, language)


# What a word may be a part of; most are part of nothing, and of most texts no more is asked.
_OF_A_NUMBER, _OF_SPELLING, _OF_AN_ADDRESS, _OF_A_CUE, _A_TITLE = 1, 2, 4, 8, 16


@lru_cache(maxsize=1 << 16)
def _parts(word: str, language: str) -> int:
    """Which of these a word may belong to, as bits."""
    found = 0
    is_numeral = word in _ANY_NUMBER or word == NUMBER or any(c.isnumeric() for c in word)
    if is_numeral or (language == "de" and _GERMAN_COMPOUND.fullmatch(word)):
        found |= _OF_A_NUMBER
    if (len(word) == 1 and word.isalpha()) or (language in _SPELLED_SO_IN and word in _SPELLING):
        found |= _OF_SPELLING
    if word in _DOT or word in _MAIL_PROVIDERS or word in _STREETS or word in _PLACES or _STREET_ENDING.fullmatch(word):
        found |= _OF_AN_ADDRESS
    if any(word == cue[0] for cue in _NAME_CUES):
        found |= _OF_A_CUE
    return found | (_A_TITLE if word in _TITLES else 0)


def _dictated(bare: list[str], language: str) -> Iterator[tuple[int, int, str]]:
    """Spans of words that together say more than each of them, with their masks."""
    parts = [_parts(word, language) for word in bare]
    any_of = reduce(or_, parts, 0)
    numbers = [bool(part & _OF_A_NUMBER) for part in parts]
    articles = _ARTICLES.get(language, frozenset())
    # Articles are digits beside one another as well.
    if any_of & _OF_A_NUMBER or articles:
        for start, end in _runs([is_one or b in articles for is_one, b in zip(numbers, bare, strict=True)]):
            numbers[start:end] = [True] * (end - start)
        yield from ((start, end, NUMBER) for start, end in _close_together(numbers))
    if any_of & _OF_SPELLING:
        yield from ((start, end, WORD) for start, end in _runs([bool(part & _OF_SPELLING) for part in parts]))
    if any_of & _OF_AN_ADDRESS:
        yield from _addresses(bare, numbers, language)
    if any_of & (_OF_A_CUE | _A_TITLE):
        yield from _introduced(bare)


def _addresses(bare: list[str], numbers: list[bool], language: str) -> Iterator[tuple[int, int, str]]:
    for place, word in enumerate(bare):
        if word in _DOT or word in _MAIL_PROVIDERS:
            yield from _net_address(bare, place)
        if word in _STREETS or word in _PLACES or _STREET_ENDING.fullmatch(word):
            yield from _street(bare, place, numbers, language)


def _introduced(bare: list[str]) -> Iterator[tuple[int, int, str]]:
    """Names, by what is said before them."""
    for cue in _NAME_CUES:
        for place in range(len(bare) - len(cue)):
            end = place + len(cue)
            if tuple(bare[place:end]) == cue and bare[end] not in _MASKS:
                yield end, min(end + _LONGEST_NAME, len(bare)), NAME
    for place, word in enumerate(bare[:-1], start=1):
        if word in _TITLES and bare[place] not in _MASKS:
            yield place, min(place + _LONGEST_TITLED_NAME, len(bare)), NAME


def _runs(belongs: list[bool]) -> Iterator[tuple[int, int]]:
    """The spans of two or more that belong and stand side by side."""
    start = 0
    for place in range(len(belongs) + 1):
        if place < len(belongs) and belongs[place]:
            continue
        if place - start >= 2:
            yield start, place
        start = place + 1


def _close_together(belongs: list[bool]) -> Iterator[tuple[int, int]]:
    places = [place for place, does in enumerate(belongs) if does]
    run: list[int] = []
    for place in [*places, len(belongs) + _WORDS_BETWEEN + 1]:
        if run and place - run[-1] > _WORDS_BETWEEN + 1:
            if len(run) >= _DICTATED_NUMBERS:
                yield run[0], run[-1] + 1
            run = []
        run.append(place)


def _net_address(bare: list[str], place: int) -> Iterator[tuple[int, int, str]]:
    """`place` is a dot or a mail provider: an address with an @ before it, or with a domain after the dot."""
    end = min(place + 2, len(bare)) if bare[place] in _DOT else place + 1
    for at in range(place - 1, max(place - _LONGEST_HOST, 0) - 1, -1):
        if bare[at] in _AT:
            yield max(at - _LONGEST_LOCAL_PART, 0), end, WORD
            return
    if bare[place] in _DOT and end == place + 2 and bare[place + 1] in _DOMAINS:
        yield max(place - _LONGEST_HOST, 0), end, WORD


def _street(bare: list[str], place: int, numbers: list[bool], language: str) -> Iterator[tuple[int, int, str]]:
    """From the number of the house, if it is said, to the end of the street's name."""
    end = min(place + 4, len(bare)) if language == "fr" else place + 1
    numbered = [n for n in range(max(place - 4, 0), place) if numbers[n]]
    if numbered:
        yield numbered[0], end, WORD
    elif bare[place] not in _PLACES:
        yield (place if language == "fr" else max(place - 2, 0)), end, WORD


def _core(word: str) -> str:
    return _EDGE.sub("", word)


@lru_cache(maxsize=1 << 16)
def _bare(word: str) -> str:
    """Without what stands around it, in lower case; a mask stays a mask."""
    return word if word in _MASKS else _core(word).lower().replace(_TYPOGRAPHIC_APOSTROPHE, "'")


@lru_cache(maxsize=32)
def _frequencies(language: str) -> Mapping[str, float]:
    """Word → share of all words; empty for a language without a dictionary."""
    # Asked for a language that it lacks, wordfreq would answer with its nearest one.
    if language not in wordfreq.available_languages():
        return {}
    return wordfreq.get_frequency_dict(language)


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


@lru_cache(maxsize=1)
def _rare_names() -> frozenset[str]:
    """Every family name that 100 persons of the 1990 US census bore, in lower case: 88,799 from all over the world."""
    lines = resources.files("names").joinpath("dist.all.last").read_text(encoding="ascii").splitlines()
    return frozenset(line.split()[0].lower() for line in lines)


def is_name(word: str, language: str) -> bool:
    """Whether somebody may be called that; words that are far commoner than any name are not names."""
    if word in _names():
        return not _is_commoner_than(COMMONER_THAN_NAMES_ZIPF, word, language)
    return word in _rare_names() and not _is_commoner_than(COMMONER_THAN_RARE_NAMES_ZIPF, word, language)
