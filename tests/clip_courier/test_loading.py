"""The warehouse of a real night: what analysts see, and what nobody may find in it."""

import csv
import hashlib
import json
import re
import secrets
import shutil
from collections import Counter
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from clip_courier import loading, recalls
from clip_courier.courier import Courier
from clip_courier.ledger import Ledger
from clip_courier.model import stamp
from clip_courier.pgp import OwnKey, open_keyring
from clip_courier.tables import Tables
from clip_courier_demo.stage import Stage
from conftest import NIGHT, NOW
from snapshots import (
    LATER,
    MakeCourier,
    crosswalk_of,
    delivered,
    files_under,
    landing_copy,
    manifested,
    persons_of,
    refs_with,
    returned,
    withdraw,
)

AURORA, BOREALIS = "aurora-20261120-001", "borealis-20261120-001"
OVERDUE = NOW.replace(day=28)


def _query(stage: Stage, query: str) -> list[tuple[Any, ...]]:
    with duckdb.connect(str(stage.root / "warehouse" / "clip_courier.duckdb"), read_only=True) as connection:
        return connection.execute(query).fetchall()


def _ledger(stage: Stage) -> Ledger:
    return Ledger(f"sqlite:///{stage.root / 'ledger.sqlite'}")


def _send(stage: Stage, rows: list[dict[str, Any]], n: int = 1) -> None:
    vendor = stage.vendors["aurora"]
    with open_keyring(OwnKey(vendor.key.fingerprint, vendor.key.private_key), [vendor.our_public_key]) as keyring:
        vendor.send(keyring, AURORA, n, rows, NOW)


def _row(ref: str, **changes: Any) -> dict[str, Any]:
    row = {"clip_ref": ref, "status": "transcribed", "text": "good morning", "annotator_ref": "t1"}
    return {**row, "submitted_at": stamp(NOW), "revision": 0, **changes}


def test_load_then_there_is_nothing_to_do(stage: Stage, make_courier: MakeCourier, truth: dict[str, str]) -> None:
    courier = returned(stage, make_courier, truth)
    assert courier.load().is_new
    assert [batch.state for batch in _ledger(stage).batches()] == ["LOADED", "LOADED"]
    place = stage.root / "warehouse" / "clip_courier.duckdb"
    built = (place.stat().st_ino, hashlib.sha256(place.read_bytes()).hexdigest())
    assert not courier.load().is_new
    assert (place.stat().st_ino, hashlib.sha256(place.read_bytes()).hexdigest()) == built


def test_load_again_when_a_batch_becomes_overdue(stage: Stage, make_courier: MakeCourier) -> None:
    delivered(stage, make_courier).load()
    assert _query(stage, "SELECT sum(overdue_batches) FROM vendor_scorecard") == [(0,)]
    late = make_courier(stage, OVERDUE)
    assert late.load().is_new
    assert not late.load().is_new
    assert _query(stage, "SELECT sum(overdue_batches) FROM vendor_scorecard") == [(2,)]


def test_load_what_was_delivered_and_said(stage: Stage, make_courier: MakeCourier, truth: dict[str, str]) -> None:
    courier = returned(stage, make_courier, truth)
    courier.load()
    for batch_id in (AURORA, BOREALIS):
        crosswalk = crosswalk_of(stage, batch_id)
        keys = set(crosswalk["clip_key"].to_pylist())
        for table in ("clips", "transcripts"):
            found = _query(stage, f"SELECT clip_key FROM {table} WHERE batch_id = '{batch_id}'")
            assert {key for (key,) in found} == keys
    assert _query(stage, "SELECT count(*) FROM scores WHERE substitutions + deletions + hits <> words") == [(0,)]
    spoken = _query(stage, "SELECT count(*) FROM transcripts WHERE status = 'transcribed'")
    assert _query(stage, "SELECT count(*) FROM scores") <= spoken
    # The errors of a stratum, summed by hand from the scores.
    sums = """
        SELECT c.stratum, sum((s.substitutions + s.deletions + s.insertions) / c.inclusion_probability)
            / sum(s.words / c.inclusion_probability)
        FROM scores s JOIN clips c USING (clip_key, batch_id) GROUP BY ALL HAVING sum(s.words) > 0
    """
    found = dict(_query(stage, "SELECT stratum, estimate FROM wer_by_stratum WHERE estimate IS NOT NULL"))
    wanted = dict(_query(stage, sums))
    assert set(found) == set(wanted)
    assert all(abs(found[stratum] - rate) < 1e-9 for stratum, rate in wanted.items())


def test_load_scores_what_the_transcriber_started_from(
    stage: Stage, make_courier: MakeCourier, truth: dict[str, str]
) -> None:
    returned(stage, make_courier, truth).load()
    chosen = "SELECT count(*) FROM scores s JOIN transcripts t USING (clip_key, batch_id) WHERE chosen_rank"
    assert _query(stage, f"{chosen} = 1") > [(0,)]
    # The first hypothesis has one count, whichever way it came to be compared.
    same = "chosen_hits = hits AND chosen_substitutions = substitutions AND chosen_character_hits = character_hits"
    assert _query(stage, f"{chosen} = 1 AND {same}") == _query(stage, f"{chosen} = 1")
    assert _query(stage, f"{chosen} IS NULL AND chosen_hits IS NOT NULL") == [(0,)]
    wrong = "chosen_substitutions + chosen_deletions + chosen_hits <> words"
    assert _query(stage, f"SELECT count(*) FROM scores WHERE {wrong}") == [(0,)]


def test_load_how_far_vendors_agree_and_are_steered(
    stage: Stage, make_courier: MakeCourier, truth: dict[str, str], tmp_path: Path
) -> None:
    """A night of which two vendors have every clip they may, half of them without hypotheses."""
    shutil.copytree(Path(loading.__file__).parents[1] / "policy", tmp_path / "policy")
    sampling = tmp_path / "policy" / "sampling.yaml"
    plan = yaml.safe_load(sampling.read_text()) | {"overlap_share": 1, "withheld_share": 0.5}
    sampling.write_text(yaml.safe_dump(plan))
    courier = make_courier(stage, CLIP_COURIER_POLICY=str(tmp_path / "policy"))
    assert not courier.night(NIGHT).failures
    for vendor in stage.vendors.values():
        vendor.work(truth, NOW)
    assert not courier.returns().failures
    [(overlaps,)] = _query(stage, "SELECT count(DISTINCT clip_key) FROM clips WHERE is_overlap")
    [(withheld,)] = _query(stage, "SELECT count(*) FROM clips WHERE is_withheld")
    assert withheld > 0
    scorecard = _query(
        stage, "SELECT overlap_clips, pairwise_wer, word_alpha, withheld_clips, steering_effect FROM vendor_scorecard"
    )
    assert sum(row[3] for row in scorecard) == withheld
    for overlap, pairwise, alpha, _, steering in scorecard:
        assert 0 < overlap <= overlaps
        assert 0 <= pairwise < 0.5 < alpha <= 1
        assert steering is not None
    # However many vendors transcribed it, a clip counts once.
    scored = _query(stage, "SELECT count(DISTINCT clip_key), count(*) FROM scores")[0]
    assert scored[0] < scored[1]
    assert _query(stage, "SELECT sum(clips) FROM wer_by_stratum") == [(scored[0],)]


def test_load_compares_what_vendors_made_of_one_clip() -> None:
    """By the statement and the counts that `load` runs; three vendors make three pairs."""
    rows = [
        {
            "clip_key": key,
            "batch_id": f"{vendor}-1",
            "vendor": vendor,
            "locale": "en-GB",
            "status": status,
            "text": text,
        }
        for key, vendor, status, text in [
            ("k1", "a", "transcribed", "Turn the light on."),
            ("k1", "c", "transcribed", "turn the lights on please"),
            ("k1", "b", "transcribed", "turn the light on"),
            ("k2", "a", "no_speech", "said nonetheless"),
            ("k2", "b", "transcribed", "well"),
        ]
    ]
    with Tables() as tables:
        tables.register("overlapped", pa.Table.from_pylist(rows))
        found = loading._compared(tables.run("overlap_pairs")).to_pylist()
    told = {
        (row["clip_key"], row["vendor"], row["other_vendor"]): tuple(
            row[name] for name in ("status", "other_status", "words", "other_words", "errors", "slots")
        )
        for row in found
    }
    assert told == {
        ("k1", "a", "b"): ("transcribed", "transcribed", 4, 4, 0, 4),
        ("k1", "a", "c"): ("transcribed", "transcribed", 4, 5, 2, 5),
        ("k1", "b", "c"): ("transcribed", "transcribed", 4, 5, 2, 5),
        ("k2", "a", "b"): ("no_speech", "transcribed", None, None, None, None),
    }
    said = found[1]["said"]
    assert (len(said), len(set(said))) == (9, 6)
    assert found[3]["said"] is None


def test_load_keeps_no_canary(
    stage: Stage, make_courier: MakeCourier, truth: dict[str, str], canaries: list[str]
) -> None:
    courier = returned(stage, make_courier, truth)
    courier.load()
    content = (stage.root / "warehouse" / "clip_courier.duckdb").read_bytes()
    assert [canary for canary in canaries if canary.encode() in content] == []
    columns = _query(
        stage, "SELECT table_name, column_name FROM duckdb_columns() WHERE data_type LIKE '%VARCHAR%' AND NOT internal"
    )
    texts = [
        str(value)
        for table, column in columns
        for (value,) in _query(stage, f"SELECT DISTINCT {column} FROM {table} WHERE {column} IS NOT NULL")
    ]
    assert len(texts) > 100
    everything = "\n".join(texts).lower()
    assert [canary for canary in canaries if canary.lower() in everything] == []


def test_load_keeps_no_raw_identifier(stage: Stage, make_courier: MakeCourier, truth: dict[str, str]) -> None:
    """Nor a ref that a vendor knows: what it sees and what analysts see must not be joined."""
    courier = returned(stage, make_courier, truth)
    courier.load()
    content = (stage.root / "warehouse" / "clip_courier.duckdb").read_bytes()
    for batch_id in (AURORA, BOREALIS):
        crosswalk = crosswalk_of(stage, batch_id)
        raw = {row[name] for row in crosswalk.to_pylist() for name in ("clip_id", "call_id", "clip_ref", "audio_uri")}
        raw |= persons_of(crosswalk, set(crosswalk["clip_ref"].to_pylist()))
        assert [value for value in raw - {None} if value.encode() in content] == []


def test_load_shows_nothing_of_sensitive_rows(stage: Stage, make_courier: MakeCourier) -> None:
    courier = delivered(stage, make_courier)
    refs = crosswalk_of(stage, AURORA)["clip_ref"].to_pylist()
    statuses = ("sensitive", "distress", "transcribed", "no_speech")
    _send(
        stage,
        [_row(ref, status=status, text="yes yes", note="zebra") for ref, status in zip(refs, statuses, strict=False)],
    )
    courier.collect("aurora")
    courier.load()
    assert _query(stage, "SELECT DISTINCT status FROM transcripts ORDER BY 1") == [("no_speech",), ("transcribed",)]
    counted = _query(
        stage, "SELECT reason, count(*), count(clip_key) FROM rejections WHERE stage = 'collect' GROUP BY 1"
    )
    assert sorted(counted) == [("distress", 1, 0), ("sensitive", 1, 0)]
    assert _query(stage, "SELECT sensitive_rows, distress_rows FROM returns") == [(1, 1)]
    # The vendor has answered for them.
    assert _query(stage, "SELECT returned_clips FROM vendor_scorecard WHERE vendor = 'aurora'") == [(4,)]
    assert _query(stage, "SELECT count(*) FROM transcripts WHERE note LIKE '%zebra%'") == [(0,)]
    assert _query(stage, "SELECT count(*) FROM scores") <= [(1,)]


def test_load_the_highest_revision(stage: Stage, make_courier: MakeCourier) -> None:
    courier = delivered(stage, make_courier)
    one, two = crosswalk_of(stage, AURORA)["clip_ref"].to_pylist()[:2]
    _send(stage, [_row(one, revision=3), _row(two, revision=0)], n=1)
    _send(stage, [_row(one, revision=2, status="no_speech"), _row(two, revision=1, status="no_speech")], n=2)
    courier.collect("aurora")
    courier.load()
    keys = dict(zip(*(crosswalk_of(stage, AURORA)[name].to_pylist() for name in ("clip_ref", "clip_key")), strict=True))
    found = {
        key: (status, revision)
        for key, status, revision in _query(stage, "SELECT clip_key, status, revision FROM transcripts")
    }
    assert found == {keys[one]: ("transcribed", 3), keys[two]: ("no_speech", 1)}


def test_load_leaves_out_what_is_not_on_record(stage: Stage, make_courier: MakeCourier, truth: dict[str, str]) -> None:
    """What a `collect` that broke off wrote is read once it is in the ledger, and not before."""
    courier = delivered(stage, make_courier)
    stage.vendors["aurora"].work(truth, NOW)
    (stage.vendors["aurora"].home / "reports" / f"{AURORA}.1.json").mkdir()
    assert courier.collect("aurora").failures
    assert (stage.root / "crosswalk" / "returns" / f"{AURORA}.1.parquet").exists()
    courier.load()
    assert _query(stage, "SELECT count(*) FROM transcripts") == [(0,)]
    (stage.vendors["aurora"].home / "reports" / f"{AURORA}.1.json").rmdir()
    courier.returns("aurora")
    assert _query(stage, "SELECT count(*) FROM transcripts") != [(0,)]


def test_load_marks_only_what_it_has_read(
    stage: Stage, make_courier: MakeCourier, truth: dict[str, str], monkeypatch: Any
) -> None:
    """A return that arrives while the warehouse is built is not in it."""
    from clip_courier import warehouse

    courier = delivered(stage, make_courier)
    for vendor in stage.vendors.values():
        vendor.work(truth, NOW)
    courier.collect("aurora")
    publish = warehouse.publish

    def slowly(*arguments: Any) -> dict[str, int]:
        make_courier(stage).collect("borealis")
        return publish(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(warehouse, "publish", slowly)
        courier.load()
    states = {batch.vendor: batch.state for batch in _ledger(stage).batches()}
    assert states == {"aurora": "LOADED", "borealis": "RETURNED"}
    assert courier.load().is_new
    assert {batch.state for batch in _ledger(stage).batches()} == {"LOADED"}


def test_load_all_rejections_of_a_night(
    stage: Stage, make_courier: MakeCourier, truth: dict[str, str], tmp_path: Path
) -> None:
    """Counted independently: every selected clip is delivered or refused with a reason, every returned row as well."""
    manifested(stage, make_courier)
    crosswalk = crosswalk_of(stage, AURORA)
    landing = landing_copy(stage, tmp_path)
    withdraw(landing, persons_of(crosswalk, set(crosswalk["clip_ref"].to_pylist()[:1])), LATER)
    courier: Courier = make_courier(stage, LATER, CLIP_COURIER_LANDING=str(landing))
    courier.deliver(NIGHT)
    for vendor in stage.vendors.values():
        vendor.work(truth, LATER)
    # borealis answers for a batch of aurora's, and aurora sends garbage: two files refused whole
    for vendor, n in (("borealis", 5), ("aurora", 6)):
        folder = stage.vendors[vendor].home / "returns"
        (folder / f"{AURORA}.{n}.csv.pgp").write_bytes(b"garbage")
        ready = {"size_bytes": 7, "sha256": hashlib.sha256(b"garbage").hexdigest()}
        (folder / f"{AURORA}.{n}.ready.json").write_text(json.dumps(ready))
    assert not courier.collect().failures
    courier.load()
    night = stage.root / "nights" / NIGHT.isoformat()
    wanted: Counter[tuple[object, ...]] = Counter()
    for row in pq.read_table(night / "rejected.parquet").to_pylist():
        wanted.update(("validate", None, row["clip_key"], reason) for reason in row["reasons"])
    for path in (night / "left_out").iterdir():
        wanted.update(("manifest", r["vendor"], r["clip_key"], r["reason"]) for r in pq.read_table(path).to_pylist())
    for path in night.glob("batches/*/withheld.parquet"):
        vendor = path.parent.name.split("-")[0]
        wanted.update(("deliver", vendor, r["clip_key"], r["reason"]) for r in pq.read_table(path).to_pylist())
    for name in ("aurora", "borealis"):
        for report in (stage.vendors[name].home / "reports").iterdir():
            told = json.loads(report.read_text())
            wanted.update(("collect", name, None, told["reason"]) for _ in [0] if told["reason"])
            wanted.update(("collect", name, "row", row["code"]) for row in told["rejected"])
    found: Counter[tuple[object, ...]] = Counter()
    for stage_name, vendor, key, reason in _query(stage, "SELECT stage, vendor, clip_key, reason FROM rejections"):
        is_row = stage_name == "collect" and reason not in ("not_your_batch", "not_openpgp")
        found[stage_name, vendor, "row" if is_row else key, reason] += 1
    assert found == wanted
    assert {reason for _, _, _, reason in found} >= {"withdrawn", "duplicate", "not_your_batch", "not_openpgp"}
    # Nothing is lost: what was selected was sent, or stands there with its reason.
    selected = set(
        pq.read_table(stage.root / "crosswalk" / NIGHT.isoformat() / "selected.parquet")["clip_key"].to_pylist()
    )
    sent = {key for (key,) in _query(stage, "SELECT clip_key FROM clips")}
    refused = {key for (key,) in _query(stage, "SELECT clip_key FROM rejections WHERE stage <> 'collect'")}
    assert sent | refused == selected
    assert not sent & refused


def test_load_an_empty_root(stage: Stage, courier: Courier) -> None:
    assert courier.load().is_new
    assert not courier.load().is_new
    assert _query(stage, "SELECT count(*) FROM clips") == [(0,)]


# -- nothing is lost, nothing stays --------------------------------------------------------------------------------


def _row_counts(stage: Stage) -> dict[int, tuple[int, int, int, int, int]]:
    return {
        c.n: (c.received_rows, c.rejected_rows, c.loaded_rows, c.superseded_rows, c.forgotten_rows)
        for c in _ledger(stage).row_counts("aurora")
    }


def test_load_accounts_for_every_row_of_every_file(stage: Stage, make_courier: MakeCourier, tmp_path: Path) -> None:
    """Corrections, repetitions and refused rows at random over four files, against a slow twin; then a recall."""
    courier = delivered(stage, make_courier)
    crosswalk = crosswalk_of(stage, AURORA)
    refs = crosswalk["clip_ref"].to_pylist()
    random = Random(11)
    wanted: dict[int, list[int]] = {}
    standing: dict[str, tuple[int, int]] = {}
    seen: set[tuple[str, int]] = set()
    accepted_of: dict[int, list[tuple[str, int]]] = {}
    for n in range(1, 5):
        rows, accepted_of[n], rejected = [], [], 0
        for _ in range(40):
            ref, revision, is_bad = random.choice(refs), random.randrange(4), random.random() < 0.2
            rows.append(_row(ref, revision=revision, **({"status": "?"} if is_bad else {})))
            if is_bad or (ref, revision) in seen:
                rejected += 1
                continue
            seen.add((ref, revision))
            accepted_of[n].append((ref, revision))
            standing[ref] = max(standing.get(ref, (-1, 0)), (revision, n))
        wanted[n] = [40, rejected]
        _send(stage, rows, n=n)
        courier.returns("aurora")

    def expected(gone: set[str]) -> dict[int, tuple[int, ...]]:
        counts = {}
        for n, rows in accepted_of.items():
            forgotten = sum(ref in gone for ref, _ in rows)
            loaded = sum(standing[ref] == (revision, n) and ref not in gone for ref, revision in rows)
            counts[n] = (*wanted[n], loaded, len(rows) - forgotten - loaded, forgotten)
        return counts

    assert _row_counts(stage) == expected(set())
    assert all(row[0] == sum(row[1:]) for row in _row_counts(stage).values())
    columns = "received_rows, rejected_rows, loaded_rows, superseded_rows, forgotten_rows"
    assert _query(stage, f"SELECT n, {columns} FROM returns ORDER BY n") == [
        (n, *row) for n, row in expected(set()).items()
    ]
    assert _query(stage, "SELECT count(*) FROM transcripts") == [(len(standing),)]
    persons = persons_of(crosswalk, set(refs[:2]))
    landing = landing_copy(stage, tmp_path)
    withdraw(landing, persons, LATER)
    make_courier(stage, LATER, CLIP_COURIER_LANDING=str(landing)).recall()
    gone = refs_with(crosswalk, persons)
    assert _row_counts(stage) == expected(gone)
    assert courier.verify().counts["batches"] == 2


def _holding(stage: Stage, marker: str) -> set[Path]:
    """Every file under the root that holds the text: as bytes, as a value of Parquet, or as one of the warehouse."""
    found = set()
    for path in files_under(stage.root):
        content = path.read_bytes()
        if path.suffix == ".parquet":
            content += repr(pq.read_table(path).to_pylist()).encode()
        if marker.encode() in content:
            found.add(path.relative_to(stage.root))
    return found


def test_recall_leaves_no_byte_of_what_it_forgets(stage: Stage, make_courier: MakeCourier, tmp_path: Path) -> None:
    """Markers that no compression hides: random keys in the analysts' file, random words in what was returned."""
    courier = delivered(stage, make_courier)
    rows = crosswalk_of(stage, AURORA).to_pylist()
    persons = set(rows[0]["person_ids"])
    gone = [row for row in rows if set(row["person_ids"]) & persons]
    kept = next(row for row in rows if not set(row["person_ids"]) & persons)
    said = {row["clip_ref"]: secrets.token_hex(16) for row in [*gone, kept]}
    _send(stage, [_row(ref, text=f"yes {word}", note=f"no {word}") for ref, word in said.items()])
    courier.returns("aurora")
    warehouse = Path("warehouse", "clip_courier.duckdb")
    for row in [*gone, kept]:
        assert warehouse in _holding(stage, row["clip_key"])
        assert {path.parts[0] for path in _holding(stage, said[row["clip_ref"]])} == {"crosswalk"}
    landing = landing_copy(stage, tmp_path)
    withdraw(landing, persons, LATER)
    # A reader has the old file until it closes it; nobody can open it any more.
    reader = duckdb.connect(str(stage.root / warehouse), read_only=True)
    later = make_courier(stage, LATER, CLIP_COURIER_LANDING=str(landing))
    later.recall()
    assert set(reader.execute("SELECT clip_key FROM clips").fetchall()) > {(row["clip_key"],) for row in gone}
    reader.close()
    tombstone = {Path("crosswalk", "recalled", f"{AURORA}.1.parquet")}
    for row in gone:
        assert _holding(stage, row["clip_key"]) <= tombstone
        assert _holding(stage, said[row["clip_ref"]]) == set()
    assert warehouse in _holding(stage, kept["clip_key"])
    assert _holding(stage, said[kept["clip_ref"]])
    # What it published is what a load would, which has only the state of the recall to add.
    before = [sorted(_query(stage, f"FROM {table}"), key=repr) for table in ("clips", "scores", "transcripts")]
    later.load()
    assert [sorted(_query(stage, f"FROM {table}"), key=repr) for table in ("clips", "scores", "transcripts")] == before


def test_load_a_clip_that_is_recalled_and_not_yet_forgotten(
    stage: Stage, make_courier: MakeCourier, truth: dict[str, str], tmp_path: Path
) -> None:
    """The tombstone alone keeps it out: a `recall` that broke off right after it."""
    courier = returned(stage, make_courier, truth)
    crosswalk = crosswalk_of(stage, AURORA)
    persons = persons_of(crosswalk, {crosswalk["clip_ref"][0].as_py()})
    landing = landing_copy(stage, tmp_path)
    withdraw(landing, persons, LATER)

    class Crash(Exception):
        pass

    def crash(*_: object) -> None:
        raise Crash

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Crash):
        patch.setattr(recalls, "forget", crash)
        make_courier(stage, LATER, CLIP_COURIER_LANDING=str(landing)).recall()
    courier.load()
    gone = refs_with(crosswalk, persons)
    keys = {row["clip_key"] for row in crosswalk.to_pylist() if row["clip_ref"] in gone}
    for table in ("clips", "transcripts", "scores"):
        assert not keys & {key for (key,) in _query(stage, f"SELECT clip_key FROM {table}")}


def test_load_makes_only_the_nights_anew_that_have_changed(
    stage: Stage, make_courier: MakeCourier, truth: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from clip_courier import loading

    made: list[object] = []
    make = loading._make_night
    monkeypatch.setattr(loading, "_make_night", lambda night, *rest: (made.append(night), make(night, *rest)))
    returned(stage, make_courier, truth).load()
    tomorrow = make_courier(stage, NOW + timedelta(days=1))
    tomorrow.night(NIGHT + timedelta(days=1))
    tomorrow.load()
    assert made == [NIGHT, NIGHT + timedelta(days=1)]
    before = sorted(_query(stage, "FROM clips") + _query(stage, "FROM transcripts"), key=repr)
    # All of it again, from nothing: the same.
    shutil.rmtree(stage.root / "crosswalk" / "facts")
    (stage.root / "warehouse" / "built_from.json").unlink()
    tomorrow.load()
    assert made[2:] == made[:2]
    assert sorted(_query(stage, "FROM clips") + _query(stage, "FROM transcripts"), key=repr) == before


FORMULAS = ("=cmd|' /C calc'!A0", "+1+1", "-2+3", "@SUM(1)", "\t=1", "\r=1", "=yes", "-no", "+ yes", "= = yes", "--yes")


def test_load_no_cell_of_an_export_is_a_formula(stage: Stage, make_courier: MakeCourier, tmp_path: Path) -> None:
    """Whatever a vendor writes, a sheet that is exported from the warehouse computes nothing when it is opened."""
    courier = delivered(stage, make_courier)
    refs = crosswalk_of(stage, AURORA)["clip_ref"].to_pylist()
    told = zip(refs, FORMULAS, strict=False)
    _send(stage, [_row(ref, text=text, note=text, annotator_ref=text) for ref, text in told])
    courier.returns("aurora")
    tables = [name for (name,) in _query(stage, "SELECT table_name FROM duckdb_tables()")]
    cells = []
    for table in tables:
        sheet = tmp_path / f"{table}.csv"
        _query(stage, f"COPY {table} TO '{sheet}' (HEADER, DELIMITER ',')")
        with sheet.open(newline="", encoding="utf-8") as file:
            cells += [cell for row in csv.reader(file) for cell in row]
    assert "yes" in cells
    numbers = {cell for cell in cells if re.fullmatch(r"-?\d+(\.\d+)?(e-?\d+)?", cell)}
    assert [cell for cell in set(cells) - numbers if cell[:1] in set("=+-@\t\r\n")] == []
