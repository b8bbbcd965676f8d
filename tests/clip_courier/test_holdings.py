"""What vendors hold from other nights."""

import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from clip_courier.errors import CrosswalkMissing
from clip_courier.holdings import Holdings
from clip_courier.ledger import CANCELLED, MANIFESTED, Batch, Ledger
from clip_courier.model import Root, write_parquet, write_text
from clip_courier.sampling_plan import EXPOSURE, TAKEN

NIGHT = date(2026, 11, 20)
DAY = timedelta(days=1)
SINCE = datetime(2026, 10, 1, tzinfo=UTC)
CROSSWALK = pa.schema(
    [
        ("clip_id", pa.string()),
        ("call_id", pa.string()),
        ("recorded_at", pa.timestamp("us", tz="UTC")),
        ("duration_ms", pa.int32()),
        ("person_ids", pa.list_(pa.string())),
    ]
)


@pytest.fixture
def root(tmp_path: Path) -> Root:
    root = Root(tmp_path / "var", "")
    root.prepare()
    return root


@pytest.fixture
def ledger(root: Root) -> Ledger:
    return Ledger(f"sqlite:///{root.path / 'ledger.sqlite'}")


def batch(
    root: Root, ledger: Ledger, vendor: str, night: date, clips: dict[str, tuple[datetime, tuple[str, ...]]]
) -> str:
    """A batch of clips of ten seconds, each with its time and its persons, selected at two in the morning."""
    batch_id = f"{vendor}-{night:%Y%m%d}-001"
    folder, at = root.night(night), datetime(night.year, night.month, night.day, 2, tzinfo=UTC)
    rows = [
        {
            "clip_id": clip_id,
            "call_id": "call",
            "recorded_at": moment,
            "duration_ms": 10_000,
            "person_ids": list(people),
        }
        for clip_id, (moment, people) in clips.items()
    ]
    write_parquet(pa.Table.from_pylist(rows, CROSSWALK), folder.crosswalk(batch_id))
    write_text(json.dumps({"now": at.strftime("%Y-%m-%dT%H:%M:%SZ")}), folder.funnel)
    ledger.add_batch(Batch(batch_id, vendor, night.isoformat(), MANIFESTED, len(rows), 0), at)
    return batch_id


def test_holdings_tell_what_other_nights_took(root: Root, ledger: Ledger) -> None:
    late, early = SINCE + 20 * DAY, SINCE - 20 * DAY
    batch(root, ledger, "aurora", NIGHT - DAY, {"a": (late, ("ada", "ben")), "old": (early, ("ada",))})
    batch(root, ledger, "borealis", NIGHT - DAY, {"a": (late, ("ada", "ben"))})
    batch(root, ledger, "aurora", NIGHT, {"tonight": (late, ("ada",))})
    found = Holdings(root, ledger, NIGHT, SINCE)
    recalled = pa.table({"clip_id": ["gone", "a"]})
    assert found.taken(recalled).sort_by("clip_id").to_pylist() == [
        {"clip_id": "a", "is_recalled": True},
        {"clip_id": "gone", "is_recalled": True},
    ]
    assert found.taken(recalled).schema == TAKEN
    # Two vendors heard it: it counts twice, as does the clip that is older than the window.
    assert sorted(found.exposure(2).to_pylist(), key=lambda row: row["person_id"]) == [
        {"person_id": "ada", "heard_ms": 30_000},
        {"person_id": "ben", "heard_ms": 20_000},
    ]
    assert found.exposure(1).equals(EXPOSURE.empty_table())
    assert [(row["vendor"], row["recorded_at"]) for row in found.held().to_pylist()] == [
        ("aurora", late),
        ("borealis", late),
    ]


def test_holdings_of_nobody_are_empty(root: Root, ledger: Ledger) -> None:
    found = Holdings(root, ledger, NIGHT, SINCE)
    assert found.taken(TAKEN.empty_table()).num_rows == 0
    assert found.held().num_rows == found.exposure(30).num_rows == 0


def test_a_cancelled_batch_holds_nothing(root: Root, ledger: Ledger) -> None:
    batch_id = batch(root, ledger, "aurora", NIGHT - DAY, {"a": (SINCE + DAY, ("ada",))})
    ledger.move(batch_id, MANIFESTED, CANCELLED, SINCE)
    assert Holdings(root, ledger, NIGHT, SINCE).taken(TAKEN.empty_table()).num_rows == 0


def test_nights_before_the_window_are_not_opened_and_later_ones_must_be_whole(root: Root, ledger: Ledger) -> None:
    before = batch(root, ledger, "aurora", SINCE.date() - 2 * DAY, {"a": (SINCE - 3 * DAY, ("ada",))})
    after = batch(root, ledger, "aurora", SINCE.date() + DAY, {"b": (SINCE, ("ada",))})
    found = Holdings(root, ledger, NIGHT, SINCE)
    root.night(SINCE.date() - 2 * DAY).crosswalk(before).write_bytes(b"damaged")
    assert found.taken(TAKEN.empty_table())["clip_id"].to_pylist() == ["b"]
    # A night that does not say when it was selected may hold anything.
    root.night(SINCE.date() - 2 * DAY).funnel.unlink()
    with pytest.raises(CrosswalkMissing, match=before):
        found.taken(TAKEN.empty_table())
    root.night(SINCE.date() + DAY).crosswalk(after).unlink()
    with pytest.raises(CrosswalkMissing):
        found.held()
