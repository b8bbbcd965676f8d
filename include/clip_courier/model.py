"""The nouns: what a clip, a manifest and a batch are, and the one type that owns every path under the root."""

import fcntl
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from clip_courier.errors import CourierError, SettingsInvalid, StageMissing

SCHEMA_VERSION: Final = "1"
PURPOSE: Final = "human_review"

# A key that expires sooner is warned of: long enough for both sides to exchange and review a new one.
KEY_NOTICE: Final = timedelta(days=30)

_TIMESTAMP: Final = pa.timestamp("us", tz="UTC")

# Landing, contracts §1. A column that is not named here is identifying and is never read.
CLIPS: Final = pa.schema(
    [
        pa.field("clip_id", pa.string(), nullable=False),
        pa.field("call_id", pa.string()),
        pa.field("product", pa.string(), nullable=False),
        pa.field("activation", pa.string(), nullable=False),
        pa.field("locale", pa.string(), nullable=False),
        pa.field("country", pa.string(), nullable=False),
        pa.field("recorded_at", _TIMESTAMP, nullable=False),
        pa.field("duration_ms", pa.int32(), nullable=False),
        pa.field("sample_rate_hz", pa.int32(), nullable=False),
        pa.field("channels", pa.int8(), nullable=False),
        pa.field("audio_uri", pa.string(), nullable=False),
        pa.field("audio_sha256", pa.string()),
        pa.field("participants", pa.list_(pa.struct([("person_id", pa.string()), ("role", pa.string())]))),
        pa.field(
            "hypotheses",
            pa.list_(
                pa.struct(
                    [("rank", pa.int8()), ("text", pa.string()), ("confidence", pa.float64()), ("engine", pa.string())]
                )
            ),
        ),
        pa.field(
            "words", pa.list_(pa.struct([("word", pa.string()), ("start_ms", pa.int32()), ("end_ms", pa.int32())]))
        ),
    ]
)
CONSENT_EVENTS: Final = pa.schema(
    [
        ("record_id", pa.string()),
        ("person_id", pa.string()),
        ("purpose", pa.string()),
        ("decision", pa.string()),
        ("notice_version", pa.string()),
        ("language", pa.string()),
        ("country", pa.string()),
        ("occurred_at", _TIMESTAMP),
        ("received_at", _TIMESTAMP),
    ]
)
PERSONS: Final = pa.schema(
    [
        pa.field("person_id", pa.string(), nullable=False),
        pa.field("birth_year", pa.int16()),
        pa.field("has_guardian_consent", pa.bool_()),
        pa.field("is_restricted", pa.bool_()),
    ]
)

# The drop, contracts §3: exactly these columns leave.
# What a vendor is shown of a clip that others could show as well: as crosswalks have it.
QUASI_IDENTIFIERS: Final = (
    ("shown_locale", pa.string()),
    ("shown_product", pa.string()),
    ("shown_week", pa.string()),
    ("shown_duration_ms", pa.int32()),
    ("shown_sample_rate_hz", pa.int32()),
    ("shown_channels", pa.int8()),
)
MANIFEST: Final = pa.schema(
    [
        ("clip_ref", pa.string()),
        ("speaker_refs", pa.list_(pa.string())),
        ("locale", pa.string()),
        ("product", pa.string()),
        ("recorded_week", pa.string()),
        ("duration_ms", pa.int32()),
        ("sample_rate_hz", pa.int32()),
        ("channels", pa.int8()),
        ("audio_file", pa.string()),
        ("audio_sha256", pa.string()),
        ("hypotheses", pa.list_(pa.struct([("rank", pa.int8()), ("text", pa.string())]))),
    ]
)

STATUSES: Final = ("transcribed", "unintelligible", "no_speech", "wrong_language", "sensitive", "distress")

BATCH_ID: Final = re.compile(r"^(?P<vendor>[a-z][a-z0-9_]{0,31})-(?P<night>\d{8})-(?P<sequence>\d{3,5})$")


@dataclass(frozen=True)
class Manifest:
    """What may leave: the rows of one batch, by construction nothing but the contract's columns.

    `seal` takes only this type, so a raw row cannot be sealed by mistake.
    """

    batch_id: str
    vendor: str
    night: date
    rows: pa.Table = field(repr=False)

    def __post_init__(self) -> None:
        if not self.rows.schema.equals(MANIFEST):
            raise TypeError("a manifest has exactly the contract's columns")
        if self.rows.schema.metadata:
            raise TypeError("a manifest carries no schema metadata")


@dataclass(frozen=True)
class AudioSource:
    """Where the sound of one manifest row comes from, on our side of the gate; in the order of the manifest's rows."""

    clip_ref: str
    audio_uri: str = field(repr=False)
    audio_sha256: str | None = field(repr=False)


@dataclass(frozen=True)
class Connection:
    """What a connection id stands for. Secrets never show in a repr, so never in a log or a traceback."""

    conn_id: str
    host: str | None = None
    port: int | None = None
    login: str | None = None
    password: str | None = field(default=None, repr=False)
    extra: Mapping[str, object] = field(default_factory=dict, repr=False)


Credentials = Callable[[str], Connection]
Clock = Callable[[], datetime]
# Asked with the crosswalk's rows of a batch: which refs may not be heard (any more), each with its reason.
Refusals = Callable[[pa.Table], Mapping[str, str]]
# Told what is being done, how much of it is done, and how much there is.
Progress = Callable[[str, int, int], None]


def silent(what: str, done: int, total: int) -> None:
    """Progress for nobody."""


@dataclass
class Outcome:
    """What a verb did: counts for machines, lines for people. Never a value from a row."""

    verb: str
    counts: dict[str, object] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    is_new: bool = True
    failures: list[CourierError] = field(default_factory=list)

    def say(self, line: str) -> None:
        self.lines.append(line)

    def count(self, name: str, by: int = 1) -> None:
        """Add to one of the counts; it begins at 0."""
        before = self.counts.get(name, 0)
        self.counts[name] = by + (before if isinstance(before, int) else 0)

    def add(self, part: "Outcome", vendor: str | None = None) -> None:
        """Take in what a part of the verb did: its counts under the vendor's or its own name."""
        self.lines += part.lines
        self.failures += part.failures
        self.is_new = self.is_new or part.is_new
        under = self.counts.setdefault("vendors", {}) if vendor else self.counts
        if isinstance(under, dict):
            name = vendor or part.verb
            under[name] = {**under.get(name, {}), **part.counts}


def batch_id_of(vendor: str, night: date, sequence: int) -> str:
    """The deterministic name of a vendor's nth batch of a night: the same inputs give the same name."""
    return f"{vendor}-{night:%Y%m%d}-{sequence:03d}"


def utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC)


def stamp(moment: datetime) -> str:
    """RFC 3339 in UTC, to the second."""
    return utc(moment).strftime("%Y-%m-%dT%H:%M:%SZ")


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside `path`; rename it into place when the block ends well, else remove it.

    Whoever finds `path` finds all of it, also after the power went: the bytes are on the disk before the name is.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.part")
    try:
        yield partial
        _sync(partial)
        partial.replace(path)
        _sync(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_parquet(table: pa.Table, path: Path) -> None:
    """Write a whole file or none."""
    with whole_file(path) as partial:
        pq.write_table(table, partial, compression="zstd")


def write_text(text: str, path: Path) -> None:
    """Write a whole file or none."""
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


@contextmanager
def locked(path: Path, *, is_shared: bool = False, waits: bool = True) -> Iterator[bool]:
    """Hold a lock file while the block runs; False, at once, when it is another's and `waits` is not set.

    The lock belongs to the open file, so it is gone with the process however that ends.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            kind = fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX
            fcntl.flock(file, kind | (0 if waits else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True


@dataclass(frozen=True)
class Root:
    """Every path the system writes. What joins a person to what left lies under `crosswalk`, readable by us alone."""

    path: Path
    landing: str

    @property
    def crosswalk(self) -> Path:
        return self.path / "crosswalk"

    @property
    def warehouse(self) -> Path:
        return self.path / "warehouse" / "clip_courier.duckdb"

    @property
    def warehouse_inputs(self) -> Path:
        """Digest of what the warehouse was built from."""
        return self.path / "warehouse" / "built_from.json"

    @property
    def ledger(self) -> Path:
        return self.path / "ledger.sqlite"

    @property
    def sealed(self) -> Path:
        """Ciphertext waiting to be sent."""
        return self.path / "sealed"

    @property
    def returns(self) -> Path:
        """Transcripts as returned: they may hold what was said, so they lie on the private side."""
        return self.crosswalk / "returns"

    @property
    def recalled(self) -> Path:
        """Tombstones: which clips were recalled, and may never be sampled again."""
        return self.crosswalk / "recalled"

    @property
    def verdicts(self) -> Path:
        """What earlier nights found out about the clips of the landing window; it can be made anew from landing."""
        return self.crosswalk / "verdicts"

    @property
    def facts(self) -> Path:
        """What is known of every delivered clip, by person: what the warehouse is built from."""
        return self.crosswalk / "facts"

    @property
    def facts_inputs(self) -> Path:
        """Digest, night by night, of what the facts were made from."""
        return self.facts / "made_from.json"

    @property
    def forgotten(self) -> Path:
        """The tombstones whose clips are gone from the facts."""
        return self.facts / "forgotten.json"

    @property
    def inspected(self) -> Path:
        """What was found of each landing partition when it was judged last: hashes of ids, and broken rows by key."""
        return self.crosswalk / "landing"

    @property
    def data_docs(self) -> Path:
        return self.path / "data_docs"

    @property
    def reports(self) -> Path:
        """Pages about nights and weeks: counts and rates."""
        return self.path / "reports"

    def report(self, name: str) -> Path:
        return self.reports / f"{name}.html"

    def keys(self, vendor: str) -> Path:
        """Which keys serve for a vendor, and when they expire; JSON, no secrets."""
        return self.path / "keys" / f"{vendor}.json"

    def lock(self, name: str) -> Path:
        """Held by whoever does work of that name, so that two processes never do it at once."""
        return self.path / "locks" / name

    def tombstone(self, batch_id: str, n: int) -> Path:
        return self.recalled / f"{batch_id}.{n}.parquet"

    def refused_receipt(self, batch_id: str, n: int) -> Path:
        """The hash of the receipt that was refused last."""
        return self.recalled / f"{batch_id}.{n}.refused"

    def sealed_batch(self, batch_id: str) -> Path:
        return self.sealed / f"{batch_id}.tar.pgp"

    def returned(self, batch_id: str, n: int) -> Path:
        return self.returns / f"{batch_id}.{n}.parquet"

    def returned_rejections(self, batch_id: str, n: int) -> Path:
        return self.path / "returns" / f"{batch_id}.{n}.rejected.parquet"

    def night(self, night: date) -> "NightFolder":
        return NightFolder(self, night)

    def nights(self) -> list["NightFolder"]:
        """Every night that was begun, oldest first."""
        folders = [folder for folder in (self.path / "nights", self.crosswalk) if folder.is_dir()]
        found = []
        for name in sorted({p.name for folder in folders for p in folder.iterdir()}):
            with suppress(ValueError):
                found.append(self.night(date.fromisoformat(name)))
        return found

    def prepare(self) -> None:
        """Make the folders that are missing; SettingsInvalid where the root cannot be one."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SettingsInvalid(f"root {self.path}: cannot be a folder: {error.strerror}") from None
        for private in (self.crosswalk, self.returns, self.recalled, self.inspected, self.sealed):
            private.mkdir(parents=True, exist_ok=True)
            # Where we may only read (the API server), what is right already is left alone.
            if stat.S_IMODE(private.stat().st_mode) != 0o700:
                private.chmod(0o700)


@dataclass(frozen=True)
class NightFolder:
    """The paths of one night: `public` holds counts and what may leave, `private` what may not."""

    root: Root
    night: date

    @property
    def public(self) -> Path:
        return self.root.path / "nights" / self.night.isoformat()

    @property
    def private(self) -> Path:
        return self.root.crosswalk / self.night.isoformat()

    @property
    def selected(self) -> Path:
        return self.private / "selected.parquet"

    @property
    def validated(self) -> Path:
        return self.private / "validated.parquet"

    @property
    def identifying(self) -> Path:
        """What must not be in anything that leaves of this night, as long as landing's files are what they were."""
        return self.private / "identifying.parquet"

    @property
    def funnel(self) -> Path:
        """Counts of who was refused and why."""
        return self.public / "funnel.json"

    @property
    def rejected(self) -> Path:
        """Row keys and reasons of what validation refused."""
        return self.public / "rejected.parquet"

    @property
    def landing_rejected(self) -> Path:
        """Row keys and reasons of what the rules reject in the landing window."""
        return self.public / "landing_rejected.parquet"

    @property
    def landing_counts(self) -> Path:
        """Rows of each landing partition, and how many of them break each rule."""
        return self.public / "landing_counts.parquet"

    @property
    def assigned(self) -> Path:
        """Which vendor gets which validated clip."""
        return self.private / "assigned.parquet"

    def left_out(self, what: str) -> Path:
        """Row keys and reasons of what was not put into a batch: at the `assignment`, or for one vendor."""
        return self.public / "left_out" / f"{what}.parquet"

    def left_out_files(self) -> list[Path]:
        return sorted(self.public.glob("left_out/*.parquet"))

    @property
    def vocabulary(self) -> Path:
        """The words that may be shown on this night, by language."""
        return self.public / "vocabulary.parquet"

    @property
    def quality(self) -> Path:
        """What each expectation found, in counts."""
        return self.public / "quality.json"

    @property
    def data_docs(self) -> Path:
        return self.root.data_docs / self.night.isoformat()

    def manifest(self, batch_id: str) -> Path:
        return self.public / "batches" / batch_id / "manifest.parquet"

    def manifested(self, vendor: str) -> Path:
        """Present when a vendor's batches of the night are all cut: how many there are, in JSON."""
        return self.public / "batches" / f"{vendor}.json"

    def withheld(self, batch_id: str) -> Path:
        """Row keys and reasons of clips that were taken out of a batch before it left."""
        return self.public / "batches" / batch_id / "withheld.parquet"

    def shown(self, vendor: str) -> Path:
        """What each clip shows of itself to its vendor, decided once a night; nothing where it is left out."""
        return self.private / f"{vendor}.shown.parquet"

    def all_shown(self) -> list[Path]:
        return sorted(self.private.glob("*.shown.parquet"))

    def evidence(self, batch_id: str) -> Path:
        """What was done to a batch before it was sealed, and what an attack on it found: counts, in JSON."""
        return self.public / "batches" / batch_id / "evidence.json"

    def crosswalk(self, batch_id: str) -> Path:
        return self.private / f"{batch_id}.crosswalk.parquet"

    def require(self, path: Path, verb: str) -> Path:
        """The file of an earlier stage, or the error that names the stage to run."""
        if not path.exists():
            raise StageMissing(f"night {self.night}: {verb} has not been run")
        return path

    def forget_batch(self, batch_id: str) -> None:
        shutil.rmtree(self.manifest(batch_id).parent, ignore_errors=True)
        self.crosswalk(batch_id).unlink(missing_ok=True)
