"""What earlier nights found out: a night that uses it says what one that knows nothing of it says."""

import itertools
import os
import random
import shutil
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clip_courier import selection, verdicts
from clip_courier.landing import Landing
from clip_courier.model import CLIPS, CONSENT_EVENTS, PERSONS, Connection, Root, locked
from clip_courier.sampling_plan import TAKEN
from clip_courier.settings import INCLUDE, Policy, load_settings
from clip_courier.tables import Tables
from selected_rows import PSEUDONYMS

Row = dict[str, Any]
POLICY = load_settings({"CLIP_COURIER_POLICY": str(INCLUDE / "policy")}).policy()
LAX = replace(POLICY, sampling=POLICY.sampling.model_copy(update={"birth_year_required": False}))
START = datetime(2026, 11, 10, 2, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
PERSONS_IN_IT = [f"person-{n}" for n in range(6)]
EXAMPLES = int(os.environ.get("VERDICTS_EXAMPLES", "8"))


class Zone:
    """A landing zone that changes from step to step, dealt from a number; and our root beside it."""

    def __init__(self, folder: Path, number: int) -> None:
        self.folder, self.root, self.now = folder / "landing", Root(folder / "var", str(folder / "landing")), START
        self.root.prepare()
        self._rng, self._numbers = random.Random(number), itertools.count()
        self.clips(), self.events(), self.persons()

    def clips(self, path: Path | None = None) -> None:
        """A new file of clips, or another content of one; among them calls of many, and some that nothing mends."""
        day = (self.now - self._rng.choice([1, 1, 2, 5]) * DAY).date()
        path = path or self.folder / "clips" / f"recorded_date={day}" / f"{next(self._numbers)}.parquet"
        _write([self._clip() for _ in range(self._rng.choice([0, 5, 9]))], CLIPS, path)

    def events(self, path: Path | None = None) -> None:
        path = path or self.folder / "consent_events" / f"{next(self._numbers)}.parquet"
        _write([self._event() for _ in range(self._rng.choice([1, 3, 8]))], CONSENT_EVENTS, path)

    def persons(self, path: Path | None = None) -> None:
        """Several rows about one person may come to stand."""
        path = path or self.folder / "persons" / f"{next(self._numbers)}.parquet"
        chosen = self._rng.sample(PERSONS_IN_IT, self._rng.choice([1, 4, 6]))
        _write([self._person(one) for one in chosen], PERSONS, path)

    def some(self, relation: str) -> Path:
        return self._rng.choice(sorted((self.folder / relation).rglob("*.parquet")))

    def some_person(self) -> str:
        return self._rng.choice(PERSONS_IN_IT)

    def answer(self, now: datetime, policy: Policy, *, is_anew: bool = False) -> list[str]:
        """Every clip with what is held against it; by all that is kept, or anew."""
        found, _ = self.judged(now, policy, None if is_anew else self.root)
        return found

    def judged(self, now: datetime, policy: Policy, root: Root | None) -> tuple[list[str], int]:
        """The same, and how many clips were judged anew."""
        landing = Landing(str(self.folder))
        chosen = selection.Selection(
            landing, policy, Connection("sampling"), PSEUDONYMS, taken=TAKEN.empty_table, set_aside=TAKEN.empty_table
        )
        with Tables(threads=1) as tables, landing.attached(tables, START.date() - 100 * DAY) as landed:
            tables.register("taken", TAKEN.empty_table())
            selection._judge_window(tables, now, chosen, landed, root)
            rows = tables._connection.table("judged").to_arrow_table().drop_columns(["mark1", "mark2"]).to_pylist()
            [anew] = tables._connection.sql("SELECT count(*) FROM anew").fetchall()
        return sorted(map(repr, rows)), anew[0]

    def _clip(self) -> Row:
        people = self._rng.sample(PERSONS_IN_IT, self._rng.choice([1, 1, 2, 2, 3, 4]))
        odd = self._rng.choice([None] * 9 + ["nobody", "null", "no country", "accidental", "twice"])
        listed: list[Row | None] | None = [{"person_id": one, "role": "speaker"} for one in people]
        if odd in ("nobody", "null", "twice"):
            listed = {"nobody": None, "null": [*(listed or []), None], "twice": (listed or []) * 2}[odd]
        return {
            "clip_id": f"clip-{next(self._numbers)}",
            "product": "assistant",
            "activation": "accidental" if odd == "accidental" else "button",
            "locale": "en-US",
            "country": None if odd == "no country" else "US",
            "recorded_at": self.now - self._rng.choice([1, 2, 24, 48, 100]) * HOUR,
            "duration_ms": self._rng.choice([400, 1000, 30_000]),
            "participants": listed,
        }

    def _event(self) -> Row:
        """Mostly about lately; late, early, not yet arrived, without a time."""
        at = self.now - self._rng.choice([0, 1, 3, 30, 60, 120, 240]) * HOUR
        decision = self._rng.choice(["granted", "granted", "granted", "withdrawn", "withdrawn", None])
        return {
            "record_id": "r",
            "person_id": self._rng.choice([*PERSONS_IN_IT, None]),
            "purpose": self._rng.choice(["human_review"] * 5 + ["marketing"]),
            "decision": decision,
            "notice_version": self._rng.choice(["2026-02"] * 6 + ["2025-03", None]),
            "occurred_at": self._rng.choice([at] * 9 + [None]),
            "received_at": self._rng.choice([at, self.now, self.now, self.now + HOUR, self.now + DAY, None]),
        }

    def _person(self, person: str) -> Row:
        return {
            "person_id": person,
            "birth_year": self._rng.choice([1980, 1980, 1980, 2008, None]),
            "has_guardian_consent": self._rng.choice([None, None, True]),
            "is_restricted": self._rng.choice([None, False, False, False, True]),
        }


def _write(rows: list[Row], schema: pa.Schema, path: Path) -> None:
    loose = pa.schema([pa.field(f.name, f.type) for f in schema])
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist([{name: row.get(name) for name in loose.names} for row in rows], loose), path)


def holding(root: Root, person: str) -> list[Path]:
    return [p for p in root.verdicts.rglob("*") if p.is_file() and person.encode() in _content(p)]


def _content(path: Path) -> bytes:
    content = path.read_bytes()
    return content + repr(pq.read_table(path).to_pylist()).encode() if path.suffix == ".parquet" else content


def _spoil(zone: Zone) -> None:
    """One of our own files is cut short, changed or gone; or a killed run has left something."""
    files = sorted(path for path in zone.root.verdicts.iterdir() if path.is_file())
    path = zone._rng.choice(files)
    kind = zone._rng.choice(["short", "turned", "gone", "left"])
    if kind == "gone":
        path.unlink()
    elif kind == "left":
        shutil.copytree(zone.root.verdicts, zone.root.verdicts / "new")
    else:
        content = path.read_bytes()
        middle = len(content) // 2
        path.write_bytes(
            content[:middle] + (b"" if kind == "short" else bytes([content[middle] ^ 1]) + content[middle + 1 :])
        )


STEPS = {
    "clips": lambda zone: zone.clips(),
    "events": lambda zone: zone.events(),
    "persons": lambda zone: zone.persons(),
    "other clips": lambda zone: zone.clips(zone.some("clips")),
    "other events": lambda zone: zone.events(zone.some("consent_events")),
    "fewer clips": lambda zone: (
        len(list((zone.folder / "clips").rglob("*.parquet"))) > 1 and zone.some("clips").unlink()
    ),
    "fewer events": lambda zone: (
        len(list((zone.folder / "consent_events").iterdir())) > 1 and zone.some("consent_events").unlink()
    ),
    "spoilt": _spoil,
    "erased": lambda zone: None,
    "the past": lambda zone: None,
    "lax": lambda zone: None,
    "again": lambda zone: None,
}
# Most nights bring what is new, and nothing else.
USUAL = ["clips", "clips", "events", "events", "persons", "erased", "the past", "again"]


@settings(max_examples=EXAMPLES, deadline=None, derandomize=True)
@given(
    number=st.integers(0, 2**32 - 1),
    nights=st.lists(st.lists(st.sampled_from([*USUAL, *STEPS]), min_size=1, max_size=3), min_size=4, max_size=8),
)
def test_a_night_says_the_same_with_what_was_found_before(
    tmp_path_factory: pytest.TempPathFactory, number: int, nights: list[list[str]]
) -> None:
    zone = Zone(tmp_path_factory.mktemp("zone"), number)
    zone.answer(zone.now, POLICY)
    for steps in nights:
        zone.now += DAY
        for step in steps:
            STEPS[step](zone)
        if "erased" in steps:
            person = zone.some_person()
            verdicts.erase(zone.root, [person])
            assert holding(zone.root, person) == []
        now = zone.now - (3 * DAY if "the past" in steps else timedelta())
        policy = LAX if "lax" in steps else POLICY
        assert zone.answer(now, policy) == zone.answer(now, policy, is_anew=True)
    shutil.rmtree(zone.folder.parent)


@pytest.fixture
def zone(tmp_path: Path) -> Zone:
    zone = Zone(tmp_path, 5)
    for _ in range(3):
        zone.clips(zone.folder / "clips" / "recorded_date=2026-11-09" / f"{next(zone._numbers)}.parquet")
    return zone


def test_a_night_judges_anew_only_what_is_new_and_whose_people_changed(zone: Zone) -> None:
    first, anew = zone.judged(zone.now, POLICY, zone.root)
    assert anew == len(first) > 10
    # What many speak in is always judged anew, and whose event had not arrived.
    _, every_night = zone.judged(zone.now, POLICY, zone.root)
    kept = {path.name: path.stat().st_mtime_ns for path in zone.root.verdicts.iterdir() if path.name != "index.json"}
    assert every_night < len(first)
    path = zone.folder / "clips" / "recorded_date=2026-11-09" / "new.parquet"
    _write([zone._clip() | {"participants": [{"person_id": "new", "role": ""}]} for _ in range(4)], CLIPS, path)
    found, anew = zone.judged(zone.now, POLICY, zone.root)
    assert (len(found), anew) == (len(first) + 4, every_night + 4)
    # Nothing was written again.
    assert kept.items() <= {path.name: path.stat().st_mtime_ns for path in zone.root.verdicts.iterdir()}.items()


@pytest.mark.parametrize("boundary", range(1, 7))
def test_a_night_that_broke_off_leaves_nothing_that_misleads(
    zone: Zone, boundary: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped before the nth of five files got its name, or before the index did, in the middle of a rebuild."""
    zone.answer(zone.now, POLICY)
    zone.events(zone.some("consent_events"))
    numbers, rename = itertools.count(1), Path.rename

    def stopped(path: Path, target: Path) -> Path:
        if next(numbers) == boundary:
            raise KeyboardInterrupt
        return rename(path, target)

    def stopped_at_last(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "rename", stopped)
    if boundary == 6:
        monkeypatch.setattr(verdicts, "write_text", stopped_at_last)
    with pytest.raises(KeyboardInterrupt):
        zone.answer(zone.now, POLICY)
    monkeypatch.undo()
    assert zone.answer(zone.now, POLICY) == zone.answer(zone.now, POLICY, is_anew=True)
    assert not (zone.root.verdicts / "new").exists()


def test_a_night_judges_anew_only_the_clips_of_whom_it_erased(zone: Zone) -> None:
    first, _ = zone.judged(zone.now, POLICY, zone.root)
    _, every_night = zone.judged(zone.now, POLICY, zone.root)
    by_person = Counter(
        person["person_id"]
        for path in zone.folder.glob("clips/*/*.parquet")
        for row in pq.read_table(path).to_pylist()
        for person in {(p or {}).get("person_id"): p for p in row["participants"] or [] if p}.values()
        # What more than two speak in, and whose event has not arrived, is judged anew anyway.
        if len(row["participants"]) < 3
    )
    waiting = {
        row["person_id"] for path in zone.root.verdicts.glob("*waiting*") for row in pq.read_table(path).to_pylist()
    }
    person, clips = next((person, clips) for person, clips in by_person.most_common() if person not in waiting)
    verdicts.erase(zone.root, [person])
    assert holding(zone.root, person) == []
    for _ in range(2):
        found, anew = zone.judged(zone.now, POLICY, zone.root)
        assert found == first
        assert every_night < anew <= every_night + clips
    assert holding(zone.root, person) == []
    verdicts.erase(zone.root, [person])
    assert zone.judged(zone.now, POLICY, zone.root)[0] == first


def test_a_night_does_without_what_another_process_has(zone: Zone) -> None:
    expected = zone.answer(zone.now, POLICY, is_anew=True)
    with locked(zone.root.lock("verdicts")):
        assert zone.answer(zone.now, POLICY) == expected
    assert not zone.root.verdicts.exists()


def test_what_is_kept_is_for_us_alone(zone: Zone) -> None:
    zone.answer(zone.now, POLICY)
    assert zone.root.verdicts.stat().st_mode & 0o077 == 0


def test_a_night_keeps_nothing_where_files_cannot_be_told_apart(zone: Zone) -> None:
    """A column of landing has the name by which DuckDB numbers files."""
    path = zone.some("clips")
    pq.write_table(
        pq.ParquetFile(path).read().append_column("File_Index", pa.array([0] * pq.read_metadata(path).num_rows)), path
    )
    assert zone.answer(zone.now, POLICY) == zone.answer(zone.now, POLICY, is_anew=True)
    assert not zone.root.verdicts.exists()
