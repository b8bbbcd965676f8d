"""What identifies somebody by its form, in a text that is written or was heard: layer (b) of redaction.

Words that are harmless one by one spell out something that is not: dictated numbers, letters and codes, addresses of
streets and of e-mail, names by what is said before them, and words that are sooner names than words. Texts come as
tokens between white space; a token falls into pieces at its hyphens and points: "j-o-h-n" is read like "j o h n".
"""

import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, reduce
from itertools import pairwise
from operator import or_
from typing import Final

import regex

from clip_courier import known_names as names
from clip_courier import speech_lexicon as lexicon

NAME: Final = "‹NAME›"
NUMBER: Final = "‹NUMBER›"
WORD: Final = "‹WORD›"
ADDRESS: Final = "‹ADDRESS›"
EMAIL: Final = "‹EMAIL›"
# What says more stands later: a number that is part of an address is an address.
MASKS: Final = (WORD, NAME, NUMBER, ADDRESS, EMAIL)

Span = tuple[int, int, str]

_EDGE = regex.compile(r"^[\p{P}\p{S}]+|[\p{P}\p{S}]+$")
_BREAKS = regex.compile(r"[^\p{L}\p{M}\p{N}']+")
_HIDDEN = regex.compile(r"\p{Cf}")
_NOT_LATIN = regex.compile(r"[\p{Cf}\p{Mn}]|(?!\p{Latin})\p{L}")
_TYPOGRAPHIC_APOSTROPHE: Final = "’"  # noqa: RUF001
_ENDS_A_SENTENCE: Final = frozenset(".!?:…।")

# In these a letter of another script, a hidden character or a stray accent is a disguise.
_LATIN_LANGUAGES: Final = frozenset("en de fr es it pt nl sv da nb fi pl cs ro hu tr".split())
# Their dictionaries are long enough that a word they lack is sooner a name; German makes new words all the time.
_KNOWS_ITS_WORDS: Final = frozenset({"en", "fr"})

# So many numbers, with at most so many other words between one and the next ("uh", "then", "area code").
_DICTATED_NUMBERS: Final = 3
_WORDS_BETWEEN: Final = 2
# A number by itself is told to be somebody's from so many digits on.
_LONG_NUMBER: Final = 3
_AFTER_A_CUE: Final = 4
_DATE_AFTER_A_CUE: Final = 8
_LONGEST_LOCAL_PART: Final = 6
_LONGEST_HOST: Final = 4
_LONGEST_STREET: Final = 4
_LONGEST_ADDRESS: Final = 12
_LONGEST_NAME: Final = 3
_LONGEST_TITLED_NAME: Final = 2

# What a word may be a part of; most are part of nothing, and of most texts no more is asked.
_NUMERAL, _LETTER, _LETTER_WORD, _ARTICLE, _LONG, _NET, _STREET, _PLACE = (1 << n for n in range(8))
_CUE, _TITLE, _SOONER_NAME, _MAY_BE_NAME, _LISTED, _UNKNOWN, _RARE, _FUNCTION = (1 << n for n in range(8, 16))
_BIRTH, _CODE, _CURRENCY, _LIVING, _GREETING, _DATED, _FILLER, _GIVEN, _LARGE = (1 << n for n in range(16, 25))
_STRONG: Final = _NUMERAL | _LETTER


def core(word: str) -> str:
    """Without what stands around it."""
    return _EDGE.sub("", word)


@lru_cache(maxsize=1 << 16)
def bare(word: str) -> str:
    """Its core, in lower case; a mask stays a mask."""
    return word if word in MASKS else core(word).lower().replace(_TYPOGRAPHIC_APOSTROPHE, "'")


@lru_cache(maxsize=1 << 16)
def _pieces(token: str) -> tuple[str, ...]:
    """What a token consists of, however it is disguised: composed, without hidden characters, at least one."""
    if token in MASKS:
        return (token,)
    plain = bare(_HIDDEN.sub("", unicodedata.normalize("NFKC", token)))
    parts = tuple(core(part) for part in _BREAKS.split(plain) if part.strip("'"))
    # One letter each on both sides of apostrophes: it is spelled.
    if len(parts) == 1 and parts[0].count("'") >= 2:
        parts = tuple(part for part in parts[0].split("'") if part)
    return parts or ("",)


@lru_cache(maxsize=1 << 16)
def _parts(word: str, language: str) -> int:
    """Which of these a piece may belong to, as bits."""
    if word in MASKS:
        return {NUMBER: _NUMERAL | _LONG, NAME: _SOONER_NAME | _MAY_BE_NAME}.get(word, 0)
    found = _as_number(word, language) | reduce(or_, (bit for bit, members in _MEMBERS if word in members), 0)
    if len(word) == 1 and word.isalpha():
        found |= _LETTER_WORD if word in lexicon.LETTER_WORDS.get(language, ()) else _LETTER
    if language in lexicon.SPELLED_SO_IN and word in lexicon.SPELLING:
        found |= _LETTER
    if lexicon.STREET_ENDING.fullmatch(word):
        found |= _STREET
    return found if found & (_FUNCTION | _NUMERAL) else found | _as_name(word, language)


_MEMBERS: Final = (
    (_NET, lexicon.DOT | lexicon.MAIL_PROVIDERS),
    (_STREET, lexicon.STREETS),
    (_PLACE, lexicon.PLACES),
    (_CUE, frozenset(cue[0] for cue in lexicon.NAME_CUES)),
    (_GREETING, frozenset(cue[0] for cue in lexicon.GREETINGS)),
    (_TITLE, lexicon.TITLES | lexicon.CALLINGS),
    (_BIRTH, lexicon.BIRTH_CUES),
    (_CODE, lexicon.CODE_CUES),
    (_CURRENCY, lexicon.CURRENCIES),
    (_LIVING, lexicon.LIVING_CUES),
    (_DATED, lexicon.MONTHS | lexicon.ORDINALS),
    (_FILLER, lexicon.FILLERS),
    (_FUNCTION, lexicon.FUNCTION_WORDS),
)


def _as_number(word: str, language: str) -> int:
    digits = sum(c.isnumeric() for c in word)
    if digits:
        return _NUMERAL | _DATED | (_LONG if digits >= _LONG_NUMBER or any(c.isalpha() for c in word) else 0)
    if word in lexicon.ANY_NUMBER or (language == "de" and lexicon.GERMAN_COMPOUND.fullmatch(word)):
        return _NUMERAL | _DATED
    return _ARTICLE if word in lexicon.ARTICLES.get(language, ()) else 0


def _as_name(word: str, language: str) -> int:
    """What the lists and the dictionary say of a word; of one with an apostrophe, of its longest side."""
    if not word:
        return 0
    found, longest = 0, max(word.split("'"), key=len)
    # "o'brien" is a name as a whole, "emily's" by one side.
    for piece in {word.replace("'", ""), longest}:
        if names.is_on_a_list(piece, language):
            found |= _LISTED
            found |= _MAY_BE_NAME if names.may_be_name(piece, language) else 0
            found |= _GIVEN if names.is_borne_by_many(piece, language) else 0
            found |= _SOONER_NAME if len(piece) > 1 and names.is_sooner_name(piece, language) else 0
    if not names.is_common(longest, language):
        found |= _RARE
    if len(longest) > 2 and longest.isalpha() and all(names.is_unknown(one, language) for one in (word, longest)):
        found |= _UNKNOWN | _MAY_BE_NAME
    return found


@lru_cache(maxsize=1 << 17)
def _read(token: str, language: str) -> tuple[tuple[str, ...], tuple[int, ...], int, str | None]:
    """A token's pieces, the bits of each, of all together, and its mask if it has one whatever stands around it."""
    pieces = _pieces(token)
    large = _LARGE if core(token)[:1].isupper() else 0
    bits = tuple(found | (large if found & _LISTED else 0) for found in (_parts(piece, language) for piece in pieces))
    return pieces, bits, reduce(or_, bits), _by_itself(token, pieces, language)


def _by_itself(token: str, pieces: tuple[str, ...], language: str) -> str | None:
    if token in MASKS:
        return None
    plain = _HIDDEN.sub("", unicodedata.normalize("NFKC", token))
    if "@" in plain or lexicon.WRITTEN_ADDRESS.fullmatch(core(plain).lower()):
        return EMAIL
    if language in _LATIN_LANGUAGES and _NOT_LATIN.search(unicodedata.normalize("NFC", token)):
        return WORD
    if len(pieces) >= 3 and all(len(piece) == 1 for piece in pieces):
        return WORD
    # "jo-hn": what is a name once it is put together.
    if len(pieces) > 1 and (_parts("".join(pieces), language) & _SOONER_NAME):
        return NAME
    return None


@dataclass(slots=True)
class _Text:
    """Pieces of the tokens, and for each its bits and the token it is of; `any_of` are the bits of all."""

    tokens: Sequence[str]
    words: list[str]
    homes: list[int]
    bits: list[int]
    any_of: int
    language: str

    def has(self, place: int, bits: int) -> bool:
        return 0 <= place < len(self.bits) and bool(self.bits[place] & bits)

    def follows(self, place: int, cues: tuple[tuple[str, ...], ...]) -> int | None:
        """Where what was said before ends, if one of the cues begins here."""
        for cue in cues:
            if tuple(self.words[place : place + len(cue)]) == cue:
                return place + len(cue)
        return None


def find(tokens: Sequence[str], language: str) -> list[Span]:
    """Spans of tokens with their masks, start and end; they may overlap, and the greater mask (MASKS) holds."""
    read = [_read(token, language) for token in tokens]
    found = [(home, home + 1, mask) for home, (*_, mask) in enumerate(read) if mask is not None]
    any_of = reduce(or_, [of_all for _, _, of_all, _ in read], 0)
    if not any_of & _ANY_RULE:
        return found
    words = [piece for pieces, *_ in read for piece in pieces]
    homes = [home for home, (pieces, *_) in enumerate(read) for _ in pieces]
    text = _Text(tokens, words, homes, [bit for _, bits, *_ in read for bit in bits], any_of, language)
    for needed, rule in _RULES:
        if any_of & needed:
            found += [(homes[start], homes[end - 1] + 1, mask) for start, end, mask in rule(text) if start < end]
    return found


# -- numbers and codes


def _numbers(text: _Text) -> Iterator[Span]:
    belongs = [bool(bit & _NUMERAL) for bit in text.bits]
    # Articles are digits beside one another as well.
    if text.any_of & _ARTICLE:
        for start, end in _runs([n or bool(b & _ARTICLE) for n, b in zip(belongs, text.bits, strict=True)], 2):
            belongs[start:end] = [True] * (end - start)
    yield from ((start, end, NUMBER) for start, end in _close_together(belongs))
    yield from ((place, place + 1, NUMBER) for place, bit in enumerate(text.bits) if bit & _LONG)
    # Digits side by side: "555 01".
    digits = [any(c.isnumeric() for c in word) for word in text.words]
    yield from ((start, end, NUMBER) for start, end in _runs(digits, 2))


def _codes(text: _Text) -> Iterator[Span]:
    """Letters that are spelled, digits among them, and what is said to tell them apart."""
    belongs = [bool(bit & _STRONG) for bit in text.bits]
    for place, bit in enumerate(text.bits):
        if bit & _LETTER_WORD and (text.has(place - 1, _LETTER) or text.has(place + 1, _LETTER)):
            belongs[place] = True
        end = text.follows(place + 1, lexicon.AS_IN) if bit & (_LETTER | _LETTER_WORD) else None
        # "b as in boy", "b for boy", but not "I for one".
        if end is None or end >= len(belongs):
            continue
        if end > place + 2 or text.words[end].startswith(text.words[place]):
            belongs[place : end + 1] = [True] * (end + 1 - place)
            yield place, end + 1, WORD
    for start, end in _joined(belongs, [bool(bit & _FILLER) for bit in text.bits]):
        strong = sum(bool(bit & _STRONG) for bit in text.bits[start:end])
        letters = sum(bool(bit & (_LETTER | _LETTER_WORD)) for bit in text.bits[start:end])
        if letters and (strong >= _DICTATED_NUMBERS or letters >= 2):
            yield start, end, WORD if letters == sum(belongs[start:end]) else NUMBER


def _numbers_after_cues(text: _Text) -> Iterator[Span]:
    for place, bit in enumerate(text.bits):
        if bit & _CODE:
            found = [n for n in range(place + 1, place + 1 + _AFTER_A_CUE) if text.has(n, _STRONG)]
            if found:
                yield found[0], found[-1] + 1, NUMBER
        if bit & _BIRTH:
            found = [n for n in range(place + 1, place + 1 + _DATE_AFTER_A_CUE) if text.has(n, _DATED)]
            if any(text.has(n, _NUMERAL) for n in found):
                yield found[0], found[-1] + 1, NUMBER
        if bit & _CURRENCY and text.has(place - 1, _NUMERAL):
            start = place - 1
            while text.has(start - 1, _NUMERAL):
                start -= 1
            yield start, place, NUMBER


# -- addresses


def _nets(text: _Text) -> Iterator[Span]:
    """Where a dot or a mail provider is said: an address with an @ before it, or with a domain after the dot."""
    words = text.words
    for place, bit in enumerate(text.bits):
        if not bit & _NET:
            continue
        is_dot = words[place] in lexicon.DOT
        end = min(place + 2, len(words)) if is_dot else place + 1
        has_domain = is_dot and end == place + 2 and words[place + 1] in lexicon.DOMAINS
        if not is_dot and text.has(place + 1, _NET):
            end = min(place + 3, len(words))
        at = next((n for n in range(place - 1, max(place - _LONGEST_HOST, 0) - 1, -1) if words[n] in lexicon.AT), None)
        if at is not None:
            yield _local_part(text, at), end, EMAIL
        elif has_domain or not is_dot:
            yield _back(text, place, _LONGEST_HOST if is_dot else 1), end, EMAIL


def _local_part(text: _Text, at: int) -> int:
    """Where the part before the @ begins: behind "mail is", or so many words back; letters and digits count little."""
    place, room = at, _LONGEST_LOCAL_PART * 4
    while place > 0 and room > 0:
        bit, word = text.bits[place - 1], text.words[place - 1]
        if (bit & _FUNCTION and not bit & (_LETTER_WORD | _FILLER)) or word in _MAIL_WORDS:
            break
        room -= 1 if bit & (_STRONG | _FILLER) else 4
        place -= 1
    return place


_MAIL_WORDS: Final = lexicon.words_of("email mail e-mail address adresse write schreib schreibe écris ईमेल")


def _back(text: _Text, place: int, most: int) -> int:
    start = place
    while start > max(place - most, 0) and not text.has(start - 1, _FUNCTION):
        start -= 1
    return start


def _streets(text: _Text) -> Iterator[Span]:
    """From the number of the house, if it is said, to the end of the address."""
    for place, bit in enumerate(text.bits):
        if not bit & (_STREET | _PLACE):
            continue
        start, is_numbered = place, False
        for n in range(place - 1, max(place - _LONGEST_STREET, 0) - 1, -1):
            if text.has(n, _FUNCTION) and text.words[n] not in lexicon.PARTICLES:
                break
            if text.has(n, _NUMERAL):
                start, is_numbered = _first_numeral(text, n), True
                break
        # "rue de la Paix": the name stands behind.
        comes_first = text.language == "fr" or text.words[place] in lexicon.STREETS_COME_FIRST
        end = _street_name(text, place + 1) if comes_first else place + 1
        if not is_numbered:
            is_numbered = bool(bit & _STREET) or text.has(end, _NUMERAL)
            start = place if comes_first else _back(text, place, 2)
        if is_numbered:
            yield start, _end_of_address(text, end), ADDRESS


def _first_numeral(text: _Text, place: int) -> int:
    while text.has(place - 1, _STRONG) or (text.has(place - 1, _FILLER) and text.has(place - 2, _NUMERAL)):
        place -= 1
    return place


def _street_name(text: _Text, place: int) -> int:
    """Up to four words behind "rue", over "de la"."""
    end = place
    while end < len(text.words) and end - place < _LONGEST_STREET:
        if text.has(end, _FUNCTION) and text.words[end] not in lexicon.PARTICLES | {"des", "les"}:
            break
        end += 1
    return end


def _end_of_address(text: _Text, end: int) -> int:
    """Behind the street: flat, town, state and post code, as long as nothing else is said."""
    reached, place = end, end
    while place < len(text.words) and place - end < _LONGEST_ADDRESS:
        if text.has(place, _FUNCTION) and text.words[place] not in lexicon.PARTICLES:
            break
        if text.has(place, _STRONG | _RARE | _UNKNOWN | _SOONER_NAME) or text.words[place] in lexicon.UNITS:
            reached = place + 1
        elif place - reached >= _WORDS_BETWEEN:
            break
        place += 1
    return reached


def _numbered_places(text: _Text) -> Iterator[Span]:
    """A number beside a word that no dictionary has, and what lies between numbers with such a word among it."""
    places = [place for place, bit in enumerate(text.bits) if bit & _NUMERAL]
    for place in places:
        for beside in (place - 1, place + 1):
            if text.has(beside, _UNKNOWN):
                start = min(_first_numeral(text, place), beside)
                yield start, _end_of_address(text, max(place, beside) + 1), ADDRESS
    for left, right in pairwise(places):
        between = range(left + 1, right)
        if len(between) > _LONGEST_STREET or any(text.has(n, _FUNCTION) for n in between):
            continue
        said = [n for n in between if not text.has(n, _FILLER | _LETTER)]
        if any(text.has(n, _RARE | _STREET) or text.words[n] in lexicon.UNITS for n in said):
            yield _first_numeral(text, left), _end_of_address(text, right + 1), ADDRESS


def _living(text: _Text) -> Iterator[Span]:
    """After "I live at": from the number on."""
    for place, bit in enumerate(text.bits):
        if bit & _LIVING:
            numeral = next((n for n in range(place + 1, place + 2 + _AFTER_A_CUE) if text.has(n, _NUMERAL)), None)
            if numeral is not None:
                end = numeral
                while end < len(text.words) and end - numeral < _LONGEST_ADDRESS and not text.has(end, _FUNCTION):
                    end += 1
                yield numeral, end, ADDRESS


# -- names


def _introduced(text: _Text) -> Iterator[Span]:
    """Names, by what is said before them."""
    for place, bit in enumerate(text.bits):
        if bit & _CUE and (start := text.follows(place, lexicon.NAME_CUES)) is not None:
            while text.has(start, _FILLER) and text.words[start] not in lexicon.DOT:
                start += 1
            yield start, _end_of_name(text, start, _LONGEST_NAME, is_first_certain=True), NAME
        if bit & _GREETING and (start := text.follows(place, lexicon.GREETINGS)) is not None:
            # "I am late", "this is long": what one is called is not always a name.
            is_call = start == place + 1 and text.words[place] in lexicon.CALLS
            expected = _LISTED | _UNKNOWN if is_call else _MAY_BE_NAME
            if text.has(start, expected) and not text.has(start, _FUNCTION):
                yield start, _end_of_name(text, start, _LONGEST_NAME, is_first_certain=True), NAME
        if bit & _TITLE:
            is_title = text.words[place] in lexicon.TITLES
            if is_title or text.has(place + 1, _LISTED | _UNKNOWN | _RARE):
                yield place + 1, _end_of_name(text, place + 1, _LONGEST_TITLED_NAME, is_first_certain=True), NAME


def _end_of_name(text: _Text, start: int, longest: int, *, is_first_certain: bool) -> int:
    end, count = start, 0
    while end < len(text.words) and count < longest:
        word = text.words[end]
        if word in MASKS and word != NAME:
            break
        if word in lexicon.PARTICLES and text.has(behind := _behind_particles(text, end), _MAY_BE_NAME | _RARE):
            end = behind
            continue
        is_certain = is_first_certain and count == 0
        if text.has(end, _FUNCTION | _NUMERAL) or not (is_certain or text.has(end, _MAY_BE_NAME | _LISTED | _RARE)):
            break
        end += 1
        count += 1
    return end


def _named(text: _Text) -> Iterator[Span]:
    """Words that are sooner names, with the names on both sides of them."""
    for place, bit in enumerate(text.bits):
        if bit & _SOONER_NAME:
            start, end = place, place + 1
            while (before := _name_before(text, start)) < start:
                start = before
            if text.has(start - 1, _GIVEN):
                start -= 1
            while (behind := _name_behind(text, end)) > end:
                end = behind
            yield start, end, NAME
        elif bit & _UNKNOWN and text.language in _KNOWS_ITS_WORDS:
            yield place, place + 1, NAME


def _name_before(text: _Text, start: int) -> int:
    """Where the name before begins, also before "van der"; `start` if there is none."""
    place = start - 1
    while place > 0 and text.words[place] in lexicon.PARTICLES:
        place -= 1
    return place if text.has(place, _MAY_BE_NAME) else start


def _name_behind(text: _Text, end: int) -> int:
    place = _behind_particles(text, end)
    # "Kate E Miles"
    if place == end and text.has(place, _LETTER | _LETTER_WORD) and text.has(place + 1, _MAY_BE_NAME):
        return place + 2
    if text.has(place, _MAY_BE_NAME):
        return place + 1
    # "Grace May has", not "Grace may come".
    is_no_verb = place == end and (end + 1 >= len(text.words) or text.words[end + 1] in lexicon.NO_BARE_VERBS)
    return place + 1 if is_no_verb and text.has(place, _GIVEN) else end


def _behind_particles(text: _Text, place: int) -> int:
    while place < len(text.words) and text.words[place] in lexicon.PARTICLES:
        place += 1
    return place


def _capitalised(text: _Text) -> Iterator[Span]:
    """A name that is a common word, written as a name: "so Will and May came"."""
    if text.language == "de":
        return
    upper = sum(core(token)[:1].isupper() for token in text.tokens)
    if 2 * upper > len(text.tokens):
        return
    for place, bit in enumerate(text.bits):
        home = text.homes[place]
        if bit & _LARGE and home > 0 and text.tokens[home - 1][-1] not in _ENDS_A_SENTENCE:
            yield place, place + 1, NAME


_RULES: Final[tuple[tuple[int, Callable[[_Text], Iterator[Span]]], ...]] = (
    (_SOONER_NAME | _UNKNOWN, _named),
    (_LARGE, _capitalised),
    (_CUE | _TITLE | _GREETING, _introduced),
    (_NUMERAL | _ARTICLE, _numbers),
    (_LETTER | _NUMERAL, _codes),
    (_CODE | _BIRTH | _CURRENCY, _numbers_after_cues),
    (_STREET | _PLACE, _streets),
    (_NUMERAL, _numbered_places),
    (_LIVING, _living),
    (_NET, _nets),
)
_ANY_RULE: Final = reduce(or_, (needed for needed, _ in _RULES))


def _runs(belongs: list[bool], least: int) -> Iterator[tuple[int, int]]:
    """The spans of so many or more that belong and stand side by side."""
    start = 0
    for place in range(len(belongs) + 1):
        if place < len(belongs) and belongs[place]:
            continue
        if place - start >= least:
            yield start, place
        start = place + 1


def _joined(belongs: list[bool], joins: list[bool]) -> Iterator[tuple[int, int]]:
    """The spans of what belongs, over at most two others between that join."""
    places = [place for place, does in enumerate(belongs) if does]
    start = None
    for place, following in zip(places, [*places[1:], None], strict=True):
        start = place if start is None else start
        if following is None or following - place > _WORDS_BETWEEN + 1 or not all(joins[place + 1 : following]):
            yield start, place + 1
            start = None


def _close_together(belongs: list[bool]) -> Iterator[tuple[int, int]]:
    places = [place for place, does in enumerate(belongs) if does]
    run: list[int] = []
    for place in [*places, len(belongs) + _WORDS_BETWEEN + 1]:
        if run and place - run[-1] > _WORDS_BETWEEN + 1:
            if len(run) >= _DICTATED_NUMBERS:
                yield run[0], run[-1] + 1
            run = []
        run.append(place)
