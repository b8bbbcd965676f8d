"""Returns on a real server, sealed by real keys: what is believed, what is refused, and that nothing is lost."""

import hashlib
import json
import logging
import re
import resource
import subprocess
import time
import zlib
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clip_courier import inbound, pgp, sftp
from clip_courier.errors import CourierError, CrosswalkMissing, LeakFound, ReturnOverdue, TransferFailed
from clip_courier.inbound import FILE_FIXES, ROW_CODES
from clip_courier.ledger import Ledger, Return
from clip_courier.model import Outcome, stamp
from clip_courier.openpgp_rules import SIGNATURE_FAULTS
from clip_courier.pgp import OwnKey, open_keyring
from clip_courier_demo.keys import KeyPair, make_key
from clip_courier_demo.stage import Stage
from conftest import NIGHT, NOW
from snapshots import LATER, MakeCourier, crosswalk_of, delivered, files_under, landing_copy

AURORA, BOREALIS = "aurora-20261120-001", "borealis-20261120-001"
SECRET = "the words that only the transcriber heard"


def _ledger(stage: Stage) -> Ledger:
    return Ledger(f"sqlite:///{stage.root / 'ledger.sqlite'}")


def _returns(stage: Stage, vendor: str = "aurora") -> dict[tuple[str, int], Return]:
    return {(r.batch_id, r.n): r for r in _ledger(stage).returns(vendor)}


def _refs(stage: Stage, batch_id: str = AURORA) -> list[str]:
    return list(crosswalk_of(stage, batch_id)["clip_ref"].to_pylist())


def _row(ref: object, **changes: Any) -> dict[str, Any]:
    row = {"clip_ref": ref, "status": "transcribed", "text": SECRET, "annotator_ref": "t1"}
    return {**row, "submitted_at": stamp(NOW), "revision": 0, **changes}


def _jsonl(*rows: object) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def _seal(stage: Stage, content: bytes, signer: KeyPair) -> bytes:
    with open_keyring(OwnKey(signer.fingerprint, signer.private_key), [stage.our_key.public_key]) as keyring:
        return keyring.seal_bytes(content, recipient=stage.our_key.fingerprint, at=NOW)


def _put(stage: Stage, name: str, sealed: bytes, *, vendor: str = "aurora", **ready: Any) -> None:
    """A file and the ready file that announces it, under a number."""
    folder = stage.vendors[vendor].home / "returns"
    (folder / name).write_bytes(sealed)
    announced = {"size_bytes": len(sealed), "sha256": hashlib.sha256(sealed).hexdigest(), **ready}
    batch_id, n, *_ = name.split(".")
    (folder / f"{batch_id}.{n}.ready.json").write_text(json.dumps(announced), encoding="utf-8")


def _send(stage: Stage, *rows: object, n: int = 1, batch_id: str = AURORA, vendor: str = "aurora") -> None:
    sealed = _seal(stage, _jsonl(*rows), stage.vendors[vendor].key)
    _put(stage, f"{batch_id}.{n}.jsonl.pgp", sealed, vendor=vendor)


def _report(stage: Stage, n: int = 1, batch_id: str = AURORA, vendor: str = "aurora") -> dict[str, Any]:
    path = stage.vendors[vendor].home / "reports" / f"{batch_id}.{n}.json"
    return dict(json.loads(path.read_text(encoding="utf-8")))


def _accepted(stage: Stage, n: int = 1, batch_id: str = AURORA) -> list[dict[str, Any]]:
    return list(pq.read_table(stage.root / "crosswalk" / "returns" / f"{batch_id}.{n}.parquet").to_pylist())


def _warehouse(stage: Stage, query: str) -> list[tuple[Any, ...]]:
    with duckdb.connect(str(stage.root / "warehouse" / "clip_courier.duckdb"), read_only=True) as connection:
        return connection.execute(query).fetchall()


def _counts(outcome: Outcome) -> tuple[object, ...]:
    """files, accepted, rejected, refused whole."""
    return tuple(outcome.counts[name] for name in ("files", "accepted", "rejected", "refused_files"))


# -- rows ------------------------------------------------------------------------------------------------------


def test_collect_one_bad_row_of_every_code(stage: Stage, make_courier: MakeCourier) -> None:
    courier = delivered(stage, make_courier)
    refs = iter(_refs(stage))
    good = next(refs)
    bad: list[tuple[object, str]] = [
        ("not a row", "unreadable_row"),
        (_row(17), "bad_clip_ref"),
        (_row("b" * 32), "unknown_ref"),
        (_row("Jane Doe of 5 Mill Lane"), "unknown_ref"),
        (_row(None), "unknown_ref"),
        (_row(next(refs), status="done"), "bad_status"),
        (_row(next(refs), status=None), "bad_status"),
        (_row(next(refs), text="x" * 20_001), "bad_text"),
        (_row(next(refs), text=" \u00a0\u200b "), "missing_text"),
        (_row(next(refs), annotator_ref=5), "bad_annotator_ref"),
        (_row(next(refs), annotator_ref=" "), "missing_annotator"),
        (_row(next(refs), submitted_at="20 November"), "bad_submitted_at"),
        (_row(next(refs), chosen_rank=0), "bad_chosen_rank"),
        (_row(next(refs), chosen_rank=128), "bad_chosen_rank"),
        (_row(next(refs), revision=-1), "bad_revision"),
        (_row(next(refs), note=["a"]), "bad_note"),
        (_row(good), "duplicate"),
    ]
    assert {code for _, code in bad} | {"recalled", "other_batch", "not_utf8", "row_too_long"} == set(ROW_CODES)
    _send(stage, _row(good), *(row for row, _ in bad))
    outcome = courier.collect("aurora")
    assert _counts(outcome) == (1, 1, len(bad), 0)
    report = _report(stage)
    assert [(row["row_number"], row["code"]) for row in report["rejected"]] == [
        (number, code) for number, (_, code) in enumerate(bad, start=2)
    ]
    assert all(row["fix"] == ROW_CODES[row["code"]] for row in report["rejected"])
    assert (report["state"], report["accepted_rows"], report["rejected_rows"]) == ("accepted", 1, len(bad))
    text = json.dumps(report)
    assert SECRET not in text
    assert "Jane" not in text
    assert [row["clip_ref"] for row in _accepted(stage)] == [good]


def test_collect_says_which_rows_are_not_utf8(stage: Stage, make_courier: MakeCourier) -> None:
    courier = delivered(stage, make_courier)
    one, two = _refs(stage)[:2]
    content = _jsonl(_row(one)) + _jsonl(_row(two, text="cafe")).replace(b"cafe", b"caf\xe9")
    _put(stage, f"{AURORA}.1.jsonl.pgp", _seal(stage, content, stage.vendors["aurora"].key))
    assert _counts(courier.collect("aurora")) == (1, 1, 1, 0)
    [row] = _report(stage)["rejected"]
    assert (row["row_number"], row["code"], row["fix"]) == (2, "not_utf8", ROW_CODES["not_utf8"])


def test_collect_rows_of_the_vendors_other_batches(stage: Stage, make_courier: MakeCourier) -> None:
    """It is told which row belongs elsewhere, and nothing of what other vendors have."""
    tomorrow = NIGHT + timedelta(days=1)
    courier = delivered(stage, make_courier)
    make_courier(stage, NOW + timedelta(days=1)).night(tomorrow)
    other = _ledger(stage).batches(vendor="aurora", night=tomorrow)[0]
    place = stage.root / "crosswalk" / tomorrow.isoformat() / f"{other.batch_id}.crosswalk.parquet"
    elsewhere = pq.read_table(place)["clip_ref"][0].as_py()
    _send(stage, _row(elsewhere), _row(_refs(stage, BOREALIS)[0]), _row(_refs(stage)[0]))
    assert _counts(courier.collect("aurora")) == (1, 1, 2, 0)
    assert [row["code"] for row in _report(stage)["rejected"]] == ["other_batch", "unknown_ref"]


def test_collect_reports_each_code_once_and_lists_only_so_many(
    stage: Stage, make_courier: MakeCourier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbound, "_MAX_LISTED", 2)
    courier = delivered(stage, make_courier)
    _send(stage, *[_row("b" * 32)] * 3, *[_row(_refs(stage)[0], status="x")] * 2, _row(_refs(stage)[0]))
    courier.collect("aurora")
    report = _report(stage)
    assert report["rejected_by_code"] == {"bad_status": 2, "unknown_ref": 3}
    assert (report["received_rows"], report["accepted_rows"], report["rejected_rows"]) == (6, 1, 5)
    assert ([row["row_number"] for row in report["rejected"]], report["not_listed_rows"]) == ([1, 2], 3)


def test_every_reason_to_refuse_a_file_says_what_to_do() -> None:
    """Found in the code itself: no refusal without a way out for the vendor."""
    package = Path(inbound.__file__).parent
    reasons = {reason for reason, _ in SIGNATURE_FAULTS.values()}
    for path in package.glob("*.py"):
        text = path.read_text(encoding="utf-8")
        reasons |= set(re.findall(r'Return(?:Untrusted|Unreadable)\(\s*"(\w+)"', text))
        reasons |= set(re.findall(r'return "(\w+)", "it is not', text))
    assert reasons == set(FILE_FIXES)


# -- what must alert somebody ----------------------------------------------------------------------------------


def test_collect_withholds_what_is_sensitive_at_once_and_raises_an_alarm(
    stage: Stage, make_courier: MakeCourier, caplog: pytest.LogCaptureFixture
) -> None:
    """Transcribed, loaded and read by analysts; then the vendor says what it is: gone without another verb."""
    courier = delivered(stage, make_courier)
    one, two, three = _refs(stage)[:3]
    _send(stage, _row(one, text="yes"), _row(two, text="yes"), _row(three, text="yes"))
    courier.returns("aurora")
    assert _warehouse(stage, "SELECT count(*) FROM transcripts") == [(3,)]
    _send(stage, _row(one, status="sensitive", revision=1), _row(two, status="distress", revision=1), n=2)
    with caplog.at_level(logging.WARNING, "clip_courier"):
        outcome = courier.collect("aurora")
    assert (outcome.counts["sensitive"], outcome.counts["distress"]) == (1, 1)
    assert _warehouse(stage, "SELECT count(*), min(status) FROM transcripts") == [(1, "transcribed")]
    assert _warehouse(stage, "SELECT count(*) FROM scores") <= [(1,)]
    logged = {(record.levelname, "distress" in record.getMessage()) for record in caplog.records}
    assert {("WARNING", False), ("ERROR", True)} <= logged
    assert SECRET not in caplog.text
    status = courier.status()
    assert (status.counts["sensitive"], status.counts["distress"]) == (1, 1)
    assert [line for line in status.lines if "ALERT" in line and "distress" in line]


def test_collect_withholds_also_what_a_run_that_broke_off_took(
    stage: Stage, make_courier: MakeCourier, monkeypatch: pytest.MonkeyPatch
) -> None:
    from clip_courier.courier import Courier

    courier = delivered(stage, make_courier)
    ref = _refs(stage)[0]
    _send(stage, _row(ref))
    courier.returns("aurora")
    _send(stage, _row(ref, status="distress", revision=1), n=2)

    class Crash(Exception):
        pass

    def crash(_: object) -> Outcome:
        raise Crash

    with monkeypatch.context() as patch, pytest.raises(Crash):
        patch.setattr(Courier, "load", crash)
        courier.collect("aurora")
    assert _warehouse(stage, "SELECT count(*) FROM transcripts") == [(1,)]
    make_courier(stage).collect("aurora")
    assert _warehouse(stage, "SELECT count(*) FROM transcripts") == [(0,)]


def test_collect_says_what_is_overdue_until_every_clip_is_answered(
    stage: Stage, make_courier: MakeCourier, caplog: pytest.LogCaptureFixture
) -> None:
    delivered(stage, make_courier)
    refs = _refs(stage)
    late = make_courier(stage, NOW + timedelta(days=30))
    # One clip answered as often as there are clips: all others are owed.
    _send(stage, *[_row(refs[0], revision=n) for n in range(len(refs))])
    with caplog.at_level(logging.WARNING, "clip_courier"):
        assert late.collect("aurora").counts["overdue"] == 1
    assert f"{len(refs) - 1} clips are owed" in caplog.text
    [failure, *_] = late.overdue("aurora").failures
    assert type(failure) is ReturnOverdue
    assert not make_courier(stage).overdue().failures
    _send(stage, *[_row(ref, status="no_speech", text=None) for ref in refs[1:]], n=9)
    assert "overdue" not in late.collect("aurora").counts
    assert not late.overdue("aurora").failures


def test_collect_a_good_row_after_its_bad_twin(stage: Stage, make_courier: MakeCourier) -> None:
    courier = delivered(stage, make_courier)
    ref = _refs(stage)[0]
    _send(stage, _row(ref, status="oops"), _row(ref), _row(ref, text="once more"))
    assert _counts(courier.collect("aurora")) == (1, 1, 2, 0)
    assert [row["code"] for row in _report(stage)["rejected"]] == ["bad_status", "duplicate"]
    assert [row["text"] for row in _accepted(stage)] == [SECRET]


def test_collect_revisions(stage: Stage, make_courier: MakeCourier, tmp_path: Path) -> None:
    courier = delivered(stage, make_courier)
    one, two = _refs(stage)[:2]
    _send(stage, _row(one, revision=None), _row(two, revision=5), n=1)
    _send(stage, _row(one, revision=1), _row(two, revision=5, text="again"), _row(two, revision=2), n=2)
    assert _counts(courier.collect("aurora")) == (2, 4, 1, 0)
    assert [row["code"] for row in _report(stage, 2)["rejected"]] == ["duplicate"]
    assert [(row["clip_ref"], row["revision"]) for row in _accepted(stage, 2)] == [(one, 1), (two, 2)]


def test_collect_in_the_order_of_the_numbers(stage: Stage, make_courier: MakeCourier) -> None:
    """The first of two equal revisions counts: 2 comes before 10, whatever their names sort like."""
    courier = delivered(stage, make_courier)
    ref = _refs(stage)[0]
    _send(stage, _row(ref, text="later"), n=10)
    _send(stage, _row(ref, text="sooner"), n=2)
    courier.collect("aurora")
    assert [row["text"] for row in _accepted(stage, 2)] == ["sooner"]
    assert _accepted(stage, 10) == []


@pytest.mark.parametrize("file_format", ["jsonl", "csv", "parquet"])
def test_collect_every_format(stage: Stage, make_courier: MakeCourier, truth: dict[str, str], file_format: str) -> None:
    from dataclasses import replace

    courier = delivered(stage, make_courier)
    replace(stage.vendors["aurora"], file_format=file_format).work(truth, NOW)
    clips = len(_refs(stage))
    assert _counts(courier.collect("aurora")) == (1, clips, 0, 0)


# -- files -----------------------------------------------------------------------------------------------------


def _unsigned(stage: Stage) -> bytes:
    from clip_courier.gpg_home import temporary_home

    content = _jsonl(_row(_refs(stage)[0]))
    with temporary_home() as home:
        gpg = ["gpg", "--homedir", str(home), "--batch", "--quiet", "--trust-model", "always"]
        subprocess.run([*gpg, "--import"], input=stage.our_key.public_key.encode(), check=True)
        command = [*gpg, "--recipient", stage.our_key.fingerprint, "--encrypt"]
        return subprocess.run(command, input=content, check=True, capture_output=True).stdout


def _by_another_key(stage: Stage) -> bytes:
    return _seal(stage, _jsonl(_row(_refs(stage)[0])), make_key("mallory", made_at=NOW - timedelta(days=3)))


def _by_the_other_vendor(stage: Stage) -> bytes:
    return _seal(stage, _jsonl(_row(_refs(stage)[0])), stage.vendors["borealis"].key)


def _plain(stage: Stage) -> bytes:
    return _jsonl(_row(_refs(stage)[0]))


def _cut_short(stage: Stage) -> bytes:
    return _seal(stage, _jsonl(_row(_refs(stage)[0])), stage.vendors["aurora"].key)[:-30]


def _garbage_inside(stage: Stage) -> bytes:
    return _seal(stage, b"\x00\xffnothing of ours" * 50, stage.vendors["aurora"].key)


WHOLE: list[tuple[Callable[[Stage], bytes], set[str]]] = [
    (_unsigned, {"unsigned"}),
    (_by_another_key, {"wrong_signer"}),
    (_by_the_other_vendor, {"wrong_signer"}),
    (_plain, {"not_openpgp"}),
    (_cut_short, {"damaged"}),
    (_garbage_inside, {"bad_format"}),
]


@pytest.mark.parametrize(("make", "reasons"), WHOLE)
def test_collect_refuses_a_file_whole(
    stage: Stage, make_courier: MakeCourier, make: Callable[[Stage], bytes], reasons: set[str]
) -> None:
    courier = delivered(stage, make_courier)
    _put(stage, f"{AURORA}.1.jsonl.pgp", make(stage))
    _send(stage, _row(_refs(stage)[1]), n=2)
    assert _counts(courier.collect("aurora")) == (2, 1, 0, 1)
    report = _report(stage)
    assert (report["state"], report["accepted_rows"], report["rejected"]) == ("refused", 0, [])
    assert report["reason"] in reasons
    assert _returns(stage)[AURORA, 1].reason in reasons
    assert not (stage.root / "crosswalk" / "returns" / f"{AURORA}.1.parquet").exists()
    # Sent again, rightly, under the same number: it is taken now.
    _send(stage, _row(_refs(stage)[2]))
    assert _counts(courier.collect("aurora")) == (1, 1, 0, 0)
    assert _returns(stage)[AURORA, 1].state == "ACCEPTED"


def test_collect_refuses_what_is_not_the_announced_file(stage: Stage, make_courier: MakeCourier) -> None:
    courier = delivered(stage, make_courier)
    sealed = _seal(stage, _jsonl(_row(_refs(stage)[0])), stage.vendors["aurora"].key)
    _put(stage, f"{AURORA}.1.jsonl.pgp", sealed, sha256="0" * 64)
    courier.collect("aurora")
    assert _report(stage)["reason"] == "hash_mismatch"
    assert _ledger(stage).require(AURORA).state == "DELIVERED"


def test_collect_refuses_a_file_that_is_too_large(
    stage: Stage, make_courier: MakeCourier, monkeypatch: pytest.MonkeyPatch
) -> None:
    courier = delivered(stage, make_courier)
    _send(stage, _row(_refs(stage)[0], note="long " * 1000))
    monkeypatch.setattr(inbound, "MAX_OPENED_BYTES", 1000)
    courier.collect("aurora")
    assert _report(stage)["reason"] == "too_large"


def _encrypted(stage: Stage, content: bytes, *options: str) -> bytes:
    """By gpg itself, to us, whatever the content is."""
    from clip_courier.gpg_home import temporary_home

    with temporary_home() as home:
        gpg = ["gpg", "--homedir", str(home), "--batch", "--quiet", "--trust-model", "always"]
        key = stage.vendors["aurora"].key
        subprocess.run([*gpg, "--import"], input=(key.private_key + stage.our_key.public_key).encode(), check=True)
        command = [*gpg, "--recipient", stage.our_key.fingerprint, *options, "--encrypt"]
        return subprocess.run(command, input=content, check=True, capture_output=True).stdout


def _compressed(packets: bytes, times: int = 1) -> bytes:
    """An OpenPGP packet of ZIP-compressed packets, RFC 4880 §5.6, that repeats them."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    first, again = (packer.compress(packets) + packer.flush(zlib.Z_FULL_FLUSH) for _ in range(2))
    return b"\xa3\x01" + first + again * (times - 1) + b"\x03\x00"


def _small_and_far_too_long(stage: Stage) -> bytes:
    return _encrypted(stage, b"\n" * (400 << 20), "--sign", "--compress-algo", "zip", "-z", "9")


def _packets_within_packets(stage: Stage) -> bytes:
    """Kilobytes that unpack to 60 GB of marker packets, none of which is plaintext."""
    inner = _compressed(b"\xca\x03PGP" * 3_000_000, times=4_000)
    return _encrypted(stage, _compressed(inner), "--no-literal", "--compress-algo", "none")


@pytest.mark.parametrize("make", [_small_and_far_too_long, _packets_within_packets])
def test_collect_stops_what_expands(
    stage: Stage, make_courier: MakeCourier, make: Callable[[Stage], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    courier = delivered(stage, make_courier)
    bomb = make(stage)
    assert len(bomb) < 2_000_000
    _put(stage, f"{AURORA}.1.jsonl.pgp", bomb)
    _send(stage, _row(_refs(stage)[1]), n=2)
    monkeypatch.setattr(pgp, "MAX_OPENING_S", 3)
    began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert _counts(courier.collect("aurora")) == (2, 1, 0, 1)
    assert time.monotonic() - began < 15
    # Of what is opened two copies are held; the first test of a session also pays for libraries.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 3 * inbound.MAX_OPENED_BYTES >> 10
    assert _report(stage)["reason"] == "too_large"


@pytest.mark.parametrize(
    ("file_format", "content"),
    [
        (
            "labelstudio.json",
            '[{{"data": {{"clip_ref": "{0}"}}, "annotations": [{{"completed_by": 3, "created_at":'
            ' "2026-11-20T09:30:00Z", "result": [{{"value": {{"text": ["so"]}}}}]}}]}}]',
        ),
        ("stm", "{0} 1 speaker 0.0 1.0 <o> so"),
        ("ctm", "{0} 1 0.0 0.5 so"),
    ],
)
def test_collect_what_annotation_tools_export(
    stage: Stage, make_courier: MakeCourier, file_format: str, content: str
) -> None:
    courier = delivered(stage, make_courier)
    ref = _refs(stage)[0]
    sealed = _seal(stage, content.format(ref).encode(), stage.vendors["aurora"].key)
    _put(stage, f"{AURORA}.1.{file_format}.pgp", sealed)
    assert _counts(courier.collect("aurora")) == (1, 1, 0, 0)
    assert [(row["clip_ref"], row["text"]) for row in _accepted(stage)] == [(ref, "so")]


@pytest.mark.parametrize(
    "ready",
    [
        None,
        b"",
        b"not json",
        b"[]",
        b"{}",
        b"[" * 60_000,
        b'{"size_bytes": 1e400, "sha256": 4}',
        b"\xff\xfe",
        b'{"size_bytes": 7, "sha256": "' + b"0" * 64 + b'"}',
        b" " * 100_000,
    ],
)
def test_collect_waits_for_a_right_ready_file(stage: Stage, make_courier: MakeCourier, ready: bytes | None) -> None:
    courier = delivered(stage, make_courier)
    _send(stage, _row(_refs(stage)[0]))
    place = stage.vendors["aurora"].home / "returns" / f"{AURORA}.1.ready.json"
    right = place.read_bytes()
    place.unlink()
    if ready is not None:
        place.write_bytes(ready)
    _send(stage, _row(_refs(stage)[1]), n=2)
    outcome = courier.collect("aurora")
    assert not outcome.failures
    assert _counts(outcome) == (1, 1, 0, 0)
    assert outcome.counts["unfinished"] == 1
    place.write_bytes(right)
    assert _counts(courier.collect("aurora")) == (1, 1, 0, 0)


def test_collect_waits_for_the_rest_of_a_file(stage: Stage, make_courier: MakeCourier) -> None:
    courier = delivered(stage, make_courier)
    _send(stage, _row(_refs(stage)[0]))
    place = stage.vendors["aurora"].home / "returns" / f"{AURORA}.1.jsonl.pgp"
    whole = place.read_bytes()
    place.write_bytes(whole[:-1])
    assert not courier.collect("aurora").is_new
    place.write_bytes(whole)
    assert _counts(courier.collect("aurora")) == (1, 1, 0, 0)


def test_collect_waits_when_one_number_stands_for_two_files(stage: Stage, make_courier: MakeCourier) -> None:
    courier = delivered(stage, make_courier)
    _send(stage, _row(_refs(stage)[0]))
    folder = stage.vendors["aurora"].home / "returns"
    other = folder / f"{AURORA}.1.csv.pgp"
    other.write_bytes(b"x" * (folder / f"{AURORA}.1.jsonl.pgp").stat().st_size)
    outcome = courier.collect("aurora")
    assert (outcome.is_new, outcome.counts["unfinished"]) == (False, 2)
    other.unlink()
    assert _counts(courier.collect("aurora")) == (1, 1, 0, 0)


def test_collect_leaves_other_files_alone(stage: Stage, make_courier: MakeCourier) -> None:
    courier = delivered(stage, make_courier)
    folder = stage.vendors["aurora"].home / "returns"
    names = [
        "notes.txt",
        f"{AURORA}.0.jsonl.pgp",
        f"{AURORA}.1.exe.pgp",
        f"{'a' * 100}.1.jsonl.pgp",
        "jane-doe.1.csv.pgp",
    ]
    for name in names:
        (folder / name).write_bytes(b"?")
    (folder / f"{AURORA}.1.jsonl.pgp.part").write_bytes(b"?")
    (folder / f"{AURORA}.7.jsonl.pgp").symlink_to("/etc/passwd")
    outcome = courier.collect("aurora")
    assert outcome.counts["other_files"] == len(names)
    assert not outcome.failures
    assert _returns(stage) == {}


def test_collect_fetches_nothing_that_was_taken(
    stage: Stage, make_courier: MakeCourier, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted by what is asked of the server, hour after hour."""
    fetched: list[str] = []
    get = sftp.Drop.get

    def counted(drop: sftp.Drop, folder: str, name: str, *rest: Any, **options: Any) -> Any:
        fetched.append(name.removeprefix(f"{AURORA}."))
        return get(drop, folder, name, *rest, **options)

    monkeypatch.setattr(sftp.Drop, "get", counted)
    courier = delivered(stage, make_courier)
    one, two = _refs(stage)[:2]
    _send(stage, _row(one))
    _put(stage, f"{AURORA}.2.jsonl.pgp", b"not for anybody")

    def collect() -> list[str]:
        fetched.clear()
        courier.collect("aurora")
        return list(fetched)

    assert collect() == ["1.ready.json", "2.ready.json", "1.jsonl.pgp", "2.jsonl.pgp"]
    # A refused file may be replaced under its number, which its ready file alone tells.
    assert collect() == ["2.ready.json"]
    _send(stage, _row(two), n=2)
    assert collect() == ["2.ready.json", "2.jsonl.pgp"]
    assert collect() == []
    # An accepted one that has another length now is looked at, and said to be too late.
    _send(stage, _row(one), _row(two), n=1)
    assert collect() == ["1.ready.json"]
    assert len(_returns(stage)) == 2


def test_collect_the_same_file_twice(stage: Stage, make_courier: MakeCourier) -> None:
    courier = delivered(stage, make_courier)
    _send(stage, _row(_refs(stage)[0]))
    assert courier.collect("aurora").is_new
    before = {path: path.stat().st_mtime_ns for path in files_under(stage.root / "crosswalk")}
    assert _counts(courier.collect("aurora")) == (0, 0, 0, 0)
    assert {path: path.stat().st_mtime_ns for path in files_under(stage.root / "crosswalk")} == before
    # What was accepted stays, also when the vendor puts another file under its number, and it is told.
    _send(stage, _row(_refs(stage)[0], text="changed"))
    outcome = courier.collect("aurora")
    assert not outcome.is_new
    assert [line for line in outcome.lines if "needs the next number" in line]
    assert [row["text"] for row in _accepted(stage)] == [SECRET]


def test_collect_a_return_for_another_vendors_batch(stage: Stage, make_courier: MakeCourier) -> None:
    """It is refused, and takes nothing from the vendor whose batch it is."""
    courier = delivered(stage, make_courier)
    ref = _refs(stage)[0]
    _send(stage, _row(ref))
    courier.collect("aurora")
    _send(stage, _row(ref, text="forged", revision=9), vendor="borealis")
    _send(stage, _row(ref, text="forged", revision=9), batch_id="borealis-20261120-099", vendor="borealis")
    assert _counts(courier.collect("borealis")) == (2, 0, 0, 2)
    assert _report(stage, vendor="borealis")["reason"] == "not_your_batch"
    assert _returns(stage)[AURORA, 1].state == "ACCEPTED"
    assert [row["text"] for row in _accepted(stage)] == [SECRET]
    assert not courier.collect().is_new
    assert courier.verify().counts["batches"] == 2


def test_collect_waits_until_the_delivery_is_on_record(
    stage: Stage, make_courier: MakeCourier, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fast vendor answers while our `deliver` broke off between the ready file and the ledger."""
    from snapshots import manifested

    manifested(stage, make_courier)

    class Crash(Exception):
        pass

    move = Ledger.move

    def crash(ledger: Ledger, batch_id: str, came_from: str, to: str, *rest: Any, **fields: Any) -> None:
        if to == "DELIVERED":
            raise Crash
        move(ledger, batch_id, came_from, to, *rest, **fields)

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "move", crash)
        with pytest.raises(Crash):
            make_courier(stage).deliver(NIGHT, "aurora")
    _send(stage, _row(_refs(stage)[0]))
    courier = make_courier(stage)
    outcome = courier.collect("aurora")
    assert (outcome.is_new, outcome.counts["unfinished"], _returns(stage)) == (False, 1, {})
    courier.deliver(NIGHT, "aurora")
    assert _counts(courier.collect("aurora")) == (1, 1, 0, 0)


# -- one file must not keep the others waiting -----------------------------------------------------------------


def test_collect_goes_on_when_one_file_cannot_be_read(
    stage: Stage, make_courier: MakeCourier, monkeypatch: pytest.MonkeyPatch
) -> None:
    courier = delivered(stage, make_courier)
    for n in (1, 2, 3):
        _send(stage, _row(_refs(stage)[n]), n=n)
    folder = stage.vendors["aurora"].home / "returns"
    target = folder / f"{AURORA}.1.jsonl.pgp"
    get = sftp.Drop.get

    def grows(drop: sftp.Drop, place: str, name: str, *rest: Any, **options: Any) -> tuple[int, str]:
        if name == target.name:
            target.unlink(missing_ok=True)  # between our listing and our reading
        return get(drop, place, name, *rest, **options)

    with monkeypatch.context() as patch:
        patch.setattr(sftp.Drop, "get", grows)
        outcome = courier.collect("aurora")
    assert [type(failed) for failed in outcome.failures] == [TransferFailed]
    assert _counts(outcome) == (2, 2, 0, 0)
    _send(stage, _row(_refs(stage)[1]))
    assert _counts(courier.collect("aurora")) == (1, 1, 0, 0)


def test_collect_goes_on_when_one_batch_cannot_be_matched(stage: Stage, make_courier: MakeCourier) -> None:
    courier = delivered(stage, make_courier)
    _send(stage, _row(_refs(stage)[0]))
    _send(stage, _row(_refs(stage, BOREALIS)[0]), batch_id=BOREALIS, vendor="borealis")
    place = stage.root / "crosswalk" / NIGHT.isoformat() / f"{AURORA}.crosswalk.parquet"
    whole = place.read_bytes()
    place.write_bytes(b"damaged")
    outcome = courier.collect()
    assert [type(failed) for failed in outcome.failures] == [CrosswalkMissing]
    assert set(_returns(stage, "borealis")) == {(BOREALIS, 1)}
    place.write_bytes(whole)
    assert _counts(courier.collect("aurora")) == (1, 1, 0, 0)


def test_collect_when_the_report_cannot_be_written(
    stage: Stage, make_courier: MakeCourier, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ledger comes last, so the file is taken again; its rows are no duplicates of themselves or of later ones."""
    courier = delivered(stage, make_courier)
    ref = _refs(stage)[0]
    _send(stage, _row(ref), n=1)
    _send(stage, _row(ref, text="second"), n=2)
    (stage.vendors["aurora"].home / "reports" / f"{AURORA}.1.json").mkdir()
    outcome = courier.collect("aurora")
    assert [type(failed) for failed in outcome.failures] == [TransferFailed]
    assert [row["text"] for row in _accepted(stage, 2)] == ["second"]
    assert set(_returns(stage)) == {(AURORA, 2)}
    (stage.vendors["aurora"].home / "reports" / f"{AURORA}.1.json").rmdir()
    assert _counts(courier.collect("aurora")) == (1, 0, 1, 0)
    assert _accepted(stage, 1) == []


@pytest.mark.parametrize(("owner", "step"), [(inbound, "write_parquet"), (inbound, "_report"), (Ledger, "add_return")])
@pytest.mark.parametrize("after", [False, True])
def test_collect_after_a_crash_at_any_step(
    stage: Stage, make_courier: MakeCourier, owner: Any, step: str, after: bool
) -> None:
    class Crash(Exception):
        pass

    courier = delivered(stage, make_courier)
    refs = _refs(stage)
    _send(stage, *(_row(ref) for ref in refs[:5]), _row("b" * 32))
    inner = getattr(owner, step)

    def crash(*arguments: Any, **options: Any) -> Any:
        if after:
            inner(*arguments, **options)
        raise Crash

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, step, crash)
        with pytest.raises(Crash):
            courier.collect("aurora")
    make_courier(stage).collect("aurora")
    (taken,) = _returns(stage).values()
    assert (taken.state, taken.accepted_rows, taken.rejected_rows) == ("ACCEPTED", 5, 1)
    assert [row["clip_ref"] for row in _accepted(stage)] == refs[:5]
    assert _report(stage)["accepted_rows"] == 5
    assert _ledger(stage).require(AURORA).state == "RETURNED"


def test_collect_leaves_no_transcript_outside_the_private_side(stage: Stage, make_courier: MakeCourier) -> None:
    courier = delivered(stage, make_courier)
    _send(stage, _row(_refs(stage)[0]), _row("Jane Doe"))
    courier.collect("aurora")
    public = [path for path in files_under(stage.root) if "crosswalk" not in path.parts]
    public += files_under(stage.vendors["aurora"].home / "reports")
    assert [path for path in public if SECRET.encode() in path.read_bytes() or b"Jane" in path.read_bytes()] == []


def test_collect_counts_every_row(stage: Stage, make_courier: MakeCourier, truth: dict[str, str]) -> None:
    """accepted + rejected = rows in the file, for the careless vendor of the demonstration as well."""
    courier = delivered(stage, make_courier)
    for vendor in stage.vendors.values():
        vendor.work(truth, LATER)
    courier.collect()
    for vendor, batch_id, more in (("aurora", AURORA, 0), ("borealis", BOREALIS, 3)):
        taken = _returns(stage, vendor)[batch_id, 1]
        assert taken.accepted_rows + taken.rejected_rows == len(_refs(stage, batch_id)) + more
        report = _report(stage, batch_id=batch_id, vendor=vendor)
        assert len(report["rejected"]) == taken.rejected_rows


def test_collect_when_the_server_is_down_fails_for_that_vendor_only(stage: Stage, make_courier: MakeCourier) -> None:
    delivered(stage, make_courier)
    _send(stage, _row(_refs(stage, BOREALIS)[0]), batch_id=BOREALIS, vendor="borealis")
    fields = json.loads(stage.environ["AIRFLOW_CONN_SFTP_AURORA"])
    courier = make_courier(stage, AIRFLOW_CONN_SFTP_AURORA=json.dumps({**fields, "port": 1}))
    outcome = courier.collect()
    assert len(outcome.failures) == 1
    assert isinstance(outcome.failures[0], CourierError)
    assert set(_returns(stage, "borealis")) == {(BOREALIS, 1)}


def test_collect_sends_no_report_that_names_someone(stage: Stage, make_courier: MakeCourier, tmp_path: Path) -> None:
    """A product numbers its devices as we write refs, and a vendor returns such a number in the place of a ref."""
    delivered(stage, make_courier)
    landing = landing_copy(stage, tmp_path)
    for path in (landing / "clips").rglob("*.parquet"):
        rows = pq.read_table(path, partitioning=None)
        numbers = [hashlib.sha256(clip_id.encode()).hexdigest()[:32] for clip_id in rows["clip_id"].to_pylist()]
        devices = [number.translate(str.maketrans("0189", "wxyz")) for number in numbers]
        pq.write_table(rows.append_column("device", pa.array(devices)), path)
    _send(stage, _row(devices[0]), _row(_refs(stage)[0]))
    courier = make_courier(stage, CLIP_COURIER_LANDING=str(landing))
    (leak,) = courier.collect("aurora").failures
    assert isinstance(leak, LeakFound)
    assert (leak.kind, leak.member, leak.count) == ("clips.device", f"{AURORA}.1.json", 1)
    assert devices[0] not in str(leak)
    assert list((stage.vendors["aurora"].home / "reports").iterdir()) == []
    assert _returns(stage) == {}
    # With another number in its place nobody can be told by, the return is taken.
    _send(stage, _row("b" * 32), _row(_refs(stage)[0]))
    assert _counts(courier.collect("aurora")) == (1, 1, 1, 0)
    assert [row["clip_ref"] for row in _report(stage)["rejected"]] == ["b" * 32]
