"""What a batch gives away: the evidence against what a vendor can count, and attacks by those who have all of it."""

import base64
import json
import logging
import os
import random
import re
import shutil
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clip_courier import audio
from clip_courier import tables as tables_module
from clip_courier.courier import Courier
from clip_courier.errors import LinkageTooHigh
from clip_courier.ledger import Ledger
from clip_courier.linkage import ATTACKED, attack
from clip_courier.model import Root, write_parquet
from clip_courier.pseudonyms import OURSELVES, Pseudonyms
from clip_courier.settings import INCLUDE
from clip_courier_demo.stage import Stage, write_vendor
from conftest import NIGHT, NOW
from selected_rows import everything_written, row, sound, table
from snapshots import (
    LATER,
    MakeCourier,
    crosswalk_of,
    delivered,
    landing_copy,
    manifested,
    persons_of,
    refs_with,
    withdraw,
)

AURORA = "aurora-20261120-001"
BOUNDS = (2_000, 5_000, 10_000, 20_000)


def drop_of(stage: Stage, batch_id: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """A batch's manifest and header, as its vendor opens them."""
    members = stage.vendors[batch_id.split("-")[0]].take(batch_id)
    return pq.read_table(pa.BufferReader(members["manifest.parquet"])).to_pylist(), json.loads(members["manifest.json"])


def triple(one: Mapping[str, Any]) -> tuple[str, str, str]:
    return one["locale"], one["product"], one["recorded_week"]


def group_of(one: Mapping[str, Any], bounds: Sequence[int] = BOUNDS) -> tuple[Any, ...]:
    """All six things that describe a clip in a manifest, its length by the bucket that it is in."""
    return (*triple(one), sum(bound <= one["duration_ms"] for bound in bounds), one["sample_rate_hz"], one["channels"])


def heard_of(flac: bytes) -> tuple[int, int, int]:
    """Length in ms, Hz and channels of a recording that left, out of STREAMINFO (RFC 9639 §8.2)."""
    bits = "".join(f"{byte:08b}" for byte in flac[18:26])
    rate = int(bits[:20], 2)
    return round(int(bits[28:], 2) * 1000 / rate), rate, int(bits[20:23], 2) + 1


def persons_by(rows: Iterable[Mapping[str, Any]], key: Callable[[Any], Any], persons: Mapping[str, set[str]]) -> Any:
    found: defaultdict[Any, set[str]] = defaultdict(set)
    for one in rows:
        found[key(one)] |= persons[one["clip_ref"]]
    return found


# -- the evidence ----------------------------------------------------------------------------------------------


def test_a_batch_carries_evidence_that_can_be_counted_again(stage: Stage, make_courier: MakeCourier) -> None:
    courier = delivered(stage, make_courier)
    seen = {one["batch_id"]: one["evidence"] for one in json.loads(json.dumps(courier.status().counts))["batches"]}
    for batch_id in (AURORA, "borealis-20261120-001"):
        rows, header = drop_of(stage, batch_id)
        told, vendor = header["evidence"], batch_id.split("-")[0]
        private = {one["clip_ref"]: one for one in crosswalk_of(stage, batch_id).to_pylist()}
        persons = {ref: set(one["person_ids"]) for ref, one in private.items()}
        left_out = pq.read_table(stage.root / "nights" / str(NIGHT) / "left_out" / f"{vendor}.parquet").to_pylist()
        alone = sum(one["reason"] == "small_group" for one in left_out)
        assert told["rows_out"] == len(rows) == len(private)
        assert told["suppressed"] == {"small_group": alone}
        assert told["rows_in"] == told["rows_out"] + alone + told["withheld"]
        # Nobody is alone, nor is anybody's call, in all that describes a clip.
        groups = persons_by(rows, group_of, persons)
        assert told["k"] == 2 <= min(map(len, groups.values())) == told["smallest_group"]
        # It is the sound itself that is like others, not what is said of it.
        members = stage.vendors[vendor].take(batch_id)
        altered: Counter[str] = Counter(mixed=0, resampled=0, padded=0)
        for one in rows:
            length, *form = heard_of(members[one["audio_file"]])
            assert abs(length - one["duration_ms"]) <= 1
            assert form == [one["sample_rate_hz"], one["channels"]]
            raw = private[one["clip_ref"]]
            altered["mixed"] += one["channels"] < raw["channels"]
            altered["resampled"] += one["sample_rate_hz"] < raw["sample_rate_hz"]
            altered["padded"] += one["duration_ms"] > raw["duration_ms"] + 500
        assert told["sound"] == altered
        changed = Counter()
        for one in rows:
            raw = private[one["clip_ref"]]
            year, week, _ = raw["recorded_at"].isocalendar()
            is_same = triple(one) == (raw["locale"], raw["product"], f"{year}-W{week:02d}")
            changed["is_same" if is_same else "coarser"] += 1
        assert changed["coarser"] <= sum(told["generalised"].values()) <= len(rows)
        texts = [hypothesis["text"] for one in rows for hypothesis in one["hypotheses"] or ()]
        assert told["masks"] == Counter(re.findall("‹(.*?)›", " ".join(texts)))
        assert told["linkage"]["at_least"] <= told["linkage"]["score"]
        assert told["linkage"]["at_least"] <= told["linkage"]["max_linkage"] == 0.1
        assert told["linkage"]["persons"] == len(set().union(*persons.values()))
        assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in told["rules"].values())
        assert told["linkage"]["unread_batches"] == 0
        # The privacy officer sees the same, and of the search for leaks what was known when all of it had been sealed.
        assert {**seen[batch_id], "leak_scan": None} == {**told, "leak_scan": None}


def test_a_batch_is_judged_again_when_somebody_has_withdrawn(
    stage: Stage, make_courier: MakeCourier, tmp_path: Path
) -> None:
    """One of two who make up a group goes: the other one is not left alone in it."""
    manifested(stage, make_courier)
    before = crosswalk_of(stage, AURORA)
    shown = pq.read_table(stage.root / "nights" / str(NIGHT) / "batches" / AURORA / "manifest.parquet").to_pylist()
    persons = {one["clip_ref"]: set(one["person_ids"]) for one in before.to_pylist()}
    least = [found for found in persons_by(shown, group_of, persons).values() if len(found) == 2]
    gone = min(min(least, key=min))
    landing = landing_copy(stage, tmp_path)
    withdraw(landing, [gone], LATER)
    courier = make_courier(stage, LATER, CLIP_COURIER_LANDING=str(landing))
    assert not courier.deliver(NIGHT, "aurora").failures
    rows, header = drop_of(stage, AURORA)
    told = header["evidence"]
    assert not {one["clip_ref"] for one in rows} & refs_with(before, {gone})
    assert min(len(found) for found in persons_by(rows, group_of, persons).values()) >= 2
    alone = told["suppressed"]["small_group"]
    assert told["rows_in"] == before.num_rows + _left_out(stage, "aurora")
    assert told["rows_out"] == len(rows) == told["rows_in"] - alone - told["withheld"]
    assert told["withheld"] == len(refs_with(before, {gone}))
    again = {one["clip_ref"]: one for one in rows}
    finer = [
        ref for ref, one in {s["clip_ref"]: s for s in shown}.items() if ref in again and _is_finer(again[ref], one)
    ]
    assert not finer
    assert [
        one for one in shown if one["clip_ref"] in again and group_of(one) != group_of(again[one["clip_ref"]])
    ] or alone
    # What our own figures are made of is as it was recorded.
    assert crosswalk_of(stage, AURORA)["product"].to_pylist() == [
        one["product"] for one in before.to_pylist() if one["clip_ref"] in again
    ]


def _alike(
    stage: Stage, make_courier: MakeCourier, folder: Path, monkeypatch: pytest.MonkeyPatch, withdrawn: set[str]
) -> Courier:
    """A batch of two groups: four persons with short clips of 16 kHz, two with longer ones of 22 kHz."""

    def refusals(_: Courier, clips: pa.Table) -> dict[str, str]:
        some = clips.select(["clip_ref", "person_ids"]).to_pylist()
        return {one["clip_ref"]: "withdrawn" for one in some if withdrawn & set(one["person_ids"])}

    monkeypatch.setattr(Courier, "_refusals", refusals)
    made = []
    for n in range(6):
        rate, ms = (16_000, 700) if n < 4 else (22_050, 2_500)
        recording = sound(n, rate=rate, ms=ms)
        made.append(row(n, folder, recording, person_ids=[f"p{n}"], sample_rate_hz=rate, duration_ms=ms))
    night = Root(stage.root, str(folder)).night(NIGHT)
    write_parquet(table(made), night.validated)
    write_parquet(pa.table({"language": ["en"], "word": ["light"]}), night.vocabulary)
    courier = make_courier(stage, CLIP_COURIER_LANDING=str(folder))
    courier.manifest(NIGHT)
    assert crosswalk_of(stage, AURORA)["rung"].to_pylist() == [0] * 6
    return courier


def test_sound_becomes_coarser_when_a_batch_is_judged_again(
    stage: Stage, make_courier: MakeCourier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whom a withdrawal leaves alone with a rate and a length is made like others, the recording as well."""
    withdrawn: set[str] = set()
    courier = _alike(stage, make_courier, tmp_path, monkeypatch, withdrawn)
    cut = {one["clip_ref"]: one for one in crosswalk_of(stage, AURORA).to_pylist()}
    withdrawn.add("p5")
    assert not courier.deliver(NIGHT).failures
    rows, header = drop_of(stage, AURORA)
    members = stage.vendors["aurora"].take(AURORA)
    for one in rows:
        assert heard_of(members[one["audio_file"]]) == (one["duration_ms"], one["sample_rate_hz"], one["channels"])
        was, again = cut[one["clip_ref"]], audio.decode(members[one["audio_file"]]).samples
        if one["duration_ms"] == 9_999:
            length = len(again) * was["sound_ms"] // 9_999
            assert again[: length - 2].any()
            assert not again[length + 2 :].any()
        else:
            assert one["audio_sha256"] == was["flac_sha256"]
    assert Counter((one["duration_ms"], one["sample_rate_hz"]) for one in rows) == {
        (9_999, 16_000): 2,
        (700, 16_000): 3,
    }
    assert header["evidence"]["sound"] == {"mixed": 0, "resampled": 1, "padded": 2}
    assert header["audio_ms"] == 2 * 9_999 + 3 * 700
    # Our own figures are of what was recorded.
    assert Counter(crosswalk_of(stage, AURORA)["duration_ms"].to_pylist()) == {700: 4, 2_500: 1}


def test_nothing_leaves_of_a_batch_that_does_not_say_what_it_shows_of_its_sound(
    stage: Stage, make_courier: MakeCourier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an older version cut it."""
    courier = _alike(stage, make_courier, tmp_path, monkeypatch, set())
    path = stage.root / "crosswalk" / str(NIGHT) / f"{AURORA}.crosswalk.parquet"
    rows = pq.ParquetFile(path).read()
    names = ("sound_ms", "shown_duration_ms", "shown_sample_rate_hz", "shown_channels")
    write_parquet(rows.drop_columns([*names]), path)
    courier.deliver(NIGHT)
    assert _batches(stage) == []
    assert [batch.state for batch in courier.overview().batches] == ["CANCELLED"]
    withheld = stage.root / "nights" / str(NIGHT) / "batches" / AURORA
    assert b"small_group" in everything_written(withheld, but=stage.root / "nowhere")


def _left_out(stage: Stage, vendor: str) -> int:
    return pq.read_table(stage.root / "crosswalk" / str(NIGHT) / f"{vendor}.shown.parquet")["rung"].null_count


def _is_finer(now: Mapping[str, Any], then: Mapping[str, Any]) -> bool:
    return (
        (then["product"] == "other" and now["product"] != "other")
        or len(now["locale"]) > len(then["locale"])
        or now["duration_ms"] < then["duration_ms"]
        or now["sample_rate_hz"] > then["sample_rate_hz"]
        or now["channels"] > then["channels"]
    )


class Nights:
    """Random nights of one world, delivered for real; everybody but those who withdrew may be heard."""

    def __init__(self, stage: Stage, make_courier: MakeCourier, folder: Path, seed: int) -> None:
        self.stage, self.make_courier, self.folder = stage, make_courier, folder
        self.random, self.withdrawn = random.Random(seed), set[str]()
        self.landing, self.policy = folder / "landing", folder / "policy"
        self.taken: set[str] = set()
        shutil.copytree(INCLUDE / "policy", self.policy)
        # Buckets for sounds that are made and sent in no time.
        lengths = "duration_bounds_ms: [40, 80, 160]\npadded_bounds_ms: [120, 240]\nmax_linkage: 1\n"
        (self.policy / "disclosure.yaml").write_text(f"k: 3\n{lengths}", encoding="utf-8")

    def deliver(self, number: int) -> dict[str, list[dict[str, Any]]]:
        """One night; what each vendor got: the rows of its manifests, each with the persons that it is of."""
        night, now = NIGHT + timedelta(days=number), NOW + timedelta(days=number)
        made = [self.row(number * 100 + n, night) for n in range(self.random.randrange(15, 45))]
        folder = Root(self.stage.root, str(self.landing)).night(night)
        write_parquet(table(made), folder.validated)
        write_parquet(pa.table({"language": ["en"], "word": ["light"]}), folder.vocabulary)
        courier = self.make_courier(
            self.stage, now, CLIP_COURIER_LANDING=str(self.landing), CLIP_COURIER_POLICY=str(self.policy)
        )
        courier.manifest(night)
        # Whoever says no between cutting and sealing is gone as well.
        self.withdrawn |= set(self.random.sample(PEOPLE, self.random.randrange(3)))
        assert not courier.deliver(night).failures
        found: dict[str, list[dict[str, Any]]] = {name: [] for name in self.stage.vendors}
        for batch_id in sorted(set(_batches(self.stage)) - self.taken):
            rows, header = drop_of(self.stage, batch_id)
            self.taken.add(batch_id)
            persons = {o["clip_ref"]: o["person_ids"] for o in pq.read_table(folder.crosswalk(batch_id)).to_pylist()}
            raw = {o["clip_ref"]: o for o in pq.read_table(folder.crosswalk(batch_id)).to_pylist()}
            members = self.stage.vendors[batch_id.split("-")[0]].take(batch_id)
            for one in rows:
                length, *form = heard_of(members[one["audio_file"]])
                assert abs(length - one["duration_ms"]) <= 1
                assert form == [one["sample_rate_hz"], one["channels"]]
                # Facts stay what they were recorded as.
                assert raw[one["clip_ref"]]["sound_ms"] <= one["duration_ms"]
            assert header["evidence"]["smallest_group"] >= 2
            found[batch_id.split("-")[0]] += [{**one, "persons": set(persons[one["clip_ref"]])} for one in rows]
        return found

    def row(self, number: int, night: date) -> dict[str, Any]:
        some = self.random
        ms, rate = some.choice([20, 50, 50, 100]), some.choice([8_000, *[16_000] * 7, 22_050, 48_000])
        channels = 2 if some.random() < 0.1 else 1
        people = some.sample(sorted(set(PEOPLE) - self.withdrawn), 2 if channels == 2 else 1)
        days = some.choice([1, 1, 1, 1, 9, 20, 50])
        at = datetime(night.year, night.month, night.day, tzinfo=UTC) - timedelta(days=days)
        return row(
            number,
            self.landing,
            sound(number, rate=rate, channels=channels, ms=ms),
            locale=some.choice([*["en-US"] * 7, "en-GB"]),
            product=some.choice([*["assistant"] * 7, "dictation"]),
            country="GB",
            recorded_at=at,
            duration_ms=ms,
            sample_rate_hz=rate,
            channels=channels,
            person_ids=people,
        )


PEOPLE = [f"person-{n:02}" for n in range(30)]


@pytest.mark.parametrize("seed", range(int(os.environ.get("DISCLOSURE_WORLDS", "1"))))
def test_in_no_manifest_of_any_night_is_anybody_told_apart_by_all_six(
    seed: int, stage: Stage, make_courier: MakeCourier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted again from what vendors have: each group of a night has k persons, with what they got before and keep."""
    nights = Nights(stage, make_courier, tmp_path, seed)

    def refusals(_: Courier, clips: pa.Table) -> dict[str, str]:
        rows = clips.select(["clip_ref", "person_ids"]).to_pylist()
        return {one["clip_ref"]: "withdrawn" for one in rows if nights.withdrawn & set(one["person_ids"])}

    monkeypatch.setattr(Courier, "_refusals", refusals)
    for name, vendor in stage.vendors.items():
        wide = {"clip_countries": "any", "locales": ["*"], "transfer_mechanism": "scc"}
        write_vendor(stage.folder / "vendors", name, vendor.key, NIGHT, **wide)
    before: dict[str, list[dict[str, Any]]] = {name: [] for name in stage.vendors}
    seen = Counter[str]()
    for number in range(3):
        for name, rows in nights.deliver(number).items():
            assert not [one for one in rows if one["persons"] & nights.withdrawn]
            kept = [one for one in before[name] if not one["persons"] & nights.withdrawn]
            groups: defaultdict[Any, set[str]] = defaultdict(set)
            for one in (*rows, *kept):
                groups[group_of(one, (40, 80, 160))] |= one["persons"]
            assert all(len(groups[group_of(one, (40, 80, 160))]) >= 3 for one in rows)
            before[name] += rows
            seen.update(padded=sum(one["duration_ms"] in (119, 239) for one in rows))
            seen.update(told=sum(one["product"] != "other" for one in rows))
            seen.update(clips=len(rows))
    # Not by leaving out everybody, nor by showing nothing; and what it shows is not all that there was.
    assert seen["clips"] > 50
    assert min(seen["padded"], seen["told"]) > 0


# -- the allow-list --------------------------------------------------------------------------------------------


def test_fifty_more_columns_anywhere_upstream_change_no_byte_of_a_drop(
    stage: Stage, make_courier: MakeCourier, tmp_path: Path
) -> None:
    delivered(stage, make_courier)
    plain = {batch_id: stage.vendors[batch_id.split("-")[0]].take(batch_id) for batch_id in _batches(stage)}
    for vendor in stage.vendors.values():
        shutil.rmtree(vendor.home / "outbound")
        (vendor.home / "outbound").mkdir()
    landing = landing_copy(stage, tmp_path / "landing")
    for path in (landing / "clips").rglob("*.parquet"):
        _widen(path)
    courier = make_courier(
        stage, CLIP_COURIER_LANDING=str(landing), CLIP_COURIER_ROOT=str(tmp_path / "var"), CLIP_COURIER_LEDGER=""
    )
    private = tmp_path / "var" / "crosswalk" / str(NIGHT)
    courier.select(NIGHT)
    _widen(private / "selected.parquet")
    courier.validate(NIGHT)
    _widen(private / "validated.parquet")
    courier.manifest(NIGHT)
    for path in private.glob("*.crosswalk.parquet"):
        _widen(path)
    assert not courier.deliver(NIGHT).failures
    wide = {batch_id: stage.vendors[batch_id.split("-")[0]].take(batch_id) for batch_id in _batches(stage)}
    assert plain
    assert wide == plain
    assert b"quandlebrook" not in b"".join(content for drop in wide.values() for content in drop.values()).lower()


def _batches(stage: Stage) -> list[str]:
    found = [path for vendor in stage.vendors.values() for path in (vendor.home / "outbound").glob("*.ready.json")]
    return sorted(path.name.removesuffix(".ready.json") for path in found)


def _widen(path: Path) -> None:
    """Fifty columns with a name in each: of every kind, nested, and called like what is ours."""
    rows = pq.ParquetFile(path).read()
    secret = [f"Zoe Quandlebrook {n}" for n in range(rows.num_rows)]
    kinds: list[pa.Array] = [
        pa.array(secret),
        pa.array([[one] for one in secret]),
        pa.array([{"name": one, "more": {"of": [one]}} for one in secret]),
        pa.array([one.encode() for one in secret]),
        pa.array([[{"rank": 1, "text": one}] for one in secret]),
    ]
    ours = ("clip_ref", "speaker_refs", "shown_locale", "shown_week", "rung", "epoch", "audio_file", "recorded_week")
    names = [name for name in (*ours, "device_owner", "LOCALE_", "note") if name not in rows.column_names]
    where = path.stem.rpartition(".")[2]
    for n, name in enumerate([*names, *(f"added_to_{where}_{n}" for n in range(50 - len(names)))]):
        rows = rows.append_column(name, kinds[n % len(kinds)])
    write_parquet(rows, path)


# -- keys ------------------------------------------------------------------------------------------------------


def _key_of(stage: Stage) -> tuple[str, list[bytes]]:
    """The pseudonyms' key, and every way in which it might be written."""
    connection = json.loads(stage.environ["AIRFLOW_CONN_CLIP_COURIER_PSEUDONYMS"])
    (epoch,) = connection["extra"]["epochs"].values()
    key = base64.b64decode(epoch["key"])
    pads = [bytes(byte ^ pad for byte in key) for pad in (0x36, 0x5C)]
    kinds = [*(k for one in (key, *pads) for k in (one, one.hex().encode(), base64.b64encode(one))), repr(key).encode()]
    return epoch["key"], kinds


def test_a_key_stands_in_nothing_that_is_run_told_or_written(
    stage: Stage, make_courier: MakeCourier, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG)
    said: list[str] = []
    real = tables_module.Tables.run

    def heard(self: tables_module.Tables, statement: str, values: Mapping[str, object] | None = None) -> pa.Table:
        said.append(f"{statement} {dict(values or {})!r}")
        return real(self, statement, values)

    monkeypatch.setattr(tables_module.Tables, "run", heard)
    courier = make_courier(stage)
    told = [courier.night(NIGHT), courier.recall(), courier.load(), courier.status()]
    written = b"\n".join([everything_written(stage.root, but=stage.root / "nowhere"), repr(told).encode()])
    written += caplog.text.encode() + "\n".join(said).encode() + repr(vars(courier)).encode()
    written += b"".join(path.read_bytes() for path in Path(tables_module.__file__).parent.glob("sql/*.sql"))
    assert len(said) > 20
    assert not [kind for kind in _key_of(stage)[1] if kind in written]


def _renewed(stage: Stage, begins: str = "2026-11-21") -> str:
    """The connection after the epoch's key was destroyed and another one has begun."""
    fresh = {"key": base64.b64encode(b"n" * 32).decode(), "from": begins}
    return json.dumps({"conn_type": "generic", "extra": {"epochs": {"next": fresh}}})


def test_what_was_made_with_a_destroyed_key_is_still_loaded_recalled_and_erased(
    stage: Stage, make_courier: MakeCourier, truth: dict[str, str], tmp_path: Path
) -> None:
    delivered(stage, make_courier)
    for vendor in stage.vendors.values():
        vendor.work(truth, NOW)
    landing = landing_copy(stage, tmp_path)
    later = NOW + timedelta(days=2)
    variables = {"CLIP_COURIER_LANDING": str(landing), "AIRFLOW_CONN_CLIP_COURIER_PSEUDONYMS": _renewed(stage)}
    courier = make_courier(stage, later, **variables)
    assert not courier.returns().failures
    rows = crosswalk_of(stage, AURORA)
    person = sorted(persons_of(rows, rows["clip_ref"].to_pylist()))[0]
    refs = refs_with(rows, {person})
    withdraw(landing, [person], later)
    assert not courier.recall().failures
    for vendor in stage.vendors.values():
        vendor.work(truth, later)
    assert not courier.recall().failures
    courier.load()
    assert {recall.state for recall in courier.overview().recalls} == {"RECEIPTED"}
    assert not refs & set(crosswalk_of(stage, AURORA)["clip_ref"].to_pylist())
    assert courier.verify().counts["clips"]


def test_a_destroyed_key_leaves_its_refs_to_nobody(stage: Stage, make_courier: MakeCourier) -> None:
    """Whoever has everything that is left (all ids, all names, all other keys, old and new drops) tries to link."""
    delivered(stage, make_courier)
    rows = crosswalk_of(stage, AURORA).to_pylist()
    old = {ref for one in rows for ref in (one["clip_ref"], *one["speaker_refs"])}
    ids = {"clip": [one["clip_id"] for one in rows], "person": sorted({p for one in rows for p in one["person_ids"]})}
    ids["person_in_clip"] = [f"{len(c['clip_id'])}:{c['clip_id']}{p}" for c in rows for p in c["person_ids"]]
    destroyed, _ = _key_of(stage)
    kept = [
        b"n" * 32,
        bytes(32),
        b"s" * 32,
        *(
            base64.b64decode(json.loads(text).get("password") or "")
            for text in (stage.environ["AIRFLOW_CONN_CLIP_COURIER_SAMPLING"],)
        ),
    ]
    tried = {
        ref
        for key in kept
        for epoch in ("demo", "next", "")
        for vendor in ("aurora", "borealis", OURSELVES)
        for kind, values in ids.items()
        for ref in Pseudonyms(epoch, key).refs(vendor, kind, values)
    }
    assert len(tried) > 1_000
    assert not tried & old
    # With the key it would have been child's play: the attack is a real one.
    real = Pseudonyms("demo", base64.b64decode(destroyed))
    assert set(real.refs("aurora", "clip", ids["clip"])) <= old
    # The crosswalk is the only other way, and what stands outside of it does not say who is who.
    public = everything_written(stage.root, but=stage.root / "crosswalk")
    assert not [value for values in ids.values() for value in values if value.encode() in public]


# -- attacks ---------------------------------------------------------------------------------------------------


def _population(landing: Path, persons: int, each: int, shared: float) -> list[dict[str, Any]]:
    """Everybody speaks one language with one device; what they do with it, when and how long is their whim."""
    rng = random.Random(11)
    words = "turn on the light in kitchen please".split()
    made = []
    for person in range(persons):
        locale, rate = rng.choice(["en-US", "en-GB"]), rng.choice([16_000, 8_000])
        for n in range(each):
            number = person * each + n
            made.append(
                row(
                    number,
                    landing,
                    sound(number, rate=rate, ms=20),
                    locale=locale,
                    country="GB",
                    sample_rate_hz=rate,
                    product=rng.choice(["assistant", "dictation"]),
                    recorded_at=datetime(2026, 11, 19, tzinfo=UTC) - timedelta(days=rng.randrange(28)),
                    duration_ms=rng.randrange(500, 9_000),
                    person_ids=[f"person-{person}"],
                    hypotheses=[
                        {"rank": 1, "text": " ".join(rng.choices(words, k=4)), "confidence": 0.9, "engine": "e"}
                    ],
                    is_for_two=rng.random() < shared,
                )
            )
    return made


def _cut(
    stage: Stage, make_courier: MakeCourier, landing: Path, made: list[dict[str, Any]], **variables: str
) -> Courier:
    """Both vendors may have all of it."""
    for name, vendor in stage.vendors.items():
        wide = {"clip_countries": "any", "locales": ["*"], "transfer_mechanism": "scc", "batch_max_bytes": 40_000_000}
        write_vendor(stage.folder / "vendors", name, vendor.key, NIGHT, **wide)
    folder = Root(stage.root, str(landing)).night(NIGHT)
    write_parquet(table(made), folder.validated)
    spoken = pa.table({"language": ["en"] * 7, "word": "turn on the light in kitchen please".split()})
    write_parquet(spoken, folder.vocabulary)
    courier = make_courier(stage, CLIP_COURIER_LANDING=str(landing), **variables)
    courier.manifest(NIGHT)
    return courier


def _votes(mine: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> tuple[np.ndarray, list[str], list[str]]:
    """Everything that two rows have in common, weighed by how rare it is, summed over all pairs of two speakers."""
    names = ("locale", "product", "recorded_week", "duration_ms", "sample_rate_hz", "channels", "audio_sha256", "text")
    for one in (*mine, *theirs):
        one["text"] = json.dumps(one["hypotheses"])
    score = np.zeros((len(mine), len(theirs)))
    for name in names:
        seen = Counter(one[name] for one in theirs)
        left = np.array([str(one[name]) for one in mine])[:, None]
        right = np.array([str(one[name]) for one in theirs])
        rarity = np.array([-np.log(seen[one[name]] / len(theirs)) for one in theirs])
        score += (left == right) * rarity
    near = np.abs(
        np.array([one["duration_ms"] for one in mine])[:, None] - np.array([one["duration_ms"] for one in theirs])
    )
    score += np.exp(-near / 50)
    refs = [sorted({one["speaker_refs"][0] for one in side}) for side in (mine, theirs)]
    places = [
        np.array([refs[n].index(one["speaker_refs"][0]) for one in side]) for n, side in enumerate((mine, theirs))
    ]
    best = np.zeros((len(refs[0]), len(refs[1])))
    np.maximum.at(best, (places[0][:, None], places[1][None, :]), score)
    return best, *refs


def test_two_vendors_who_join_their_manifests_link_persons_no_better_than_chance(
    stage: Stage, make_courier: MakeCourier, tmp_path: Path
) -> None:
    """They match every column, also texts, durations and hashes of the sound; one clip in ten is with both."""
    made = _population(tmp_path, persons=100, each=4, shared=0.1)
    _cut(stage, make_courier, tmp_path, made)
    root = Root(stage.root, "").night(NIGHT)
    sides, person_of, shared = [], {}, set()
    for name in ("aurora", "borealis"):
        rows = []
        for batch in Ledger(f"sqlite:///{stage.root / 'ledger.sqlite'}").batches(vendor=name):
            rows += pq.read_table(root.manifest(batch.batch_id)).to_pylist()
            for one in pq.read_table(root.crosswalk(batch.batch_id)).to_pylist():
                person_of[one["speaker_refs"][0]] = (one["person_ids"][0], one["locale"], one["sample_rate_hz"])
                shared |= set(one["speaker_refs"]) if one["is_for_two"] else set()
        sides.append(rows)
    best, left, right = _votes(*sides)

    def hits(of_left: list[str], of_right: list[str]) -> tuple[int, float, int]:
        """Right guesses; what a guess among those of the same language and device gives; how many there were."""
        columns = [right.index(ref) for ref in of_right]
        found, chance, tries = 0, 0.0, 0
        for ref in of_left:
            alike = [one for one in of_right if person_of[one][1:] == person_of[ref][1:]]
            if person_of[ref] in [person_of[one] for one in alike]:
                tries += 1
                chance += 1 / len(alike)
                guess = of_right[int(np.argmax(best[left.index(ref)][columns]))]
                found += person_of[guess] == person_of[ref]
        return found, chance, tries

    others = [[ref for ref in side if ref not in shared] for side in (left, right)]
    found, chance, tries = hits(*others)
    assert tries > 40
    # Four standard deviations of guessing: what is beyond it does not happen in 10,000 populations.
    assert abs(found - chance) < 4 * np.sqrt(chance) + 1
    # A clip that both have they find, by its sound, and it is the only one of its person that they find by it.
    found, _, tries = hits([r for r in left if r in shared], [r for r in right if r in shared])
    assert found == tries > 20
    assert not {ref for one in (*sides[0], *sides[1]) for ref in one["speaker_refs"]} - set(person_of)


def _habits(persons: int, clips: int = 2, seed: int = 5) -> list[dict[str, Any]]:
    """Two by two they do what nobody else does."""
    rng = random.Random(seed)
    return [
        {
            "clip_id": f"clip-{person}-{n}-{rng.random()}",
            "person_ids": [f"person-{person}"],
            "shown_locale": "en-US",
            "shown_product": f"product {person // 2}",
            "shown_week": "2026-W47",
            "shown_duration_ms": rng.randrange(500, 9_000),
            "shown_sample_rate_hz": 16_000,
            "shown_channels": 1,
        }
        for person in range(persons)
        for n in range(clips)
    ]


def test_attack_finds_persons_by_what_only_two_of_them_do() -> None:
    mine, theirs = (pa.Table.from_pylist(_habits(100, seed=seed), ATTACKED) for seed in (5, 6))
    found = attack(mine, theirs)
    assert (found.persons, found.against_persons, found.shared_clips) == (100, 100, 0)
    # One of two, less one of a hundred.
    assert found.score == pytest.approx(0.5 - 0.01)
    assert 0.3 < found.at_least < found.score


def test_attack_that_knows_only_the_language_is_chance() -> None:
    rows = [{**one, "shown_product": "assistant"} for one in _habits(100)]
    mine = pa.Table.from_pylist(rows, ATTACKED)
    theirs = mine.set_column(0, "clip_id", pa.array([f"other-{n}" for n in range(mine.num_rows)]))
    theirs = theirs.set_column(5, "shown_duration_ms", pa.array(range(10_000, 10_000 + mine.num_rows), pa.int32()))
    found = attack(mine, theirs)
    assert (found.score, found.at_least) == (pytest.approx(0), 0)


def test_attack_leaves_aside_clips_that_both_have() -> None:
    both = pa.Table.from_pylist(_habits(20), ATTACKED)
    found = attack(both, both)
    assert (found.persons, found.score, found.shared_clips) == (0, 0, both.num_rows)


def test_attack_on_a_handful_proves_little() -> None:
    mine = pa.Table.from_pylist(_habits(2, 1), ATTACKED)
    theirs = mine.set_column(0, "clip_id", pa.array(["x", "y"]))
    theirs = theirs.set_column(3, "shown_product", pa.array(["product 0", "another"]))
    found = attack(mine, theirs)
    assert found.score <= 0.5
    assert found.at_least < 0.1


def test_a_batch_that_can_be_linked_is_refused_until_it_is_coarser(
    stage: Stage, make_courier: MakeCourier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [
        row(n, tmp_path, sound(n, ms=20), person_ids=[f"person-{n // 4}"], product=f"product {n // 8}", duration_ms=700)
        for n in range(160)
    ]
    policy = shutil.copytree(INCLUDE / "policy", tmp_path / "policy")
    (policy / "disclosure.yaml").write_text("k: 2\n", encoding="utf-8")
    monkeypatch.setattr(Courier, "_refusals", lambda *_: {})
    courier = _cut(stage, make_courier, tmp_path, made, CLIP_COURIER_POLICY=str(policy))
    (refused, *_) = courier.deliver(NIGHT).failures
    assert isinstance(refused, LinkageTooHigh)
    assert re.search(r"at least \d\d% of its \d+ persons .* max_linkage allows 10%", str(refused))
    assert "Raise `k`" in refused.way_out
    assert {batch.state for batch in courier.overview().batches} == {"MANIFESTED"}
    assert _batches(stage) == []
    (policy / "disclosure.yaml").write_text("k: 20\n", encoding="utf-8")
    assert (
        not make_courier(stage, CLIP_COURIER_LANDING=str(tmp_path), CLIP_COURIER_POLICY=str(policy))
        .deliver(NIGHT)
        .failures
    )
    for batch_id in _batches(stage):
        rows, header = drop_of(stage, batch_id)
        assert header["evidence"]["k"] == 20 <= header["evidence"]["smallest_group"]
        assert {one["product"] for one in rows} == {"other"}
