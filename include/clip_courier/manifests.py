"""Stage 3, `manifest`: raw columns end here.

Each clip goes to one vendor that may lawfully have it, under refs that only this vendor sees, with its hypotheses
redacted. A batch is cut by size. What joins it to persons stays in its crosswalk.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from clip_courier import audio, masking
from clip_courier.assignment import LEFT_OUT, assign
from clip_courier.batch_files import manifest_of, read_crosswalk, read_own, rows_except
from clip_courier.disclosure import SMALL_GROUP, Gate, grouped, sounding
from clip_courier.errors import AudioUnusable, GateClosed
from clip_courier.groups import SHOWN, rung_counts
from clip_courier.landing import Landing
from clip_courier.ledger import MANIFESTED, Batch, Ledger
from clip_courier.model import CLIPS, MANIFEST, NightFolder, Outcome, Progress, batch_id_of, write_parquet, write_text
from clip_courier.pseudonyms import OURSELVES, Pseudonyms
from clip_courier.redaction import Redactor
from clip_courier.settings import Vendor
from clip_courier.silences import Said, silences, words_of

# Room in a sealed batch for what is not a clip: the tar's end and its padding to records of 10 KiB, header and README,
# Parquet's footer, and what OpenPGP puts around it all.
_OVERHEAD_BYTES = 32 * 1024
# A tar member's header and padding, its line in the header, the fields of its row whose length does not vary, and half
# a minute of silence that sealing may have to add.
_OVERHEAD_PER_CLIP_BYTES = 1024 + 128 + 512 + 2048
# OpenPGP cuts a stream into parts, each with its length before it, once for the literal and once for the encrypted
# packet; gpg's parts have 8 KiB (RFC 4880 §4.2.2.4 demands at least 512 bytes of the first).
_BYTES_PER_PART_LENGTH = 1024
_HYPOTHESES = MANIFEST.field("hypotheses").type
# What sealing needs to make the same sound again, and scoring to charge nobody for what could not be heard.
_SOUND = pa.schema(
    [
        ("sound_key", pa.string()),
        ("voice", pa.string()),
        ("silenced", pa.list_(pa.struct([("start_ms", pa.int32()), ("end_ms", pa.int32())]))),
        # How long the recording is, whatever its row says.
        ("sound_ms", pa.int32()),
        ("audible_hypotheses", _HYPOTHESES),
        ("flac_sha256", pa.string()),
        ("flac_bytes", pa.int64()),
    ]
)
# The raw row, as this stage reads it; whatever else stands beside these columns goes no further.
RAW = pa.schema(
    [
        *CLIPS,
        pa.field("person_ids", pa.list_(pa.string())),
        pa.field("stratum", pa.string()),
        pa.field("inclusion_probability", pa.float64()),
        pa.field("is_for_two", pa.bool_()),
        pa.field("is_withheld", pa.bool_()),
        pa.field("clip_key", pa.string()),
    ]
)


@dataclass(frozen=True)
class Cutting:
    """What `manifest` needs beside the night. `vocabulary` is asked once, when there is a clip to send.

    `taken` and `held` are what other nights' batches hold: clip_id, and the columns of assignment.HELD.
    """

    landing: Landing
    ledger: Ledger
    pseudonyms: Pseudonyms
    vocabulary: Callable[[], Mapping[str, frozenset[str]]]
    taken: Callable[[], pa.Table]
    held: Callable[[], pa.Table]
    call_distance_seconds: int
    beep_margin_ms: int
    gate: Gate
    progress: Progress


def manifest(
    folder: NightFolder, vendors: Sequence[Vendor], now: datetime, given: Cutting, only: str | None
) -> Outcome:
    """Assign the validated clips and cut each vendor's batches; what is cut already stays as it is.

    Raises:
        StageMissing: the night was not validated.
        GateClosed: `only` names a vendor whose agreements do not hold on the night.
    """
    outcome = Outcome("manifest", {"night": folder.night.isoformat()}, is_new=False)
    assigned = _assignment(folder, vendors, given, outcome)
    made: dict[str, object] = {}
    for vendor in vendors:
        if only not in (None, vendor.name):
            continue
        lapsed = vendor.lapsed_on(folder.night)
        if lapsed:
            line = f"vendor {vendor.name}: {', '.join(lapsed)} not valid on {folder.night}"
            if only:
                raise GateClosed(line)
            outcome.say(f"manifest: gate closed for {line}")
            made[vendor.name] = {"gate": "closed", "lapsed": lapsed}
            continue
        made[vendor.name] = _cut_for(
            vendor, assigned.filter(pc.equal(assigned["vendor"], vendor.name)), folder, now, given, outcome
        )
    outcome.counts["vendors"] = made
    return outcome


def _assignment(folder: NightFolder, vendors: Sequence[Vendor], given: Cutting, outcome: Outcome) -> pa.Table:
    """Who gets what, decided once a night: a vendor that is added later takes nothing that another one has."""
    if not folder.assigned.exists():
        validated = pq.read_table(folder.require(folder.validated, "validate"))
        validated = validated.select([name for name in RAW.names if name in validated.column_names])
        rows, refused = assign(
            validated,
            vendors,
            folder.night,
            given.held(),
            given.taken(),
            timedelta(seconds=given.call_distance_seconds),
        )
        write_parquet(refused, folder.left_out("assignment"))
        write_parquet(rows, folder.assigned)
    left_out = pq.read_table(folder.left_out("assignment"))
    reasons = _tally(left_out["reason"].to_pylist())
    outcome.counts["left_out"] = reasons
    if reasons:
        outcome.say("manifest: left out: " + ", ".join(f"{reason} {clips}" for reason, clips in reasons.items()))
    return pq.read_table(folder.assigned)


def _cut_for(
    vendor: Vendor, rows: pa.Table, folder: NightFolder, now: datetime, given: Cutting, outcome: Outcome
) -> dict[str, object]:
    marker = folder.manifested(vendor.name)
    if marker.exists():
        outcome.say(f"manifest: vendor {vendor.name}: batches were cut before")
        return dict(json.loads(marker.read_text(encoding="utf-8")))
    free, refused = _free(vendor, rows, folder, given)
    known, unusable = _encoded(free, vendor, given)
    private, too_large = _with_refs(known, vendor, given) if known.num_rows else (known, [])
    refused += unusable + too_large
    begun = len(given.ledger.batches(vendor=vendor.name, night=folder.night))
    private, alone = _grouped(private, vendor, folder, given, outcome) if private.num_rows else (private, [])
    refused += alone
    if private.num_rows:
        private, unfit = _sounding(private, vendor, given)
        refused += unfit
    for sequence, clips in enumerate(_by_size(private, vendor.batch_max_bytes), start=begun + 1):
        batch_id = batch_id_of(vendor.name, folder.night, sequence)
        part = clips.drop_columns(["room_bytes"])
        part = part.append_column("batch_id", pa.array([batch_id] * part.num_rows, pa.string()))
        write_parquet(part, folder.crosswalk(batch_id))
        write_parquet(manifest_of(batch_id, vendor.name, folder, part).rows, folder.manifest(batch_id))
        audio_ms = sum(part["shown_duration_ms"].to_pylist())
        batch = Batch(batch_id, vendor.name, folder.night.isoformat(), MANIFESTED, part.num_rows, audio_ms)
        given.ledger.add_batch(batch, now)
    write_parquet(pa.Table.from_pylist(refused, LEFT_OUT), folder.left_out(vendor.name))
    cut = given.ledger.batches(vendor=vendor.name, night=folder.night)
    sent = sum(batch.clip_count for batch in cut)
    counts = {"batches": len(cut), "clips": sent, "left_out": _tally(r["reason"] for r in refused)}
    counts |= _silenced([folder.crosswalk(batch.batch_id) for batch in cut])
    write_text(json.dumps(counts) + "\n", marker)
    outcome.is_new = True
    outcome.say(f"manifest: vendor {vendor.name}: {sent} clips in {len(cut)} batches")
    return counts


def _free(vendor: Vendor, rows: pa.Table, folder: NightFolder, given: Cutting) -> tuple[pa.Table, list[dict[str, str]]]:
    """The vendor's clips that no batch holds.

    Another night may have taken one since it was assigned. A run that broke off here has left batches behind: those
    that are in the ledger may have been sent since, so they stay as they are, and the others are forgotten.
    """
    begun = {batch.batch_id for batch in given.ledger.batches(vendor=vendor.name, night=folder.night)}
    for path in folder.private.glob(f"{vendor.name}-*.crosswalk.parquet"):
        batch_id = path.name.removesuffix(".crosswalk.parquet")
        if batch_id not in begun:
            folder.forget_batch(batch_id)
    for batch_id in sorted(begun):
        rows = rows_except(rows, "clip_id", read_crosswalk(folder, batch_id)["clip_id"])
        if folder.withheld(batch_id).exists():
            rows = rows_except(rows, "clip_key", pq.read_table(folder.withheld(batch_id))["clip_key"])
    taken = rows.filter(pc.is_in(rows["clip_id"], given.taken()["clip_id"]))
    refused = [
        {"clip_key": key, "vendor": vendor.name, "reason": "already_delivered"} for key in taken["clip_key"].to_pylist()
    ]
    return rows_except(rows, "clip_key", taken["clip_key"]), refused


def _encoded(rows: pa.Table, vendor: Vendor, given: Cutting) -> tuple[pa.Table, list[dict[str, str]]]:
    """Mask and encode every recording, to know its size and hash; the bytes are made again when they are sealed."""
    ids = rows["clip_id"].to_pylist()
    keys = given.pseudonyms.refs(vendor.name, "sound", ids)
    names = [n for n in ("clip_key", "audio_uri", "audio_sha256", "hypotheses", "words") if n in rows.column_names]
    asked = rows.select(names).to_pylist()
    said = _said(asked, rows["locale"].to_pylist())

    def encode(row: dict[str, Any], key: str, texts: list[Said]) -> dict[str, Any]:
        sound: dict[str, Any] = {"sound_key": key, "voice": vendor.voice}
        try:
            raw = given.landing.audio(row["audio_uri"])
            recording = audio.decode(raw, row["audio_sha256"])
            *hypotheses, timed = texts
            found = silences(
                hypotheses,
                row.get("words"),
                timed.is_masked,
                duration_ms=recording.duration_ms,
                margin_ms=given.beep_margin_ms,
                late_ms=recording.late_ms,
            )
            sound["silenced"] = [{"start_ms": start, "end_ms": end} for start, end in found.spans]
            sound["sound_ms"] = recording.duration_ms
            flac = audio.to_flac(masking.masked(recording, sound))
        except AudioUnusable as unusable:
            return {"reason": unusable.reason}
        ranks = [h["rank"] for h in row["hypotheses"] or ()]
        heard = [{"rank": rank, "text": text} for rank, text in zip(ranks, found.heard, strict=True)]
        sound |= {"audible_hypotheses": heard} if found.spans else {}
        return {**sound, "flac_sha256": sha256(flac).hexdigest(), "flac_bytes": len(flac)}

    found = []
    with ThreadPoolExecutor(max_workers=2) as pool:
        for done, one in enumerate(pool.map(encode, asked, keys, said), start=1):
            found.append(one)
            given.progress(f"encoding for {vendor.name}", done, len(asked))
    refused = [
        {"clip_key": row["clip_key"], "vendor": vendor.name, "reason": one["reason"]}
        for row, one in zip(asked, found, strict=True)
        if "reason" in one
    ]
    for column, name in zip(pa.Table.from_pylist(found, _SOUND).columns, _SOUND.names, strict=True):
        rows = rows.append_column(name, column)
    return rows.filter(pc.is_valid(rows["flac_sha256"])), refused


def _said(rows: list[dict[str, Any]], locales: list[str]) -> list[list[Said]]:
    """Of every clip its hypotheses and, last, its timed words, with what of them may not be heard."""
    redactor = Redactor({})
    known: dict[tuple[str, ...], list[bool]] = {}
    found = []
    for row, locale in zip(rows, locales, strict=True):
        texts = [(h["text"] or "").split() for h in row["hypotheses"] or ()]
        clip = []
        for words in (*texts, words_of(row.get("words"))):
            if (is_masked := known.get((locale, *words))) is None:
                is_masked = known[locale, *words] = redactor.spoken(words, locale)
            clip.append(Said(words, is_masked))
        found.append(clip)
    return found


def _silenced(crosswalks: Sequence[Path]) -> dict[str, int]:
    """In how many clips something was silenced, and how many times."""
    rows = [row for path in crosswalks for row in read_own(path, "a crosswalk", ["silenced"]).to_pylist()]
    spans = [len(row.get("silenced") or ()) for row in rows]
    return {"silenced_clips": sum(map(bool, spans)), "silenced_spans": sum(spans)}


def _with_refs(rows: pa.Table, vendor: Vendor, given: Cutting) -> tuple[pa.Table, list[dict[str, str]]]:
    """The crosswalk's rows: raw ones with this vendor's refs, the warehouse's keys, and the hypotheses that are shown.

    Those that do not fit into any batch are refused.
    """
    people = sorted({person for persons in rows["person_ids"].to_pylist() for person in persons})
    ref_of = dict(zip(people, given.pseudonyms.refs(vendor.name, "person", people), strict=True))
    key_of = dict(zip(people, given.pseudonyms.refs(OURSELVES, "person", people), strict=True))
    persons = rows["person_ids"].to_pylist()
    refs = [sorted(ref_of[p] for p in ids) for ids in persons]
    for place, is_for_two in enumerate(rows["is_for_two"].to_pylist()):
        if is_for_two:
            # Two vendors can tell by its sound that they have the same clip; their refs must tell them nothing more.
            clip_id = rows["clip_id"][place].as_py()
            here = [f"{len(clip_id)}:{clip_id}{person}" for person in persons[place]]
            refs[place] = sorted(given.pseudonyms.refs(vendor.name, "person_in_clip", here))
    redactor = Redactor(given.vocabulary(), level=vendor.redaction)
    shown = [
        None
        if said is None or is_withheld
        else [{"rank": h["rank"], "text": redactor.redact(h["text"], locale)} for h in said]
        for said, locale, is_withheld in zip(
            *(rows[name].to_pylist() for name in ("hypotheses", "locale", "is_withheld")), strict=True
        )
    ]
    added: dict[str, pa.Array] = {
        "clip_ref": pa.array(given.pseudonyms.refs(vendor.name, "clip", rows["clip_id"].to_pylist()), pa.string()),
        "speaker_refs": pa.array(refs, pa.list_(pa.string())),
        "epoch": pa.array([given.pseudonyms.epoch] * len(persons), pa.string()),
        "speaker_key": pa.array([min(key_of[p] for p in ids) for ids in persons], pa.string()),
        "speaker_keys": pa.array([sorted(key_of[p] for p in ids) for ids in persons], pa.list_(pa.string())),
        "shown_hypotheses": pa.array(shown, _HYPOTHESES),
    }
    for name, column in added.items():
        rows = rows.append_column(name, column)
    rows, refused = _fitting(rows, vendor)
    return rows.sort_by("clip_ref"), refused


def _fitting(rows: pa.Table, vendor: Vendor) -> tuple[pa.Table, list[dict[str, str]]]:
    """The rows with the room that each takes in a batch, without those that fit into none."""
    columns = (rows[name].to_pylist() for name in ("flac_bytes", "person_ids", "shown_hypotheses"))
    rows = rows.append_column("room_bytes", pa.array(map(_room, *columns), pa.int64()))
    fits = pc.less_equal(rows["room_bytes"], vendor.batch_max_bytes - _OVERHEAD_BYTES)
    refused = [
        {"clip_key": key, "vendor": vendor.name, "reason": "larger_than_a_batch"}
        for key in rows.filter(pc.invert(fits))["clip_key"].to_pylist()
    ]
    return rows.filter(fits), refused


def _grouped(
    rows: pa.Table, vendor: Vendor, folder: NightFolder, given: Cutting, outcome: Outcome
) -> tuple[pa.Table, list[dict[str, str]]]:
    """The rows with what they show, decided once a night: a run that goes on after a crash decides nothing anew."""
    if not folder.shown(vendor.name).exists():
        found, _ = grouped(folder, None, vendor.name, rows, given.gate)
        place = pc.index_in(rows["clip_id"], found["clip_id"].combine_chunks())
        columns = {name: found[name].take(place) for name in SHOWN.names}
        write_parquet(pa.table({"clip_id": rows["clip_id"], **columns}), folder.shown(vendor.name))
    shown = pq.read_table(folder.shown(vendor.name))
    coarser = rung_counts(shown["rung"])
    if coarser:
        told = ", ".join(f"{name} {clips}" for name, clips in coarser.items())
        outcome.say(f"manifest: vendor {vendor.name}: shown coarser than recorded: {told}")
    place = pc.index_in(rows["clip_id"], shown["clip_id"].combine_chunks())
    for name in SHOWN.names:
        rows = rows.append_column(name, shown[name].take(place))
    is_alone = pc.is_null(rows["rung"])
    refused = [
        {"clip_key": key, "vendor": vendor.name, "reason": SMALL_GROUP}
        for key in rows.filter(is_alone)["clip_key"].to_pylist()
    ]
    return rows.filter(pc.invert(is_alone)), refused


def _sounding(rows: pa.Table, vendor: Vendor, given: Cutting) -> tuple[pa.Table, list[dict[str, str]]]:
    """The rows whose recordings are made what their group shows, with the room that they take then."""
    known, unusable = sounding(rows, None, given.landing.audio, given.progress)
    refused = [
        {"clip_key": key, "vendor": vendor.name, "reason": unusable[ref]}
        for key, ref in zip(*(rows[name].to_pylist() for name in ("clip_key", "clip_ref")), strict=True)
        if ref in unusable
    ]
    fitting, too_large = _fitting(known.drop_columns(["room_bytes"]), vendor)
    return fitting, refused + too_large


def _room(flac_bytes: int, person_ids: list[str], shown: list[dict[str, Any]] | None) -> int:
    """The most that a clip can add to a sealed batch, as if nothing in the manifest compressed."""
    texts = sum(len(h["text"].encode("utf-8")) + 16 for h in shown or ())
    size = flac_bytes + _OVERHEAD_PER_CLIP_BYTES + 40 * len(person_ids) + texts
    return size + size // _BYTES_PER_PART_LENGTH + 1


def _by_size(rows: pa.Table, batch_max_bytes: int) -> Iterator[pa.Table]:
    """Whole clips in the order of their refs, as many as fit."""
    start, used = 0, _OVERHEAD_BYTES
    for place, size in enumerate(rows["room_bytes"].to_pylist() if rows.num_rows else []):
        if used + size > batch_max_bytes:
            yield rows.slice(start, place - start)
            start, used = place, _OVERHEAD_BYTES
        used += size
    if rows.num_rows > start:
        yield rows.slice(start)


def _tally(reasons: Any) -> dict[str, int]:
    counts: dict[str, int] = {}
    for reason in reasons:
        counts[reason] = counts.get(reason, 0) + 1
    return dict(sorted(counts.items()))
