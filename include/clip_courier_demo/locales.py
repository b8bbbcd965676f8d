"""The languages and countries of the demo world, and how its recogniser fares in each."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Locale:
    """One BCP 47 tag: its share of the people, where they live, its voice and the recogniser's word error rate."""

    tag: str
    language: str
    voice: str
    share: float
    error_rate: float
    dial: str
    countries: tuple[tuple[str, float], ...]


# The first country of each is home to most. CN is there because no demo vendor may serve it.
LOCALES = (
    Locale("en-US", "en", "en-us", 0.42, 0.10, "+1", (("US", 0.90), ("CN", 0.04), ("CA", 0.06))),
    Locale("en-GB", "en", "en", 0.22, 0.12, "+44", (("GB", 0.92), ("IE", 0.08))),
    Locale("de-DE", "de", "de", 0.14, 0.13, "+49", (("DE", 0.72), ("AT", 0.28))),
    Locale("fr-FR", "fr", "fr", 0.12, 0.15, "+33", (("FR", 0.90), ("BE", 0.10))),
    Locale("hi-IN", "hi", "hi", 0.10, 0.18, "+91", (("IN", 1.00),)),
)

COUNTRIES = tuple(sorted({country for locale in LOCALES for country, _ in locale.countries}))
