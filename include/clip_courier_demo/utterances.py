"""One recording's words: as a transcriber would write them, and as the synthesiser must be told to say them."""

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from clip_courier_demo import identities
from clip_courier_demo.people import People
from clip_courier_demo.sentences import PHRASEBOOKS, Phrasebook
from clip_courier_demo.speech import Times

PUNCTUATION = ".,?!।"

_SLOT = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class Secret:
    """What identifies the speaker in an utterance: its kind, as written in the text, and as pronounced."""

    kind: str
    text: str
    say: str


@dataclass(frozen=True)
class Utterance:
    """Words that are spoken; `say` spells out what the synthesiser would misread, such as telephone numbers."""

    text: str
    say: str
    secrets: tuple[Secret, ...] = ()

    def __add__(self, other: "Utterance") -> "Utterance":
        return Utterance(f"{self.text} {other.text}", f"{self.say} {other.say}", self.secrets + other.secrets)


def tokens(text: str) -> list[str]:
    """The words of a text as a recogniser writes them: lower case, without punctuation around them."""
    return [token for word in text.lower().split() if (token := word.strip(PUNCTUATION))]


def times_of(said: Utterance, times: Times) -> Times:
    """When each word of its text is heard, from the times of the words that the synthesiser was told to say.

    They are the same words but for secrets: there each word of the text has as many of the spoken ones as it has
    digits, or the one in its place, or all of them.
    """
    found: list[tuple[int, int]] = []
    text, spoken, at = said.text, said.say, 0
    for secret in said.secrets:
        before, _, text = text.partition(secret.text)
        _, _, spoken = spoken.partition(secret.say)
        plain = len(before.split())
        found += times[at : at + plain]
        at += plain
        words, count = secret.text.split(), len(secret.say.split())
        digits = [sum(c.isdecimal() for c in word) for word in words]
        sizes = digits if sum(digits) == count else [1] * len(words) if len(words) == count else [count]
        for size in sizes:
            found.append((times[at][0], times[at + size - 1][1]))
            at += size
        # What is written right behind a secret belongs to its last word.
        text = text if not text or text[0].isspace() else text[len(text.split(maxsplit=1)[0]) :]
    return (*found, *times[at:])


def everyday(random: np.random.Generator, language: str, sentences: int) -> Utterance:
    """So many different sentences, which many people say."""
    book = PHRASEBOOKS[language]
    chosen = random.choice(len(book.everyday), size=sentences, replace=False)
    text = " ".join(_filled(random, book, book.everyday[index]) for index in chosen)
    return Utterance(text, text)


def answer(random: np.random.Generator, language: str) -> Utterance:
    """One word, such as yes or no."""
    text = str(random.choice(PHRASEBOOKS[language].answers))
    return Utterance(text, text)


def identifying(random: np.random.Generator, language: str, people: People, person: int) -> Utterance:
    """A sentence in which a person says a name, telephone number, e-mail address or street address: their own."""
    book = PHRASEBOOKS[language]
    template = str(random.choice(book.identifying))
    secret = _secret(random, book, _SLOT.findall(template)[0], people, person)
    return Utterance(_SLOT.sub(secret.text, template), _SLOT.sub(secret.say, template), (secret,))


def _filled(random: np.random.Generator, book: Phrasebook, template: str) -> str:
    text = _SLOT.sub(lambda slot: str(random.choice(book.slots[slot[1]])), template)
    return text[0].upper() + text[1:]


def _secret(random: np.random.Generator, book: Phrasebook, slot: str, people: People, person: int) -> Secret:
    one = np.array([person])
    if slot == "phone":
        return _phone(random, book, only(identities.phone_numbers(people.seed, one, people.locale[one])))
    if slot == "email":
        return _email(random, book, only(identities.account_emails(people.seed, one)))
    if slot == "name":
        name = only(identities.full_names(people.seed, one))
        return Secret("names", name, name)
    address = only(identities.street_addresses(people.seed, one))
    return Secret("addresses", address, address)


def _phone(random: np.random.Generator, book: Phrasebook, number: str) -> Secret:
    """A number in full, in groups of digits, or digit by digit in words; always said digit by digit."""
    digits = number.split("-", 1)[1].replace("-", "")
    words = " ".join(book.digits[int(digit)] for digit in digits)
    groups = " ".join((digits[:3], digits[3:6], digits[6:8], digits[8:]))
    text = (number, groups, words)[int(random.integers(3))]
    return Secret("phones", text, words)


def _email(random: np.random.Generator, book: Phrasebook, email: str) -> Secret:
    """An address in full, or as it is said: "first dot last at post dot example"."""
    at, dot = book.signs
    words = email.replace("@", f" {at} ").replace(".", f" {dot} ")
    return Secret("emails", (email, words)[int(random.integers(2))], words)


def only(column: Any) -> str:
    """The one string of an Arrow array of length one."""
    return str(column[0].as_py())
