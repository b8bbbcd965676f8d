"""The landing window judged row by row: a slow twin in Python, and nothing of a value in what it leaves."""

import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from clip_courier import inspection
from clip_courier.errors import LandingMissing, LandingSchemaBroken, LandingUnreadable
from clip_courier.inspection import COUNTS, REJECTED, Inspected, inspect
from clip_courier.landing import Landing
from clip_courier.model import CLIPS, NightFolder, Root, silent
from clip_courier.pseudonyms import OURSELVES
from clip_courier.rules import DUPLICATE, LANDING_RULES, RULES
from clip_courier.settings import Quality, Threshold, load_settings
from conftest import NIGHT
from selected_rows import PSEUDONYMS, everything_written

CANARY = "quandlebrook"
DAY = NIGHT - timedelta(days=1)
OLDEST = NIGHT - timedelta(days=30)
REASONS = [rule.reason for rule in LANDING_RULES]
WARN = {rule.reason for rule in LANDING_RULES if rule.over and rule.over.action == "warn"}
KEY = re.compile(r"[a-z2-7]{32}")
# FUZZ=20 tries twenty times as many landing zones.
EXAMPLES = 25 * int(os.environ.get("FUZZ", "1"))

# As another team may write it: wider numbers, and a null where the contract has none.
WIDE = pa.schema(
    [
        pa.field(f.name, pa.int64() if pa.types.is_integer(f.type) else f.type)
        for f in CLIPS
        if f.name not in ("hypotheses", "words")
    ]
    + [
        pa.field(
            "hypotheses",
            pa.list_(
                pa.struct(
                    [("rank", pa.int64()), ("text", pa.string()), ("confidence", pa.float64()), ("engine", pa.string())]
                )
            ),
        ),
        pa.field(
            "words", pa.list_(pa.struct([("word", pa.string()), ("start_ms", pa.int64()), ("end_ms", pa.int64())]))
        ),
    ]
)
GOOD: Mapping[str, Any] = {
    "clip_id": "clip-1",
    "call_id": None,
    "product": "translator",
    "activation": "call",
    "locale": "en-US",
    "country": "US",
    "recorded_at": datetime.combine(DAY, time(12), UTC),
    "duration_ms": 1000,
    "sample_rate_hz": 16_000,
    "channels": 1,
    "audio_uri": f"{CANARY}.wav",
    "audio_sha256": "0" * 64,
    "participants": [{"person_id": CANARY, "role": "speaker"}],
    "hypotheses": [{"rank": 1, "text": CANARY, "confidence": 0.9, "engine": "e"}],
    "words": [{"word": CANARY, "start_ms": 0, "end_ms": 500}],
}

# Rows by file (place below clips/), in the order of the file.
Zone = Mapping[str, Sequence[Mapping[str, Any]]]


def place(day: date | None, name: str = "a") -> str:
    return f"recorded_date={day or '__HIVE_DEFAULT_PARTITION__'}/{name}.parquet"


def write(landing: Path, zone: Zone, schema: pa.Schema = WIDE) -> None:
    for where, rows in zone.items():
        path = landing / "clips" / where
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist([dict(one) for one in rows], schema), path)


def look(base: Path, night: date = NIGHT, **landing_rules: Threshold) -> tuple[NightFolder, Inspected]:
    root = Root(base / "var", str(base / "landing"))
    root.prepare()
    over = Quality(landing=landing_rules).over()
    landing = Landing(root.landing)
    return root.night(night), inspect(root.night(night), landing, OLDEST, over, PSEUDONYMS, silent)


# -- the slow twin ---------------------------------------------------------------------------------------------


def breaks(row: Mapping[str, Any], where: str) -> set[str]:
    """The rules that a row breaks, but for that of ids that stand twice."""
    day = None
    with suppress(ValueError):
        day = date.fromisoformat(where.removeprefix("recorded_date=")[:10])
    hypotheses, words, at = row["hypotheses"] or [], row["words"] or [], row["recorded_at"]
    ranks = [h and h["rank"] for h in hypotheses]
    confidences = [h and h["confidence"] for h in hypotheses]
    sha = row["audio_sha256"]

    def lies(name: str, least: int, most: int) -> bool:
        return row[name] is not None and least <= row[name] <= most

    holds = {
        "missing_clip_id": bool(row["clip_id"]),
        "bad_product": bool(re.fullmatch(r"[a-z][a-z0-9_-]{1,31}", row["product"] or "")),
        "bad_activation": row["activation"] in ("call", "button", "wake_word", "accidental"),
        "bad_locale": row["locale"] in ("en-US", "zh-Hant-TW"),
        "bad_country": row["country"] in ("US", "DE"),
        "bad_recorded_at": at is not None,
        "wrong_partition": at is None or day is None or -1 <= (at.date() - day).days <= 1,
        "bad_duration": lies("duration_ms", 1, 2**31 - 1),
        "bad_sample_rate": lies("sample_rate_hz", 4_000, 192_000),
        "bad_channels": lies("channels", 1, 8),
        "bad_audio_uri": bool(row["audio_uri"]),
        "bad_audio_sha256": sha is None or bool(re.fullmatch("[0-9a-fA-F]{64}", sha)),
        "bad_participant": all(p and p["person_id"] for p in row["participants"] or []),
        "bad_hypothesis_rank": all(r is not None and r >= 1 for r in ranks) and len({*ranks}) == len(ranks),
        "bad_hypothesis_text": all(h and h["text"] is not None for h in hypotheses),
        "bad_confidence": all(c is not None and 0 <= c <= 1 for c in confidences),
        "bad_word_timing": all(
            w and None not in (w["word"], w["start_ms"], w["end_ms"]) and 0 <= w["start_ms"] <= w["end_ms"]
            for w in words
        ),
    }
    return {reason for reason, is_so in holds.items() if not is_so}


def twin(zone: Zone) -> dict[tuple[str, int], set[str]]:
    """Each row of the window, by file and number, with all the rules that it breaks."""
    ids = Counter(row["clip_id"] for rows in zone.values() for row in rows)
    return {
        (where, n): breaks(row, where) | ({DUPLICATE} if row["clip_id"] and ids[row["clip_id"]] > 1 else set())
        for where, rows in zone.items()
        for n, row in enumerate(rows)
    }


def expected_rejections(zone: Zone) -> Counter[tuple[str, frozenset[str]]]:
    """Row keys and reasons."""
    told: Counter[tuple[str, frozenset[str]]] = Counter()
    for (where, n), broken in twin(zone).items():
        if reasons := broken - WARN:
            clip_id = zone[where][n]["clip_id"]
            has_key = clip_id and DUPLICATE not in broken
            kind, name = ("clip", clip_id) if has_key else ("row", f"{where}:{n}")
            told[PSEUDONYMS.refs(OURSELVES, kind, [name])[0], frozenset(reasons)] += 1
    return told


def check(folder: NightFolder, found: Inspected, zone: Zone) -> None:
    """Everything that is told is what the twin says, and no row is lost."""
    judged, expected = twin(zone), expected_rejections(zone)
    rejected = pq.read_table(folder.landing_rejected)
    assert rejected.schema.remove_metadata() == REJECTED
    assert Counter((r["row_key"], frozenset(r["reasons"])) for r in rejected.to_pylist()) == expected
    assert all(r["reasons"] == [x for x in REASONS if x in r["reasons"]] for r in rejected.to_pylist())
    valid = sum(not broken - WARN for broken in judged.values())
    assert (found.rows, found.rejected) == (len(judged), rejected.num_rows)
    assert valid + rejected.num_rows == found.rows
    by_rule = Counter(reason for broken in judged.values() for reason in broken)
    assert {reason: found.of(reason) for reason in REASONS} == {reason: by_rule[reason] for reason in REASONS}
    counts = pq.read_table(folder.landing_counts)
    assert counts.schema.remove_metadata() == COUNTS
    summed: Counter[str | None] = Counter()
    for told in counts.to_pylist():
        summed[told["reason"]] += told["rows"]
    assert summed == Counter({None: len(judged), **{r: n for r, n in by_rule.items() if n}})


# -- any input -------------------------------------------------------------------------------------------------

NASTY = [None, "", CANARY, f"{CANARY}\n", f"\x00{CANARY}", "é" * 40, "'; DROP TABLE clips; --", f"\u202e{CANARY}"]
NUMBERS = [None, 0, -1, 1, 2, 8, 9, 3_999, 4_000, 192_000, 192_001, 2**31 - 1, 2**31, 2**63 - 1, -(2**63)]
SHARES = [None, 0.0, 1.0, -0.0, 1.0000001, float("nan"), float("inf"), -1.0]
RANKS = [None, 0, -1, 1, 2, 3, 127, 2**40]
INTS = st.sampled_from(NUMBERS)
FIELDS: Mapping[str, st.SearchStrategy[Any]] = {
    "clip_id": st.sampled_from([None, "", "a", "b", "c", f"{CANARY}\t", f"{CANARY}\x00", "\u00e9", "e\u0301"]),
    "product": st.sampled_from([*NASTY, "x", "ab", "a" * 32, "a" * 33, "Translator"]),
    "activation": st.sampled_from([*NASTY, "button", "accidental", "CALL"]),
    "locale": st.sampled_from([*NASTY, "zh-Hant-TW", "en_US", "en-QNDL", "x-quandle", "en-US-x-quandle"]),
    "country": st.sampled_from([*NASTY, "DE", "us", "ZZ"]),
    "recorded_at": st.one_of(
        st.none(),
        st.sampled_from([-1500, -2, -1, 0, 1, 2, 1500]).map(lambda d: GOOD["recorded_at"] + timedelta(days=d)),
    ),
    "duration_ms": INTS,
    "sample_rate_hz": INTS,
    "channels": INTS,
    "audio_uri": st.sampled_from(NASTY),
    "audio_sha256": st.sampled_from([*NASTY, "A" * 64, "a" * 63, "g" * 64, "0" * 64 + "\n"]),
    "participants": st.one_of(
        st.none(),
        st.lists(
            st.one_of(
                st.none(), st.builds(lambda p: {"person_id": p, "role": None}, st.sampled_from([*NASTY, "p", "p"]))
            ),
            max_size=4,
        ),
    ),
    "hypotheses": st.one_of(
        st.none(),
        st.lists(
            st.one_of(
                st.none(),
                st.builds(
                    lambda r, t, c: {"rank": r, "text": t, "confidence": c, "engine": None},
                    st.sampled_from(RANKS),
                    st.sampled_from(NASTY),
                    st.sampled_from(SHARES),
                ),
            ),
            max_size=4,
        ),
    ),
    "words": st.one_of(
        st.none(),
        st.lists(
            st.one_of(
                st.none(),
                st.builds(lambda w, a, b: {"word": w, "start_ms": a, "end_ms": b}, st.sampled_from(NASTY), INTS, INTS),
            ),
            max_size=3,
        ),
    ),
}


@st.composite
def rows(draw: st.DrawFn) -> dict[str, Any]:
    """Mostly good, so that each rule is met alone as well as among others; ids are few, so that they meet again."""
    wrong = draw(st.sets(st.sampled_from(sorted(FIELDS)), max_size=3))
    return {
        **GOOD,
        "clip_id": f"clip-{draw(st.integers(0, 12))}",
        **{name: draw(FIELDS[name]) for name in sorted(wrong)},
    }


@st.composite
def zones(draw: st.DrawFn) -> dict[str, list[dict[str, Any]]]:
    files = st.tuples(st.sampled_from([DAY, DAY - timedelta(days=1), None]), st.sampled_from("ab"))
    return {place(*file): draw(st.lists(rows(), max_size=8)) for file in draw(st.sets(files, min_size=1, max_size=4))}


def edges() -> list[dict[str, Any]]:
    """Rows that have each odd number once, alone."""
    heard, word = GOOD["hypotheses"][0], GOOD["words"][0]
    changes: list[dict[str, Any]] = [
        *({name: n} for name in ("duration_ms", "sample_rate_hz", "channels") for n in NUMBERS),
        *({"hypotheses": [heard | {"confidence": c}]} for c in SHARES),
        *({"hypotheses": [heard | {"rank": r} for r in (*some, n)]} for n in RANKS for some in ([], [1], [3, 2])),
        *({"words": [word | {name: n}]} for name in ("start_ms", "end_ms") for n in NUMBERS),
    ]
    return [{**GOOD, "clip_id": f"edge-{n}", **change} for n, change in enumerate(changes)]


@example(zone={place(DAY): edges()})
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize="FUZZ" not in os.environ,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(zone=zones())
def test_inspect_says_what_the_slow_twin_says(tmp_path: Path, zone: Zone) -> None:
    """Valid rows and rejected rows are all rows, for any input; no value of it stands in what is written."""
    shutil.rmtree(tmp_path, ignore_errors=True)
    write(tmp_path / "landing", zone)
    folder, found = look(tmp_path)
    check(folder, found, zone)
    written = everything_written(tmp_path / "var", but=tmp_path / "var" / "locks")
    assert CANARY.encode() not in written
    assert b"DROP TABLE" not in written


# -- every rule, and duplicates --------------------------------------------------------------------------------

WRONG: Mapping[str, dict[str, Any]] = {
    "missing_clip_id": {"clip_id": None},
    "bad_product": {"product": "Translator"},
    "bad_activation": {"activation": CANARY},
    "bad_locale": {"locale": "en_US"},
    "bad_country": {"country": "ZZ"},
    "bad_recorded_at": {"recorded_at": None},
    "wrong_partition": {"recorded_at": GOOD["recorded_at"] - timedelta(days=9)},
    "bad_duration": {"duration_ms": 0},
    "bad_sample_rate": {"sample_rate_hz": 1},
    "bad_channels": {"channels": 0},
    "bad_audio_uri": {"audio_uri": ""},
    "bad_audio_sha256": {"audio_sha256": "0"},
    "bad_participant": {"participants": [{"person_id": None, "role": None}]},
    "bad_hypothesis_rank": {"hypotheses": [GOOD["hypotheses"][0], GOOD["hypotheses"][0]]},
    "bad_hypothesis_text": {"hypotheses": [GOOD["hypotheses"][0] | {"text": None}]},
    "bad_confidence": {"hypotheses": [GOOD["hypotheses"][0] | {"confidence": float("nan")}]},
    "bad_word_timing": {"words": [GOOD["words"][0] | {"end_ms": -1}]},
}
# One good row, one for each rule, and an id that stands twice in a file, across files, and across partitions.
EACH: Zone = {
    place(DAY): [
        dict(GOOD),
        *({**GOOD, "clip_id": f"wrong-{reason}", **change} for reason, change in WRONG.items()),
        {**GOOD, "clip_id": "twice in a file"},
        {**GOOD, "clip_id": "twice in a file"},
        {**GOOD, "clip_id": "twice in two files"},
        # Rows without an id are not one clip.
        *({**GOOD, "clip_id": nothing} for nothing in (None, "", "")),
    ],
    place(DAY, "b"): [{**GOOD, "clip_id": "twice in two files"}, {**GOOD, "clip_id": "twice in two partitions"}],
    place(DAY - timedelta(days=1)): [{**GOOD, "clip_id": "twice in two partitions"}, {**GOOD, "clip_id": "good"}],
}


def test_inspect_finds_every_rule_broken_by_a_row_that_breaks_it_alone(tmp_path: Path) -> None:
    assert {*WRONG, DUPLICATE} == set(REASONS)
    write(tmp_path / "landing", EACH)
    folder, found = look(tmp_path)
    check(folder, found, EACH)
    assert {reason: found.of(reason) for reason in REASONS} == {
        **dict.fromkeys(WRONG, 1),
        "missing_clip_id": 4,
        DUPLICATE: 6,
    }
    assert (found.partitions, found.judged_now) == (2, 2)
    assert found.most_in(DUPLICATE) == DAY
    assert all(KEY.fullmatch(key) for key in pq.read_table(folder.landing_rejected)["row_key"].to_pylist())


def test_every_reason_is_of_one_rule() -> None:
    assert len({rule.reason for rule in RULES}) == len(RULES)
    assert all(rule.over or rule.expectations for rule in RULES)
    assert all(rule.holds or rule.reason == DUPLICATE for rule in LANDING_RULES)


@pytest.mark.parametrize(
    ("landing", "told"),
    [
        ({"bad_countri": {"action": "warn", "max_share": 1}}, "no rule bad_countri; did you mean bad_country"),
        ({"audio_missing": {"action": "warn", "max_share": 1}}, "no rule audio_missing"),
        ({"bad_country": {"action": "warn"}}, "either `max_share` or `max_rows`"),
        ({"bad_country": {"action": "warn", "max_share": 1, "max_rows": 1}}, "either `max_share` or `max_rows`"),
        ({"bad_country": {"action": "ignore", "max_share": 1}}, "bad_country"),
        ({"bad_country": {"action": "stop", "max_share": 1.5}}, "bad_country"),
    ],
)
def test_a_threshold_that_says_nothing_is_refused(landing: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Quality.model_validate({"landing": landing})


def test_the_policy_that_is_delivered_says_what_the_rules_say() -> None:
    assert load_settings({}).policy().quality.landing.keys() == set(REASONS)
    assert load_settings({}).policy().quality.over() == Quality().over()


def test_inspect_rejects_what_a_policy_warns_of_only_when_it_is_changed(tmp_path: Path) -> None:
    write(tmp_path / "landing", EACH)
    _, found = look(tmp_path)
    changed = {
        "bad_locale": Threshold(action="warn", max_share=1.0),
        "wrong_partition": Threshold(action="stop", max_rows=5),
        "bad_word_timing": Threshold(action="quarantine", max_rows=0),
    }
    folder, again = look(tmp_path, **changed)
    assert again.rejected == found.rejected + 1
    assert again.judged_now == 0
    codes = {code for one in pq.read_table(folder.landing_rejected).to_pylist() for code in one["reasons"]}
    assert codes == set(REASONS) - {"bad_locale"}


# -- again, and after a kill -----------------------------------------------------------------------------------


def contents(folder: NightFolder) -> dict[str, bytes]:
    files = [folder.landing_rejected, folder.landing_counts, *folder.root.inspected.iterdir()]
    return {path.name: path.read_bytes() for path in files}


def test_inspect_again_judges_nothing_and_leaves_the_same_bytes(tmp_path: Path) -> None:
    write(tmp_path / "landing", EACH)
    folder, found = look(tmp_path)
    before = contents(folder)
    stamps = {path: path.stat().st_mtime_ns for path in folder.root.inspected.iterdir()}
    again, refound = look(tmp_path)
    assert contents(again) == before
    assert (refound.judged_now, refound.broken) == (0, found.broken)
    assert {path: path.stat().st_mtime_ns for path in folder.root.inspected.iterdir()} == stamps
    # From nothing, too.
    shutil.rmtree(tmp_path / "var")
    assert contents(look(tmp_path)[0]) == before


def test_inspect_judges_what_changed_and_forgets_what_is_gone(tmp_path: Path) -> None:
    write(tmp_path / "landing", EACH)
    look(tmp_path)
    newer: dict[str, Any] = {
        **EACH,
        place(DAY - timedelta(days=1)): [{**GOOD, "clip_id": "good"}, {**GOOD, "clip_id": "better", "country": "ZZ"}],
        place(NIGHT): [{**GOOD, "clip_id": "good", "recorded_at": datetime.combine(NIGHT, time(1), UTC)}],
    }
    write(tmp_path / "landing", {where: newer[where] for where in (place(DAY - timedelta(days=1)), place(NIGHT))})
    folder, found = look(tmp_path)
    # An old partition is not judged again, although one of its ids stands twice no more, and another does now.
    assert (found.partitions, found.judged_now) == (3, 2)
    check(folder, found, newer)
    shutil.rmtree(tmp_path / "landing" / "clips" / f"recorded_date={DAY}")
    folder, found = look(tmp_path)
    assert (found.partitions, found.judged_now) == (2, 0)
    check(folder, found, {where: rows for where, rows in newer.items() if str(DAY) not in where})
    assert len(list(folder.root.inspected.iterdir())) == 2


def test_inspect_reads_no_partition_outside_the_window(tmp_path: Path) -> None:
    write(tmp_path / "landing", EACH)
    old = tmp_path / "landing" / "clips" / place(OLDEST - timedelta(days=1))
    old.parent.mkdir()
    old.write_bytes(b"not Parquet")
    check(*look(tmp_path), EACH)


def test_inspect_judges_again_under_other_keys_and_rules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "landing", EACH)
    look(tmp_path)
    monkeypatch.setattr(inspection, "digest", lambda: "others")
    assert look(tmp_path)[1].judged_now == 2


class Killed(BaseException):
    pass


def test_inspect_killed_anywhere_leaves_no_half_and_the_same_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "landing", EACH)
    expected = contents(look(tmp_path)[0])
    real, steps = Path.replace, 0

    def replace(self: Path, target: Path) -> Path:
        nonlocal left
        left -= 1
        if left < 0:
            raise Killed
        return real(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    for steps in range(8):
        shutil.rmtree(tmp_path / "var")
        left = steps
        with suppress(Killed):
            look(tmp_path)
            break
        left = 100
        assert contents(look(tmp_path)[0]) == expected
    assert steps == 4, "two partitions, rejected rows, counts"


def test_inspect_in_many_parts_says_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "landing", EACH)
    before = contents(look(tmp_path)[0])
    shutil.rmtree(tmp_path / "var")
    for name in ("_BYTES_AT_ONCE", "_HASHES_AT_ONCE"):
        monkeypatch.setattr(inspection, name, 3)
    assert contents(look(tmp_path)[0]) == before
    monkeypatch.setattr(inspection, "_ROWS_AT_ONCE", 1)
    check(*look(tmp_path), EACH)


# -- any landing zone ------------------------------------------------------------------------------------------


def lean(path: Path) -> None:
    """Without the columns that may be missing, with one that is ours by name, and with a dictionary."""
    table = pq.read_table(path, partitioning=None).drop_columns(["call_id"])
    table = table.append_column("filename", pa.array([CANARY] * table.num_rows))
    index = table.schema.get_field_index("locale")
    pq.write_table(table.set_column(index, "locale", table["locale"].dictionary_encode()), path)


@pytest.mark.parametrize("way", ["folder", "url", "arrow", "python"])
def test_inspect_of_a_landing_zone_at_any_address(tmp_path: Path, way: str) -> None:
    """The same keys and reasons, whoever reads the files; also where a file has columns of the names that we use."""
    write(tmp_path / "landing", EACH)
    lean(tmp_path / "landing" / "clips" / place(DAY, "b"))
    location = {"url": (tmp_path / "landing").as_uri(), "python": f"fsspec+file://{tmp_path}/landing/"}
    landing = Landing(location.get(way, str(tmp_path / "landing")))
    if way == "arrow":
        landing._is_local = False
    root = Root(tmp_path / "var", "")
    found = inspect(root.night(NIGHT), landing, OLDEST, Quality().over(), PSEUDONYMS, silent)
    check(root.night(NIGHT), found, EACH)
    assert CANARY.encode() not in everything_written(root.path, but=root.path / "locks")


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    pages = len(content) - 8 - int.from_bytes(content[-8:-4], "little") - 4
    content[4 : 4 + pages] = b"\xff" * pages
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (damage, LandingUnreadable),
        (lambda path: path.write_bytes(b"no"), LandingUnreadable),
        (lambda path: pq.write_table(pa.table({"clip_id": ["a"]}), path), LandingSchemaBroken),
        (lambda path: shutil.rmtree(path.parents[1]), LandingMissing),
    ],
)
def test_inspect_of_a_landing_zone_that_is_broken_writes_nothing_of_the_night(
    tmp_path: Path, change: Any, error: type[Exception]
) -> None:
    write(tmp_path / "landing", EACH)
    change(tmp_path / "landing" / "clips" / place(DAY))
    with pytest.raises(error) as told:
        look(tmp_path)
    assert CANARY not in str(told.value)
    assert not (tmp_path / "var" / "nights").exists()


def test_inspect_keeps_what_it_found_where_nobody_else_looks(tmp_path: Path) -> None:
    write(tmp_path / "landing", EACH)
    folder, _ = look(tmp_path)
    assert folder.root.inspected.stat().st_mode & 0o777 == 0o700
    names: Iterator[str] = (path.name for path in folder.root.inspected.iterdir())
    assert all(re.fullmatch(r"[0-9a-f]{64}\.parquet", name) for name in names)
    assert json.loads(pq.read_schema(next(folder.root.inspected.iterdir())).metadata[b"rows"])
