"""Which clips there are in the demo world: who spoke when, into which product, and how a clip is meant to be odd.

A plan is a set of arrays of one entry each clip, in the order of recording; nothing in it is text or sound.
"""

from dataclasses import dataclass, fields, replace

import numpy as np

from clip_courier_demo.consent import DAY_US
from clip_courier_demo.dealing import Ints, deal
from clip_courier_demo.locales import LOCALES
from clip_courier_demo.people import People

PRODUCTS = ("assistant", "dictation", "translator")
ACTIVATIONS = ("button", "wake_word", "accidental", "call")

# Product and activation of a clip with one participant.
_USES = ((0, 1, 0.34), (0, 0, 0.18), (0, 2, 0.05), (1, 0, 0.30), (2, 0, 0.13))

_CALL_SHARE = 0.25
_CALL_CLIPS = (2, 6)
_SAME_LOCALE = 0.7
_STEREO = 0.4

# Recordings are shared only among clips of the same locale and kind.
KINDS = ("solo", "call", "stereo_call", "short", "long")
SOLO, CALL, STEREO, SHORT, LONG = range(5)
_LENGTH_SHARES = (0.0, 0.015, 0.01)

# Participants as they should be, null, an empty list, or with a null person_id.
PARTICIPANTS = ("whole", "null", "empty", "null_person")
_PARTICIPANT_SHARES = (0.0, 0.005, 0.005, 0.005)

SECRET_SHARE = 0.08

# Days before the last one. Recent days are busier, and three days lie beyond any 90 days' retention.
_RECENT_DAYS, _OLD_DAYS, _OLD_SHARE = 30, (96, 97, 118), 0.02
_EARLIEST_US, _LATEST_US = 5 * 3_600_000_000, 23 * 3_600_000_000
_TURN_US = (6_000_000, 20_000_000)


@dataclass(frozen=True)
class ClipPlan:
    """`day` counts back from the last; `call` and `listener` are -1 outside calls; the rest are codes (see above)."""

    day: Ints
    recorded_us: Ints
    product: Ints
    activation: Ints
    call: Ints
    speaker: Ints
    listener: Ints
    kind: Ints
    participants: Ints
    is_secret: Ints

    def __len__(self) -> int:
        return len(self.day)

    def rows(self, chosen: Ints | slice) -> "ClipPlan":
        """The same arrays, cut to the chosen clips."""
        return replace(self, **{field.name: getattr(self, field.name)[chosen] for field in fields(self)})


def plan_clips(people: People, clips: int, secrets: int, last_midnight_us: int, seed: int) -> ClipPlan:
    """A plan of so many clips, `secrets` of which say something identifying; the last day starts at the given time."""
    random = np.random.default_rng([seed, 4])
    calls = round(clips * _CALL_SHARE)
    parts = (_solo(random, people, clips - calls), _calls(random, people, calls))
    joined = {field.name: np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(ClipPlan)}
    joined["recorded_us"] += last_midnight_us - joined["day"] * DAY_US
    joined["participants"] = deal(random, _PARTICIPANT_SHARES, clips)
    plain = np.flatnonzero(np.isin(joined["kind"], (SOLO, CALL)))
    joined["is_secret"][random.permutation(plain)[:secrets]] = 1
    return ClipPlan(**joined).rows(np.argsort(joined["recorded_us"], kind="stable"))


def _solo(random: np.random.Generator, people: People, count: int) -> ClipPlan:
    """Clips of one participant: everyone speaks once, then the talkative speak on."""
    once = random.permutation(len(people))[:count]
    share = [locale.share for locale in LOCALES]
    often = people.draw(random, random.choice(len(LOCALES), size=count - len(once), p=share))
    use = deal(random, [share for *_, share in _USES], count)
    kind = np.array([SOLO, SHORT, LONG])[deal(random, _LENGTH_SHARES, count)]
    nobody = np.full(count, -1, dtype=np.int64)
    return ClipPlan(
        day=_days(random, count),
        recorded_us=random.integers(_EARLIEST_US, _LATEST_US, count),
        product=np.array([product for product, *_ in _USES])[use],
        activation=np.array([activation for _, activation, _ in _USES])[use],
        call=nobody,
        speaker=np.concatenate([once, often]),
        listener=nobody,
        kind=kind,
        participants=np.zeros(count, dtype=np.int64),
        is_secret=np.zeros(count, dtype=np.int64),
    )


def _calls(random: np.random.Generator, people: People, count: int) -> ClipPlan:
    """Translator calls: two people take turns, a clip each turn."""
    lengths = random.integers(*_CALL_CLIPS, size=count // _CALL_CLIPS[0] + 1)
    call = np.repeat(np.arange(len(lengths)), lengths)[:count]
    turn = np.arange(count) - np.concatenate([[0], np.cumsum(lengths)])[call]
    share = [locale.share for locale in LOCALES]
    first_locale = random.choice(len(LOCALES), size=len(lengths), p=share)
    other_locale = random.choice(len(LOCALES), size=len(lengths), p=share)
    is_same = random.random(len(lengths)) < _SAME_LOCALE
    second_locale = np.where(is_same, first_locale, other_locale)
    first, second = people.draw(random, first_locale), people.draw(random, second_locale)
    second = np.where(second == first, people.starts[first_locale] + _next(people, first, first_locale), second)
    kind = np.where((first_locale == second_locale) & (random.random(len(lengths)) < _STEREO), STEREO, CALL)
    start = random.integers(_EARLIEST_US, _LATEST_US, len(lengths))
    is_first = turn % 2 == 0
    return ClipPlan(
        day=_days(random, len(lengths))[call],
        recorded_us=start[call] + turn * random.integers(*_TURN_US, size=len(lengths))[call],
        product=np.full(count, PRODUCTS.index("translator")),
        activation=np.full(count, ACTIVATIONS.index("call")),
        call=call,
        speaker=np.where(is_first, first[call], second[call]),
        listener=np.where(is_first, second[call], first[call]),
        kind=kind[call],
        participants=np.zeros(count, dtype=np.int64),
        is_secret=np.zeros(count, dtype=np.int64),
    )


def _next(people: People, person: Ints, locale: Ints) -> Ints:
    """The rank of the person after this one in the same locale, so that nobody calls themselves."""
    following: Ints = (person - people.starts[locale] + 1) % people.counts[locale]
    return following


def _days(random: np.random.Generator, count: int) -> Ints:
    weights = np.linspace(2.0, 1.0, _RECENT_DAYS)
    recent = (1 - _OLD_SHARE) * weights / weights.sum()
    old = [_OLD_SHARE / len(_OLD_DAYS)] * len(_OLD_DAYS)
    days = np.array([*range(_RECENT_DAYS), *_OLD_DAYS])
    return days[deal(random, [*recent, *old], count)]
