"""Manifests: nothing passes but the contract's columns, to nobody but whom the law allows, and never twice."""

import hashlib
import json
import os
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import wordfreq

from clip_courier import audio, manifests, masking
from clip_courier.assignment import HELD
from clip_courier.batch_files import withhold
from clip_courier.courier import Courier
from clip_courier.disclosure import Gate
from clip_courier.errors import GateClosed, StageMissing
from clip_courier.landing import Landing
from clip_courier.ledger import Batch, Ledger
from clip_courier.model import MANIFEST, Manifest, NightFolder, Outcome, Root, silent, write_parquet
from clip_courier.pgp import OwnKey, open_keyring
from clip_courier.pseudonyms import Pseudonyms
from clip_courier.recalls import TOMBSTONE
from clip_courier.redaction import NAME, NUMBER, WORD, harmless_words
from clip_courier.sampling_plan import TAKEN
from clip_courier.settings import Disclosure, Vendor
from clip_courier_demo.stage import Stage, write_vendor
from conftest import NIGHT, NOW
from selected_rows import PSEUDONYMS, everything_written, row, sound, table, timed

CONTRACT = {
    "clip_ref": "string",
    "speaker_refs": "list<string>",
    "locale": "string",
    "product": "string",
    "recorded_week": "string",
    "duration_ms": "int32",
    "sample_rate_hz": "int32",
    "channels": "int8",
    "audio_file": "string",
    "audio_sha256": "string",
    "hypotheses": "list<struct<rank: int8, text: string>>",
}
WORDS = "turn on the light in kitchen please".split()
NOTHING_SILENCED = {"silenced_clips": 0, "silenced_spans": 0}
HOLDS = {"from": "2026-01-01", "until": "2026-12-31"}
LAPSED = {"from": "2026-01-01", "until": "2026-11-19"}
CANARIES = re.compile(rb"quandle|person-|clip-0|call-0|SN-01E8", re.IGNORECASE)


def vendor(name: str, **changes: Any) -> Vendor:
    content = {
        "name": name,
        "country": "US",
        "transfer_mechanism": "scc",
        "mechanism_valid": HOLDS,
        "agreements": {"nda": HOLDS, "dpa": HOLDS, "staff_training": HOLDS},
        "clip_countries": "any",
        "locales": ["*"],
        "hours_per_night": 100,
        "batch_max_bytes": 200_000,
        "due_days": 3,
        "recipient_fingerprint": "A" * 40,
        "signer_fingerprint": "A" * 40,
        "public_key": f"{name}.asc",
        "sftp_conn_id": f"sftp_{name}",
    }
    return Vendor.model_validate(content | changes)


AURORA, BOREALIS = vendor("aurora"), vendor("borealis")


@dataclass
class Night:
    """A root with a validated night, and what `manifest` is given for it."""

    base: Path
    landing: Path
    pseudonyms: Pseudonyms = PSEUDONYMS
    taken: list[str] = field(default_factory=list)
    night: date = NIGHT
    k: int = 2
    withdrawn: frozenset[str] = frozenset()

    @property
    def folder(self) -> NightFolder:
        return Root(self.base, str(self.landing)).night(self.night)

    @property
    def ledger(self) -> Ledger:
        self.base.mkdir(parents=True, exist_ok=True)
        return Ledger(f"sqlite:///{self.base / 'ledger.sqlite'}")

    def validated(self, rows: Iterable[dict[str, Any]] | pa.Table) -> "Night":
        write_parquet(rows if isinstance(rows, pa.Table) else table(rows), self.folder.validated)
        return self

    def cut(self, *vendors: Vendor, only: str | None = None, ledger: Ledger | None = None) -> Outcome:
        taken = [{"clip_id": clip_id, "is_recalled": False} for clip_id in self.taken]
        given_ = manifests.Cutting(
            landing=Landing(str(self.landing)),
            ledger=ledger or self.ledger,
            pseudonyms=self.pseudonyms,
            vocabulary=lambda: {"en": frozenset(WORDS)},
            taken=lambda: pa.Table.from_pylist(taken, TAKEN),
            held=HELD.empty_table,
            call_distance_seconds=60,
            beep_margin_ms=100,
            gate=Gate(
                self.folder.root,
                ledger or self.ledger,
                Disclosure.model_construct(k=self.k),
                TOMBSTONE.empty_table,
                lambda rows: {ref: "withdrawn" for ref in rows["clip_ref"].to_pylist() if ref in self.withdrawn},
            ),
            progress=silent,
        )
        return manifests.manifest(self.folder, list(vendors), NOW, given_, only)

    def batches(self, name: str | None = None) -> list[Batch]:
        return self.ledger.batches(vendor=name, night=self.night)

    def rows_of(self, name: str | None = None) -> list[dict[str, Any]]:
        return [one for b in self.batches(name) for one in pq.read_table(self.folder.manifest(b.batch_id)).to_pylist()]

    def crosswalk(self, name: str | None = None) -> list[dict[str, Any]]:
        return [one for b in self.batches(name) for one in pq.read_table(self.folder.crosswalk(b.batch_id)).to_pylist()]

    def left_out(self, what: str) -> dict[str, str]:
        return {one["clip_key"]: one["reason"] for one in pq.read_table(self.folder.left_out(what)).to_pylist()}

    def files(self) -> dict[str, bytes]:
        """Everything but the ledger's own files."""
        paths = sorted(path for path in self.base.rglob("*") if path.is_file() and "ledger" not in path.name)
        return {str(path.relative_to(self.base)): path.read_bytes() for path in paths}


@pytest.fixture(scope="module")
def landing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("landing")


@pytest.fixture(scope="module")
def rows(landing: Path) -> list[dict[str, Any]]:
    """Thirty clips of about 20 kB in FLAC."""
    return [row(n, landing) for n in range(30)]


@pytest.fixture
def night(tmp_path: Path, landing: Path) -> Night:
    return Night(tmp_path / "var", landing)


# -- the gate --------------------------------------------------------------------------------------------------


def test_manifest_has_exactly_the_columns_of_the_contract(night: Night, rows: list[dict[str, Any]]) -> None:
    night.validated(rows).cut(AURORA)
    assert len(night.batches()) > 1
    for batch in night.batches():
        path = night.folder.manifest(batch.batch_id)
        read = pq.read_table(path)
        types = {f.name: re.sub(r"(item|element): ", "", str(f.type)) for f in read.schema}
        assert types == CONTRACT
        assert list(types) == list(CONTRACT)
        assert read.schema.equals(MANIFEST)
        assert read.schema.metadata is None
        assert Manifest(batch.batch_id, "aurora", NIGHT, read).rows.num_rows == batch.clip_count
        # Nothing rides along in the file itself.
        assert set(pq.read_metadata(path).metadata or {}) <= {b"ARROW:schema"}


def test_manifest_refuses_any_other_table() -> None:
    empty = MANIFEST.empty_table()
    for wrong in (
        empty.append_column("person_id", pa.array([], pa.string())),
        empty.drop_columns(["hypotheses"]),
        empty.rename_columns(["clip_id", *CONTRACT][: len(CONTRACT)]),
        empty.replace_schema_metadata({"author": "somebody"}),
        empty.select(list(CONTRACT)[::-1]),
    ):
        with pytest.raises(TypeError):
            Manifest("aurora-20261120-001", "aurora", NIGHT, wrong)


def test_manifest_is_the_same_whatever_columns_are_added(
    tmp_path: Path, landing: Path, rows: list[dict[str, Any]]
) -> None:
    plain = Night(tmp_path / "plain", landing).validated(rows)
    validated = pq.read_table(plain.folder.validated)
    secret = [f"Zoe Quandlebrook {n}" for n in range(validated.num_rows)]
    kinds: list[pa.Array] = [
        pa.array(secret),
        pa.array([[one] for one in secret]),
        pa.array([{"name": one} for one in secret]),
        pa.array(range(validated.num_rows)),
        pa.array([one.encode() for one in secret]),
    ]
    for n in range(50):
        validated = validated.append_column(f"added_{n}", kinds[n % len(kinds)])
    # Names that the gate's own statement uses, and one that only differs in case.
    for name in ("audio_file", "recorded_week", "CLIP_KEY_", "person_name", "hypothesis"):
        validated = validated.append_column(name, kinds[0])
    wide = Night(tmp_path / "wide", landing).validated(validated)
    plain.cut(AURORA)
    wide.cut(AURORA)
    public = [
        {name: content for name, content in one.files().items() if not name.startswith("crosswalk")}
        for one in (plain, wide)
    ]
    assert public[0] == public[1]
    assert sum("manifest.parquet" in name for name in public[0]) > 1


def test_manifest_describes_every_clip_truly(night: Night, landing: Path) -> None:
    said = [
        {"rank": 1, "text": "Turn on the light, Zoe Quandlebrook", "confidence": 0.9, "engine": "secret engine"},
        {"rank": 2, "text": "please call five five five one two", "confidence": 0.1, "engine": "secret engine"},
    ]
    changed = [
        row(100, landing, hypotheses=said),
        row(101, landing, hypotheses=None, recorded_at=datetime(2027, 1, 1, 23, 59, tzinfo=UTC)),
        row(102, landing, hypotheses=[], recorded_at=datetime(2026, 12, 28, tzinfo=UTC)),
        row(103, landing, sound(103, rate=48_000, channels=2), sample_rate_hz=48_000, channels=2),
        row(104, landing, audio_sha256=None, locale="xx-XX", person_ids=["person-1"]),
    ]
    night.k = 1  # each of them is alone; what becomes of such clips is told by tests of their own
    night.validated(changed).cut(AURORA)
    (by_ref,) = [{one["clip_ref"]: one for one in night.rows_of()}]
    private = {one["clip_id"]: one for one in night.crosswalk()}
    assert len(by_ref) == len(changed)
    weeks = {"clip-000101": "2026-W53", "clip-000102": "2026-W53"}
    for source in changed:
        shown = by_ref[private[source["clip_id"]]["clip_ref"]]
        raw = (landing / "audio" / source["audio_uri"]).read_bytes()
        flac = masking.leaving(raw, private[source["clip_id"]])
        assert shown["audio_sha256"] == hashlib.sha256(flac).hexdigest()
        assert flac != audio.to_flac(audio.decode(raw))
        assert shown["audio_file"] == f"audio/{shown['clip_ref']}.flac"
        assert shown["recorded_week"] == weeks.get(source["clip_id"], "2026-W47")
        assert len(shown["speaker_refs"]) == len(source["person_ids"])
        for name in ("locale", "product", "duration_ms", "sample_rate_hz", "channels"):
            assert shown[name] == source[name]
    texts = {clip_id: by_ref[one["clip_ref"]]["hypotheses"] for clip_id, one in private.items()}
    assert texts["clip-000100"] == [
        {"rank": 1, "text": f"Turn on the light, {NAME}"},
        {"rank": 2, "text": f"please {WORD} {NUMBER}"},
    ]
    assert (texts["clip-000101"], texts["clip-000102"]) == (None, [])
    # A language without a dictionary: not one word is shown.
    assert {*texts["clip-000104"][0]["text"].split()} <= {NAME, NUMBER, WORD}


def test_manifest_shows_each_vendor_as_much_as_its_file_says(night: Night, landing: Path) -> None:
    said = [{"rank": 1, "text": "the light of Zoe Quandlebrook is orange", "confidence": 0.9, "engine": "e"}]
    night.validated([row(n, landing, hypotheses=said) for n in range(120, 124)])
    night.cut(AURORA, vendor("borealis", redaction="entities"))
    shown = {name: {one["hypotheses"][0]["text"] for one in night.rows_of(name)} for name in ("aurora", "borealis")}
    assert shown["borealis"] == {f"the light of {NAME} is orange"}
    assert shown["aurora"] == {f"the light {WORD} {NAME} {WORD}"}


def test_manifest_writes_no_raw_value_outside_the_crosswalk(night: Night, landing: Path) -> None:
    names = [f"Zoe Quandlebrook {n}" for n in range(4)]
    said = [
        {"rank": 1, "text": f"please {name} SN-01E8C468 q@quandle.example", "confidence": 1.0, "engine": name}
        for name in names
    ]
    raw = [
        row(
            200 + n,
            landing,
            audio_uri=f"{name}/{n}.wav",
            hypotheses=[said[n]],
            person_ids=[f"person-{name}"],
            stratum=name,
        )
        for n, name in enumerate(names)
    ]
    missing = row(204, landing, audio_uri="Quandlebrook/gone.wav")
    (landing / "audio" / missing["audio_uri"]).unlink()
    outcome = night.validated([*raw, missing]).cut(
        AURORA, vendor("closed", agreements={"nda": LAPSED, "dpa": HOLDS, "staff_training": HOLDS})
    )
    written = everything_written(night.base, but=night.folder.root.crosswalk)
    assert len(written) > 10_000
    assert not CANARIES.search(written)
    assert not CANARIES.search(repr(outcome).encode())
    assert CANARIES.search(everything_written(night.folder.root.crosswalk, but=night.base / "nothing"))


# -- sound -----------------------------------------------------------------------------------------------------


def spoken(*texts: str) -> list[dict[str, Any]]:
    return [{"rank": n, "text": text, "confidence": 0.5, "engine": "e"} for n, text in enumerate(texts, start=1)]


def test_manifest_silences_what_any_hypothesis_masks(night: Night, landing: Path) -> None:
    """Shown to the vendor or withheld, in the first hypothesis or in a later one."""
    first, later = "turn on the light anna schmidt please", "turn on the lighthouse now please"
    recordings = [sound(n, ms=3000) for n in range(500, 504)]
    made = [
        row(500, landing, recordings[0], hypotheses=spoken(first), duration_ms=3000),
        row(501, landing, recordings[1], hypotheses=spoken(first), duration_ms=3000, is_withheld=True),
        row(502, landing, recordings[2], hypotheses=spoken(later, first), duration_ms=3000),
        row(503, landing, recordings[3], hypotheses=spoken("turn on the light please"), duration_ms=3000),
    ]
    outcome = night.validated(made).cut(AURORA)
    private = {one["clip_id"]: one for one in night.crosswalk()}
    times = {
        clip_id: [(s["start_ms"], s["end_ms"]) for s in one["silenced"]] for clip_id, one in sorted(private.items())
    }
    # Seven words in three seconds, or six: four before the name, or three, and a tenth of a second on either side.
    assert times["clip-000500"] == times["clip-000501"] == [(1614, 2671)]
    assert times["clip-000502"] == [(1400, 2600)]
    assert times["clip-000503"] == []
    heard = {clip_id: one["audible_hypotheses"] for clip_id, one in private.items()}
    assert heard["clip-000500"] == [{"rank": 1, "text": "turn on the light please"}]
    assert [one["text"] for one in heard["clip-000502"]] == ["turn on the please", "turn on the please"]
    assert heard["clip-000503"] is None
    counts = outcome.counts["vendors"]["aurora"]  # type: ignore[index]
    assert (counts["silenced_clips"], counts["silenced_spans"]) == (3, 3)
    for source in made:
        known = private[source["clip_id"]]
        flac = masking.leaving((landing / "audio" / source["audio_uri"]).read_bytes(), known)
        assert hashlib.sha256(flac).hexdigest() == known["flac_sha256"]
        sounds = (
            audio.decode(flac).samples,
            audio.decode((landing / "audio" / source["audio_uri"]).read_bytes()).samples,
        )
        moved = np.abs(sounds[0].astype(int) - sounds[1]).max(axis=1) > 1
        changed_ms = np.flatnonzero(moved) * 1000 / 16_000
        if not times[source["clip_id"]]:
            assert len(changed_ms) == 0
            continue
        [(start, end)] = times[source["clip_id"]]
        assert changed_ms.min() == pytest.approx(start, abs=1)
        assert changed_ms.max() == pytest.approx(end, abs=1)
        assert np.count_nonzero(moved) > 0.99 * 16 * (end - start)


def test_manifest_holds_back_a_clip_whose_mask_has_no_time(night: Night, landing: Path) -> None:
    said = spoken("turn on the light anna schmidt please")
    wrong = timed(said[0]["text"])
    wrong[4] |= {"end_ms": wrong[4]["start_ms"] - 1}
    late = timed(said[0]["text"], 1500)
    made = [
        row(510, landing, hypotheses=said, words=None),
        row(511, landing, hypotheses=said, words=wrong),
        row(512, landing, hypotheses=said, words=late),
        row(513, landing, hypotheses=spoken("turn on the light please", said[0]["text"]), is_withheld=True),
        row(514, landing, hypotheses=spoken("turn on the light please"), words=None),
    ]
    outcome = night.validated(made).cut(AURORA)
    assert night.left_out("aurora") == {one["clip_key"]: "mask_without_timing" for one in made[:4]}
    assert [one["clip_id"] for one in night.crosswalk()] == ["clip-000514"]
    assert outcome.counts["vendors"]["aurora"]["left_out"] == {"mask_without_timing": 4}  # type: ignore[index]


def test_manifest_holds_back_what_needs_a_mask_where_words_were_not_selected(night: Night, landing: Path) -> None:
    """A night that an earlier version has validated."""
    made = [row(520, landing, hypotheses=spoken("call anna schmidt")), row(521, landing)]
    night.validated(table(made).drop_columns(["words"])).cut(AURORA)
    assert night.left_out("aurora") == {made[0]["clip_key"]: "mask_without_timing"}
    assert len(night.crosswalk()) == 1


@pytest.mark.parametrize("voice", ["natural", "disguised"])
def test_no_two_hashes_of_a_recording_are_the_same(
    tmp_path: Path, landing: Path, rows: list[dict[str, Any]], voice: str
) -> None:
    """Landing's own, the hash of its samples in FLAC, and what each vendor gets, in each key epoch."""
    made = [{**one, "is_for_two": True} for one in rows[:8]]
    raw = [(landing / "audio" / one["audio_uri"]).read_bytes() for one in made]
    hashes = [hashlib.sha256(content).hexdigest() for content in raw]
    hashes += [hashlib.sha256(audio.to_flac(audio.decode(content))).hexdigest() for content in raw]
    for place, maker in enumerate((PSEUDONYMS, Pseudonyms("next", PSEUDONYMS.key))):
        one = Night(tmp_path / str(place), landing, maker).validated(made)
        one.cut(vendor("aurora", voice=voice), vendor("borealis", voice=voice))
        shown = one.rows_of()
        assert len(shown) == 2 * len(made)
        hashes += [row["audio_sha256"] for row in shown]
    assert len({*hashes}) == len(hashes)


# -- refs ------------------------------------------------------------------------------------------------------


def test_manifest_gives_every_vendor_and_epoch_other_refs(
    tmp_path: Path, landing: Path, rows: list[dict[str, Any]]
) -> None:
    makers = (PSEUDONYMS, Pseudonyms("next", PSEUDONYMS.key))
    seen: list[frozenset[str]] = []
    for place, (who, maker) in enumerate((v, m) for v in (AURORA, BOREALIS) for m in makers):
        one = Night(tmp_path / str(place), landing, maker).validated(rows)
        one.cut(who)
        shown = one.rows_of()
        assert len(shown) == len(rows)
        seen.append(frozenset(ref for r in shown for ref in (r["clip_ref"], *r["speaker_refs"])))
        assert len(seen[-1]) == 3 * len(rows)
    assert len(frozenset().union(*seen)) == sum(map(len, seen))


def test_manifest_says_which_clips_have_a_speaker_in_common(night: Night, landing: Path) -> None:
    both = [row(n, landing, person_ids=["person-x", f"person-{n}"]) for n in (1, 2)]
    night.validated(both).cut(AURORA)
    first, second = (set(one["speaker_refs"]) for one in night.rows_of())
    assert len(first & second) == 1
    keys = {one["clip_id"]: one["speaker_key"] for one in night.crosswalk()}
    assert not {*keys.values()} & (first | second)


def test_manifest_of_the_same_night_is_the_same(tmp_path: Path, landing: Path, rows: list[dict[str, Any]]) -> None:
    one, other = (Night(tmp_path / name, landing) for name in ("one", "other"))
    one.validated(rows).cut(AURORA, BOREALIS)
    other.validated(rows[::-1]).cut(BOREALIS, AURORA)
    assert {n: c for n, c in one.files().items() if "validated" not in n} == {
        n: c for n, c in other.files().items() if "validated" not in n
    }
    assert one.batches() == other.batches()


def test_manifest_lies_in_the_order_of_the_refs(night: Night, rows: list[dict[str, Any]]) -> None:
    night.validated(rows).cut(AURORA)
    refs = [one["clip_ref"] for one in night.rows_of()]
    assert refs == sorted(refs)
    assert refs == [one["clip_ref"] for one in night.crosswalk()]


# -- size ------------------------------------------------------------------------------------------------------


def test_manifest_names_batches_in_order_and_loses_no_clip(night: Night, rows: list[dict[str, Any]]) -> None:
    night.validated(rows).cut(AURORA)
    batches = night.batches()
    assert [b.batch_id for b in batches] == [f"aurora-20261120-{n:03d}" for n in range(1, len(batches) + 1)]
    assert sum(b.clip_count for b in batches) == len(rows)
    assert {one["clip_id"] for one in night.crosswalk()} == {one["clip_id"] for one in rows}
    assert all(b.audio_ms == 1000 * b.clip_count for b in batches)
    # No batch could have taken the first clip of the next one.
    sizes = [[one["flac_bytes"] for one in night.crosswalk() if one["batch_id"] == b.batch_id] for b in batches]
    for this, following in pairwise(sizes):
        assert sum(this) + following[0] > AURORA.batch_max_bytes * 0.7


def test_manifest_leaves_out_a_clip_that_fits_into_no_batch(night: Night, landing: Path) -> None:
    long = row(300, landing, sound(300, ms=20_000), duration_ms=20_000)
    wordy = row(
        301,
        landing,
        hypotheses=[{"rank": n, "text": "light " * 2_000, "confidence": 1.0, "engine": "e"} for n in range(1, 21)],
    )
    outcome = night.validated([long, wordy, row(302, landing)]).cut(AURORA)
    assert night.left_out("aurora") == {
        long["clip_key"]: "larger_than_a_batch",
        wordy["clip_key"]: "larger_than_a_batch",
    }
    assert [one["clip_id"] for one in night.crosswalk()] == ["clip-000302"]
    counts = {"batches": 1, "clips": 1, "left_out": {"larger_than_a_batch": 2}, **NOTHING_SILENCED}
    assert outcome.counts["vendors"] == {"aurora": counts}


def test_batches_are_no_larger_sealed_than_the_vendor_takes(
    stage: Stage, make_courier: Callable[..., Courier], landing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sealed by gpg and delivered: clips of many sizes, many speakers, and texts that do not compress well."""
    rng = random.Random(5)
    words = sorted(harmless_words({"en": frozenset(wordfreq.top_n_list("en", 8_000))})["en"])
    made = []
    for n in range(400, 460):
        ms = rng.choice((500, 900, 2_000, 3_500))
        texts = [" ".join(rng.choices(words, k=rng.choice((3, 40, 150)))) for _ in range(rng.randrange(1, 9))]
        made.append(
            row(
                n,
                landing,
                sound(n, ms=ms),
                duration_ms=ms,
                country="GB",
                locale="en-GB",
                person_ids=[f"person-{n}-{m}" for m in range(rng.randrange(1, 12))],
                hypotheses=[{"rank": r, "text": t, "confidence": 0.5, "engine": "e"} for r, t in enumerate(texts, 1)],
            )
        )
    cap = 110_000
    for name, member in stage.vendors.items():
        write_vendor(stage.folder / "vendors", name, member.key, NIGHT, batch_max_bytes=cap)
    courier = make_courier(stage, CLIP_COURIER_LANDING=str(landing))
    monkeypatch.setattr(Courier, "_refusals", lambda *_: {})
    folder = Root(stage.root, str(landing)).night(NIGHT)
    write_parquet(table(made), folder.validated)
    spoken = pa.table({"language": ["en"] * len(words), "word": words})
    write_parquet(spoken, folder.vocabulary)
    courier.manifest(NIGHT)
    outcome = courier.deliver(NIGHT)
    assert not outcome.failures
    batches = Ledger(f"sqlite:///{stage.root / 'ledger.sqlite'}").batches(night=NIGHT)
    assert {b.vendor for b in batches} == {"aurora", "borealis"}
    assert len(batches) > 6
    for batch in batches:
        assert batch.state == "DELIVERED"
        sealed = stage.vendors[batch.vendor].home / "outbound" / f"{batch.batch_id}.tar.pgp"
        assert sealed.stat().st_size == batch.size_bytes
        assert batch.size_bytes <= cap
        text = pq.read_table(folder.manifest(batch.batch_id))["hypotheses"].to_pylist()
        assert any(word in words for h in text[0] for word in h["text"].split())


def test_openpgp_adds_no_more_than_is_reckoned_with(stage: Stage, tmp_path: Path) -> None:
    """Where a batch is large the lengths of the parts count for more than anything else around it."""
    size = 24 * 1024 * 1024
    aurora = stage.vendors["aurora"]
    with open_keyring(OwnKey(stage.our_key.fingerprint, stage.our_key.private_key), [aurora.key.public_key]) as ring:
        sealed = ring.seal(
            lambda sink: sink.write(os.urandom(size)), tmp_path / "sealed", recipient=aurora.key.fingerprint, at=NOW
        )
    assert 0 < sealed.size_bytes - size < size // manifests._BYTES_PER_PART_LENGTH + 4096


# -- who may have it -------------------------------------------------------------------------------------------


def test_manifest_gives_a_clip_only_to_a_vendor_that_may_have_it(night: Night, landing: Path) -> None:
    vendors = [
        vendor("home", country="DE", transfer_mechanism="domestic", mechanism_valid=None),
        vendor("union", country="DE", transfer_mechanism="adequacy", clip_countries=["FR", "AT"]),
        vendor("lapsed", mechanism_valid=LAPSED),
        vendor("untrained", agreements={"nda": HOLDS, "dpa": HOLDS, "staff_training": LAPSED}),
        vendor("nowhere", clip_countries=[]),
        vendor("hindi", clip_countries=["IN"], locales=["hi"]),
    ]
    places = [(c, loc) for c in ("DE", "FR", "AT", "US", "IN") for loc in ("de-DE", "hi-IN")] * 2
    made = [row(560 + n, landing, country=c, locale=loc) for n, (c, loc) in enumerate(places)]
    night.validated(made).cut(*vendors)
    given_to = {one["clip_id"]: one["batch_id"].split("-")[0] for one in night.crosswalk()}
    expected = {"DE": "home", "FR": "union", "AT": "union"}
    for one in made:
        who = "hindi" if (one["country"], one["locale"]) == ("IN", "hi-IN") else expected.get(one["country"])
        assert given_to.get(one["clip_id"]) == who
    lost = {one["clip_key"] for one in made if one["clip_id"] not in given_to}
    assert night.left_out("assignment") == dict.fromkeys(lost, "no_lawful_vendor")


def test_manifest_gives_nothing_where_there_is_no_vendor(night: Night, rows: list[dict[str, Any]]) -> None:
    night.validated(rows).cut()
    assert night.batches() == []
    assert Counter(night.left_out("assignment").values()) == {"no_lawful_vendor": len(rows)}


def test_manifest_fills_no_more_hours_than_a_vendor_has(night: Night, rows: list[dict[str, Any]]) -> None:
    few = vendor("aurora", hours_per_night=10.5 / 3600)
    night.validated(rows).cut(few)
    assert sum(b.audio_ms for b in night.batches()) == 10_000
    assert Counter(night.left_out("assignment").values()) == {"no_capacity": len(rows) - 10}


# -- small groups ----------------------------------------------------------------------------------------------


def lone(n: int, landing: Path, person: str, **changes: Any) -> dict[str, Any]:
    """A clip of one person."""
    return row(n, landing, person_ids=[person], **changes)


def sent(night: Night, name: str = "aurora") -> None:
    """The night's batches are with the vendor."""
    for batch in night.batches(name):
        for came_from, to in pairwise(("MANIFESTED", "SEALED", "RELEASED", "DELIVERED")):
            night.ledger.move(batch.batch_id, came_from, to, NOW)


def test_manifest_leaves_out_whom_no_group_covers(night: Night, landing: Path) -> None:
    alone = lone(900, landing, "person-hi", locale="hi-IN")
    outcome = night.validated([alone, *(lone(901 + n, landing, f"person-{n}") for n in range(3))]).cut(AURORA)
    assert night.left_out("aurora") == {alone["clip_key"]: "small_group"}
    assert outcome.counts["vendors"] == {
        "aurora": {"batches": 1, "clips": 3, "left_out": {"small_group": 1}, **NOTHING_SILENCED}
    }
    assert {one["locale"] for one in night.rows_of()} == {"en-US"}


def test_manifest_shows_coarser_and_keeps_what_was_recorded(night: Night, landing: Path) -> None:
    """Our own figures are of what was recorded; only what leaves is coarser."""
    pair = [lone(910, landing, "person-a", product="assistant"), lone(911, landing, "person-b", product="dictation")]
    outcome = night.validated(pair).cut(AURORA)
    assert [(one["product"], one["recorded_week"]) for one in night.rows_of()] == [("other", "2026-W01")] * 2
    assert {one["product"] for one in night.crosswalk()} == {"assistant", "dictation"}
    assert "manifest: vendor aurora: shown coarser than recorded: any_product 2" in outcome.lines


@pytest.mark.parametrize("case", ["it is there", "withdrawn", "another epoch", "another vendor", "not sent"])
def test_manifest_counts_only_persons_whose_clips_the_vendor_has(tmp_path: Path, landing: Path, case: str) -> None:
    first = Night(tmp_path / "var", landing, night=NIGHT - timedelta(days=1))
    if case == "another epoch":
        first.pseudonyms = Pseudonyms("old", PSEUDONYMS.key)
    first.validated([row(920, landing, locale="hi-IN")]).cut(BOREALIS if case == "another vendor" else AURORA)
    if case != "not sent":
        sent(first, first.batches()[0].vendor)
    second = Night(tmp_path / "var", landing)
    if case == "withdrawn":
        second.withdrawn = frozenset(one["clip_ref"] for one in first.rows_of())
    second.validated([lone(921, landing, "person-hi", locale="hi-IN")]).cut(AURORA)
    shown = [(one["locale"], one["product"], one["recorded_week"]) for one in second.rows_of("aurora")]
    assert shown == ([("hi-IN", "translator", "2026-W47")] if case == "it is there" else [])


def test_manifest_gives_no_common_ref_to_a_clip_that_two_vendors_hear(night: Night, landing: Path) -> None:
    """Its sound is the same at both; what they can join by it ends with the clip."""
    shared = row(930, landing, person_ids=["person-x", "person-y"], is_for_two=True)
    others = [row(931 + n, landing, person_ids=["person-x", f"person-{n}"]) for n in range(8)]
    night.validated([shared, *others]).cut(AURORA, BOREALIS)
    of_shared = {ref for one in night.crosswalk() if one["is_for_two"] for ref in one["speaker_refs"]}
    of_others = {ref for one in night.crosswalk() if not one["is_for_two"] for ref in one["speaker_refs"]}
    assert len(of_shared) == 4
    assert not of_shared & of_others
    # One person is still known by one ref in all that a vendor may join.
    for name in ("aurora", "borealis"):
        rows = [one for one in night.crosswalk(name) if not one["is_for_two"]]
        assert len(set.intersection(*(set(one["speaker_refs"]) for one in rows))) == 1


# -- the gate of agreements ------------------------------------------------------------------------------------


@pytest.mark.parametrize("lapsed", ["nda", "dpa", "staff_training", "transfer mechanism"])
def test_manifest_closes_the_gate_for_one_vendor_and_goes_on(
    night: Night, rows: list[dict[str, Any]], lapsed: str
) -> None:
    agreements = {name: LAPSED if name == lapsed else HOLDS for name in ("nda", "dpa", "staff_training")}
    mechanism = LAPSED if lapsed == "transfer mechanism" else HOLDS
    closed = vendor("aurora", agreements=agreements, mechanism_valid=mechanism)
    outcome = night.validated(rows).cut(closed, BOREALIS)
    assert f"manifest: gate closed for vendor aurora: {lapsed} not valid on 2026-11-20" in outcome.lines
    assert isinstance(outcome.counts["vendors"], dict)
    assert outcome.counts["vendors"]["aurora"] == {"gate": "closed", "lapsed": [lapsed]}
    assert {b.vendor for b in night.batches()} == {"borealis"}
    assert len(night.rows_of("borealis")) == len(rows)
    with pytest.raises(GateClosed, match=f"vendor aurora: {lapsed} not valid on 2026-11-20"):
        night.cut(closed, BOREALIS, only="aurora")


def test_manifest_names_all_that_has_lapsed(night: Night, rows: list[dict[str, Any]]) -> None:
    closed = vendor("aurora", agreements={"nda": LAPSED, "dpa": HOLDS, "staff_training": LAPSED})
    with pytest.raises(GateClosed, match="nda, staff_training not valid"):
        night.validated(rows).cut(closed, only="aurora")
    assert night.batches() == []


# -- once ------------------------------------------------------------------------------------------------------


def test_manifest_needs_validation(night: Night) -> None:
    with pytest.raises(StageMissing, match="validate has not been run"):
        night.cut(AURORA)
    assert night.files() == {}


def test_manifest_again_does_nothing(night: Night, rows: list[dict[str, Any]]) -> None:
    assert night.validated(rows).cut(AURORA, BOREALIS).is_new
    before, events = night.files(), night.ledger.verify_chain()
    (night.folder.validated).unlink()
    again = night.cut(AURORA, BOREALIS)
    assert not again.is_new
    assert "manifest: vendor aurora: batches were cut before" in again.lines
    before.pop(str(night.folder.validated.relative_to(night.base)))
    assert night.files() == before
    assert night.ledger.verify_chain() == events


def test_manifest_assigns_once_a_night(night: Night, rows: list[dict[str, Any]]) -> None:
    """A vendor that comes later, and one whose gate opens later, take nothing that another one has."""
    closed = vendor("borealis", mechanism_valid=LAPSED)
    night.validated(rows).cut(AURORA, closed)
    outcome = night.cut(AURORA, BOREALIS, vendor("corona"))
    assert {b.vendor for b in night.batches()} == {"aurora"}
    assert outcome.counts["vendors"] == {
        "aurora": json.loads(night.folder.manifested("aurora").read_text(encoding="utf-8")),
        "borealis": {"batches": 0, "clips": 0, "left_out": {}, **NOTHING_SILENCED},
        "corona": {"batches": 0, "clips": 0, "left_out": {}, **NOTHING_SILENCED},
    }


def test_manifest_for_one_vendor_leaves_the_others_their_share(
    tmp_path: Path, landing: Path, rows: list[dict[str, Any]]
) -> None:
    at_once, in_turn = (Night(tmp_path / name, landing).validated(rows) for name in ("at_once", "in_turn"))
    at_once.cut(AURORA, BOREALIS)
    in_turn.cut(AURORA, BOREALIS, only="borealis")
    assert {b.vendor for b in in_turn.batches()} == {"borealis"}
    in_turn.cut(AURORA, BOREALIS, only="aurora")
    assert in_turn.files() == at_once.files()


def test_manifest_leaves_out_what_another_night_has(night: Night, rows: list[dict[str, Any]]) -> None:
    """Also what it took between the assignment and the cut for a vendor."""
    night.taken = [rows[0]["clip_id"]]
    night.validated(rows).cut(AURORA, BOREALIS, only="aurora")
    assert night.left_out("assignment") == {rows[0]["clip_key"]: "already_delivered"}
    waiting = pq.read_table(night.folder.assigned).to_pylist()
    late = [one for one in waiting if one["vendor"] == "borealis"][:3]
    night.taken += [one["clip_id"] for one in late]
    night.cut(AURORA, BOREALIS)
    assert night.left_out("borealis") == {one["clip_key"]: "already_delivered" for one in late}
    held = Counter(one["clip_id"] for one in night.crosswalk())
    assert set(held.values()) == {1}
    assert set(held) == {one["clip_id"] for one in rows} - set(night.taken)


def test_manifest_leaves_out_a_recording_that_is_gone(night: Night, landing: Path) -> None:
    made = [row(600 + n, landing) for n in range(3)]
    night.validated(made)
    (landing / "audio" / made[0]["audio_uri"]).unlink()
    (landing / "audio" / made[1]["audio_uri"]).write_bytes(sound(999))
    night.cut(AURORA)
    assert night.left_out("aurora") == {
        made[0]["clip_key"]: "audio_missing",
        made[1]["clip_key"]: "audio_hash_mismatch",
    }
    assert [one["clip_id"] for one in night.crosswalk()] == [made[2]["clip_id"]]


# -- crashes ---------------------------------------------------------------------------------------------------


class Crash(Exception):
    """Stands for the end of the process: nothing of ours catches it."""


@pytest.fixture
def crash_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int | None], None]:
    """Break off before the nth file or ledger entry of `manifest`."""
    steps = {"left": 10**9}

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def step(*args: Any, **kwargs: Any) -> Any:
            steps["left"] -= 1
            if steps["left"] < 0:
                raise Crash
            return real(*args, **kwargs)

        return step

    monkeypatch.setattr(manifests, "write_parquet", counted(manifests.write_parquet))
    monkeypatch.setattr(manifests, "write_text", counted(manifests.write_text))
    monkeypatch.setattr(Ledger, "add_batch", counted(Ledger.add_batch))

    def arm(n: int | None) -> None:
        steps["left"] = 10**9 if n is None else n

    return arm


def crashed(night: Night, arm: Callable[[int | None], None], n: int) -> bool:
    """Whether the run broke off at step n; afterwards nothing breaks off any more."""
    arm(n)
    try:
        night.cut(AURORA, BOREALIS)
    except Crash:
        return True
    finally:
        arm(None)
    return False


def test_manifest_after_a_crash_anywhere_cuts_the_same_batches(
    tmp_path: Path, landing: Path, rows: list[dict[str, Any]], crash_at: Callable[[int | None], None]
) -> None:
    # With one that is left out and some that are shown coarser.
    rows = [*rows[:14], row(90, landing, locale="hi-IN", person_ids=["person-hi"]), row(91, landing, channels=2)]
    whole = Night(tmp_path / "whole", landing).validated(rows)
    whole.cut(AURORA, BOREALIS)
    assert "small_group" in {*whole.left_out("aurora").values(), *whole.left_out("borealis").values()}
    steps = 0
    while True:
        broken = Night(tmp_path / str(steps), landing).validated(rows)
        if not crashed(broken, crash_at, steps):
            break
        broken.cut(AURORA, BOREALIS)
        assert broken.files() == whole.files()
        assert broken.batches() == whole.batches()
        assert broken.ledger.verify_chain() == len(whole.batches())
        steps += 1
    # Two files of the assignment, then for each batch two and its entry, and three for each vendor.
    assert steps == 2 + 3 * len(whole.batches()) + 2 * 3
    assert len(whole.batches()) > 2


def test_manifest_after_a_crash_leaves_alone_what_may_have_been_sent(
    tmp_path: Path, landing: Path, crash_at: Callable[[int | None], None]
) -> None:
    """A recording vanishes and a clip is withdrawn between the crash and the next run: what was cut first stays."""
    made = [row(700 + n, landing) for n in range(16)]
    broken = Night(tmp_path / "var", landing).validated(made)
    small = vendor("aurora", batch_max_bytes=150_000)
    crash_at(2 + 1 + 3 * 1 + 2)  # the assignment, the groups, the first batch, and the second without its entry
    with pytest.raises(Crash):
        broken.cut(small)
    crash_at(None)
    (first,) = broken.batches()
    orphan = broken.folder.crosswalk("aurora-20261120-002")
    assert orphan.exists()
    sent = broken.crosswalk()
    withhold(broken.folder, first.batch_id, {sent[0]["clip_ref"]: "withdrawn"})
    kept = {
        path: path.read_bytes()
        for path in (broken.folder.manifest(first.batch_id), broken.folder.crosswalk(first.batch_id))
    }
    for one in pq.read_table(orphan).to_pylist():
        (landing / "audio" / one["audio_uri"]).unlink()
    (landing / "audio" / sent[1]["audio_uri"]).unlink()
    lost = {one["clip_key"] for one in pq.read_table(orphan).to_pylist()}
    broken.cut(small)
    assert {path: path.read_bytes() for path in kept} == kept
    assert broken.left_out("aurora") == dict.fromkeys(lost, "audio_missing")
    held = Counter(one["clip_key"] for one in broken.crosswalk())
    assert set(held.values()) == {1}
    assert set(held) == {one["clip_key"] for one in made} - lost - {sent[0]["clip_key"]}
    assert [b.batch_id for b in broken.batches()] == [
        f"aurora-20261120-{n:03d}" for n in range(1, len(broken.batches()) + 1)
    ]


def test_manifest_forgets_files_of_batches_that_never_came_to_be(
    tmp_path: Path, landing: Path, crash_at: Callable[[int | None], None]
) -> None:
    made = [row(800 + n, landing) for n in range(10)]
    broken = Night(tmp_path / "var", landing).validated(made)
    one_each = vendor("aurora", batch_max_bytes=70_000)
    crash_at(2 + 1 + 2)
    with pytest.raises(Crash):
        broken.cut(one_each)
    crash_at(None)
    assert broken.batches() == []
    assert broken.folder.crosswalk("aurora-20261120-001").exists()
    for one in made:
        (landing / "audio" / one["audio_uri"]).unlink()
    broken.cut(one_each)
    assert not broken.folder.crosswalk("aurora-20261120-001").exists()
    assert not broken.folder.manifest("aurora-20261120-001").exists()
    assert set(broken.left_out("aurora").values()) == {"audio_missing"}
