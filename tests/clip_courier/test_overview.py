"""What `status` and the pages show, at every point of a night."""

from collections.abc import Callable
from datetime import timedelta

import pytest

from clip_courier.courier import Courier
from clip_courier.errors import SettingsInvalid
from clip_courier_demo.keys import make_key
from clip_courier_demo.stage import Stage, write_vendor
from conftest import NIGHT, NOW


def test_overview_of_nothing_says_so(courier: Courier) -> None:
    assert courier.status().lines == ["status: nothing was done yet"]


def test_overview_follows_a_night(stage: Stage, courier: Courier, truth: dict[str, str]) -> None:
    selected = courier.select(NIGHT).counts
    [night] = courier.overview().nights
    assert (night.clips, night.eligible, night.selected) == tuple(
        selected[n] for n in ("clips", "eligible", "selected")
    )
    assert (night.validated, night.in_batches, night.delivered, night.has_data_docs) == (None, 0, 0, False)
    courier.night(NIGHT)
    seen = courier.overview()
    [night] = seen.nights
    assert night.has_data_docs
    assert night.in_batches == night.delivered == sum(batch.clips for batch in seen.batches)
    assert {batch.state for batch in seen.batches} == {"DELIVERED"}
    for vendor in stage.vendors.values():
        vendor.work(truth, NOW)
    courier.returns()
    assert {batch.state for batch in courier.overview().batches} == {"LOADED"}
    assert all(batch.returned_rows == batch.clips for batch in courier.overview().batches)


def test_overview_marks_what_is_overdue_until_all_of_it_is_back(
    stage: Stage, make_courier: Callable[..., Courier], truth: dict[str, str]
) -> None:
    make_courier(stage).night(NIGHT)
    late = make_courier(stage, NOW + timedelta(days=30))
    assert not any(batch.is_overdue for batch in make_courier(stage).overview().batches)
    assert all(batch.is_overdue for batch in late.overview().batches)
    assert late.status().counts["overdue"] == len(late.overview().batches)
    stage.vendors["aurora"].work(truth, NOW)
    late.collect("aurora")
    assert {batch.vendor for batch in late.overview().batches if batch.is_overdue} == {"borealis"}


def test_status_of_a_vendor_says_what_is_wrong_with_its_file(stage: Stage, courier: Courier) -> None:
    assert courier.status(vendor="aurora").lines
    write_vendor(stage.folder / "vendors", "aurora", stage.vendors["aurora"].key, NIGHT, hours_per_nigth=3)
    with pytest.raises(SettingsInvalid, match="hours_per_night"):
        courier.status(vendor="aurora")


def test_overview_can_be_of_one_vendor_or_another_night(courier: Courier) -> None:
    courier.night(NIGHT)
    assert {batch.vendor for batch in courier.overview(vendor="aurora").batches} == {"aurora"}
    assert courier.overview(night=NIGHT - timedelta(days=1)).nights == []


def test_keys_that_expire_within_thirty_days_are_told_of_everywhere(
    stage: Stage, make_courier: Callable[..., Courier], caplog: pytest.LogCaptureFixture
) -> None:
    soon = make_key("aurora, ends soon", expires="40d", made_at=NOW - timedelta(days=20))
    write_vendor(stage.folder / "vendors", "aurora", soon, NIGHT)
    with caplog.at_level("WARNING", "clip_courier"):
        outcome = make_courier(stage).night(NIGHT)
    told = f"key {soon.fingerprint} of vendor aurora expires on 2026-12-10"
    assert [line for line in outcome.lines if told in line]
    assert [record for record in caplog.records if record.levelname == "WARNING" and told in record.message]
    # Ours and the other vendor's are good for longer, and told of only when that is over.
    assert "of ours" not in caplog.text
    assert soon.fingerprint in "".join(make_courier(stage).status().lines)
    assert make_courier(stage).status().counts["expiring_keys"] == 1
    early = make_courier(stage, NOW - timedelta(days=11)).overview()
    assert {key.vendor for key in early.keys} == {"aurora", "borealis"}
    assert [key.is_ours for key in early.keys] == [False, False, True]
    assert not any(key.is_expiring for key in early.keys)
    late = make_courier(stage, NOW + timedelta(days=600)).overview()
    assert all(key.is_expiring for key in late.keys)
    assert {key.vendor for key in make_courier(stage).overview(vendor="borealis").keys} == {"borealis"}
