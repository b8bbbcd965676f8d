"""Where everything is: nights and their funnels, batches and their states, what is late or recalled, which keys end."""

import json
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import date, datetime
from typing import Any

from clip_courier.batch_files import overdue
from clip_courier.disclosure import read_evidence
from clip_courier.ledger import Batch, Ledger, Recall, parse_stamp
from clip_courier.model import KEY_NOTICE, NightFolder, Outcome, Root


@dataclass(frozen=True)
class NightSeen:
    """The funnel of a night, in clips; None for a stage that was not run."""

    night: str
    clips: int | None
    eligible: int | None
    selected: int | None
    validated: int | None
    in_batches: int
    delivered: int
    refused: dict[str, int]
    has_data_docs: bool


@dataclass(frozen=True)
class BatchSeen:
    """A batch as the ledger has it, and whether its transcripts are late. Times are RFC 3339 in UTC.

    `owed` counts clips that are past their due time; `breaches` rows of clips that the vendor was told to delete.
    `evidence` is what the batch's header says about what was done to it; None before it is sealed.
    """

    batch_id: str
    vendor: str
    night: str
    state: str
    clips: int
    delivered_at: str | None
    due_at: str | None
    returned_rows: int
    is_overdue: bool
    owed: int = 0
    sensitive: int = 0
    distress: int = 0
    breaches: int = 0
    evidence: Mapping[str, Any] | None = None

    @property
    def alerts(self) -> list[str]:
        """What somebody must see to."""
        told = [
            (self.owed, f"{self.owed} clips overdue since {self.due_at}"),
            (self.distress, f"{self.distress} rows say that a person is in distress"),
            (self.sensitive, f"{self.sensitive} rows are marked sensitive"),
            (self.breaches, f"{self.breaches} rows of clips that were to be deleted"),
        ]
        return [text for count, text in told if count]


@dataclass(frozen=True)
class KeySeen:
    """A key as the last delivery to a vendor saw it: the vendor's own, or ours that signs. Times are RFC 3339."""

    vendor: str
    is_ours: bool
    fingerprint: str
    expires_at: str | None
    is_expiring: bool

    def __str__(self) -> str:
        return f"key {self.fingerprint} {'of ours' if self.is_ours else f'of vendor {self.vendor}'}"


@dataclass(frozen=True)
class Overview:
    """All of it; newest nights first."""

    nights: list[NightSeen]
    batches: list[BatchSeen]
    recalls: list[Recall]
    keys: list[KeySeen]

    def outcome(self) -> Outcome:
        """As the verb `status` tells it."""
        counts: dict[str, object] = {
            "states": dict(Counter(batch.state for batch in self.batches)),
            "overdue": sum(batch.is_overdue for batch in self.batches),
            "open_recalls": sum(recall.state != "RECEIPTED" for recall in self.recalls),
            **{name: sum(getattr(b, name) for b in self.batches) for name in ("sensitive", "distress", "breaches")},
            "expiring_keys": sum(key.is_expiring for key in self.keys),
            **{name: [asdict(one) for one in seen] for name, seen in self.__dict__.items()},
        }
        lines = [
            f"night {night.night}: {night.clips} clips, {night.eligible} eligible, {night.selected} selected,"
            f" {night.validated} validated, {night.in_batches} in batches, {night.delivered} delivered"
            for night in self.nights
        ]
        for batch in self.batches:
            due = f", due {batch.due_at}{' OVERDUE' if batch.is_overdue else ''}" if batch.due_at else ""
            lines.append(
                f"{batch.batch_id}  {batch.state}  {batch.clips} clips, {batch.returned_rows} rows returned{due}"
            )
            lines += [f"{batch.batch_id}  ALERT  {told}" for told in batch.alerts]
        lines += [f"{r.batch_id}  recall {r.n}  {r.state}  {r.clip_count} clips" for r in self.recalls]
        lines += [
            f"{key} expires on {(key.expires_at or '')[:10]}: exchange it" for key in self.keys if key.is_expiring
        ]
        return Outcome("status", counts, lines or ["status: nothing was done yet"], is_new=False)


def overview(
    root: Root, ledger: Ledger, now: datetime, night: date | None = None, vendor: str | None = None
) -> Overview:
    """What is on record, for one night or vendor where one is named."""
    returned: Counter[str] = Counter()
    for one in ledger.returns(vendor):
        returned[one.batch_id] += one.accepted_rows
    alarming: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for rows in ledger.row_counts(vendor):
        found = {"sensitive": rows.sensitive_rows, "distress": rows.distress_rows, "breaches": rows.breach_rows}
        alarming[rows.batch_id].update(found)
    batches = ledger.batches(night=night, vendor=vendor)
    owed = {batch.batch_id: clips for batch, clips in overdue(root, ledger, now, vendor)}
    seen = [
        _batch_seen(
            b,
            returned[b.batch_id],
            owed.get(b.batch_id, 0),
            alarming[b.batch_id],
            read_evidence(root.night(b.night_date), b.batch_id),
        )
        for b in batches
    ]
    ids = {batch.batch_id for batch in batches}
    folders = [folder for folder in reversed(root.nights()) if night in (None, folder.night)]
    return Overview(
        nights=[_night_seen(folder, batches) for folder in folders],
        batches=sorted(seen, key=lambda batch: (batch.night, batch.batch_id), reverse=True),
        recalls=[recall for recall in ledger.recalls(vendor) if recall.batch_id in ids],
        keys=_keys_seen(root, now, vendor),
    )


def _keys_seen(root: Root, now: datetime, vendor: str | None) -> list[KeySeen]:
    """The vendors' keys, and ours once."""
    found: dict[str, KeySeen] = {}
    for path in sorted(root.keys(vendor or "*").parent.glob(f"{vendor or '*'}.json")):
        for whose, key in _counts(path).items():
            until = key["expires_at"]
            is_expiring = until is not None and parse_stamp(until) - now < KEY_NOTICE
            seen = KeySeen(path.stem, whose == "ours", key["fingerprint"], until, is_expiring)
            found.setdefault(seen.fingerprint if seen.is_ours else f"{path.stem} {seen.fingerprint}", seen)
    return sorted(found.values(), key=lambda key: (key.is_ours, key.vendor))


def _batch_seen(
    batch: Batch, returned_rows: int, owed: int, alarming: Counter[str], evidence: Mapping[str, Any] | None
) -> BatchSeen:
    return BatchSeen(
        batch_id=batch.batch_id,
        vendor=batch.vendor,
        night=batch.night,
        state=batch.state,
        clips=batch.clip_count,
        delivered_at=batch.delivered_at,
        due_at=batch.due_at,
        returned_rows=returned_rows,
        is_overdue=owed > 0,
        owed=owed,
        sensitive=alarming["sensitive"],
        distress=alarming["distress"],
        breaches=alarming["breaches"],
        evidence=evidence,
    )


def _night_seen(folder: NightFolder, batches: list[Batch]) -> NightSeen:
    funnel, quality = _counts(folder.funnel), _counts(folder.quality)
    ours = [batch for batch in batches if batch.night_date == folder.night]
    return NightSeen(
        night=folder.night.isoformat(),
        clips=funnel.get("clips"),
        eligible=funnel.get("eligible"),
        selected=funnel.get("selected"),
        validated=quality.get("validated"),
        in_batches=sum(batch.clip_count for batch in ours),
        delivered=sum(batch.clip_count for batch in ours if batch.delivered_at),
        refused=funnel.get("refused", {}),
        has_data_docs=(folder.data_docs / "index.html").exists(),
    )


def _counts(path: Any) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}
