"""Validation: each rule by a row that breaks it alone, and not one value in anything that is written or said."""

import hashlib
import json
import logging
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clip_courier import quality
from clip_courier.__main__ import main
from clip_courier.courier import Courier
from clip_courier.errors import ContractBroken, StageMissing
from clip_courier.landing import Landing
from clip_courier.model import CLIPS, NightFolder, Outcome, Root, write_parquet
from clip_courier.quality import Validation
from clip_courier.rules import LANDING_RULES, Expectation, Rule
from clip_courier.settings import Quality, Threshold, load_settings
from clip_courier_demo.stage import Stage
from conftest import NIGHT
from selected_rows import PSEUDONYMS, everything_written, row, sound, table

# In every value that may identify; the second is a word by itself, for places where punctuation is not allowed.
CANARY, CANARY_WORD = "Zoe Quandlebrook", "quandlebrook"
CANARIES = re.compile(rb"quandle|QNDL", re.IGNORECASE)
SUITES = ("landing", "sample")
KEY = re.compile(r"[a-z2-7]{32}")
# What the sample is judged by: each expectation, with the rule that it is of.
EXPECTATIONS = [(rule, one) for rule in quality.RULES for one in rule.expectations]

WHOLE = sound(900)
HEARD = {"rank": 1, "text": "turn on the light", "confidence": 0.9, "engine": "e"}

# Case → the reason it is rejected for (None: it is good), its recording, and what is wrong with its row.
CASES: Mapping[str, tuple[str | None, bytes | None, dict[str, Any]]] = {
    "good": (None, None, {}),
    "good: no hypotheses": (None, None, {"hypotheses": None}),
    "good: empty hypotheses": (None, None, {"hypotheses": []}),
    "good: no hash": (None, None, {"audio_sha256": None}),
    "good: stereo at 48 kHz": (None, sound(1, rate=48_000, channels=2), {"sample_rate_hz": 48_000, "channels": 2}),
    "good: flac": (None, sound(2, container="FLAC"), {}),
    "good: duration is rounded": (None, None, {"duration_ms": 1_400}),
    "good: region and script": (None, None, {"locale": "zh-Hant-TW"}),
    "product is a name": ("bad_product", None, {"product": CANARY}),
    "product with a line break": ("bad_product", None, {"product": "translator\n"}),
    "product is empty": ("bad_product", None, {"product": ""}),
    "product that few persons share": ("rare_product", None, {"product": "quandle", "product_persons": 4}),
    "activation unheard of": ("bad_activation", None, {"activation": CANARY_WORD}),
    "activation accidental": ("bad_activation", None, {"activation": "accidental"}),
    "locale is a name": ("bad_locale", None, {"locale": CANARY}),
    "locale with an underscore": ("bad_locale", None, {"locale": "en_US"}),
    "locale not registered": ("bad_locale", None, {"locale": "en-QNDL"}),
    "locale with a private part": ("bad_locale", None, {"locale": "en-US-x-quandle"}),
    "locale with an extension": ("bad_locale", None, {"locale": "en-a-quandle"}),
    "locale all private": ("bad_locale", None, {"locale": "x-quandle"}),
    "locale empty": ("bad_locale", None, {"locale": ""}),
    "country unknown": ("bad_country", None, {"country": "ZZ"}),
    "country in small letters": ("bad_country", None, {"country": "us"}),
    "country is a name": ("bad_country", None, {"country": CANARY}),
    "duration zero": ("bad_duration", None, {"duration_ms": 0}),
    "duration negative": ("bad_duration", None, {"duration_ms": -1000}),
    "rate too low": ("bad_sample_rate", sound(3, rate=1_000), {"sample_rate_hz": 1_000}),
    "rate zero": ("bad_sample_rate", None, {"sample_rate_hz": 0}),
    "rate missing": ("bad_sample_rate", None, {"sample_rate_hz": None}),
    "no channels": ("bad_channels", None, {"channels": 0}),
    "channels missing": ("bad_channels", None, {"channels": None}),
    "ranks twice": ("bad_hypothesis_rank", None, {"hypotheses": [HEARD, HEARD | {"text": CANARY}]}),
    "rank zero": ("bad_hypothesis_rank", None, {"hypotheses": [HEARD | {"rank": 0, "text": CANARY}]}),
    "rank missing": ("bad_hypothesis_rank", None, {"hypotheses": [HEARD | {"rank": None}]}),
    "text missing": ("bad_hypothesis_text", None, {"hypotheses": [HEARD | {"text": None}]}),
    "confidence above one": ("bad_confidence", None, {"hypotheses": [HEARD | {"confidence": 1.01}]}),
    "confidence negative": ("bad_confidence", None, {"hypotheses": [HEARD | {"confidence": -0.1}]}),
    "confidence not a number": ("bad_confidence", None, {"hypotheses": [HEARD | {"confidence": float("nan")}]}),
    "confidence missing": ("bad_confidence", None, {"hypotheses": [HEARD | {"confidence": None}]}),
    "audio outside": ("audio_missing", None, {"audio_uri": f"../persons/{CANARY}.parquet"}),
    "audio address empty": ("audio_missing", None, {"audio_uri": ""}),
    "audio hash of another": ("audio_hash_mismatch", None, {"audio_sha256": "0" * 64}),
    "audio hash is a name": ("audio_hash_mismatch", None, {"audio_sha256": CANARY}),
    "audio truncated": ("audio_corrupt", WHOLE[: len(WHOLE) // 2], {}),
    "audio garbage": ("audio_corrupt", CANARY.encode() * 200, {}),
    "audio cut off flac": ("audio_corrupt", sound(4, container="FLAC")[:-200], {}),
    "audio without sound": ("audio_corrupt", sound(5, ms=0), {}),
    "audio longer than described": ("audio_mismatch", sound(6, ms=2_000), {}),
    "audio shorter than described": ("audio_mismatch", None, {"duration_ms": 9_000}),
    "audio of another rate": ("audio_mismatch", sound(7, rate=8_000), {}),
    "audio of more channels": ("audio_mismatch", sound(8, channels=2), {}),
}
# Rows whose files are missing or empty, and the copies of one id: made by hand.
BY_HAND: Mapping[str, str] = {
    "audio missing": "audio_missing",
    "audio empty file": "audio_corrupt",
    "copy 1": "duplicate_clip_id",
    "copy 2": "duplicate_clip_id",
    "copy 3": "duplicate_clip_id",
}


@dataclass(frozen=True)
class Judged:
    """A night that was validated once; tests look at what it left."""

    folder: NightFolder
    outcome: Outcome
    keys: Mapping[str, str]
    rows: int
    logs: str

    def reasons(self) -> dict[str, list[str]]:
        rejected = pq.read_table(self.folder.rejected).to_pylist()
        return {one["clip_key"]: one["reasons"] for one in rejected}


def given(landing: Path | str, max_rejected_share: float = 1.0, **landing_rules: Threshold) -> Validation:
    """Over a landing zone of one partition with a good row, where it has none of its own."""
    partition = Path(landing) / "clips" / f"recorded_date={NIGHT - timedelta(days=1)}"
    if not partition.exists() and Path(landing).exists():
        write_clips(landing, [row(999_999, Path(landing), b"")])
    quality = Quality(max_rejected_share=max_rejected_share, landing=landing_rules)
    policy = replace(load_settings({}).policy(), quality=quality)
    return Validation(Landing(str(landing)), policy, PSEUDONYMS, NIGHT - timedelta(days=90))


def write_clips(landing: Path | str, rows: Sequence[Mapping[str, Any]], name: str = "a") -> None:
    partition = Path(landing) / "clips" / f"recorded_date={NIGHT - timedelta(days=1)}"
    write_parquet(pa.Table.from_pylist([dict(one) for one in rows], CLIPS), partition / f"{name}.parquet")


def lay_out(base: Path) -> tuple[NightFolder, Path, dict[str, str]]:
    """A landing zone with every case, and `selected.parquet` over it; returns the key of every case's row."""
    landing = base / "landing"
    folder = Root(base / "var", str(landing)).night(NIGHT)
    rows, keys = [], {}
    for n, (case, (_, recording, changes)) in enumerate(CASES.items()):
        place = {"audio_uri": f"{CANARY}/{n}.wav", "person_ids": [f"{CANARY} {n}"], "call_id": f"{CANARY} {n}"}
        rows.append(row(n, landing, recording, **place | changes))
        keys[case] = rows[-1]["clip_key"]
    for n, case in enumerate(BY_HAND, start=len(rows)):
        same_id = {"clip_id": f"{CANARY} twice", "copies": 3} if case.startswith("copy") else {}
        rows.append(row(n, landing, audio_uri=f"{CANARY}/{n}.wav", **same_id))
        keys[case] = rows[-1]["clip_key"]
        if case == "audio missing":
            (landing / "audio" / rows[-1]["audio_uri"]).unlink()
        if case == "audio empty file":
            (landing / "audio" / rows[-1]["audio_uri"]).write_bytes(b"")
            rows[-1]["audio_sha256"] = hashlib.sha256(b"").hexdigest()
    write_parquet(table(rows), folder.selected)
    return folder, landing, keys


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Judged:
    folder, landing, keys = lay_out(tmp_path_factory.mktemp("judged"))
    records: list[str] = []
    listener = logging.Handler(logging.DEBUG)
    listener.emit = lambda record: records.append(
        f"{record.name}: {record.getMessage()} {record.args} {record.exc_info}"
    )  # type: ignore[method-assign]
    root, level = logging.getLogger(), logging.getLogger().level
    root.addHandler(listener)
    root.setLevel(logging.DEBUG)
    try:
        outcome = quality.validate(folder, given(landing))
    finally:
        root.removeHandler(listener)
        root.setLevel(level)
    return Judged(folder, outcome, keys, pq.read_metadata(folder.selected).num_rows, "\n".join(records))


# -- the verdict -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", [*CASES, *BY_HAND])
def test_validate_gives_a_row_the_reason_that_it_has(judged: Judged, case: str) -> None:
    expected = BY_HAND[case] if case in BY_HAND else CASES[case][0]
    assert judged.reasons().get(judged.keys[case]) == ([expected] if expected else None)


def test_validate_has_a_case_for_every_rule() -> None:
    assert {rule.reason for rule, _ in EXPECTATIONS} == {*BY_HAND.values(), *(r for r, _, _ in CASES.values() if r)}


@pytest.mark.parametrize("place", range(len(EXPECTATIONS)))
def test_validate_needs_every_rule(judged: Judged, place: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without one of them, some row that is rejected for its reason alone would pass."""
    reason = EXPECTATIONS[place][0].reason
    others = [*EXPECTATIONS[:place], *EXPECTATIONS[place + 1 :]]
    monkeypatch.setattr(quality, "RULES", [Rule(rule.reason, expectations=(one,)) for rule, one in others])
    refused = {key for key, reasons in judged.reasons().items() if reasons == [reason]}
    folder = Root(tmp_path, judged.folder.root.landing).night(NIGHT)
    selected = pq.read_table(judged.folder.selected).to_pylist()
    write_parquet(table(one for one in selected if one["clip_key"] in refused), folder.selected)
    quality.validate(folder, given(judged.folder.root.landing))
    assert pq.read_table(folder.validated).num_rows > 0


def test_validate_splits_the_sample_in_two(judged: Judged) -> None:
    selected = pq.read_table(judged.folder.selected)
    validated = pq.read_table(judged.folder.validated)
    assert validated.schema == selected.schema
    valid, rejected = validated["clip_key"].to_pylist(), pq.read_table(judged.folder.rejected)["clip_key"].to_pylist()
    assert sorted([*valid, *rejected]) == sorted(selected["clip_key"].to_pylist())
    assert not set(valid) & set(rejected)
    assert pq.read_schema(judged.folder.rejected).remove_metadata() == quality.REJECTED
    counts = json.loads(judged.folder.quality.read_text(encoding="utf-8"))
    assert counts == judged.outcome.counts
    assert (counts["rows"], counts["validated"], counts["rejected"]) == (judged.rows, len(valid), len(rejected))
    assert sum(counts["reasons"].values()) == len(rejected)


def test_validate_gives_a_row_all_its_reasons(tmp_path: Path) -> None:
    landing = tmp_path / "landing"
    folder = Root(tmp_path / "var", str(landing)).night(NIGHT)
    wrong = row(1, landing, product="X", country="ZZ", audio_sha256="0" * 64)
    write_parquet(table([wrong]), folder.selected)
    quality.validate(folder, given(landing))
    (rejected,) = pq.read_table(folder.rejected).to_pylist()
    assert rejected["reasons"] == ["bad_product", "bad_country", "audio_hash_mismatch"]


def test_validate_of_an_empty_sample_is_empty(tmp_path: Path) -> None:
    folder = Root(tmp_path / "var", str(tmp_path)).night(NIGHT)
    write_parquet(table([]), folder.selected)
    outcome = quality.validate(folder, given(tmp_path, 0.1))
    assert (outcome.counts["rows"], outcome.counts["rejected"]) == (0, 0)
    assert pq.read_table(folder.validated).num_rows == pq.read_table(folder.rejected).num_rows == 0


def test_validate_needs_a_sample(tmp_path: Path) -> None:
    folder = Root(tmp_path / "var", str(tmp_path)).night(NIGHT)
    with pytest.raises(StageMissing, match="select has not been run"):
        quality.validate(folder, given(tmp_path, 0.5))


def test_validate_again_does_nothing(judged: Judged) -> None:
    before = {path: path.stat().st_mtime_ns for path in judged.folder.root.path.rglob("*")}
    again = quality.validate(judged.folder, given("/nowhere", 0.01))
    assert not again.is_new
    assert again.counts == judged.outcome.counts
    assert {path: path.stat().st_mtime_ns for path in judged.folder.root.path.rglob("*")} == before


# -- a broken contract -----------------------------------------------------------------------------------------


def test_validate_stops_a_night_of_which_too_much_fails(tmp_path: Path) -> None:
    landing = tmp_path / "landing"
    folder = Root(tmp_path / "var", str(landing)).night(NIGHT)
    bad = [row(n, landing, locale=f"{CANARY} {n}") for n in range(3)]
    write_parquet(table([*bad, *(row(n, landing) for n in range(3, 6))]), folder.selected)
    with pytest.raises(ContractBroken) as broken:
        quality.validate(folder, given(landing, 0.49))
    assert "3 of 6 rows fail validation, more than the 49%" in str(broken.value)
    assert "bad_locale" in str(broken.value)
    assert not CANARIES.search(repr(broken.value).encode())
    assert not folder.validated.exists()
    # What the person on duty is told to open is there.
    assert pq.read_table(folder.rejected).num_rows == 3
    assert (folder.data_docs / "index.html").exists()
    # Half is half: the limit itself is allowed.
    outcome = quality.validate(folder, given(landing, 0.5))
    assert outcome.is_new
    assert pq.read_table(folder.validated).num_rows == 3


def test_validate_stops_when_a_rule_cannot_be_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = Expectation("ExpectColumnValuesToMatchRegex", "no_such_column", {"regex": "x"})
    rule = Rule("bad_product", expectations=(missing,))
    monkeypatch.setattr(quality, "RULES", [rule])
    folder = Root(tmp_path / "var", str(tmp_path / "landing")).night(NIGHT)
    write_parquet(table([row(1, tmp_path / "landing")]), folder.selected)
    with pytest.raises(ContractBroken, match="bad_product could not be judged"):
        quality.validate(folder, given(tmp_path / "landing"))
    assert not folder.validated.exists()


# -- the landing zone ------------------------------------------------------------------------------------------


def landed(n: int, landing: Path, **changes: Any) -> dict[str, Any]:
    """The nth row of the landing zone as of the sample; no recording is looked at."""
    return row(n, landing, WHOLE, **{"duration_ms": 1000, **changes})


def night_of(base: Path, rows: Sequence[dict[str, Any]], chosen: Sequence[int] = ()) -> NightFolder:
    """A landing zone of these rows, of which some were chosen."""
    write_clips(base / "landing", rows)
    folder = Root(base / "var", str(base / "landing")).night(NIGHT)
    write_parquet(table(rows[n] for n in chosen), folder.selected)
    return folder


def test_validate_stops_a_night_whose_landing_zone_breaks_a_rule_too_often(tmp_path: Path) -> None:
    rows = [landed(n, tmp_path / "landing", **({"country": f"{CANARY} {n}"} if n < 3 else {})) for n in range(10)]
    folder = night_of(tmp_path, rows, [9])
    with pytest.raises(ContractBroken) as broken:
        quality.validate(folder, given(tmp_path / "landing"))
    assert str(broken.value) == (
        "landing: 3 of 10 rows (30.0000%) break the rule bad_country, more than the 20% that quality.yaml allows, most"
        " of them in partition 2026-11-19"
    )
    assert not folder.validated.exists()
    assert pq.read_table(folder.landing_rejected).num_rows == 3
    front = (folder.data_docs / "index.html").read_text(encoding="utf-8")
    assert "<tr class=over><td>bad_country</td>" in front
    # Neither the share nor the number may be more; as many as that are allowed.
    with pytest.raises(ContractBroken, match="more than the 2 rows that"):
        quality.validate(folder, given(tmp_path / "landing", bad_country=Threshold(action="stop", max_rows=2)))
    for allowed in (Threshold(action="stop", max_rows=3), Threshold(action="stop", max_share=0.3)):
        outcome = quality.validate(folder, given(tmp_path / "landing", bad_country=allowed))
        assert outcome.counts["validated"] == 1
        folder.validated.unlink()
    assert not CANARIES.search(everything_written(tmp_path / "var", but=tmp_path / "var" / "crosswalk"))
    assert not CANARIES.search(f"{broken.value!r} {outcome!r}".encode())


def test_validate_names_every_rule_that_stops(tmp_path: Path) -> None:
    rows = [landed(n, tmp_path / "landing", country="ZZ", product="" if n else "translator") for n in range(3)]
    with pytest.raises(ContractBroken, match=r"3 of 3 .* bad_country, .*; over theirs as well: bad_product$"):
        quality.validate(night_of(tmp_path, rows), given(tmp_path / "landing"))


def test_validate_rejects_of_the_sample_what_landing_rejects(tmp_path: Path) -> None:
    """Also for what is asked of landing alone; what is only warned of passes."""
    landing = tmp_path / "landing"
    stranger = [{"person_id": None, "role": None}]
    late = datetime(2026, 11, 1, tzinfo=UTC)
    rows = [
        landed(0, landing),
        landed(1, landing, participants=stranger),
        landed(2, landing, recorded_at=late),
        landed(3, landing, country="ZZ", participants=stranger),
        *(landed(n, landing) for n in range(4, 30)),
    ]
    folder = night_of(tmp_path, rows, [0, 1, 2, 3])
    outcome = quality.validate(folder, given(landing))
    rejected = {one["clip_key"]: one["reasons"] for one in pq.read_table(folder.rejected).to_pylist()}
    assert rejected == {
        rows[1]["clip_key"]: ["bad_participant"],
        rows[3]["clip_key"]: ["bad_country", "bad_participant"],
    }
    told = {one["reason"]: (one["rows"], one["is_over"]) for one in outcome.counts["landing_rules"]}
    assert told["wrong_partition"] == (1, True)
    assert told["bad_participant"] == (2, True)
    table_lines = [line.split() for line in outcome.lines if line.startswith("  ")]
    assert ["bad_participant", "2", "6.6667%", "5%", "quarantine,", "OVER"] in table_lines
    assert ["wrong_partition", "1", "3.3333%", "1%", "warn,", "OVER"] in table_lines
    assert ["bad_country", "1", "3.3333%", "20%", "stop"] in table_lines


def test_validate_in_parts_says_the_same(judged: Judged, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quality, "_ROWS_AT_ONCE", 13)
    folder = Root(tmp_path, judged.folder.root.landing).night(NIGHT)
    write_parquet(pq.read_table(judged.folder.selected), folder.selected)
    outcome = quality.validate(folder, given(judged.folder.root.landing))
    assert outcome.counts == judged.outcome.counts
    for path in (folder.validated, folder.rejected):
        same = judged.folder.root.path / path.relative_to(tmp_path)
        assert pq.read_table(path).to_pylist() == pq.read_table(same).to_pylist()
    # One page of results, of all parts together.
    (page,) = folder.data_docs.glob("validations/sample/**/*.html")
    (whole,) = judged.folder.data_docs.glob("validations/sample/**/*.html")
    counted = re.compile(r"[\d.,]+ unexpected values found|≈?[\d.]+% of [\d,]+ total rows")
    found = [counted.findall(path.read_text(encoding="utf-8")) for path in (page, whole)]
    assert found[0] == found[1]
    assert len(found[0]) > 10


def test_a_night_tells_of_its_landing_zone_on_the_command_line_and_in_the_warehouse(
    stage: Stage, courier: Courier, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    courier.select(NIGHT)
    for name, value in stage.environ.items():
        monkeypatch.setenv(name, value)
    assert main(["validate", "--night", str(NIGHT)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(
        r"validate: \d+ of \d+ rows of landing are rejected, in \d+ partitions, \d+ of them judged now", lines[1]
    )
    assert lines[2].split() == ["rule", "rows", "share", "at", "most", "action"]
    assert main(["validate", "--night", str(NIGHT), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    by_rule = {rule["reason"]: rule for rule in told["landing_rules"]}
    assert {line.split()[0]: int(line.split()[1]) for line in lines[3:]} == {
        reason: rule["rows"] for reason, rule in by_rule.items() if rule["rows"]
    }
    # The demo world has each of these wrong somewhere.
    assert {"duplicate_clip_id", "bad_locale", "bad_country", "bad_duration"} <= {
        r for r in by_rule if by_rule[r]["rows"]
    }
    counts = pq.read_table(courier._root.night(NIGHT).landing_counts).to_pylist()
    assert sum(one["rows"] for one in counts if one["reason"] is None) == told["landing"]["rows"]
    courier.load()
    with duckdb.connect(str(stage.root / "warehouse" / "clip_courier.duckdb"), read_only=True) as warehouse:
        found = warehouse.execute("SELECT step, clips FROM nights WHERE step LIKE 'landing%'").fetchall()
    landing = told["landing"]
    assert dict(found) == {"landing": landing["rows"], "landing_rejected": landing["rejected"]}


def test_validate_asks_nobody_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Great Expectations once sent telemetry; no socket to anywhere is opened."""

    def refuse(*where: object) -> None:
        raise AssertionError(f"a connection to {where}")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    folder = night_of(tmp_path, [landed(1, tmp_path / "landing")], [0])
    assert quality.validate(folder, given(tmp_path / "landing")).counts["validated"] == 1


def test_great_expectations_is_imported_by_a_night_alone() -> None:
    """Nine seconds of the processor: not for a DAG file, nor for another verb."""
    said = "import clip_courier.__main__, sys; print([m for m in sys.modules if m.startswith('great_expectations')])"
    done = subprocess.run([sys.executable, "-c", said], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# -- no value anywhere -----------------------------------------------------------------------------------------


def test_validate_writes_keys_and_never_a_value(judged: Judged) -> None:
    private = judged.folder.root.crosswalk
    assert CANARIES.search(everything_written(private, but=private / "nothing"))
    written = everything_written(judged.folder.root.path, but=private)
    assert len(written) > 50_000
    assert not CANARIES.search(written)
    assert all(KEY.fullmatch(key) for key in judged.reasons())


def test_validate_logs_and_tells_no_value(judged: Judged) -> None:
    assert not CANARIES.search(judged.logs.encode())
    # Not even what it might say in another version.
    assert "great_expectations" not in judged.logs
    assert not CANARIES.search(repr(judged.outcome).encode())


def test_validate_leaves_nothing_of_great_expectations_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    real: Callable[..., str] = tempfile.mkdtemp
    monkeypatch.setattr(tempfile, "mkdtemp", lambda *a, **k: made.append(real(*a, **k)) or made[-1])
    monkeypatch.chdir(tmp_path)
    folder = Root(tmp_path / "var", str(tmp_path / "landing")).night(NIGHT)
    write_parquet(table([row(1, tmp_path / "landing")]), folder.selected)
    quality.validate(folder, given(tmp_path / "landing"))
    # Scratch folders are ours, and gone.
    assert [Path(name).name for name in made if not Path(name).name.startswith("courier-")] == []
    assert not any(Path(name).exists() for name in made)
    assert {path.name for path in tmp_path.iterdir()} == {"var", "landing"}
    assert {path.name for path in folder.root.data_docs.iterdir()} == {NIGHT.isoformat()}


# -- Data Docs -------------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """What a page loads and links to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def links(self) -> list[str]:
        return [str(attrs["href"]) for tag, attrs in self.tags if tag == "a" and attrs.get("href")]


def pages(judged: Judged) -> list[Path]:
    return sorted(judged.folder.data_docs.rglob("*.html"))


def test_data_docs_load_nothing_and_run_nothing(judged: Judged) -> None:
    assert len(pages(judged)) == 5
    assert {path.suffix for path in judged.folder.data_docs.rglob("*") if path.is_file()} == {".html"}
    for path in pages(judged):
        text = path.read_text(encoding="utf-8")
        page = Page(text)
        assert {"script", "link", "img", "iframe", "object", "embed"}.isdisjoint(tag for tag, _ in page.tags)
        policies = [a["content"] for _, a in page.tags if a.get("http-equiv") == "Content-Security-Policy"]
        assert policies == ["default-src 'none'; style-src 'unsafe-inline'"]
        assert "url(" not in text
        assert "@import" not in text
        assert "http://" not in text
        assert "https://" not in text


def test_data_docs_lead_from_page_to_page(judged: Judged) -> None:
    seen: set[Path] = set()
    for path in pages(judged):
        for link in Page(path.read_text(encoding="utf-8")).links():
            if not link.startswith("#"):
                target = (path.parent / link).resolve()
                assert target.is_file()
                seen.add(target)
    assert seen == {path.resolve() for path in pages(judged)}


def test_data_docs_tell_the_counts_in_a_browser(judged: Judged, tmp_path: Path) -> None:
    results = {suite: next(judged.folder.data_docs.glob(f"validations/{suite}/**/*.html")) for suite in SUITES}
    shown = {"front": judged.folder.data_docs / "index.html", **results}
    texts = {name: _shown(path, tmp_path) for name, path in shown.items()}
    reasons: Mapping[str, int] = json.loads(judged.folder.quality.read_text(encoding="utf-8"))["reasons"]
    for reason, clips in reasons.items():
        assert re.search(rf"<td>{reason}</td><td>\w+</td><td class=\"?count\"?>{clips}</td>", texts["front"])
    assert "values must match this regular expression" in texts["sample"]
    assert texts["sample"].count("fa-times") > len(reasons) / 2
    # Of landing, where all is well, every rule with its threshold.
    for rule in LANDING_RULES:
        assert rule.over
        assert rule.reason in texts["landing"]
        assert f"<td>{rule.reason}</td>" in texts["front"]
    assert texts["landing"].count("fa-check-circle") > len(LANDING_RULES)


def _shown(page: Path, profile: Path) -> str:
    """The page as Chromium has it after loading."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or "chromium"
    flags = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}", "--dump-dom"]
    done = subprocess.run([browser, *flags, page.as_uri()], capture_output=True, text=True, check=True, timeout=60)
    return done.stdout


def test_data_docs_of_a_second_run_replace_those_of_the_first(tmp_path: Path) -> None:
    landing = tmp_path / "landing"
    folder = Root(tmp_path / "var", str(landing)).night(NIGHT)
    write_parquet(table([row(1, landing, country="ZZ")]), folder.selected)
    with pytest.raises(ContractBroken):
        quality.validate(folder, given(landing, 0.1))
    first = sorted(folder.data_docs.rglob("*"))
    quality.validate(folder, given(landing))
    assert sorted(folder.data_docs.rglob("*")) == first
    of_suites = list(folder.data_docs.glob("validations/**/*.html"))
    assert len(of_suites) == len(SUITES)
    for page in of_suites:
        assert datetime.strptime(page.parent.name, "%Y%m%dT%H%M%S.%fZ").replace(tzinfo=UTC).date() == NIGHT
