"""The demo world keeps the landing contract, can be heard, repeats to the byte, and sets each trap that it claims."""

import hashlib
import io
import json
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
import soundfile

from clip_courier import audio
from clip_courier.errors import AudioUnusable
from clip_courier_demo import audiofiles, speech
from clip_courier_demo.consent import SITUATIONS
from clip_courier_demo.defects import CORRUPT, DEFECTS
from clip_courier_demo.locales import LOCALES
from clip_courier_demo.utterances import tokens
from clip_courier_demo.world import TRUTH_SCHEMA, WorldSummary, write_world

LAST_DAY = date(2026, 11, 22)
NOW = datetime.combine(LAST_DAY + timedelta(days=1), time(2), UTC)
SMALL = {"seed": 5, "clips": 60, "last_day": LAST_DAY, "audio_cap": 30}
LOCALE_TAGS = {locale.tag for locale in LOCALES}

Row = dict[str, Any]

CLIP_TYPES = {
    "clip_id": "string",
    "call_id": "string",
    "product": "string",
    "activation": "string",
    "locale": "string",
    "country": "string",
    "recorded_at": "timestamp[us, tz=UTC]",
    "duration_ms": "int32",
    "sample_rate_hz": "int32",
    "channels": "int8",
    "audio_uri": "string",
    "audio_sha256": "string",
    "participants": "list<element: struct<person_id: string, role: string>>",
    "hypotheses": "list<element: struct<rank: int8, text: string, confidence: float, engine: string>>",
    "words": "list<element: struct<word: string, start_ms: int32, end_ms: int32>>",
}
EXTRA = ("device_serial", "account_email", "phone_number", "speaker_name", "ip_address")
CONSENT_TYPES = {
    **dict.fromkeys(
        ("record_id", "person_id", "purpose", "decision", "notice_version", "language", "country"), "string"
    ),
    **dict.fromkeys(("occurred_at", "received_at"), "timestamp[us, tz=UTC]"),
}
PERSON_TYPES = {
    "person_id": "string",
    "birth_year": "int16",
    "has_guardian_consent": "bool",
    "is_restricted": "bool",
}


@dataclass(frozen=True)
class World:
    """A written world, read back."""

    root: Path
    summary: WorldSummary

    @cached_property
    def clips(self) -> list[Row]:
        rows: list[Row] = ds.dataset(self.root / "landing/clips", partitioning="hive").to_table().to_pylist()
        return rows

    @cached_property
    def events(self) -> dict[str, list[Row]]:
        by_person = defaultdict(list)
        for row in ds.dataset(self.root / "landing/consent_events").to_table().to_pylist():
            by_person[row["person_id"]].append(row)
        return by_person

    @cached_property
    def persons(self) -> dict[str, Row]:
        rows = ds.dataset(self.root / "landing/persons").to_table().to_pylist()
        return {row["person_id"]: row for row in rows}

    @cached_property
    def canaries(self) -> dict[str, set[str]]:
        found = json.loads((self.root / "demo/canaries.json").read_text(encoding="utf-8"))
        return {kind: set(texts) for kind, texts in found.items()}

    @cached_property
    def truth(self) -> dict[str, Row]:
        return {row["pcm_sha256"]: row for row in pq.read_table(self.root / "demo/truth.parquet").to_pylist()}

    def sound_clips(self) -> Iterator[tuple[Row, bytes]]:
        """One clip and the bytes of its file for every recording whose metadata nobody spoiled."""
        seen = set()
        for clip in self.clips:
            path = self.root / "landing/audio" / clip["audio_uri"]
            is_spoilt = clip["duration_ms"] <= 0 or clip["sample_rate_hz"] not in (8000, 16000, 22050)
            if clip["audio_uri"] in seen or is_spoilt or ".." in clip["audio_uri"] or not path.exists():
                continue
            data = path.read_bytes()
            if not clip["audio_uri"].rsplit(".", 1)[0].endswith("-2") and _rate(data) == clip["sample_rate_hz"]:
                seen.add(clip["audio_uri"])
                yield clip, data


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    root = tmp_path_factory.mktemp("world")
    return World(root, write_world(root, seed=1, clips=400, last_day=LAST_DAY))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A world of many more clips than recordings."""
    root = tmp_path_factory.mktemp("shared")
    return World(root, write_world(root, seed=2, clips=3_000, last_day=LAST_DAY, audio_cap=50))


# -- the contract ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("relation", "types"),
    [
        ("clips", {**CLIP_TYPES, **dict.fromkeys(EXTRA, "string")}),
        ("consent_events", CONSENT_TYPES),
        ("persons", PERSON_TYPES),
    ],
)
def test_write_every_file_has_exactly_the_contracts_types(world: World, relation: str, types: dict[str, str]) -> None:
    files = sorted((world.root / "landing" / relation).rglob("*.parquet"))
    assert files
    for path in files:
        assert {field.name: str(field.type) for field in pq.read_schema(path)} == types


def test_write_partitions_cover_a_month_and_some_older_days(world: World) -> None:
    days = sorted(date.fromisoformat(path.name.split("=")[1]) for path in (world.root / "landing/clips").iterdir())
    assert days[-1] == LAST_DAY == world.summary.last_date
    assert len([day for day in days if day > LAST_DAY - timedelta(days=30)]) == 30
    assert days[0] == world.summary.first_date < LAST_DAY - timedelta(days=90)
    assert len(world.clips) == world.summary.clips == 400


def test_write_calls_have_two_people_who_take_turns(world: World) -> None:
    calls = defaultdict(list)
    for clip in world.clips:
        assert (clip["call_id"] is None) == (clip["activation"] != "call")
        if clip["call_id"] and clip["participants"] and None not in _people(clip):
            calls[clip["call_id"]].append(clip)
    assert max(len(clips) for clips in calls.values()) > 2
    for clips in calls.values():
        assert {clip["product"] for clip in clips} == {"translator"}
        assert len({frozenset(_people(clip)) for clip in clips}) == 1
        assert all([p["role"] for p in clip["participants"]] == ["speaker", "listener"] for clip in clips)
        assert all(len(set(_people(clip))) == 2 for clip in clips)


def test_write_a_few_people_speak_often(world: World) -> None:
    spoken = sorted(np.unique([p for clip in world.clips for p in _people(clip) if p], return_counts=True)[1].tolist())
    assert len(spoken) == world.summary.persons == 100
    assert spoken[-1] >= 10
    assert spoken[len(spoken) // 2] <= 5


# -- sound -----------------------------------------------------------------------------------------------------


def test_write_recordings_are_audible_and_as_described(world: World) -> None:
    containers, channels = set(), set()
    for clip, data in world.sound_clips():
        recording = audio.decode(data)
        samples = recording.samples / 32768
        assert recording.channels == clip["channels"]
        assert abs(len(samples) * 1000 / recording.sample_rate_hz - clip["duration_ms"]) <= 1
        assert np.sqrt((samples**2).mean(axis=0)).min() > 0.01
        # Nothing is so loud that readers could disagree about what is cut off.
        assert np.abs(samples).max() < 0.95
        containers.add(data[:4] if data[4:8] != b"ftyp" else data[4:8])
        channels.add(recording.channels)
    assert containers == {b"RIFF", b"fLaC", b"OggS", b"ftyp"}
    assert channels == {1, 2}
    assert len({clip["sample_rate_hz"] for clip, _ in world.sound_clips()}) == 3


def test_write_two_parties_speak_each_in_their_channel(world: World) -> None:
    stereo = [audiofiles.decode(data) for clip, data in world.sound_clips() if clip["channels"] == 2]
    for samples in stereo:
        first, second = (np.abs(samples[:, channel]) > 1000 for channel in (0, 1))
        assert np.flatnonzero(first)[-1] < np.flatnonzero(second)[0]


def test_write_the_truth_is_found_by_the_hash_of_the_samples(world: World) -> None:
    checked = 0
    for clip, data in world.sound_clips():
        samples = audiofiles.decode(data)
        lossless = io.BytesIO()
        soundfile.write(lossless, samples, clip["sample_rate_hz"], format="FLAC", subtype="PCM_16")
        for same in (samples, audiofiles.decode(lossless.getvalue())):
            row = world.truth[hashlib.sha256(same.astype("<i2").tobytes()).hexdigest()]
            assert row["text"]
            assert clip["locale"] not in LOCALE_TAGS or clip["locale"].startswith(row["language"])
        checked += 1
    assert checked > 200
    assert pq.read_schema(world.root / "demo/truth.parquet").equals(TRUTH_SCHEMA)


def test_write_the_recogniser_errs_at_its_locales_rate(world: World) -> None:
    for locale in LOCALES:
        assert world.summary.error_rate[locale.tag] == pytest.approx(locale.error_rate, abs=0.05)


def test_write_hypotheses_are_ranked_and_timed(world: World) -> None:
    timed = 0
    for clip, _ in world.sound_clips():
        ranks = [guess["rank"] for guess in clip["hypotheses"]]
        confidences = [guess["confidence"] for guess in clip["hypotheses"]]
        if len(set(ranks)) < len(ranks) or max(confidences) > 1:
            continue
        assert ranks == list(range(1, len(ranks) + 1))
        assert confidences == sorted(confidences, reverse=True)
        if clip["words"] is not None:
            bounds = [bound for word in clip["words"] for bound in (word["start_ms"], word["end_ms"])]
            assert [word["word"] for word in clip["words"]] == clip["hypotheses"][0]["text"].split()
            assert bounds == sorted(bounds)
            assert bounds[0] >= 0
            assert bounds[-1] <= clip["duration_ms"]
            timed += 1
    assert timed > 150


# -- repeatability ---------------------------------------------------------------------------------------------


def test_write_gives_the_same_bytes_in_another_process(tmp_path: Path) -> None:
    speech.speak("Something said before must not matter.", speech.Voice("en-us"))
    write_world(tmp_path / "here", **SMALL)
    program = (
        "import sys, datetime, pathlib; from clip_courier_demo.world import write_world;"
        "write_world(pathlib.Path(sys.argv[1]), seed=5, clips=60, last_day=datetime.date(2026, 11, 22), audio_cap=30)"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "there")]
    environment = {"PYTHONPATH": str(Path(speech.__file__).parents[1]), "PYTHONHASHSEED": "7"}
    subprocess.run(command, env=environment, check=True)
    assert _digests(tmp_path / "here") == _digests(tmp_path / "there")


def test_write_replaces_an_earlier_world_and_another_seed_gives_another(tmp_path: Path) -> None:
    write_world(tmp_path, **SMALL)
    first = _digests(tmp_path)
    (tmp_path / "landing" / "clips" / "left_over.parquet").write_bytes(b"")
    write_world(tmp_path, **SMALL)
    assert _digests(tmp_path) == first
    write_world(tmp_path, **{**SMALL, "seed": 6})
    empty = hashlib.sha256(b"").hexdigest()
    assert set(_digests(tmp_path).values()) & set(first.values()) <= {empty}


def test_write_refuses_a_landing_that_is_not_its_own(tmp_path: Path) -> None:
    (tmp_path / "landing" / "clips").mkdir(parents=True)
    with pytest.raises(FileExistsError, match="not a demo world"):
        write_world(tmp_path, **SMALL)
    assert (tmp_path / "landing" / "clips").exists()


@pytest.mark.parametrize("wrong", [{"clips": 10}, {"last_day": date(2026, 3, 1)}])
def test_write_refuses_a_world_that_cannot_be(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="demo world"):
        write_world(tmp_path, **{**SMALL, **wrong})


# -- consent ---------------------------------------------------------------------------------------------------


def test_write_has_every_situation(world: World) -> None:
    assert min(world.summary.persons_by_situation.values()) >= 1
    assert len(world.summary.persons_by_situation) == len(SITUATIONS) == 20


def test_write_most_clips_are_eligible_and_every_refusal_occurs(world: World) -> None:
    refusals = [_refusals(world, clip) for clip in world.clips]
    assert 0.6 <= sum(not codes for codes in refusals) / len(refusals) <= 0.75
    expected = {"accidental", "too_short", "too_long", "too_old", "future", "unknown_participant"}
    assert set().union(*refusals) == expected | {"restricted", "minor", "not_consented", "withdrawn"}


def test_write_events_hold_the_treacherous_cases(world: World) -> None:
    events = [event for row in world.events.values() for event in row]
    assert {"2024-01", "2025-03", "2026-02", "draft-7"} == {event["notice_version"] for event in events}
    assert {"human_review", "product_improvement"} == {event["purpose"] for event in events}
    at = defaultdict(set)
    for event in events:
        at[event["person_id"], event["occurred_at"]].add(event["decision"])
        assert event["received_at"] >= event["occurred_at"]
    assert {"granted", "withdrawn"} in at.values()
    delays = [event["received_at"] - event["occurred_at"] for event in events]
    assert max(delays) > timedelta(days=20)
    assert any(e["decision"] == "withdrawn" and e["occurred_at"] < NOW < e["received_at"] for e in events)
    early = datetime(2026, 2, 1, tzinfo=UTC)
    assert any(e["notice_version"] == "2026-02" and e["occurred_at"] < early for e in events)
    assert set(world.persons) - set(world.events)
    decisions = {tuple(e["decision"] for e in row if e["purpose"] == "human_review") for row in world.events.values()}
    assert ("granted", "withdrawn", "granted") in decisions


def test_write_persons_include_children_restricted_and_unknown(world: World) -> None:
    persons = world.persons.values()
    children = [p for p in persons if p["birth_year"] and LAST_DAY.year - p["birth_year"] < 18]
    assert {bool(p["has_guardian_consent"]) for p in children} == {True, False}
    assert any(p["birth_year"] is None for p in persons)
    assert {p["is_restricted"] for p in persons} == {True, False, None}


# -- what must not leave ---------------------------------------------------------------------------------------


def test_write_extra_columns_hold_nothing_but_canaries(world: World) -> None:
    kinds = {
        "device_serial": "serials",
        "account_email": "emails",
        "phone_number": "phones",
        "speaker_name": "names",
        "ip_address": "addresses",
    }
    for clip in world.clips:
        for column, kind in kinds.items():
            assert clip[column] in world.canaries[kind]
        ids = {clip["clip_id"], *_people(clip)} | ({clip["call_id"]} if clip["call_id"] else set())
        assert ids - {None} <= world.canaries["ids"]
    assert {event["record_id"] for row in world.events.values() for event in row} <= world.canaries["ids"]


def test_write_canaries_are_unmistakable(world: World) -> None:
    assert all(len(text) >= 7 for texts in world.canaries.values() for text in texts)
    said = {token for row in world.truth.values() for token in tokens(row["text"])}
    speakers = _speakers(world)
    everyday = {token for token in said if len(speakers[token]) >= 5}
    assert not everyday & {text.lower() for texts in world.canaries.values() for text in texts}


def test_write_every_tag_and_path_tells_who_speaks(world: World) -> None:
    rows = defaultdict(list)
    for clip in world.clips:
        rows[clip["clip_id"]].append([clip[column] for column in ("clip_id", *EXTRA[:4])])
    layouts = set()
    for clip, data in world.sound_clips():
        person_id, clip_id = re.findall(r"(?:clip|person)-[0-9a-f]{16}", clip["audio_uri"])
        assert {person_id, clip_id} <= world.canaries["ids"]
        # A duplicate row may stand for the clip that a recording was made for.
        owners = rows.get(clip_id, [])
        assert not owners or any(all(value.encode() in data for value in owner) for owner in owners)
        layouts |= {chunk for chunk in (b"LIST", b"bext", b"iXML", b"fLaC", b"OggS") if chunk in data}
    assert layouts == {b"LIST", b"bext", b"iXML", b"fLaC", b"OggS"}


def test_write_some_people_say_who_they_are_and_are_heard(world: World) -> None:
    assert world.summary.secret_clips == 32
    heard = [" ".join(guess["text"] for guess in clip["hypotheses"]) for clip in world.clips]
    for kind, fewest in (("names", 3), ("phones", 3), ("emails", 1)):
        spoken = [text for text in heard if any(canary in text for canary in world.canaries[kind])]
        assert len(spoken) >= fewest, kind
    said = " ".join(row["text"] for row in world.truth.values())
    assert sum(canary in said for canary in world.canaries["phones"]) >= 3


def test_write_no_identifying_word_is_heard_from_several_people(shared: World) -> None:
    speakers = _speakers(shared)
    secret = {text.lower() for kind in ("names", "emails") for text in shared.canaries[kind]} & set(speakers)
    assert secret
    assert max(len(speakers[word]) for word in secret) < 5


def test_write_most_english_words_are_heard_from_many_people(world: World) -> None:
    speakers = _speakers(world)
    spoken = [
        token
        for clip in world.clips
        if clip["locale"].startswith("en-")
        for guess in clip["hypotheses"]
        for token in guess["text"].split()
    ]
    assert sum(len(speakers[token]) >= 5 for token in spoken) / len(spoken) > 0.9


# -- what is wrong ---------------------------------------------------------------------------------------------


def test_write_every_defect_occurs_in_some_clip(world: World) -> None:
    assert set(world.summary.clips_by_defect) == set(DEFECTS)
    assert min(world.summary.clips_by_defect.values()) >= 1
    clips = world.clips
    assert min(clip["duration_ms"] for clip in clips) < 0
    assert any(clip["duration_ms"] == 0 for clip in clips)
    assert any(clip["sample_rate_hz"] == 0 for clip in clips)
    assert {clip["locale"] for clip in clips} - LOCALE_TAGS
    assert any(clip["country"].islower() for clip in clips)
    assert any(guess["confidence"] > 1 for clip in clips for guess in clip["hypotheses"])
    assert any(sum(guess["rank"] == 1 for guess in clip["hypotheses"]) > 1 for clip in clips)
    assert len({clip["clip_id"] for clip in clips}) == 400 - 2
    assert any(clip["participants"] is None for clip in clips)
    assert any(clip["participants"] == [] for clip in clips)
    assert any(None in _people(clip) for clip in clips)


def test_write_some_files_are_missing_outside_damaged_or_others(world: World) -> None:
    audio = world.root / "landing/audio"
    outside = [clip for clip in world.clips if ".." in clip["audio_uri"]]
    inside = [clip for clip in world.clips if ".." not in clip["audio_uri"]]
    missing = [clip for clip in inside if not (audio / clip["audio_uri"]).exists()]
    assert outside
    assert missing
    present = [(clip, (audio / clip["audio_uri"]).read_bytes()) for clip in inside if clip not in missing]
    mismatched = [c for c, data in present if c["audio_sha256"] not in (None, hashlib.sha256(data).hexdigest())]
    assert len(mismatched) == world.summary.clips_by_defect["wrong_sha256"]
    assert any(clip["audio_sha256"] is None for clip in inside)
    damaged = [path for path in audio.rglob("*-2.*") if path.is_file()]
    assert len(damaged) == len(CORRUPT)
    assert sum(_rate(path.read_bytes()) is None for path in damaged) >= 2


# -- sharing ---------------------------------------------------------------------------------------------------


def test_write_beyond_the_cap_clips_fit_the_file_they_share(shared: World) -> None:
    assert shared.summary.recordings <= 50
    checked = 0
    for clip, data in shared.sound_clips():
        same = [other for other in shared.clips if other["audio_sha256"] == clip["audio_sha256"] is not None]
        same = [o for o in same if o["duration_ms"] > 0 and o["sample_rate_hz"] == clip["sample_rate_hz"]]
        assert {other["channels"] for other in same} <= {clip["channels"]}
        assert {other["duration_ms"] for other in same} <= {clip["duration_ms"]}
        assert clip["audio_sha256"] in (None, hashlib.sha256(data).hexdigest())
        checked += len(same)
    assert checked > 2_000


def test_write_progress_ends_with_everything_done(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    summary = write_world(tmp_path, **SMALL, progress=lambda *step: told.append(step))
    assert ("speech", summary.recordings, summary.recordings) in told
    assert told[-1][0] == "clips"
    assert told[-1][1] == told[-1][2]


# -- speech ----------------------------------------------------------------------------------------------------


def test_speak_depends_on_the_arguments_alone() -> None:
    voice = speech.Voice("de", "f4", 160, 60)
    first = speech.speak("Guten Morgen.", voice)
    speech.speak("Something else.", speech.Voice("en-us", "m3"))
    assert np.array_equal(first, speech.speak("Guten Morgen.", voice))


@pytest.mark.parametrize("locale", LOCALES, ids=lambda locale: locale.tag)
def test_speak_every_locale_has_a_voice_in_every_variant(locale: Any) -> None:
    spoken = [speech.speak("OK", speech.Voice(locale.voice, variant)) for variant in speech.VARIANTS]
    assert min(len(samples) for samples in spoken) > speech.RATE_HZ // 10
    assert len({samples.tobytes() for samples in spoken}) == len(speech.VARIANTS)


def test_speak_an_unknown_voice_fails() -> None:
    with pytest.raises(speech.SpeechFailed, match="xx-nowhere"):
        speech.speak("Hello.", speech.Voice("xx-nowhere"))


@pytest.mark.parametrize("rate_hz", [8000, 16000, 22050])
def test_resample_keeps_a_tone_at_its_pitch_and_level(rate_hz: int) -> None:
    tone = (10_000 * np.sin(2 * np.pi * 440 * np.arange(speech.RATE_HZ) / speech.RATE_HZ)).astype(np.int16)
    resampled = speech.resample(tone, rate_hz)
    assert len(resampled) == rate_hz
    spectrum = np.abs(np.fft.rfft(resampled.astype(np.float64)))
    assert int(spectrum.argmax()) == 440
    assert np.abs(resampled[rate_hz // 4 : rate_hz // 2]).max() == pytest.approx(10_000, rel=0.02)


# -- helpers ---------------------------------------------------------------------------------------------------


def _people(clip: Row) -> list[str | None]:
    return [participant["person_id"] for participant in clip["participants"] or []]


def _rate(data: bytes) -> int | None:
    try:
        return audio.decode(data).sample_rate_hz
    except AudioUnusable:
        return None


def _speakers(world: World) -> dict[str, set[str | None]]:
    """Who was recorded in clips where a word was understood."""
    speakers: dict[str, set[str | None]] = defaultdict(set)
    for clip in world.clips:
        for guess in clip["hypotheses"]:
            for token in guess["text"].split():
                speakers[token] |= set(_people(clip))
    return speakers


def _digests(root: Path) -> dict[str, str]:
    files = (path for path in sorted(root.rglob("*")) if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _refusals(world: World, clip: Row) -> set[str]:
    """Contracts §2 in plain words, as far as a demo needs it."""
    limits = {
        "accidental": clip["activation"] == "accidental",
        "too_short": clip["duration_ms"] < 500,
        "too_long": clip["duration_ms"] > 30_000,
        "too_old": clip["recorded_at"] < NOW - timedelta(days=90),
        "future": clip["recorded_at"] > NOW,
        "unknown_participant": not clip["participants"] or None in _people(clip),
    }
    codes = {code for code, is_so in limits.items() if is_so}
    for person_id in (p for p in _people(clip) if p is not None):
        person = world.persons[person_id]
        if person["is_restricted"]:
            codes.add("restricted")
        is_adult = person["birth_year"] and clip["recorded_at"].year - person["birth_year"] > 18
        if not is_adult and not person["has_guardian_consent"]:
            codes.add("minor")
        codes |= _consent_refusals(world.events.get(person_id, []), clip["recorded_at"])
    return codes


def _consent_refusals(events: list[Row], recorded_at: datetime) -> set[str]:
    known = [event for event in events if event["purpose"] == "human_review" and event["received_at"] <= NOW]
    known.sort(key=lambda event: (event["occurred_at"], event["decision"] == "withdrawn"))
    before = [event for event in known if event["occurred_at"] <= recorded_at]
    effective = datetime(2026, 2, 1, tzinfo=UTC)
    if not before or before[-1]["decision"] == "withdrawn":
        return {"not_consented"}
    grant = before[-1]
    if grant["notice_version"] != "2026-02" or grant["occurred_at"] < effective:
        return {"not_consented"}
    later = (event for event in known if event["occurred_at"] >= grant["occurred_at"])
    return {"withdrawn"} if any(event["decision"] == "withdrawn" for event in later) else set()
