"""The analysts' file, built from a few rows whose answers can be worked out by hand."""

import math
import os
import signal
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from random import Random
from statistics import stdev
from typing import Any

import duckdb
import krippendorff
import numpy as np
import pyarrow as pa
import pytest
from scipy.stats import t as student

from clip_courier import loading, warehouse

NOW = datetime(2026, 11, 30, tzinfo=UTC)
DELIVERED = datetime(2026, 11, 20, 2, 0, tzinfo=UTC)
NIGHT = date(2026, 11, 20)


def _clip(key: str, stratum: str, speaker: str, probability: float = 1.0, batch_id: str = "b-1") -> dict[str, Any]:
    fixed = {"night": NIGHT, "vendor": batch_id[0], "product": "translator", "locale": "en-GB"}
    more = {"recorded_week": "2026-W47", "duration_ms": 1000, "is_overlap": False, "stratum": stratum}
    return {"clip_key": key, "batch_id": batch_id, **fixed, **more} | {
        "inclusion_probability": probability,
        "speaker_key": speaker,
        "speaker_keys": [speaker],
    }


def _score(
    key: str, words: int, substitutions: int, deletions: int, insertions: int, batch_id: str = "b-1"
) -> dict[str, Any]:
    counts = {"substitutions": substitutions, "deletions": deletions, "insertions": insertions}
    hits = words - substitutions - deletions
    characters = {"characters": 0, **{f"character_{name}": 0 for name in (*counts, "hits")}}
    of = {"clip_key": key, "batch_id": batch_id, "vendor": batch_id[0], "rules": "r"}
    return of | {"words": words, "hits": hits} | counts | characters


def _batch(batch_id: str, *, clips: int, due: datetime | None) -> dict[str, Any]:
    times = {"manifested_at": DELIVERED, "delivered_at": DELIVERED if due else None, "due_at": due}
    return {
        "batch_id": batch_id,
        "vendor": batch_id[0],
        "night": NIGHT,
        "state": "LOADED",
        "clip_count": clips,
        "audio_ms": 1000 * clips,
        "size_bytes": 7,
        **times,
    }


def _transcript(key: str, batch_id: str, status: str, hours: float) -> dict[str, Any]:
    at = DELIVERED + timedelta(hours=hours)
    return {"clip_key": key, "batch_id": batch_id, "vendor": batch_id[0], "status": status, "submitted_at": at}


def _relations(**rows: list[dict[str, Any]]) -> dict[str, pa.Table]:
    # What is asked of clips stands beside scores and comparisons too.
    clips = {(clip["clip_key"], clip["batch_id"]): clip for clip in rows.get("delivered_clips", [])}
    full = {
        name: [clips.get((row.get("clip_key"), row.get("batch_id")), {}) | row for row in given]
        for name, given in rows.items()
    }
    return {name: pa.Table.from_pylist(full.get(name, []), schema) for name, schema in loading.RELATIONS.items()}


def _rows(path: Path, query: str) -> list[tuple[Any, ...]]:
    with duckdb.connect(str(path), read_only=True) as connection:
        return connection.execute(query).fetchall()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "warehouse" / "clip_courier.duckdb"


# Contracts §5, and what stands in each table beyond it.
TABLES = {
    "deliveries": {"batch_id", "vendor", "night", "state", "clip_count"},
    "clips": {
        "clip_key",
        "night",
        "vendor",
        "stratum",
        "duration_ms",
        "inclusion_probability",
        "is_overlap",
        "is_withheld",
    },
    "transcripts": {"clip_key", "status", "text", "revision"},
    "scores": {"words", "substitutions", "deletions", "insertions", "hits", "characters", "character_hits"},
    "wer_by_stratum": {"stratum", "estimate", "ci_low", "ci_high", "clips", "speakers"},
    "wer_by_product": {"product", "estimate", "ci_low", "ci_high", "effective_clips", "hours_needed"},
    "wer_by_locale": {"locale", "estimate", "ci_low", "ci_high", "effective_clips", "hours_needed"},
    "wer_by_week": {"recorded_week", "estimate", "ci_low", "ci_high", "effective_clips", "hours_needed"},
    "vendor_scorecard": {"vendor", "word_alpha", "pairwise_wer", "steering_effect", "reject_rate", "turnaround_low"},
    "rejections": {"reason"},
    "recalls": {"batch_id", "state"},
    "returns": {"batch_id", "n", "received_rows", "loaded_rows", "rejected_rows", "superseded_rows"},
    "nights": {"night", "clips"},
}


def test_publish_the_contracts_tables_with_comments(path: Path) -> None:
    assert warehouse.publish(path, _relations(), NOW) == dict.fromkeys(TABLES, 0)
    columns = _rows(path, "SELECT table_name, column_name, comment FROM duckdb_columns() WHERE NOT internal")
    found: dict[str, set[str]] = {}
    for table, column, comment in columns:
        assert comment, f"{table}.{column}"
        found.setdefault(table, set()).add(column)
    assert set(found) == set(TABLES)
    assert [table for table, wanted in TABLES.items() if wanted - found[table]] == []
    assert all(comment for _, comment in _rows(path, "SELECT table_name, comment FROM duckdb_tables()"))


def test_publish_word_error_rates_by_hand(path: Path) -> None:
    """Weights 2 and 1: (2·1 + 6) / (2·10 + 20) = 0.2; without the one 0.3, without the other 0.1, so s² = 2 · 0.1²."""
    clips = [
        _clip("k1", "two", "p1", 0.5),
        _clip("k2", "two", "p2"),
        _clip("k3", "one", "p1"),
        _clip("k4", "one", "p1"),
        _clip("k5", "silent", "p1"),
        _clip("k6", "silent", "p2"),
        _clip("k7", "unscored", "p1"),
    ]
    scored = [
        _score("k1", 10, 1, 0, 0),
        _score("k2", 20, 3, 2, 1),
        _score("k3", 4, 1, 1, 0),
        _score("k4", 4, 0, 0, 0),
        _score("k5", 0, 0, 0, 2),
        _score("k6", 0, 0, 0, 0),
    ]
    warehouse.publish(path, _relations(delivered_clips=clips, scored=scored), NOW)
    query = "SELECT stratum, estimate, ci_low, ci_high, clips, speakers FROM wer_by_stratum"
    found = {row[0]: row[1:] for row in _rows(path, query)}
    stretch = math.exp(student.ppf(0.975, 1) * math.sqrt(2) * 0.1 / 0.2)
    assert found["two"] == (
        pytest.approx(0.2),
        pytest.approx(0.2 / stretch),
        pytest.approx(0.2 * stretch),
        2,
        2,
    )
    assert found["one"] == (pytest.approx(0.25), None, None, 2, 1)
    assert found["silent"] == (None, None, None, 2, 2)
    assert set(found) == {"two", "one", "silent"}
    for table in ("product", "locale", "week"):
        rate = (2 * 1 + 6 + 2 + 0 + 2 + 0) / (2 * 10 + 20 + 4 + 4)
        assert _rows(path, f"SELECT estimate, clips, speakers FROM wer_by_{table}") == [(pytest.approx(rate), 6, 2)]


def test_publish_a_clip_that_two_vendors_transcribed_once(path: Path) -> None:
    clips = [
        _clip("k1", "s", "p1", 0.5, "b-1") | {"is_overlap": True},
        _clip("k1", "s", "p1", 0.5, "c-1") | {"is_overlap": True},
        _clip("k2", "s", "p2", 0.5, "b-1"),
    ]
    scored = [_score("k1", 4, 1, 0, 0), _score("k1", 6, 2, 0, 0, "c-1"), _score("k2", 10, 1, 0, 0)]
    warehouse.publish(path, _relations(delivered_clips=clips, scored=scored), NOW)
    assert _rows(path, "SELECT estimate, clips, speakers, hours FROM wer_by_stratum") == [
        (pytest.approx(2.5 / 15), 2, 2, pytest.approx(2 / 3600))
    ]


def test_publish_two_clips_of_one_person_as_one_cluster(path: Path) -> None:
    """Errors of a person stand together: two halves of a person weigh as the whole one."""
    halves = [_clip("k1", "s", "p1"), _clip("k2", "s", "p1"), _clip("k3", "s", "p2")]
    scores = [_score("k1", 5, 1, 0, 0), _score("k2", 5, 0, 0, 0), _score("k3", 10, 3, 0, 0)]
    warehouse.publish(path, _relations(delivered_clips=halves, scored=scores), NOW)
    (split,) = _rows(path, "SELECT estimate, ci_low, ci_high FROM wer_by_stratum")
    whole = [_clip("k1", "s", "p1"), _clip("k3", "s", "p2")]
    joined = [_score("k1", 10, 1, 0, 0), _score("k3", 10, 3, 0, 0)]
    warehouse.publish(path, _relations(delivered_clips=whole, scored=joined), NOW)
    assert _rows(path, "SELECT estimate, ci_low, ci_high FROM wer_by_stratum") == [pytest.approx(split)]


def test_publish_the_scorecard_by_hand(path: Path) -> None:
    late, early = NOW - timedelta(days=1), NOW + timedelta(days=1)
    batches = [
        _batch("a-1", clips=2, due=late),  # all returned
        _batch("a-2", clips=2, due=late),  # one owed: overdue
        _batch("a-3", clips=1, due=early),  # owed, but not yet
        _batch("a-4", clips=5, due=None),  # never sent
        _batch("c-1", clips=1, due=late),  # nothing at all
    ]
    clips = [_clip(key, "s", "p", batch_id=f"a-{key[0]}") for key in ("1x", "1y", "2x", "2y", "3x")]
    clips.append(_clip("9x", "s", "p", batch_id="c-1"))
    transcripts = [
        _transcript("1x", "a-1", "transcribed", 1),
        _transcript("1y", "a-1", "no_speech", 3),
        _transcript("2x", "a-2", "transcribed", 10),
    ]
    returns = [
        {"vendor": "a", "batch_id": "a-1", "n": 1, "state": "ACCEPTED", "accepted_rows": 2, "rejected_rows": 4},
        {"vendor": "a", "batch_id": "a-2", "n": 1, "state": "ACCEPTED", "accepted_rows": 1, "rejected_rows": 0},
        {"vendor": "a", "batch_id": "a-2", "n": 2, "state": "REFUSED", "accepted_rows": 0, "rejected_rows": 0},
    ]
    relations = _relations(
        ledger_batches=batches, delivered_clips=clips, masked_transcripts=transcripts, ledger_returns=returns
    )
    warehouse.publish(path, relations, NOW)
    columns = "batches, overdue_batches, clips, returned_clips, transcribed_clips, rejected_rows, refused_files"
    query = f"SELECT vendor, {columns}, reject_rate, median_turnaround_hours FROM vendor_scorecard ORDER BY vendor"
    assert _rows(path, query) == [
        ("a", 3, 1, 5, 3, 2, 4, 1, pytest.approx(4 / 7), 3.0),
        ("c", 1, 1, 1, 0, 0, 0, 0, None, None),
    ]
    low, high, earliest, latest = _rows(
        path, "SELECT reject_rate_low, reject_rate_high, turnaround_low, turnaround_high FROM vendor_scorecard"
    )[0]
    assert (0 < low < 4 / 7, high, earliest, latest) == (True, 1.0, 1.0, 10.0)


def test_publish_how_far_vendors_agree(path: Path) -> None:
    """As the library krippendorff has it from every aligned word and every status; no word is a value of its own."""
    random = Random(5)
    statuses = ["transcribed", "transcribed", "transcribed", "no_speech", "unintelligible"]
    clips, compared, slots, judged = [], [], [], []
    for n in range(60):
        clips.append(_clip(f"k{n}", "s", f"p{n // 2}", batch_id="a-1"))
        one = random.choice(statuses)
        other = one if random.random() < 0.8 else random.choice(statuses)
        judged.append((one, other))
        row: dict[str, Any] = {"clip_key": f"k{n}", "batch_id": "a-1", "vendor": "a", "other_vendor": "c"}
        row |= {"status": one, "other_status": other}
        if one == other == "transcribed":
            said = [random.randrange(1, 20) for _ in range(8)]
            # Kinds of errors in their places, so that the alignment is known.
            pairs = [(w, random.choice([w] * 6 + [w + 50, 0])) for w in said] + [(0, 99)] * (n % 2)
            slots += pairs
            words, others = ([pair[side] for pair in pairs if pair[side]] for side in (0, 1))
            errors = sum(w != o for w, o in pairs)
            row |= {"words": len(words), "other_words": len(others), "errors": errors, "slots": len(pairs)}
            row["said"] = words + others
        compared.append(row)
    batches = [_batch(name, clips=60, due=NOW) for name in ("a-1", "c-1")]
    warehouse.publish(path, _relations(ledger_batches=batches, delivered_clips=clips, compared=compared), NOW)
    columns = "word_alpha, status_alpha, pairwise_wer, overlap_clips, word_alpha_low, word_alpha_high"
    found = _rows(path, f"SELECT {columns} FROM vendor_scorecard ORDER BY vendor")
    words, others = (sum(row.get(name, 0) for row in compared) for name in ("words", "other_words"))
    wanted = (
        krippendorff.alpha(np.array(slots).T, level_of_measurement="nominal"),
        krippendorff.alpha(np.array(judged).T, level_of_measurement="nominal"),
        2 * sum(row.get("errors", 0) for row in compared) / (words + others),
        60,
    )
    assert [row[:4] for row in found] == [pytest.approx(wanted)] * 2
    assert all(low < alpha < high <= 1 for alpha, _, _, _, low, high in found)


def test_publish_how_far_hypotheses_steer(path: Path) -> None:
    """About one error in ten words where they were shown, three where they were not; clips of unknown kind apart."""
    random = Random(2)
    clips = [_clip(f"k{n}", "s", f"p{n % 10}") | {"is_withheld": n % 4 == 0} for n in range(80)]
    errors = [random.randrange(2, 5) if n % 4 == 0 else random.randrange(3) for n in range(80)]
    scored = [_score(f"k{n}", 10, missed, 0, 0) for n, missed in enumerate(errors)]
    clips += [_clip(f"u{n}", "s", "p1") for n in range(3)]
    scored += [_score(f"u{n}", 10, 9, 0, 0) for n in range(3)]
    relations = _relations(ledger_batches=[_batch("b-1", clips=83, due=NOW)], delivered_clips=clips, scored=scored)
    warehouse.publish(path, relations, NOW)
    query = "SELECT withheld_clips, steering_effect, steering_effect_low, steering_effect_high FROM vendor_scorecard"
    [(withheld, effect, low, high)] = _rows(path, query)
    shown = [missed for n, missed in enumerate(errors) if n % 4]
    assert (withheld, effect) == (20, pytest.approx(sum(errors[::4]) / 200 - sum(shown) / 600))
    assert 0.1 < low < effect < high < 0.3


def test_publish_what_is_owed_by_hand(path: Path) -> None:
    """Two clips in each batch: one answered; both, one as distress; one, and the other recalled; never sent."""
    batches = [_batch(name, clips=2, due=None if name == "a-4" else NOW) for name in ("a-1", "a-2", "a-3", "a-4")]
    clips = [_clip(key, "s", "p", batch_id=f"a-{key[0]}") for key in ("1x", "1y", "2x", "2y", "3x")]
    transcripts = [_transcript(key, f"a-{key[0]}", "no_speech", 1) for key in ("1x", "2x", "3x")]
    transcripts.append(_transcript("2y", "a-2", "distress", 1))
    relations = _relations(ledger_batches=batches, delivered_clips=clips, masked_transcripts=transcripts)
    warehouse.publish(path, relations, NOW)
    found = _rows(path, "SELECT batch_id, answered_clips, owed_clips FROM deliveries ORDER BY batch_id")
    assert found == [("a-1", 1, 1), ("a-2", 2, 0), ("a-3", 1, 0), ("a-4", None, None)]
    assert _rows(path, "SELECT count(*) FROM transcripts") == [(3,)]


def test_publish_while_readers_hold_the_old_file(path: Path) -> None:
    warehouse.publish(path, _relations(delivered_clips=[_clip("old", "s", "p")]), NOW)
    reader = duckdb.connect(str(path), read_only=True)
    warehouse.publish(path, _relations(delivered_clips=[_clip("new", "s", "p")]), NOW)
    assert reader.execute("SELECT clip_key FROM clips").fetchall() == [("old",)]
    reader.close()
    assert _rows(path, "SELECT clip_key FROM clips") == [("new",)]
    assert [file.name for file in path.parent.iterdir()] == [path.name]


READER = """
import sys, time
import duckdb
path, seen = sys.argv[1], []
print("reads", flush=True)
while not seen or seen[-1] < int(sys.argv[2]):
    with duckdb.connect(path, read_only=True) as warehouse:
        # Twice in one connection, some time apart: what was opened stays what it was.
        found = []
        for _ in range(2):
            found += warehouse.execute("SELECT min(duration_ms), max(duration_ms), count(*) FROM clips").fetchall()
            time.sleep(0.02)
        assert found[0] == found[1] and found[0][0] == found[0][1] and found[0][2] == 2000, found
        seen.append(found[0][0])
assert seen == sorted(seen), seen
"""


def test_publish_while_processes_read(path: Path) -> None:
    """Each sees one whole state of the file, older ones never after newer ones, and none is ever refused."""

    def publish(generation: int) -> None:
        clips = [{**_clip(f"k{n}", "s", "p"), "duration_ms": generation} for n in range(2000)]
        warehouse.publish(path, _relations(delivered_clips=clips), NOW)

    publish(1)
    command = [sys.executable, "-c", READER, str(path), "6"]
    readers = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    assert all(reader.stdout and reader.stdout.readline() == "reads\n" for reader in readers)
    for generation in range(2, 7):
        publish(generation)
    for reader in readers:
        _, errors = reader.communicate(timeout=60)
        assert reader.returncode == 0, errors


def test_publish_what_fails_leaves_the_old_file(path: Path) -> None:
    from clip_courier.errors import QueryFailed

    warehouse.publish(path, _relations(delivered_clips=[_clip("old", "s", "p")]), NOW)
    with pytest.raises(QueryFailed) as failed:
        warehouse.publish(path, _relations(delivered_clips=[_clip("twice", "s", "p")] * 2), NOW)
    assert "twice" not in str(failed.value)
    assert _rows(path, "SELECT clip_key FROM clips") == [("old",)]
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_publish_killed_in_the_middle_leaves_the_old_file(path: Path) -> None:
    warehouse.publish(path, _relations(delivered_clips=[_clip("old", "s", "p")]), NOW)
    program = """
import os, signal, sys
from pathlib import Path
from clip_courier import tables, warehouse
sys.path.insert(0, sys.argv[2])
from test_warehouse import NOW, _clip, _relations
run = tables.Tables.run
def die(self, statement, values=None):
    if statement == "load_transcripts":
        os.kill(os.getpid(), signal.SIGKILL)
    return run(self, statement, values)
tables.Tables.run = die
warehouse.publish(Path(sys.argv[1]), _relations(delivered_clips=[_clip("killed", "s", "p")]), NOW)
"""
    environ = {**os.environ, "PYTHONPATH": str(Path(warehouse.__file__).parents[1])}
    command = [sys.executable, "-c", program, str(path), str(Path(__file__).parent)]
    assert subprocess.run(command, env=environ).returncode == -signal.SIGKILL
    assert len(list(path.parent.iterdir())) == 2
    assert _rows(path, "SELECT clip_key FROM clips") == [("old",)]
    warehouse.publish(path, _relations(delivered_clips=[_clip("new", "s", "p")]), NOW)
    assert _rows(path, "SELECT clip_key FROM clips") == [("new",)]
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_spread_of_scores_is_what_optimum_allocation_asks_for(path: Path) -> None:
    """The deviation of errors from what the stratum's rate expects of as many words; strata with one clip have none."""
    assert warehouse.spread_of_scores(path) == {}
    words, errors = [10, 20, 5, 10], [1, 4, 0, 3]
    clips = [_clip(f"k{n}", "s", f"p{n}") for n in range(4)] + [_clip("k4", "alone", "p9")]
    scored = [_score(f"k{n}", w, e, 0, 0) for n, (w, e) in enumerate(zip(words, errors, strict=True))]
    scored.append(_score("k4", 10, 2, 0, 0))
    relations = _relations(ledger_batches=[_batch("b-1", clips=5, due=NOW)], delivered_clips=clips, scored=scored)
    warehouse.publish(path, relations, NOW)
    rate = sum(errors) / sum(words)
    expected = stdev(e - rate * w for w, e in zip(words, errors, strict=True))
    assert warehouse.spread_of_scores(path) == {"s": pytest.approx(expected)}
