"""The people of the demo world: where they live, how old they are, how often they speak, as arrays of one entry each.

People of one locale stand together, the most talkative first: the r-th of n speaks about as often as r to the power
of -0.4, so that a few say much and many little, as in every product.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa

from clip_courier_demo import identities
from clip_courier_demo.dealing import Ints, deal, quota
from clip_courier_demo.locales import COUNTRIES, LOCALES

# A rank is drawn as n * u ** EXPONENT with u uniform.
EXPONENT = 1.7

# Shares of the people who consented: of age · child with a guardian's consent · child without · year of birth unknown ·
# processing restricted (GDPR Art. 18).
STATUSES = ("adult", "guarded_child", "child", "unknown_age", "restricted")
STATUS_SHARES = (0.0, 0.02, 0.015, 0.015, 0.015)

PERSON_SCHEMA = pa.schema(
    [
        ("person_id", pa.string()),
        ("birth_year", pa.int16()),
        ("has_guardian_consent", pa.bool_()),
        ("is_restricted", pa.bool_()),
    ]
)


@dataclass(frozen=True)
class People:
    """Codes, one a person: index into LOCALES and COUNTRIES, into the consent situations, into STATUSES."""

    seed: int
    locale: Ints
    country: Ints
    situation: Ints
    status: Ints
    starts: Ints
    counts: Ints

    def __len__(self) -> int:
        return len(self.locale)

    def draw(self, random: np.random.Generator, locales: Ints) -> Ints:
        """One person for each entry of `locales`, the talkative more often."""
        ranks = (self.counts[locales] * random.random(len(locales)) ** EXPONENT).astype(np.int64)
        return self.starts[locales] + ranks

    def countries(self, persons: Ints) -> Any:
        """ISO 3166-1 codes of the given persons."""
        return pa.array(COUNTRIES).take(pa.array(self.country[persons]))


def make_people(count: int, situation_shares: Sequence[float], seed: int) -> People:
    """`count` people; the most talkative of every locale is an adult of its first country with the first situation."""
    random = np.random.default_rng([seed, 1])
    counts = quota([locale.share for locale in LOCALES], count, at_least=2)
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    firsts = starts[counts > 0]
    others = np.setdiff1d(np.arange(count), firsts)
    order = np.concatenate([firsts, others])
    situation = np.empty(count, dtype=np.int64)
    situation[order] = deal(random, situation_shares, count, firsts=len(firsts))
    status = np.zeros(count, dtype=np.int64)
    plain = np.concatenate([firsts, others[situation[others] == 0]])
    status[plain] = deal(random, STATUS_SHARES, len(plain), firsts=len(firsts))
    locale = np.repeat(np.arange(len(LOCALES)), counts)
    country = np.concatenate([_homes(random, code, int(size)) for code, size in enumerate(counts)])
    return People(seed, locale, country, situation, status, starts, counts)


def _homes(random: np.random.Generator, locale: int, count: int) -> Ints:
    countries = LOCALES[locale].countries
    codes = np.array([COUNTRIES.index(country) for country, _ in countries], dtype=np.int64)
    return codes[deal(random, [share for _, share in countries], count, firsts=min(1, count))]


def persons_table(people: People, last_day: date) -> Any:
    """The landing's `persons`; children are 10 to 15 years old on the last day, adults 19 to 84."""
    random = np.random.default_rng([people.seed, 2])
    status = np.array(STATUSES)[people.status]
    is_child = (status == "child") | (status == "guarded_child")
    age = np.where(is_child, random.integers(10, 16, len(people)), random.integers(19, 85, len(people)))
    is_unsaid = random.random(len(people)) < 0.5
    guarded = pa.array(status == "guarded_child", mask=is_unsaid & ~is_child)
    restricted = pa.array(status == "restricted", mask=is_unsaid & (status != "restricted"))
    years = pa.array((last_day.year - age).astype(np.int16), mask=status == "unknown_age")
    ids = identities.person_ids(people.seed, np.arange(len(people)))
    return pa.table([ids, years, guarded, restricted], schema=PERSON_SCHEMA)
