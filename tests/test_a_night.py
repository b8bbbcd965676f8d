"""The promises over a whole night, on real parts: gpg, an SSH server, Great Expectations, DuckDB. No Airflow."""

import hashlib
import io
import json
import logging
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clip_courier import audio
from clip_courier.courier import Courier
from clip_courier.model import MANIFEST
from clip_courier.redaction import Redactor
from clip_courier.settings import load_settings
from clip_courier_demo.hearing import Truth
from clip_courier_demo.leaks import find_leaks, members
from clip_courier_demo.stage import Stage, write_vendor
from clip_courier_demo.utterances import PUNCTUATION
from conftest import NIGHT, NOW
from oracle import refusal
from snapshots import delivered, landing_copy, withdraw

Make = Callable[..., Courier]


def drops(stage: Stage) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Every batch that was announced, opened as its vendor does."""
    for vendor in stage.vendors.values():
        for ready in sorted((vendor.home / "outbound").glob("*.ready.json")):
            batch_id = ready.name.removesuffix(".ready.json")
            yield batch_id, vendor.take(batch_id)


def rows_of(drop: dict[str, bytes]) -> list[dict[str, Any]]:
    return list(pq.read_table(io.BytesIO(drop["manifest.parquet"])).to_pylist())


def crosswalk(root: Path) -> list[dict[str, Any]]:
    return [row for path in sorted(root.rglob("*.crosswalk.parquet")) for row in pq.read_table(path).to_pylist()]


def test_every_clip_that_left_was_consented_to_by_every_speaker(stage: Stage, courier: Courier) -> None:
    courier.night(NIGHT)
    landing = Path(stage.environ["CLIP_COURIER_LANDING"])
    said, people = (pq.read_table(landing / name).to_pylist() for name in ("consent_events", "persons"))
    policy = load_settings(stage.environ).policy()
    behind = {row["clip_ref"]: row for row in crosswalk(stage.root)}
    left = [row["clip_ref"] for _, drop in drops(stage) for row in rows_of(drop)]
    assert len(left) > 50
    assert [ref for ref in left if refusal(behind[ref], said, people, policy, NOW, {}) is not None] == []


def test_nothing_that_left_was_written_or_was_logged_names_anyone(
    stage: Stage, courier: Courier, truth: dict[str, str], canaries: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    told = courier.night(NIGHT).lines
    for vendor in stage.vendors.values():
        vendor.work(truth, NOW)
    told += courier.returns().lines + courier.recall().lines + courier.status().lines
    things: dict[str, bytes | str] = {"log": caplog.text, "told": "\n".join(told)}
    for batch_id, drop in drops(stage):
        things.update(members(drop, batch_id))
    assert len(things) > 70
    assert find_leaks(canaries, things, stage.folder) == {}


def test_what_was_spoken_of_anyone_is_a_tone_in_what_left(stage: Stage, make_courier: Make, truth: Truth) -> None:
    """Landing's recording and the one that the vendor has opened, side by side where a name or a number is said."""
    delivered(stage, make_courier)
    world = stage.folder / "world"
    words = {row["pcm_sha256"]: row["words"] for row in pq.read_table(world / "demo" / "truth.parquet").to_pylist()}
    kinds = json.loads((world / "demo" / "canaries.json").read_text(encoding="utf-8"))
    behind = {row["clip_ref"]: row for row in crosswalk(stage.root)}
    redactor = Redactor({})
    found = set()
    for members_of in (opened for _, opened in drops(stage)):
        for row in rows_of(members_of):
            private = behind[row["clip_ref"]]
            was = audio.decode((world / "landing" / "audio" / private["audio_uri"]).read_bytes())
            now = audio.decode(members_of[row["audio_file"]], row["audio_sha256"])
            spoken = words[hashlib.sha256(was.samples.astype("<i2").tobytes()).hexdigest()]
            understood = private["hypotheses"][0]["text"].split()
            is_masked = redactor.spoken(understood, row["locale"])
            masked = {
                canary
                for _, canary, start, end in secrets_in(understood, kinds)
                if all(is_masked[start:end])  # nobody bears these names: not all of them are known for names
            }
            said = [word["word"].strip(PUNCTUATION).lower() for word in spoken]
            for kind, canary, start, end in secrets_in(said, kinds):
                if canary in masked:
                    found.add(kind)
                    times = spoken[start]["start_ms"], spoken[end - 1]["end_ms"]
                    assert is_nothing_but_a_tone(now, was, *times)
                    assert canary not in (truth.hear(now) or "").lower()
                    assert "[beep]" in (truth.hear(now) or "")
    assert len(found) >= 3


def is_nothing_but_a_tone(now: audio.Recording, was: audio.Recording, start_ms: int, end_ms: int) -> bool:
    """By spectrum, and by how alike it is to what was there, in every channel (which may be mixed, at a lower rate)."""
    sounds = [
        sound.samples[start_ms * sound.sample_rate_hz // 1000 : end_ms * sound.sample_rate_hz // 1000]
        for sound in (now, was)
    ]
    for one in sounds[0].T:
        power = np.abs(np.fft.rfft(one * np.hanning(len(one)))) ** 2
        is_tone = np.abs(np.fft.rfftfreq(len(one), 1 / now.sample_rate_hz) - 1000) < 60
        times = np.linspace(0, 1, len(one))
        there = (np.interp(times, np.linspace(0, 1, len(other)), other) for other in sounds[1].T)
        if power[is_tone].sum() < 0.99 * power.sum() or any(abs(np.corrcoef(one, o)[0, 1]) > 0.1 for o in there):
            return False
    return True


def secrets_in(words: list[str], kinds: dict[str, list[str]]) -> Iterator[tuple[str, str, int, int]]:
    """Kind, text, start and end of every planted string among the words."""
    for kind, canary in ((kind, text.lower()) for kind, texts in kinds.items() for text in texts):
        size = len(canary.split())
        for start in range(len(words) - size + 1):
            if " ".join(words[start : start + size]) == canary:
                yield kind, canary, start, start + size


def test_two_vendors_cannot_join_what_they_have(stage: Stage, make_courier: Make) -> None:
    """Both may hear the same languages; what they get shares no ref, no recording and no file name."""
    for name, vendor in stage.vendors.items():
        wide = {"clip_countries": "any", "locales": ["*"], "transfer_mechanism": "scc"}
        write_vendor(stage.folder / "vendors", name, vendor.key, NIGHT, **wide)
    make_courier(stage).night(NIGHT)
    seen: dict[str, set[str]] = {name: set() for name in stage.vendors}
    for batch_id, drop in drops(stage):
        for row in rows_of(drop):
            kept = (row["clip_ref"], row["audio_file"], row["audio_sha256"], *row["speaker_refs"])
            seen[batch_id.split("-")[0]].update(kept)
    by_vendor = list(seen.values())
    assert all(len(values) > 100 for values in by_vendor)
    # Beyond a cap the demo's clips share recordings; what leaves is another file for each of them.
    assert not by_vendor[0] & by_vendor[1]


def test_the_same_night_again_elsewhere_gives_the_same_batches(
    stage: Stage, make_courier: Make, tmp_path: Path
) -> None:
    for root in (stage.root, tmp_path):
        courier = make_courier(stage, CLIP_COURIER_ROOT=str(root))
        courier.select(NIGHT)
        courier.validate(NIGHT)
        courier.manifest(NIGHT)
    one, other = (
        {p.relative_to(root): p.read_bytes() for p in root.rglob("manifest.parquet")} for root in (stage.root, tmp_path)
    )
    assert one
    assert one == other


def test_the_next_night_takes_no_clip_of_this_one(stage: Stage, make_courier: Make) -> None:
    make_courier(stage).night(NIGHT)
    make_courier(stage, NOW + timedelta(days=1)).night(NIGHT + timedelta(days=1))
    rows = crosswalk(stage.root)
    assert len({row["batch_id"].split("-")[1] for row in rows}) == 2
    assert len({row["clip_id"] for row in rows}) == len(rows)


def test_the_next_night_draws_nothing_that_was_rejected_before(
    stage: Stage, make_courier: Make, tmp_path: Path
) -> None:
    """Bad rows do not pile up until they stop a night, nor clips of which nobody knows when a name is said."""
    landing = landing_copy(stage, tmp_path / "landing")
    for path in (landing / "clips").rglob("*.parquet"):
        with pq.ParquetFile(path) as file:
            rows = file.read()
        pq.write_table(rows.drop_columns(["words"]), path)
    make_courier(stage, CLIP_COURIER_LANDING=str(landing)).night(NIGHT)
    night = stage.root / "nights" / str(NIGHT)
    rejected = set(pq.read_table(night / "rejected.parquet")["clip_key"].to_pylist())
    left = [one for path in night.glob("left_out/*.parquet") for one in pq.read_table(path).to_pylist()]
    untimed = {one["clip_key"] for one in left if one["reason"] == "mask_without_timing"}
    tomorrow = NIGHT + timedelta(days=1)
    later = make_courier(stage, NOW + timedelta(days=1), CLIP_COURIER_LANDING=str(landing))
    counts = later.select(tomorrow).counts
    selected = pq.read_table(stage.root / "crosswalk" / str(tomorrow) / "selected.parquet")
    assert rejected
    assert untimed
    assert int(str(counts["set_aside"])) >= len(rejected | untimed)
    assert not (rejected | untimed) & set(selected["clip_key"].to_pylist())


def test_manifests_are_the_contracts_to_the_column(stage: Stage, courier: Courier) -> None:
    courier.night(NIGHT)
    for batch_id, drop in drops(stage):
        assert pq.read_schema(io.BytesIO(drop["manifest.parquet"])).remove_metadata().equals(MANIFEST)
        header = json.loads(drop["manifest.json"])
        assert header["batch_id"] == batch_id
        assert set(header["sha256"]) == set(drop) - {"manifest.json"}


def test_a_withdrawal_after_delivery_reaches_the_vendor_and_every_byte_of_ours(
    stage: Stage, make_courier: Make, truth: dict[str, str], tmp_path: Path
) -> None:
    landing = landing_copy(stage, tmp_path / "landing")
    courier = make_courier(stage, CLIP_COURIER_LANDING=str(landing))
    courier.night(NIGHT)
    for vendor in stage.vendors.values():
        vendor.work(truth, NOW)
    courier.returns()
    people = [person for row in crosswalk(stage.root) for person in row["person_ids"]]
    person = max(sorted(set(people)), key=people.count)
    gone = [row for row in crosswalk(stage.root) if person in row["person_ids"]]
    withdraw(landing, [person], NOW + timedelta(hours=1))
    later = make_courier(stage, NOW + timedelta(hours=2), CLIP_COURIER_LANDING=str(landing))
    assert later.recall().is_new
    for vendor in stage.vendors.values():
        vendor.work(truth, NOW + timedelta(hours=3))
    later.recall()
    later.load()
    assert {recall.state for recall in later.overview().recalls} == {"RECEIPTED"}
    files = [path for path in stage.root.rglob("*") if path.is_file()]
    for path in files:
        text = path.read_bytes()
        if path.suffix == ".parquet":
            text += json.dumps(pq.read_table(path).to_pylist(), default=str).encode()
        assert person.encode() not in text, path
        if path.parent != stage.root / "crosswalk" / "recalled":
            assert not [row for row in gone if row["clip_id"].encode() in text], path
    with duckdb.connect(str(stage.root / "warehouse" / "clip_courier.duckdb"), read_only=True) as warehouse:
        kept = {
            key
            for (key,) in warehouse.sql(
                "SELECT clip_key FROM clips UNION ALL SELECT clip_key FROM transcripts"
            ).fetchall()
        }
    assert kept
    assert not kept & {row["clip_key"] for row in gone}
    again = make_courier(stage, NOW + timedelta(days=1), CLIP_COURIER_LANDING=str(landing))
    again.select(NIGHT + timedelta(days=1))
    selected = pq.read_table(stage.root / "crosswalk" / str(NIGHT + timedelta(days=1)) / "selected.parquet")
    assert not {row["clip_id"] for row in gone} & set(selected["clip_id"].to_pylist())


def test_a_vendor_whose_agreement_lapsed_gets_nothing_and_the_others_go_on(stage: Stage, make_courier: Make) -> None:
    lapsed = {"from": "2025-01-01", "until": (NIGHT - timedelta(days=1)).isoformat()}
    holds = {"from": "2025-01-01", "until": "2027-01-01"}
    agreements = {"nda": lapsed, "dpa": holds, "staff_training": holds}
    write_vendor(stage.folder / "vendors", "aurora", stage.vendors["aurora"].key, NIGHT, agreements=agreements)
    outcome = make_courier(stage).night(NIGHT)
    assert any("aurora" in line and "nda" in line for line in outcome.lines)
    assert not list((stage.vendors["aurora"].home / "outbound").iterdir())
    assert list((stage.vendors["borealis"].home / "outbound").glob("*.ready.json"))


def test_estimates_come_with_their_uncertainty(stage: Stage, courier: Courier, truth: dict[str, str]) -> None:
    courier.night(NIGHT)
    for vendor in stage.vendors.values():
        vendor.work(truth, NOW)
    courier.returns()
    with duckdb.connect(str(stage.root / "warehouse" / "clip_courier.duckdb"), read_only=True) as warehouse:
        rows = warehouse.sql("SELECT estimate, ci_low, ci_high, speakers FROM wer_by_stratum").fetchall()
    assert rows
    for estimate, low, high, speakers in rows:
        assert (low is None) == (high is None)
        # Persons who are heard together count as one, so two may tell no more than one.
        assert low is None if speakers == 1 else low is not None or speakers < 5
        assert low is None or low <= estimate <= high


def test_times_to_the_nanosecond_mean_the_same(stage: Stage, make_courier: Make, tmp_path: Path) -> None:
    """As pandas wrote them for years; in some files or in all."""
    expected = make_courier(stage).select(NIGHT).counts
    landing = landing_copy(stage, tmp_path / "landing")
    files = sorted([*landing.glob("clips/*/*.parquet"), *landing.glob("consent_events/*.parquet")])
    for every in (2, 1):
        for path in files[::every]:
            rows = pq.read_table(path, partitioning=None)
            for name in ("recorded_at", "occurred_at", "received_at"):
                if name in rows.column_names:
                    place = rows.schema.get_field_index(name)
                    rows = rows.set_column(place, name, rows[name].cast(pa.timestamp("ns", tz="UTC")))
            pq.write_table(rows, path)
        other = {"CLIP_COURIER_LANDING": str(landing), "CLIP_COURIER_ROOT": str(tmp_path / f"var{every}")}
        assert make_courier(stage, **other).select(NIGHT).counts == expected
        make_courier(stage, **other).validate(NIGHT)
        make_courier(stage, **other).manifest(NIGHT)
