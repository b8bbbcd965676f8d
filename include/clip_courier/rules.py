"""The one declaration of what a clip must be: judged twice, over the whole of the landing window and over the sample.

A rule's `holds` is SQL over the columns of a landing row (`CLIPS` in model.py): the pass over the landing zone breaks a
row of which it is not true, so a null breaks it unless the rule says otherwise. `expectations` are Great Expectations'
own, over the facts of the sample (sql/facts.sql). Where both must say the same, they are made of the same text.

What is too much is a policy: `over` is the default of `landing` in quality.yaml.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, Final, Literal

# What happens when more rows break a rule than its threshold allows. Rows that break it are rejected in every case but
# `warn`, which only counts them.
Action = Literal["stop", "quarantine", "warn"]

_PRODUCT: Final = "[a-z][a-z0-9_-]{1,31}"
_SAMPLED: Final = ["call", "button", "wake_word"]
_MAX_INT32: Final = 2**31 - 1
_RATES, _CHANNELS = (4_000, 192_000), (1, 8)
_TRUE: Final[Mapping[str, Any]] = {"value_set": [True]}


@dataclass(frozen=True)
class Over:
    """Above this share of the rows of the window, or this number of them, `action`."""

    action: Action
    max_share: float | None = None
    max_rows: int | None = None

    @property
    def limit(self) -> str:
        return f"{self.max_rows} rows" if self.max_share is None else f"{self.max_share * 100:g}%"


@dataclass(frozen=True)
class Expectation:
    """One of Great Expectations', of a column of sql/facts.sql."""

    kind: str
    column: str
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Rule:
    """`reason`: the code of a row that breaks it. `columns`: what `holds` reads, of the contract or beside it."""

    reason: str
    columns: tuple[str, ...] = ()
    holds: str | None = None
    over: Over | None = None
    expectations: tuple[Expectation, ...] = ()


def _is(fact: str) -> tuple[Expectation, ...]:
    return (Expectation("ExpectColumnValuesToBeInSet", fact, _TRUE),)


def _between(column: str, least: int, most: int) -> Expectation:
    return Expectation("ExpectColumnValuesToBeBetween", column, {"min_value": least, "max_value": most})


def _not_null(column: str) -> Expectation:
    return Expectation("ExpectColumnValuesToNotBeNull", column)


# Asked of all rows of the window together, so of no row alone.
DUPLICATE: Final = "duplicate_clip_id"
# In a list of one or two, as most are, ranks are compared without building a set.
SOUND_RANKS: Final = """hypotheses IS NULL OR len(list_filter(hypotheses, lambda h: h.rank IS NULL OR h.rank < 1)) = 0
    AND CASE
        WHEN len(hypotheses) < 2 THEN TRUE
        WHEN len(hypotheses) = 2 THEN hypotheses[1].rank <> hypotheses[2].rank
        ELSE len(list_distinct(list_transform(hypotheses, lambda h: h.rank))) = len(hypotheses)
    END"""
TEXTS: Final = "hypotheses IS NULL OR len(list_filter(hypotheses, lambda h: h.text IS NULL)) = 0"
SOUND_CONFIDENCES: Final = """hypotheses IS NULL OR len(list_filter(
    hypotheses, lambda h: h.confidence IS NULL OR NOT h.confidence BETWEEN 0 AND 1)) = 0"""

# What stands in a column that leaves must look like what it claims to be. In this order: a mask of a row's broken rules
# has a bit for each.
RULES: Sequence[Rule] = (
    Rule("missing_clip_id", ("clip_id",), "clip_id <> ''", Over("stop", 0.01)),
    Rule(
        DUPLICATE,
        over=Over("stop", 0.05),
        expectations=(Expectation("ExpectColumnValuesToBeInSet", "copies", {"value_set": [1]}),),
    ),
    Rule(
        "bad_product",
        ("product",),
        f"regexp_full_match(product, '{_PRODUCT}')",
        Over("stop", 0.2),
        (Expectation("ExpectColumnValuesToMatchRegex", "product", {"regex": rf"\A{_PRODUCT}\Z"}),),
    ),
    # Like a word of a hypothesis, the name of a product leaves only when enough persons share it.
    Rule("rare_product", expectations=_is("is_product_common")),
    Rule(
        "bad_activation",
        ("activation",),
        f"regexp_full_match(activation, '{'|'.join([*_SAMPLED, 'accidental'])}')",
        Over("stop", 0.2),
        (Expectation("ExpectColumnValuesToBeInSet", "activation", {"value_set": _SAMPLED}),),
    ),
    Rule(
        "bad_locale",
        ("locale",),
        "locale IN (SELECT known_locale FROM known_locales)",
        Over("stop", 0.2),
        _is("is_locale_known"),
    ),
    Rule(
        "bad_country",
        ("country",),
        "country IN (SELECT known_country FROM known_countries)",
        Over("stop", 0.2),
        _is("is_country_known"),
    ),
    Rule("bad_recorded_at", ("recorded_at",), "isfinite(recorded_at::TIMESTAMPTZ)", Over("stop", 0.2)),
    # With the day of slack that reading the window has. What lies further away may be read too late, or never.
    Rule(
        "wrong_partition",
        ("recorded_at", "earliest_at", "latest_at"),
        "coalesce(recorded_at::TIMESTAMPTZ >= earliest_at AND recorded_at::TIMESTAMPTZ < latest_at, TRUE)",
        Over("warn", 0.01),
    ),
    Rule(
        "bad_duration",
        ("duration_ms",),
        f"duration_ms BETWEEN 1 AND {_MAX_INT32}",
        Over("stop", 0.2),
        (_between("duration_ms", 1, _MAX_INT32),),
    ),
    # A null passes every other expectation. Columns of which it is not asked again were asked for by `select`.
    Rule(
        "bad_sample_rate",
        ("sample_rate_hz",),
        f"sample_rate_hz BETWEEN {_RATES[0]} AND {_RATES[1]}",
        Over("stop", 0.2),
        (_between("sample_rate_hz", *_RATES), _not_null("sample_rate_hz")),
    ),
    Rule(
        "bad_channels",
        ("channels",),
        f"channels BETWEEN {_CHANNELS[0]} AND {_CHANNELS[1]}",
        Over("stop", 0.2),
        (_between("channels", *_CHANNELS), _not_null("channels")),
    ),
    Rule("bad_audio_uri", ("audio_uri",), "audio_uri <> ''", Over("stop", 0.2)),
    Rule(
        "bad_audio_sha256",
        ("audio_sha256",),
        "audio_sha256 IS NULL OR regexp_full_match(audio_sha256, '[0-9a-fA-F]{64}')",
        Over("quarantine", 0.05),
    ),
    # No participants at all is lawful: such a clip is not eligible, and `select` counts it.
    Rule(
        "bad_participant",
        ("participants",),
        """participants IS NULL
            OR len(list_filter(participants, lambda p: p.person_id IS NULL OR p.person_id = '')) = 0""",
        Over("quarantine", 0.05),
    ),
    Rule("bad_hypothesis_rank", ("hypotheses",), SOUND_RANKS, Over("quarantine", 0.05), _is("has_sound_ranks")),
    Rule("bad_hypothesis_text", ("hypotheses",), TEXTS, Over("quarantine", 0.05), _is("has_texts")),
    Rule("bad_confidence", ("hypotheses",), SOUND_CONFIDENCES, Over("quarantine", 0.05), _is("has_sound_confidences")),
    Rule(
        "bad_word_timing",
        ("words",),
        """words IS NULL OR len(list_filter(words, lambda w:
            w.word IS NULL OR w.start_ms IS NULL OR w.end_ms IS NULL OR w.start_ms < 0 OR w.end_ms < w.start_ms
        )) = 0""",
        Over("warn", 0.05),
    ),
    Rule("audio_missing", expectations=_is("is_audio_there")),
    Rule("audio_hash_mismatch", expectations=_is("is_audio_the_one")),
    Rule("audio_corrupt", expectations=_is("is_audio_whole")),
    Rule("audio_mismatch", expectations=_is("is_audio_as_described")),
)
# The rules that the landing zone is judged by.
LANDING_RULES: Final = tuple(rule for rule in RULES if rule.over)
BITS: Final = {rule.reason: 1 << place for place, rule in enumerate(LANDING_RULES)}
COLUMNS: Final = tuple(sorted({column for rule in LANDING_RULES for column in rule.columns}))
# Facts of the sample that are asked in the words of the landing zone: name → columns and SQL.
SHARED_FACTS: Final = {
    one.column: (rule.columns, rule.holds)
    for rule in LANDING_RULES
    for one in rule.expectations
    if rule.holds and one.column not in rule.columns
}


def broken_rules() -> str:
    """The mask of the rules that a row of landing breaks, as SQL over COLUMNS."""
    bits = (
        f"CASE WHEN ({rule.holds}) IS TRUE THEN 0 ELSE {BITS[rule.reason]} END" for rule in LANDING_RULES if rule.holds
    )
    return f"({' | '.join(bits)})::UINTEGER"


def digest() -> str:
    """Of all that a judgement of the same row depends on: by other rules it has to be judged again."""
    # The rules ask of registries; the engine's hash of an id is its own.
    packages = [f"{name} {version(name)}" for name in ("duckdb", "langcodes", "pycountry")]
    return hashlib.sha256("\n".join([*packages, *BITS, broken_rules()]).encode()).hexdigest()
