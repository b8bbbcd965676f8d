"""A labelled set of made-up sentences: what somebody says or writes, and which of it identifies whom.

Two halves with nothing in common but this code: other templates, other seeds, other locales of Faker, other names that
are in no list. `tuning` may be looked at while rules are written; figures are told of `held_out`.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final, Literal

import regex
from faker import Faker
from texts import HARMLESS, TEMPLATES, UNLISTED_NAMES

Half = Literal["tuning", "held_out"]
Form = Literal["as written", "lower-cased", "lower-cased, no punctuation", "numbers spoken"]
FORMS: Final[tuple[Form, ...]] = ("as written", "lower-cased", "lower-cased, no punctuation", "numbers spoken")
DIRECT: Final = frozenset(
    "PERSON STREET_ADDRESS CREDIT_CARD PHONE_NUMBER EMAIL_ADDRESS IBAN_CODE US_SSN IP_ADDRESS LICENSE PASSPORT".split()
)
SEEDS: Final = {"tuning": 11, "held_out": 8_611}
NAME_LOCALES: Final = {
    "tuning": "en_US de_DE fr_FR es_ES it_IT pl_PL tr_TR en_IN".split(),
    "held_out": "en_GB nl_NL pt_BR cs_CZ sv_SE ro_RO fi_FI hr_HR es_MX no_NO".split(),
}
HOME: Final = {"en": ("en_US", "en_GB"), "de": ("de_DE", "de_AT"), "fr": ("fr_FR", "fr_CH"), "hi": ("hi_IN", "hi_IN")}
_SLOT: Final = regex.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class Piece:
    """Part of a sentence: as it is written, as it is said, and what it identifies (None: nothing)."""

    written: str
    said: str
    kind: str | None = None


@dataclass(frozen=True)
class Sentence:
    language: str
    pieces: tuple[Piece, ...]
    # Whether one of its persons has a name that was written for this set, not taken from a list.
    is_unlisted: bool = False

    def text(self, form: Form) -> tuple[str, list[tuple[int, int, str]]]:
        """The text in a form, and its spans: start, end, kind."""
        text, spans = "", []
        for piece in self.pieces:
            shown = _formed(piece, form)
            if text.endswith(" ") or not text:
                shown = shown.lstrip()
            if piece.kind is not None:
                # What stands around it is none of it.
                core = shown.strip()
                start = len(text) + shown.index(core)
                spans.append((start, start + len(core), piece.kind))
            text += shown
        return text, spans


def sentences(half: Half, count: int, language: str = "en") -> list[Sentence]:
    """So many, the same each time."""
    random = Random(f"{SEEDS[half]} {language}")
    maker = _Maker(half, language, random)
    templates = TEMPLATES[language][half]
    # Each template as often as every other, give or take one.
    chosen = [templates[place % len(templates)] for place in range(count)]
    random.shuffle(chosen)
    return [maker.sentence(template) for template in chosen]


def harmless(half: Half, language: str = "en") -> list[Sentence]:
    """Sentences that identify nobody."""
    return [Sentence(language, (Piece(text, text),)) for text in HARMLESS[language][half]]


def _formed(piece: Piece, form: Form) -> str:
    if form == "as written":
        return piece.written
    if form == "lower-cased":
        return piece.written.lower()
    text = (piece.said if form == "numbers spoken" else piece.written).lower()
    if form == "numbers spoken":
        return regex.sub(r"\s+", " ", regex.sub(r"[^\p{L}\p{M}\p{N}'\s-]+", " ", text))
    # As most would strip it: an address of e-mail becomes one long word.
    return regex.sub(r"\s+", " ", regex.sub(r"[^\p{L}\p{M}\p{N}'\s]+", "", text))


class _Maker:
    def __init__(self, half: Half, language: str, random: Random) -> None:
        self._half, self._language, self._random = half, language, random
        home = HOME[language][half == "held_out"]
        self._home = Faker(home)
        # People of any origin are spoken of in any language; who speaks Hindi is written in its script here.
        locales = [home] if language == "hi" else [home, home, *NAME_LOCALES[half]]
        self._fakers = [Faker(locale) for locale in locales]
        for place, faker in enumerate([self._home, *self._fakers]):
            faker.seed_instance(f"{SEEDS[half]} {language} {place}")
        self._is_unlisted = False

    def sentence(self, template: str) -> Sentence:
        self._is_unlisted = False
        pieces, end = [], 0
        for slot in _SLOT.finditer(template):
            pieces.append(Piece(template[end : slot.start()], template[end : slot.start()]))
            pieces.append(getattr(self, "_" + slot[1])())
            end = slot.end()
        pieces.append(Piece(template[end:], template[end:]))
        return Sentence(self._language, tuple(p for p in pieces if p.written), self._is_unlisted)

    # -- persons

    def _name_of(self, part: Callable[[Faker], str], unlisted: int) -> str:
        if self._language != "hi" and self._random.random() < 0.25:
            self._is_unlisted = True
            return self._random.choice(UNLISTED_NAMES[self._half]).split(" ", 1)[unlisted]
        return part(self._random.choice(self._fakers))

    def _person(self) -> Piece:
        if self._language != "hi" and self._random.random() < 0.25:
            self._is_unlisted = True
            name = self._random.choice(UNLISTED_NAMES[self._half])
        else:
            faker = self._random.choice(self._fakers)
            name = f"{faker.first_name()} {faker.last_name()}"
        return Piece(name, name, "PERSON")

    def _first(self) -> Piece:
        name = self._name_of(lambda faker: str(faker.first_name()), 0)
        return Piece(name, name, "PERSON")

    def _last(self) -> Piece:
        name = self._name_of(lambda faker: str(faker.last_name()), 1)
        return Piece(name, name, "PERSON")

    # -- where they live

    def _address(self) -> Piece:
        written = self._home.address().replace("\n", ", ") if self._random.random() < 0.6 else self._street_of()
        return Piece(written, self._say(written), "STREET_ADDRESS")

    def _street(self) -> Piece:
        written = self._street_of()
        return Piece(written, self._say(written), "STREET_ADDRESS")

    def _street_of(self) -> str:
        if self._language == "en" and self._random.random() < 0.25:
            faker = self._random.choice(self._fakers)
            return f"{faker.street_address()}, {faker.city()}".replace("\n", ", ")
        return str(self._home.street_address()).replace("\n", ", ")

    def _city(self) -> Piece:
        name = str(self._home.city())
        return Piece(name, name, "GPE")

    # -- numbers and codes

    def _phone(self) -> Piece:
        written = str(self._home.phone_number())
        return Piece(written, self._say(written), "PHONE_NUMBER")

    def _card(self) -> Piece:
        digits = self._home.credit_card_number()
        if self._random.random() < 0.5:
            digits = self._random.choice(" -").join(digits[i : i + 4] for i in range(0, len(digits), 4))
        return Piece(digits, self._say(digits), "CREDIT_CARD")

    def _iban(self) -> Piece:
        iban = self._home.iban()
        if self._random.random() < 0.5:
            iban = " ".join(iban[i : i + 4] for i in range(0, len(iban), 4))
        return Piece(iban, self._say(iban), "IBAN_CODE")

    def _ssn(self) -> Piece:
        ssn = "{:03}-{:02}-{:04}".format(*(self._random.randrange(1, 10**n) for n in (3, 2, 4)))
        return Piece(ssn, self._say(ssn), "US_SSN")

    def _ip(self) -> Piece:
        address = self._home.ipv4() if self._random.random() < 0.7 else self._home.ipv6()
        return Piece(address, self._say(address), "IP_ADDRESS")

    def _licence(self) -> Piece:
        form = self._random.choice(["?########", "########", "???-##-####", "?##-###-###-###", "#########", "??######"])
        code = self._home.bothify(form, letters="ABCDEFGHJKLMNPQRSTUVWXYZ")
        return Piece(code, self._say(code), "LICENSE")

    def _passport(self) -> Piece:
        code = self._home.bothify(self._random.choice(["?########", "??#######", "#########"]), letters="CFGHJKLMNPRT")
        return Piece(code, self._say(code), "PASSPORT")

    def _birthday(self) -> Piece:
        day = self._home.date_of_birth(minimum_age=18, maximum_age=90)
        written = day.strftime(self._random.choice(["%d/%m/%Y", "%B %d, %Y", "%d %B %Y", "%Y-%m-%d"]))
        return Piece(written, self._say(written), "DATE_OF_BIRTH")

    def _email(self) -> Piece:
        first, last = self._home.first_name(), self._home.last_name()
        local = self._random.choice(
            [f"{first}.{last}", f"{first[0]}{last}", f"{first}_{last}{self._random.randrange(99)}"]
        )
        if self._language == "hi":
            local = self._random.choice(["sunny.day", "blue_sky7", "bara.ghar"])
        host = self._random.choice(["gmail.com", "yahoo.com", "outlook.com", f"{self._home.domain_name()}"])
        written = f"{local}@{host}".lower().replace(" ", "").replace("'", "")
        return Piece(written, self._say_address(written), "EMAIL_ADDRESS")

    def _url(self) -> Piece:
        written = str(self._home.domain_name())
        return Piece(written, self._say_address(written), "DOMAIN_NAME")

    # -- as they are said

    def _say(self, written: str) -> str:
        """Digits one by one, in pairs or doubled, with fillers; codes letter by letter or by a spelling alphabet."""
        is_code = bool(regex.fullmatch(r"(?=.*\d)[A-Z\d-]+|[A-Z]{2}\d{2}[A-Z\d ]+", written))
        is_dotted = self._language == "en" and bool(regex.fullmatch(r"[\d.]+", written))
        said = []
        for part in regex.findall(r"\p{L}+|\d+|[.]", written):
            if part.isdigit():
                said.append(self._say_digits(part))
            elif part == ".":
                said += ["dot"] if is_dotted else []
            else:
                said.append(self._say_letters(part) if is_code else part)
        return " ".join(said)

    def _say_digits(self, digits: str) -> str:
        digit = DIGITS[self._language]
        if len(digits) <= 2 and digits[0] != "0" and self._language == "en" and int(digits) < 100:
            return _below_hundred(int(digits))
        words, place = [], 0
        while place < len(digits):
            one = digits[place]
            if self._language in ("en", "fr") and digits[place : place + 2] == one * 2 and self._random.random() < 0.3:
                words += ["double", digit[int(one)]]
                place += 2
                continue
            spoken = digit[int(one)]
            if one == "0" and self._language == "en" and self._random.random() < 0.5:
                spoken = "oh"
            words.append(spoken)
            place += 1
            if place < len(digits) and self._random.random() < 0.04:
                words.append(self._random.choice(FILLERS[self._language]))
        return " ".join(words)

    def _say_letters(self, letters: str) -> str:
        if self._language == "en" and self._random.random() < 0.3:
            return " ".join(ALPHABET[ord(one.upper()) - 65] for one in letters)
        return " ".join("double u" if one in "wW" and self._language == "en" else one for one in letters)

    def _say_address(self, written: str) -> str:
        at, dot = SIGNS[self._language]
        said = []
        for part in regex.findall(r"[a-z]+|\d+|[^a-z\d]", written):
            if part.isdigit():
                said.append(self._say_digits(part))
            else:
                said.append({"@": at, ".": dot, "_": "underscore", "-": "dash"}.get(part, part))
        return " ".join(said)


DIGITS: Final = {
    "en": "zero one two three four five six seven eight nine".split(),
    "de": "null eins zwei drei vier fünf sechs sieben acht neun".split(),
    "fr": "zéro un deux trois quatre cinq six sept huit neuf".split(),
    "hi": "शून्य एक दो तीन चार पांच छह सात आठ नौ".split(),
}
FILLERS: Final = {"en": ["uh", "um", "then", "and"], "de": ["äh", "dann"], "fr": ["euh", "puis"], "hi": ["फिर"]}
SIGNS: Final = {"en": ("at", "dot"), "de": ("ät", "punkt"), "fr": ("arobase", "point"), "hi": ("एट", "डॉट")}
ALPHABET: Final = (
    "alpha bravo charlie delta echo foxtrot golf hotel india juliet kilo lima mike november oscar papa quebec romeo"
    " sierra tango uniform victor whiskey xray yankee zulu"
).split()
_TEENS: Final = "ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen".split()
_TENS: Final = "twenty thirty forty fifty sixty seventy eighty ninety".split()


def _below_hundred(number: int) -> str:
    if number < 10:
        return DIGITS["en"][number]
    if number < 20:
        return _TEENS[number - 10]
    tens, one = _TENS[number // 10 - 2], number % 10
    return f"{tens} {DIGITS['en'][one]}" if one else tens


def words(samples: Sequence[Sentence], form: Form) -> Iterator[str]:
    for sample in samples:
        yield from sample.text(form)[0].split()
