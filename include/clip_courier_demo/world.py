"""Writes a demo world: what the product teams would have written, what was really said, and every planted secret.

    landing/clips/recorded_date=*/   landing/consent_events/   landing/persons/   landing/audio/
    demo/truth.parquet               what a human transcriber would hear in each recording
    demo/canaries.json               every identifying string, by kind
    demo/world.json                  the summary

The same arguments give the same bytes.
"""

import json
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from clip_courier_demo.canaries import list_canaries
from clip_courier_demo.clips import ClipPlan, plan_clips
from clip_courier_demo.consent import IN_EFFECT_FROM, SITUATIONS, consent_events, midnight_us
from clip_courier_demo.dealing import Ints
from clip_courier_demo.defects import DEFECTS, is_defect, plant_defects, write_corrupt_files
from clip_courier_demo.locales import LOCALES
from clip_courier_demo.people import People, make_people, persons_table
from clip_courier_demo.recordings import Recording, record, secret_clips, share_recordings
from clip_courier_demo.tables import CLIP_SCHEMA, Shared, clips_table, share

MIN_CLIPS = 40
CLIPS_PER_PERSON = 4
ROW_GROUP = 65_536

# Grants go back this many days, and all of the good ones must lie after the disclosing notice took effect.
_GRANT_DAYS = 65

TRUTH_SCHEMA = pa.schema(
    [
        ("pcm_sha256", pa.string()),
        ("text", pa.string()),
        ("language", pa.string()),
        # When each word of the text is said, and what a recording is known by whatever was done to it.
        ("words", CLIP_SCHEMA.field("words").type),
        ("frames", pa.int64()),
        ("sample_rate_hz", pa.int32()),
        ("channels", pa.int8()),
        ("loudness", pa.list_(pa.float32())),
    ]
)


@dataclass(frozen=True)
class WorldSummary:
    """What a world contains, in counts. `error_rate` is that of the recogniser's first guesses, by locale."""

    seed: int
    first_date: date
    last_date: date
    clips: int
    persons: int
    calls: int
    consent_events: int
    recordings: int
    secret_clips: int
    audio_seconds: float
    audio_bytes: int
    canaries: int
    persons_by_situation: dict[str, int]
    clips_by_defect: dict[str, int]
    clips_by_locale: dict[str, int]
    error_rate: dict[str, float]


def write_world(
    out: Path,
    *,
    seed: int,
    clips: int,
    last_day: date,
    audio_cap: int = 240,
    progress: Callable[[str, int, int], None] | None = None,
) -> WorldSummary:
    """Writes `out/landing` and `out/demo`; the night that these clips are for is the day after `last_day`.

    `progress` is told (stage, done, of) for the stages `speech` and `clips`. A world that is already there is
    replaced; raises FileExistsError if a landing is there that is not a demo world's, and ValueError for fewer than
    MIN_CLIPS clips or a last day too soon after the disclosing notice took effect.
    """
    if clips < MIN_CLIPS:
        raise ValueError(f"a demo world has at least {MIN_CLIPS} clips")
    if (last_day - IN_EFFECT_FROM).days < _GRANT_DAYS:
        raise ValueError(f"the last day of a demo world is {IN_EFFECT_FROM + timedelta(days=_GRANT_DAYS)} or later")
    tell = progress or (lambda _stage, _done, _of: None)
    landing = _cleared(out)
    people = make_people(clips // CLIPS_PER_PERSON, [situation.share for situation in SITUATIONS], seed)
    plan = plan_clips(people, clips, secret_clips(clips, audio_cap), midnight_us(last_day), seed)
    recording, owners = share_recordings(plan, people, audio_cap)
    recordings = record(plan, people, owners, landing / "audio", tell)
    defect = plant_defects(clips, seed)
    corrupt = write_corrupt_files(defect, recording, recordings, landing / "audio", seed)
    _write_clips(landing / "clips", _Rows(plan, people, defect, recording, share(recordings, corrupt)), last_day, tell)
    events = consent_events(people, last_day + timedelta(days=1), seed)
    _write_halves(events, landing / "consent_events")
    _write_halves(persons_table(people, last_day), landing / "persons")
    pq.write_table(_truth(recordings), out / "demo" / "truth.parquet", compression="zstd")
    canaries = list_canaries(plan, people, recordings, events.num_rows)
    _write_json(out / "demo" / "canaries.json", canaries)
    planted = sum(len(found) for found in canaries.values())
    summary = _summary(plan, people, recordings, defect, last_day, events.num_rows, planted)
    _write_json(out / "demo" / "world.json", asdict(summary))
    return summary


def _cleared(out: Path) -> Path:
    """The empty landing folder; what an earlier demo world left in it is gone."""
    landing, mark = out / "landing", out / "demo" / "world.json"
    if landing.exists() and any(landing.iterdir()):
        if not mark.exists():
            raise FileExistsError(f"{landing} is not a demo world's; choose another folder")
        shutil.rmtree(landing)
    (landing / "audio").mkdir(parents=True, exist_ok=True)
    mark.parent.mkdir(exist_ok=True)
    # Written first, so that a world cut short is known as one.
    _write_json(mark, {})
    return landing


@dataclass(frozen=True)
class _Rows:
    """All that the rows of `clips` are made of."""

    plan: ClipPlan
    people: People
    defect: Ints
    recording: Ints
    shared: Shared

    def table(self, positions: Ints) -> Any:
        """The rows at these positions; a duplicate takes its id, or everything, from the row before it."""
        is_copy = is_defect(self.defect[positions], "duplicate_row")
        source = np.where(is_copy, positions - 1, positions) % len(self.plan)
        is_namesake = is_defect(self.defect[source], "duplicate_clip_id")
        clip = np.where(is_namesake, source - 1, source) % len(self.plan)
        chosen = self.plan.rows(source)
        return clips_table(chosen, clip, self.defect[source], self.recording[source], self.shared, self.people)


def _write_clips(folder: Path, rows: _Rows, last_day: date, tell: Callable[[str, int, int], None]) -> None:
    """One folder a day, one file in it, written a row group at a time."""
    day = rows.plan.day
    bounds = [0, *(np.flatnonzero(np.diff(day)) + 1).tolist(), len(day)]
    for number, (start, end) in enumerate(pairwise(bounds)):
        partition = folder / f"recorded_date={last_day - timedelta(days=int(day[start]))}"
        partition.mkdir(parents=True)
        with pq.ParquetWriter(partition / "part-000.parquet", CLIP_SCHEMA, compression="zstd") as file:
            for first in range(start, end, ROW_GROUP):
                file.write_table(rows.table(np.arange(first, min(first + ROW_GROUP, end))))
        tell("clips", number + 1, len(bounds) - 1)


def _write_halves(table: Any, folder: Path) -> None:
    """Two files, as an append-only dataset has more than one."""
    folder.mkdir()
    half = table.num_rows // 2
    for number, part in enumerate((table.slice(0, half), table.slice(half))):
        pq.write_table(part, folder / f"part-{number:03}.parquet", compression="zstd", row_group_size=ROW_GROUP)


def _truth(recordings: list[Recording]) -> Any:
    """One row for each different sound."""
    heard = {one.pcm_sha256: one for one in recordings}
    rows = [
        {
            "pcm_sha256": sha256,
            "text": one.said.text,
            "language": one.locale.language,
            "words": [
                {"word": word, "start_ms": start, "end_ms": end}
                for word, (start, end) in zip(one.said.text.split(), one.times, strict=True)
            ],
            **{name: getattr(one, name) for name in ("frames", "sample_rate_hz", "channels", "loudness")},
        }
        for sha256, one in sorted(heard.items())
    ]
    return pa.Table.from_pylist(rows, TRUTH_SCHEMA)


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, default=str, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def _summary(
    plan: ClipPlan, people: People, recordings: list[Recording], defect: Ints, last_day: date, events: int, planted: int
) -> WorldSummary:
    spoken: Counter[str] = Counter()
    errors: Counter[str] = Counter()
    for one in recordings:
        spoken[one.locale.tag] += one.heard.spoken_words
        errors[one.locale.tag] += one.heard.errors
    return WorldSummary(
        seed=people.seed,
        first_date=last_day - timedelta(days=int(plan.day.max())),
        last_date=last_day,
        clips=len(plan),
        persons=len(people),
        calls=int(plan.call.max()) + 1,
        consent_events=events,
        recordings=len(recordings),
        secret_clips=int(plan.is_secret.sum()),
        audio_seconds=round(sum(one.duration_ms for one in recordings) / 1000, 1),
        audio_bytes=sum(one.size_bytes for one in recordings),
        canaries=planted,
        persons_by_situation=_counts([situation.name for situation in SITUATIONS], people.situation),
        clips_by_defect=_counts(DEFECTS, defect),
        clips_by_locale=_counts([locale.tag for locale in LOCALES], people.locale[plan.speaker]),
        error_rate={tag: round(errors[tag] / words, 4) for tag, words in sorted(spoken.items())},
    )


def _counts(names: Any, codes: Ints) -> dict[str, int]:
    return dict(zip(names, np.bincount(codes, minlength=len(names)).tolist(), strict=True))
