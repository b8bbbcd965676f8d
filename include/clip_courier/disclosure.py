"""What a batch gives away, judged where it is cut and again where it is sealed, and the evidence that it carries.

It puts together what a vendor has from earlier (the crosswalks say), the groups, and the attack.
"""

import json
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from clip_courier import groups, linkage, masking, redaction
from clip_courier.batch_files import read_crosswalk, rows_except
from clip_courier.errors import AudioUnusable, CrosswalkMissing, LinkageTooHigh
from clip_courier.groups import BEFORE, SHOWN, Limits, Smallest
from clip_courier.ledger import CANCELLED, WITH_VENDOR, Batch, Ledger
from clip_courier.linkage import ATTACKED
from clip_courier.model import Manifest, NightFolder, Progress, Refusals, Root, batch_id_of
from clip_courier.settings import Disclosure

log = logging.getLogger("clip_courier")

SMALL_GROUP: Final = "small_group"
# A clip shows nothing finer than a year, so what lies further back can share nothing with it.
_LOOKED_BACK: Final = timedelta(days=400)
# What is shown of the sound, and what of it was recorded; an older crosswalk has `duration_ms` alone.
_SOUND: Final = {
    "shown_duration_ms": "sound_ms",
    "shown_sample_rate_hz": "sample_rate_hz",
    "shown_channels": "channels",
}
_RECORDED: Final = ("duration_ms", "sample_rate_hz", "channels")
_MASK: Final = re.compile("‹([A-Z_]+)›")
_RULES: Final = ("groups.py", "linkage.py", *("sql/manifest.sql", "sql/linkage.sql", "sql/groups_*.sql"))


@dataclass(frozen=True)
class Gate:
    """What judging needs. `recalled`: clip_ref of every clip that was ever recalled; `refusals` asks consent."""

    root: Root
    ledger: Ledger
    policy: Disclosure
    recalled: Callable[[], pa.Table]
    refusals: Refusals

    @property
    def limits(self) -> Limits:
        policy = self.policy
        return Limits(policy.k, policy.duration_bounds_ms, policy.padded_bounds_ms)


def grouped(
    folder: NightFolder, batch_id: str | None, vendor: str, private: pa.Table, gate: Gate
) -> tuple[pa.Table, Smallest]:
    """The crosswalk's rows of a batch with what they show, without those that found no group; and the smallest group.

    Without a `batch_id` they are all that a night has for the vendor. What else the vendor gets or has counts where it
    is needed: in languages in which these rows alone fall short. Rows that show something already stay as they are as
    long as their groups are large enough, and never show anything finer.
    """
    before = BEFORE.empty_table()
    if "rung" in private.column_names and not set(SHOWN.names) <= set(private.column_names):
        # Cut by a version that did not say what is shown of the sound: nobody can say what groups these are of.
        return private.slice(0, 0), Smallest(None, None)
    if "rung" in private.column_names:
        least = groups.smallest(private, before, gate.limits)
        if (least.persons or 0) < gate.limits.k and private.num_rows:
            before = _before(folder, batch_id, vendor, private, gate)
            least = groups.smallest(private, before, gate.limits)
        if (least.persons or 0) >= gate.limits.k or private.num_rows == 0:
            return private, least
    found = groups.group(private, before, gate.limits)
    is_short = pc.not_equal(found["rung"].fill_null(1), 0)
    if before.num_rows == 0 and pc.any(is_short).as_py():
        short = private.filter(pc.is_in(private["clip_ref"], found["clip_ref"].filter(is_short).combine_chunks()))
        before = _before(folder, batch_id, vendor, short, gate)
        found = groups.group(private, before, gate.limits) if before.num_rows else found
    rows = private.take(pc.index_in(found["clip_ref"], private["clip_ref"].combine_chunks()))
    rows = rows.drop_columns([name for name in groups.SHOWN.names if name in rows.column_names])
    for name in groups.SHOWN.names:
        rows = rows.append_column(name, found[name])
    rows = rows.filter(pc.is_valid(rows["rung"]))
    return rows, groups.smallest(rows, before, gate.limits)


def _before(folder: NightFolder, batch_id: str | None, vendor: str, short: pa.Table, gate: Gate) -> pa.Table:
    """Columns of BEFORE: what the vendor got in this epoch and keeps, and gets on this night in other batches.

    In the languages of the `short` rows. Nobody counts who has withdrawn, whether the recall is out yet or not.
    """
    epoch, languages = _epoch(short), pc.unique(_language(short["locale"]))
    parts = []
    for batch in _batches(folder, batch_id, gate):
        if batch.vendor != vendor or (batch.state not in WITH_VENDOR and batch.night_date != folder.night):
            continue
        rows = _read(batch, gate)
        if rows is None or _epoch(rows) is None or _epoch(rows) != epoch:
            continue
        rows = _as_shown(rows)
        parts.append(rows.filter(pc.is_in(_language(rows["locale"]), languages)))
    if not any(part.num_rows for part in parts):
        return BEFORE.empty_table()
    rows = pa.concat_tables(parts, promote_options="default")
    rows = rows_except(rows, "clip_ref", gate.recalled()["clip_ref"].combine_chunks())
    rows = rows_except(rows, "clip_ref", pa.array(list(gate.refusals(rows)), pa.string()))
    return rows.select(BEFORE.names).cast(BEFORE)


def sounding(
    rows: pa.Table, before: pa.Table | None, fetch: Callable[[str], bytes], progress: Progress
) -> tuple[pa.Table, dict[str, str]]:
    """The rows with hash and size of what their recordings become by it; reasons by ref where one cannot be had.

    Args:
        rows: of the crosswalk, with hash and size of what `before` shows; without it, of what was recorded.
        fetch: a recording of landing, by its address.
    """
    known = rows
    if before is not None:
        known = before.take(pc.index_in(rows["clip_ref"], before["clip_ref"].combine_chunks()))
    is_other = np.zeros(rows.num_rows, bool)
    for shown, recorded in _SOUND.items():
        was = known[recorded if before is None else shown]
        is_other |= pc.not_equal(rows[shown], was).to_numpy()
    asked = rows.filter(pa.array(is_other)).select(["clip_ref", *masking.OF_SOUND]).to_pylist()

    def encode(row: Mapping[str, Any]) -> tuple[str, str | None, int]:
        try:
            flac = masking.leaving(fetch(row["audio_uri"]), row)
        except AudioUnusable as unusable:
            return unusable.reason, None, 0
        return "", sha256(flac).hexdigest(), len(flac)

    with ThreadPoolExecutor(max_workers=2) as pool:
        found = []
        for done, one in enumerate(pool.map(encode, asked), start=1):
            found.append(one)
            progress("encoding what is shown coarser", done, len(asked))
    for name, place in (("flac_sha256", 1), ("flac_bytes", 2)):
        values = pa.array([one[place] for one in found], rows.schema.field(name).type)
        changed = pc.replace_with_mask(rows[name].combine_chunks(), pa.array(is_other), values)
        rows = rows.set_column(rows.column_names.index(name), name, changed)
    refused = {row["clip_ref"]: reason for row, (reason, *_) in zip(asked, found, strict=True) if reason}
    return rows_except(rows, "clip_ref", pa.array(list(refused), pa.string())), refused


def _as_shown(rows: pa.Table) -> pa.Table:
    """With what a batch that an older version cut shows of its sound: what was recorded."""
    for shown, recorded in _SOUND.items():
        if shown not in rows.column_names:
            kind = SHOWN.field(shown).type
            rows = rows.append_column(shown, rows["duration_ms" if recorded == "sound_ms" else recorded].cast(kind))
    return rows


def _read(batch: Batch, gate: Gate, columns: list[str] | None = None) -> pa.Table | None:
    """The crosswalk of another batch; None where it is damaged, for that is the other batch's failure."""
    try:
        return read_crosswalk(gate.root.night(batch.night_date), batch.batch_id, columns)
    except CrosswalkMissing as missing:
        log.warning("not looked at: %s", missing)
        return None


def _language(locales: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.list_element(pc.split_pattern(locales, "-", max_splits=1), 0)


def _epoch(rows: pa.Table) -> str | None:
    """Under whose key the refs of a batch were made; None when that is not on record."""
    return str(rows["epoch"][0]) if rows.num_rows and "epoch" in rows.column_names else None


def _batches(folder: NightFolder, batch_id: str | None, gate: Gate) -> Iterator[Batch]:
    """The other batches whose clips may share something with this one's."""
    for batch in gate.ledger.batches():
        is_near = batch.night_date >= folder.night - _LOOKED_BACK
        if batch.batch_id != batch_id and batch.state != CANCELLED and is_near:
            yield batch


def attacked(folder: NightFolder, batch_id: str, vendor: str, private: pa.Table, gate: Gate) -> linkage.Linkage:
    """Play the attack on a batch.

    Raises:
        LinkageTooHigh: more persons than the policy allows are found again, beyond chance and beyond doubt.
    """
    languages = pc.unique(_language(private["shown_locale"]))
    parts, unread = [ATTACKED.empty_table()], 0
    for batch in _batches(folder, batch_id, gate):
        rows = _read(batch, gate, [*ATTACKED.names, *_RECORDED, "epoch"])
        if rows is None or "shown_week" not in rows.column_names:
            unread += 1
        # Within an epoch a vendor knows its speakers by their refs, and is meant to.
        elif batch.vendor != vendor or _epoch(rows) != _epoch(private):
            rows = rows.filter(pc.is_in(_language(rows["shown_locale"]), languages))
            parts.append(_as_shown(rows).select(ATTACKED.names).cast(ATTACKED))
    found = replace(linkage.attack(private, pa.concat_tables(parts)), unread_batches=unread)
    if found.at_least > gate.policy.max_linkage:
        raise LinkageTooHigh(
            f"batch {batch_id}: at least {found.at_least:.0%} of its {found.persons} persons are found again in other"
            f" manifests, beyond chance; max_linkage allows {gate.policy.max_linkage:.0%}"
        )
    return found


def evidence(
    manifest: Manifest, private: pa.Table, least: Smallest, attack: linkage.Linkage, gate: Gate
) -> dict[str, object]:
    """What a batch's header says about what was done to it; counts alone.

    What found no group when the night was cut is in no batch; it is counted with the first one.
    """
    folder = gate.root.night(manifest.night)
    left_out = left_out_of(folder, manifest.batch_id)
    is_first, decided = (
        manifest.batch_id == batch_id_of(manifest.vendor, manifest.night, 1),
        folder.shown(manifest.vendor),
    )
    if is_first and decided.exists():  # a batch that an older version cut has none
        alone = pq.read_table(decided)["rung"].null_count
        left_out[SMALL_GROUP] = left_out.get(SMALL_GROUP, 0) + alone
    rows_out = manifest.rows.num_rows
    return {
        "rows_in": rows_out + sum(left_out.values()),
        "rows_out": rows_out,
        "suppressed": {SMALL_GROUP: left_out.pop(SMALL_GROUP, 0)},
        "withheld": sum(left_out.values()),
        "generalised": groups.rung_counts(private["rung"]),
        "sound": _altered(private),
        "k": gate.policy.k,
        "smallest_group": least.persons,
        "smallest_group_clips": least.clips,
        "masks": _masks(manifest),
        **_silenced(private),
        "linkage": {**asdict(attack), "max_linkage": gate.policy.max_linkage},
        "rules": rules(),
    }


def left_out_of(folder: NightFolder, batch_id: str) -> dict[str, int]:
    """How many clips were taken out of a batch, by reason."""
    path = folder.withheld(batch_id)
    return dict(sorted(Counter(pq.read_table(path)["reason"].to_pylist()).items())) if path.exists() else {}


def _altered(private: pa.Table) -> dict[str, int]:
    """Of how many clips the sound was made another one than was recorded, so that more are alike."""
    is_other = {shown: pc.not_equal(private[shown], private[recorded]) for shown, recorded in _SOUND.items()}
    return {
        name: pc.sum(is_other[shown]).as_py() or 0
        for name, shown in (
            ("mixed", "shown_channels"),
            ("resampled", "shown_sample_rate_hz"),
            ("padded", "shown_duration_ms"),
        )
    }


def _masks(manifest: Manifest) -> dict[str, int]:
    """How many masks of each kind leave."""
    said = pc.list_flatten(manifest.rows["hypotheses"])
    texts = pc.struct_field(said, "text").drop_null().to_pylist()
    return dict(sorted(Counter(_MASK.findall(" ".join(texts))).items()))


def _silenced(private: pa.Table) -> dict[str, object]:
    """In how many clips something was taken out of the sound, and how often; nothing where sound leaves as it was."""
    if "silenced" not in private.column_names:
        return {}
    spans = pc.list_value_length(private["silenced"]).fill_null(0)
    return {"silenced": {"clips": pc.sum(pc.greater(spans, 0)).as_py() or 0, "spans": pc.sum(spans).as_py() or 0}}


def rules() -> dict[str, str]:
    """Digests: by other ones the same clips are judged otherwise."""
    here = Path(__file__).parent
    digest = sha256()
    for pattern in _RULES:
        for path in sorted(here.glob(pattern)):
            digest.update(path.name.encode() + path.read_bytes())
    return {"disclosure": digest.hexdigest(), "redaction": redaction.rules()}


def read_evidence(folder: NightFolder, batch_id: str) -> Mapping[str, Any] | None:
    """As the batch was sealed with it; None before."""
    path = folder.evidence(batch_id)
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None
