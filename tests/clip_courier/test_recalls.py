"""A withdrawal after delivery: the vendor is told and answers, and our own copies are gone to the byte."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clip_courier import batch_files, facts, loading, recalls, sftp, warehouse
from clip_courier.courier import Courier
from clip_courier.errors import KeyUnusable, LeakFound, ServerUnreachable, TransferFailed, VendorUnknown
from clip_courier.ledger import Ledger, Recall
from clip_courier.model import stamp
from clip_courier.pgp import OwnKey, open_keyring
from clip_courier_demo.keys import KeyPair, make_key
from clip_courier_demo.stage import Stage, write_vendor
from conftest import NIGHT, NOW
from snapshots import (
    LATER,
    MakeCourier,
    crosswalk_of,
    delivered,
    files_under,
    landing_copy,
    manifested,
    persons_of,
    refs_with,
    returned,
    withdraw,
)

AURORA, BOREALIS = "aurora-20261120-001", "borealis-20261120-001"
NAME = f"{AURORA}.1.json.pgp"


class Crash(Exception):
    """Stands for the end of the process."""


def _recalls(stage: Stage, vendor: str = "aurora") -> list[Recall]:
    return Ledger(f"sqlite:///{stage.root / 'ledger.sqlite'}").recalls(vendor)


def _withdrawn(stage: Stage, make_courier: MakeCourier, landing: Path, persons: set[str]) -> Courier:
    """A courier that knows of the persons' withdrawals."""
    withdraw(landing, persons, LATER)
    return make_courier(stage, LATER, CLIP_COURIER_LANDING=str(landing))


def _somebody(crosswalk: pa.Table) -> tuple[set[str], set[str]]:
    """A person, and the refs of every clip in which the person is audible."""
    persons = {min(persons_of(crosswalk, set(crosswalk["clip_ref"].to_pylist())))}
    return persons, refs_with(crosswalk, persons)


def _notice(stage: Stage, vendor: str = "aurora", name: str = NAME) -> dict[str, Any]:
    """The notice as the vendor opens it, signed by us."""
    sealed = (stage.vendors[vendor].home / "recalls" / name).read_bytes()
    key = stage.vendors[vendor].key
    with open_keyring(OwnKey(key.fingerprint, key.private_key), [stage.our_key.public_key]) as keyring:
        return dict(json.loads(keyring.open_bytes(sealed, signers={stage.our_key.fingerprint}, max_bytes=1 << 20)))


def _receipt(stage: Stage, signer: KeyPair, content: bytes) -> None:
    with open_keyring(OwnKey(signer.fingerprint, signer.private_key), [stage.our_key.public_key]) as keyring:
        sealed = keyring.seal_bytes(content, recipient=stage.our_key.fingerprint, at=LATER)
    (stage.vendors["aurora"].home / "receipts" / NAME).write_bytes(sealed)


def test_recall_tells_the_vendor_which_clips(
    stage: Stage, make_courier: MakeCourier, truth: dict[str, str], tmp_path: Path
) -> None:
    returned(stage, make_courier, truth)
    persons, gone = _somebody(crosswalk_of(stage, AURORA))
    courier = _withdrawn(stage, make_courier, landing_copy(stage, tmp_path), persons)
    outcome = courier.recall()
    assert outcome.is_new
    notice = _notice(stage)
    assert set(notice["clip_refs"]) == gone
    assert (notice["batch_id"], notice["n"]) == (AURORA, 1)
    assert notice["delete_by"] > stamp(LATER)
    (recall,) = _recalls(stage)
    assert (recall.state, recall.clip_count) == ("NOTICED", len(gone))
    assert not courier.recall().is_new
    assert courier.verify().counts["batches"] == 2


def test_recall_forgets_to_the_byte(
    stage: Stage, make_courier: MakeCourier, truth: dict[str, str], tmp_path: Path
) -> None:
    """Every Parquet value and every raw byte under the root, before and after: persons, refs, transcripts."""
    returned(stage, make_courier, truth)
    make_courier(stage).load()
    before = crosswalk_of(stage, AURORA)
    persons, gone = _somebody(before)
    rows = [row for row in before.to_pylist() if row["clip_ref"] in gone]
    chosen = pq.read_table(stage.root / "crosswalk" / NIGHT.isoformat() / "selected.parquet").to_pylist()
    others = [row for row in chosen if not persons & set(row["person_ids"])]
    everyone = {person for row in others for person in row["person_ids"]}
    alone = {person for row in rows for person in row["person_ids"]} - everyone
    assert persons <= alone
    calls = {row["call_id"] for row in rows} - {None}
    keys = {row["clip_key"] for row in rows}
    raw = alone | calls
    for marker in alone:
        assert _holding(stage, marker)
    courier = _withdrawn(stage, make_courier, landing_copy(stage, tmp_path), persons)
    courier.recall()
    assert {marker: _holding(stage, marker) for marker in raw if _holding(stage, marker)} == {}
    tombstone = stage.root / "crosswalk" / "recalled" / f"{AURORA}.1.parquet"
    for row in rows:
        assert set(_holding(stage, row["clip_id"])) == {tombstone}
        assert set(_holding(stage, row["clip_ref"])) == {tombstone}
    warehouse = stage.root / "warehouse" / "clip_courier.duckdb"
    assert [key for key in keys if warehouse in _holding(stage, key)] == []


def _holding(stage: Stage, marker: str) -> list[Path]:
    """The files under the root in which a string stands, in plain bytes or inside Parquet."""
    found = []
    for path in files_under(stage.root):
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            # SQLite removes its own beside the ledger when the last one closes it.
            continue
        if path.name.endswith((".parquet", ".parquet.part")):
            content += repr(pq.read_table(path).to_pylist()).encode()
        if marker.encode() in content:
            found.append(path)
    return found


def test_recall_takes_what_a_killed_run_left_half_written(
    stage: Stage, make_courier: MakeCourier, tmp_path: Path
) -> None:
    delivered(stage, make_courier)
    persons, _ = _somebody(crosswalk_of(stage, AURORA))
    whole = stage.root / "crosswalk" / NIGHT.isoformat() / "selected.parquet"
    # Under a name that no later write takes over.
    leftover = whole.with_name(".of-another-time.parquet.part")
    leftover.write_bytes(whole.read_bytes())
    courier = _withdrawn(stage, make_courier, landing_copy(stage, tmp_path), persons)
    courier.recall()
    assert not leftover.exists()
    assert [_holding(stage, person) for person in persons] == [[]]


def test_recall_of_what_was_selected_and_never_cut(stage: Stage, make_courier: MakeCourier, tmp_path: Path) -> None:
    """Gone from the sample, and its reason is kept: nothing is lost in silence."""
    courier = make_courier(stage)
    courier.select(NIGHT)
    courier.validate(NIGHT)
    place = stage.root / "crosswalk" / NIGHT.isoformat() / "validated.parquet"
    rows = pq.read_table(place).to_pylist()
    persons = {min(person for row in rows for person in row["person_ids"])}
    keys = {row["clip_key"] for row in rows if set(row["person_ids"]) & persons}
    courier = _withdrawn(stage, make_courier, landing_copy(stage, tmp_path), persons)
    assert courier.recall().is_new
    assert not courier.recall().is_new
    assert [_holding(stage, person) for person in persons] == [[]]
    courier.manifest(NIGHT)
    courier.deliver(NIGHT)
    courier.load()
    left_out = stage.root / "nights" / NIGHT.isoformat() / "left_out" / "withdrawn.parquet"
    assert {row["clip_key"]: row["reason"] for row in pq.read_table(left_out).to_pylist()} == dict.fromkeys(
        keys, "withdrawn"
    )


def test_recall_never_selects_again(stage: Stage, make_courier: MakeCourier, tmp_path: Path) -> None:
    from datetime import timedelta

    delivered(stage, make_courier)
    crosswalk = crosswalk_of(stage, AURORA)
    persons, gone = _somebody(crosswalk)
    ids = {row["clip_id"] for row in crosswalk.to_pylist() if row["clip_ref"] in gone}
    landing = landing_copy(stage, tmp_path)
    _withdrawn(stage, make_courier, landing, persons).recall()
    # Even when landing forgets that there was a withdrawal.
    for path in (landing / "consent_events").glob("late-*"):
        path.unlink()
    next_night = NIGHT + timedelta(days=1)
    outcome = make_courier(stage, NOW + timedelta(days=1), CLIP_COURIER_LANDING=str(landing)).select(next_night)
    sample = pq.read_table(stage.root / "crosswalk" / next_night.isoformat() / "selected.parquet")
    assert not ids & set(sample["clip_id"].to_pylist())
    refused = outcome.counts["refused"]
    assert isinstance(refused, dict)
    assert refused["recalled"] == len(ids)


def test_collect_a_late_return_of_a_recalled_clip(
    stage: Stage, make_courier: MakeCourier, truth: dict[str, str], tmp_path: Path
) -> None:
    delivered(stage, make_courier)
    crosswalk = crosswalk_of(stage, AURORA)
    persons, gone = _somebody(crosswalk)
    courier = _withdrawn(stage, make_courier, landing_copy(stage, tmp_path), persons)
    courier.recall()
    stage.vendors["aurora"].work(truth, LATER)
    outcome = courier.collect("aurora")
    assert (outcome.counts["accepted"], outcome.counts["rejected"]) == (crosswalk.num_rows - len(gone), len(gone))
    report = json.loads((stage.vendors["aurora"].home / "reports" / f"{AURORA}.1.json").read_text())
    assert {row["clip_ref"]: row["code"] for row in report["rejected"]} == dict.fromkeys(gone, "recalled")
    # The vendor had been told: it is on record as a breach, and shown as one.
    [counts] = Ledger(f"sqlite:///{stage.root / 'ledger.sqlite'}").row_counts("aurora")
    assert (counts.received_rows, counts.rejected_rows, counts.breach_rows) == (
        crosswalk.num_rows,
        len(gone),
        len(gone),
    )
    assert outcome.counts["breach"] == len(gone)
    status = courier.status()
    assert status.counts["breaches"] == len(gone)
    assert [line for line in status.lines if "ALERT" in line]
    spoken = files_under(stage.root / "crosswalk" / "returns")
    assert not gone & {ref for path in spoken for ref in pq.read_table(path)["clip_ref"].to_pylist()}


# -- receipts --------------------------------------------------------------------------------------------------


def _noticed(stage: Stage, make_courier: MakeCourier, tmp_path: Path) -> tuple[Courier, dict[str, Any]]:
    delivered(stage, make_courier)
    persons, _ = _somebody(crosswalk_of(stage, AURORA))
    courier = _withdrawn(stage, make_courier, landing_copy(stage, tmp_path), persons)
    courier.recall()
    return courier, _notice(stage)


def test_recall_takes_a_signed_receipt(
    stage: Stage, make_courier: MakeCourier, truth: dict[str, str], tmp_path: Path
) -> None:
    courier, _ = _noticed(stage, make_courier, tmp_path)
    stage.vendors["aurora"].work(truth, LATER)
    assert courier.recall().is_new
    assert [recall.state for recall in _recalls(stage)] == ["RECEIPTED"]
    assert not courier.recall().is_new


def _told(stage: Stage) -> dict[str, Any]:
    path = stage.vendors["aurora"].home / "reports" / f"{AURORA}.recall-1.json"
    return dict(json.loads(path.read_text(encoding="utf-8")))


def test_recall_tells_the_vendor_what_is_wrong_with_its_receipt(
    stage: Stage, make_courier: MakeCourier, tmp_path: Path
) -> None:
    courier, notice = _noticed(stage, make_courier, tmp_path)
    key, refs = stage.vendors["aurora"].key, notice["clip_refs"]
    _receipt(stage, key, json.dumps({"batch_id": AURORA, "n": 1, "clip_refs": refs[1:]}).encode())
    assert courier.recall().is_new
    told = _told(stage)
    assert (told["state"], told["reason"], told["missing_clip_refs"]) == ("refused", "incomplete", refs[:1])
    assert told["fix"] == recalls.RECEIPT_FIXES["incomplete"]
    # Told once; the receipt that lies there stays refused.
    again = courier.recall()
    assert not again.is_new
    assert "refused_receipts" in str(again.counts)
    _receipt(stage, make_key("mallory"), json.dumps({"batch_id": AURORA, "n": 1, "clip_refs": refs}).encode())
    courier.recall()
    assert (_told(stage)["reason"], _told(stage)["fix"]) == ("wrong_signer", recalls.FILE_FIX)
    _receipt(stage, key, json.dumps({"batch_id": AURORA, "n": 1, "clip_refs": refs}).encode())
    courier.recall()
    assert (_told(stage)["state"], _told(stage)["reason"]) == ("accepted", None)
    assert courier.verify()


def test_collect_of_a_clip_that_the_vendor_cannot_know_is_recalled_is_no_breach(
    stage: Stage, make_courier: MakeCourier, truth: dict[str, str], tmp_path: Path
) -> None:
    delivered(stage, make_courier)
    persons, gone = _somebody(crosswalk_of(stage, AURORA))
    landing = landing_copy(stage, tmp_path)
    withdraw(landing, persons, LATER)
    fields = json.loads(stage.environ["AIRFLOW_CONN_SFTP_AURORA"])
    down = {"AIRFLOW_CONN_SFTP_AURORA": json.dumps({**fields, "port": 1}), "CLIP_COURIER_LANDING": str(landing)}
    make_courier(stage, LATER, **down).recall()
    stage.vendors["aurora"].work(truth, LATER)
    outcome = make_courier(stage, LATER, CLIP_COURIER_LANDING=str(landing)).collect("aurora")
    assert outcome.counts["rejected"] == len(gone)
    assert "breach" not in outcome.counts


def test_recall_takes_no_other_receipt(stage: Stage, make_courier: MakeCourier, tmp_path: Path) -> None:
    courier, notice = _noticed(stage, make_courier, tmp_path)
    place = stage.vendors["aurora"].home / "receipts" / NAME
    key = stage.vendors["aurora"].key
    right = json.dumps({name: notice[name] for name in ("batch_id", "n", "clip_refs")})
    wrong: list[dict[str, Any]] = [
        {"clip_refs": notice["clip_refs"][1:]},
        {"clip_refs": [[]]},
        {"clip_refs": None},
        {"n": 2},
        {"batch_id": BOREALIS},
    ]
    contents = [json.dumps({**json.loads(right), **change}).encode() for change in wrong]
    contents += [b"[" * 100_000, b"not json", b"\xff", b"[]"]
    for content in contents:
        _receipt(stage, key, content)
        assert "refused_receipts" in str(courier.recall().counts)
        assert [recall.state for recall in _recalls(stage)] == ["NOTICED"], content[:80]
    _receipt(stage, make_key("mallory"), right.encode())
    courier.recall()
    place.write_bytes(right.encode())
    courier.recall()
    assert [recall.state for recall in _recalls(stage)] == ["NOTICED"]
    place.write_bytes(b"x" * (2 << 20))
    assert [type(failed) for failed in courier.recall().failures] == [TransferFailed]
    _receipt(stage, key, right.encode())
    courier.recall()
    assert [recall.state for recall in _recalls(stage)] == ["RECEIPTED"]


# -- what goes wrong -------------------------------------------------------------------------------------------


def test_recall_a_second_time_for_others(stage: Stage, make_courier: MakeCourier, tmp_path: Path) -> None:
    courier, first = _noticed(stage, make_courier, tmp_path / "first")
    persons, gone = _somebody(crosswalk_of(stage, AURORA))
    courier = _withdrawn(stage, make_courier, tmp_path / "first", persons)
    courier.recall()
    assert set(_notice(stage, name=f"{AURORA}.2.json.pgp")["clip_refs"]) == gone
    assert not gone & set(first["clip_refs"])
    assert [recall.n for recall in _recalls(stage)] == [1, 2]


STEPS: list[tuple[Any, str, int]] = [
    *[(recalls, "write_parquet", n) for n in (1, 2, 3, 4)],
    *[(batch_files, "write_parquet", n) for n in (1, 2)],
    (Ledger, "add_recall", 1),
    (sftp.Drop, "put_many", 1),
    (Ledger, "move_recall", 1),
]


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(("owner", "step", "times"), STEPS)
def test_recall_after_a_crash_at_any_step(
    stage: Stage,
    make_courier: MakeCourier,
    truth: dict[str, str],
    tmp_path: Path,
    owner: Any,
    step: str,
    times: int,
    after: bool,
) -> None:
    returned(stage, make_courier, truth)
    persons, gone = _somebody(crosswalk_of(stage, AURORA))
    courier = _withdrawn(stage, make_courier, landing_copy(stage, tmp_path), persons)
    inner, left = getattr(owner, step), [times]

    def crash(*arguments: Any, **options: Any) -> Any:
        left[0] -= 1
        if left[0] == 0 and not after:
            raise Crash
        result = inner(*arguments, **options)
        if left[0] == 0:
            raise Crash
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, step, crash)
        with pytest.raises(Crash):
            courier.recall("aurora")
    assert courier.verify().counts["batches"] == 2
    courier.recall("aurora")
    (recall,) = _recalls(stage)
    assert (recall.state, recall.clip_count) == ("NOTICED", len(gone))
    assert set(_notice(stage)["clip_refs"]) == gone
    assert [_holding(stage, person) for person in persons] == [[]]
    assert courier.verify().counts["batches"] == 2


@pytest.mark.parametrize(
    ("owner", "step", "after"),
    [
        (facts, "_without", True),
        (facts, "write_text", False),
        (facts, "write_text", True),
        (warehouse, "_estimate", True),
        (warehouse, "publish", True),
        (loading, "write_text", True),
    ],
)
def test_recall_killed_anywhere_leaves_no_byte_in_the_warehouse(
    stage: Stage,
    make_courier: MakeCourier,
    truth: dict[str, str],
    tmp_path: Path,
    owner: Any,
    step: str,
    after: bool,
) -> None:
    """A process that dies while it erases; the next `recall` finds what is left to do, and a third one nothing."""
    returned(stage, make_courier, truth).load()
    crosswalk = crosswalk_of(stage, AURORA)
    persons, gone = _somebody(crosswalk)
    keys = [row["clip_key"] for row in crosswalk.to_pylist() if row["clip_ref"] in gone]
    landing = landing_copy(stage, tmp_path)
    withdraw(landing, persons, LATER)
    published = stage.root / "warehouse" / "clip_courier.duckdb"
    assert all(published in _holding(stage, key) for key in keys)
    inner = getattr(owner, step)

    def die(*arguments: Any, **options: Any) -> None:
        if after:
            inner(*arguments, **options)
        os.kill(os.getpid(), signal.SIGKILL)

    pid = os.fork()
    if pid == 0:
        setattr(owner, step, die)
        make_courier(stage, LATER, CLIP_COURIER_LANDING=str(landing)).recall("aurora")
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    courier = make_courier(stage, LATER, CLIP_COURIER_LANDING=str(landing))
    courier.recall("aurora")
    tombstone = stage.root / "crosswalk" / "recalled" / f"{AURORA}.1.parquet"
    assert {key: _holding(stage, key) for key in keys if set(_holding(stage, key)) - {tombstone}} == {}
    assert not courier.recall("aurora").is_new


def test_recall_forgets_also_when_no_vendor_can_be_told(
    stage: Stage, make_courier: MakeCourier, tmp_path: Path
) -> None:
    delivered(stage, make_courier)
    persons, gone = _somebody(crosswalk_of(stage, AURORA))
    landing = landing_copy(stage, tmp_path)
    withdraw(landing, persons, LATER)
    fields = json.loads(stage.environ["AIRFLOW_CONN_SFTP_AURORA"])
    down = {"AIRFLOW_CONN_SFTP_AURORA": json.dumps({**fields, "port": 1}), "CLIP_COURIER_LANDING": str(landing)}
    outcome = make_courier(stage, LATER, **down).recall()
    assert [type(failed) for failed in outcome.failures] == [ServerUnreachable]
    assert [_holding(stage, person) for person in persons] == [[]]
    courier = make_courier(stage, LATER, CLIP_COURIER_LANDING=str(landing))
    (stage.folder / "vendors" / "aurora.yaml").unlink()
    assert [type(failed) for failed in courier.recall().failures] == [VendorUnknown]
    key = make_key("aurora, expired", expires="1d", made_at=NOW.replace(year=2020))
    write_vendor(stage.folder / "vendors", "aurora", key, NIGHT)
    assert [type(failed) for failed in courier.recall().failures] == [KeyUnusable]
    write_vendor(stage.folder / "vendors", "aurora", stage.vendors["aurora"].key, NIGHT)
    assert not courier.recall().failures
    assert set(_notice(stage)["clip_refs"]) == gone


def test_recall_for_one_vendor_leaves_the_other(stage: Stage, make_courier: MakeCourier, tmp_path: Path) -> None:
    delivered(stage, make_courier)
    both = [_somebody(crosswalk_of(stage, batch_id)) for batch_id in (AURORA, BOREALIS)]
    courier = _withdrawn(stage, make_courier, landing_copy(stage, tmp_path), both[0][0] | both[1][0])
    courier.recall("borealis")
    assert _recalls(stage, "aurora") == []
    assert [recall.state for recall in _recalls(stage, "borealis")] == ["NOTICED"]
    courier.recall()
    assert [recall.state for recall in _recalls(stage, "aurora")] == ["NOTICED"]


def test_recall_without_a_withdrawal_changes_nothing(stage: Stage, make_courier: MakeCourier) -> None:
    courier = manifested(stage, make_courier)
    before = {path: path.read_bytes() for path in files_under(stage.root) if path.suffix == ".parquet"}
    assert not courier.recall().is_new
    assert {path: path.read_bytes() for path in files_under(stage.root) if path.suffix == ".parquet"} == before


# -- the leak gate ---------------------------------------------------------------------------------------------


def test_recall_sends_no_notice_that_names_someone(stage: Stage, make_courier: MakeCourier, tmp_path: Path) -> None:
    """A tombstone holds clips' own ids in the place of their refs; the other vendor is told."""
    delivered(stage, make_courier)
    lists = [crosswalk_of(stage, batch_id) for batch_id in (AURORA, BOREALIS)]
    everyone = {person for rows in lists for person in _somebody(rows)[0]}
    courier = _withdrawn(stage, make_courier, landing_copy(stage, tmp_path), everyone)
    recalls.open_recalls(courier._root, courier._ledger, courier._refusals, LATER)
    tombstone = stage.root / "crosswalk" / "recalled" / f"{AURORA}.1.parquet"
    rows = pq.read_table(tombstone)
    pq.write_table(rows.set_column(1, "clip_ref", rows["clip_id"]), tombstone)
    outcome = courier.recall()
    (leak,) = outcome.failures
    assert isinstance(leak, LeakFound)
    assert leak.member == NAME
    assert not any(clip_id in str(leak) for clip_id in rows["clip_id"].to_pylist())
    assert not (stage.vendors["aurora"].home / "recalls" / NAME).exists()
    assert len(list((stage.vendors["borealis"].home / "recalls").iterdir())) == 1
    assert next(one.state for one in _recalls(stage) if one.n == 1) == "OPEN"
    pq.write_table(rows, tombstone)
    assert not courier.recall().failures
    assert set(_notice(stage)["clip_refs"]) == set(rows["clip_ref"].to_pylist())


def test_recall_answers_no_receipt_with_what_names_someone(
    stage: Stage, make_courier: MakeCourier, tmp_path: Path
) -> None:
    """A receipt leaves a clip out, and what is asked for again is told by the clip's own id."""
    delivered(stage, make_courier)
    persons, _ = _somebody(crosswalk_of(stage, AURORA))
    courier = _withdrawn(stage, make_courier, landing_copy(stage, tmp_path), persons)
    courier.recall()
    _receipt(stage, stage.vendors["aurora"].key, json.dumps({"batch_id": AURORA, "n": 1, "clip_refs": []}).encode())
    tombstone = stage.root / "crosswalk" / "recalled" / f"{AURORA}.1.parquet"
    rows = pq.read_table(tombstone)
    pq.write_table(rows.set_column(1, "clip_ref", rows["clip_id"]), tombstone)
    assert [type(failure) for failure in courier.recall().failures] == [LeakFound]
    assert list((stage.vendors["aurora"].home / "reports").iterdir()) == []
    pq.write_table(rows, tombstone)
    assert not courier.recall().failures
    (report,) = (stage.vendors["aurora"].home / "reports").iterdir()
    assert json.loads(report.read_text())["missing_clip_refs"] == sorted(rows["clip_ref"].to_pylist())
