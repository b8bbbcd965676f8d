"""What the last gate looks for, and what of it is kept for a night."""

from collections.abc import Collection
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clip_courier import leak_gate, wanted
from clip_courier.errors import LeakFound
from clip_courier.landing import Landing
from clip_courier.leak_gate import LeakGate
from clip_courier.model import NightFolder, Root
from conftest import NIGHT, NOW

PEOPLE = 40
IDS = [f"person-{n:016x}" for n in np.random.default_rng(9).integers(1 << 60, size=PEOPLE).tolist()]
RECORDS = [f"record-{one[-14:]}" for one in IDS]
MAILS = [f"{one[-9:]}@post.example" for one in IDS]
SERIALS = [f"serial-{one[-13:-2]}" for one in IDS]


def write_landing(folder: Path, *, has_others: bool, people: Collection[str] = IDS) -> Path:
    """As many clips as people, one in each; of the first ten there is a night. `has_others`: columns beyond the
    contract, one of which says what may leave."""
    places = [IDS.index(one) for one in people]
    rows = {
        "persons": {"person_id": list(people), "birth_year": [1980] * len(people)},
        "consent_events": {"record_id": [RECORDS[n] for n in places], "person_id": list(people)},
        "clips": {
            "clip_id": [f"clip-{IDS[n][-12:]}-{n}" for n in places],
            "call_id": pa.nulls(len(places), pa.string()),
            "audio_uri": [f"de/{IDS[n][-14:]}.wav" for n in places],
            "audio_sha256": pa.nulls(len(places), pa.string()),
            "participants": pa.array([[{"person_id": one, "role": "speaker"}] for one in people]),
            "recorded_at": pa.array([NOW] * len(places), pa.timestamp("us", tz="UTC")),
            "product": ["Conference Interpreter"] * len(places),
        },
    }
    if has_others:
        rows["persons"] |= {"mail": [MAILS[n] for n in places], "liked": ["conference interpreter"] * len(places)}
        rows["clips"] |= {"serial": [SERIALS[n] for n in places]}
    for relation, columns in rows.items():
        (folder / relation).mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(columns), folder / relation / "0.parquet")
    return folder


def night_of(landing: Path, root: Path, clips: int = 10) -> NightFolder:
    folder = Root(root, str(landing)).night(NIGHT)
    folder.private.mkdir(parents=True, exist_ok=True)
    pq.write_table(pq.read_table(landing / "clips" / "0.parquet").slice(0, clips), folder.selected)
    return folder


def passes(landing: Path, folder: NightFolder, *texts: str) -> list[bool]:
    """Whether each may leave; asked of one run."""
    gate = LeakGate(Landing(str(landing)))

    def one(text: str) -> bool:
        try:
            gate.check(f"told: {text}.".encode(), "report.json", folder)
        except LeakFound:
            return False
        return True

    return [one(text) for text in texts]


@pytest.mark.parametrize("has_others", [False, True])
@pytest.mark.parametrize("most", [wanted.MOST_GATE_VALUES, 0])
def test_gate_stops_whatever_landing_holds_about_the_nights_people(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int, has_others: bool
) -> None:
    """In a small landing zone of everybody, in a large one of those who are audible that night: twice, as the second
    run takes what the first one kept."""
    monkeypatch.setattr(wanted, "MOST_GATE_VALUES", most)
    landing = write_landing(tmp_path / "landing", has_others=has_others)
    folder = night_of(landing, tmp_path / "root")
    own = [IDS[3], RECORDS[3], f"clip-{IDS[3][-12:]}-3", IDS[3][-14:]] + [MAILS[3], SERIALS[3]] * has_others
    others = [IDS[30], RECORDS[30]] + [MAILS[30], SERIALS[30]] * has_others
    for _ in range(2):
        assert passes(landing, folder, *own) == [False] * len(own)
        assert passes(landing, folder, *others) == [most == 0] * len(others)
        assert passes(landing, folder, "Conference Interpreter", "pr3m7xq2v5kz4nd6") == [True, True]
        assert folder.identifying.exists() == (most == 0)


def test_what_is_kept_is_no_older_than_landing_and_the_nights_clips(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wanted, "MOST_GATE_VALUES", 0)
    landing = write_landing(tmp_path / "landing", has_others=True)
    folder = night_of(landing, tmp_path / "root")
    assert passes(landing, folder, MAILS[0], MAILS[12]) == [False, True]
    written = folder.identifying.stat().st_mtime_ns
    assert passes(landing, folder, MAILS[0]) == [False]
    assert folder.identifying.stat().st_mtime_ns == written
    night_of(landing, tmp_path / "root", clips=13)
    assert passes(landing, folder, MAILS[0], MAILS[12]) == [False, False]
    pq.write_table(pa.table({"person_id": [IDS[0]], "mail": ["new-q7r2@post.example"]}), landing / "persons/1.parquet")
    assert passes(landing, folder, "new-q7r2@post.example") == [False]
    folder.identifying.write_bytes(b"PAR1 and no more")
    assert passes(landing, folder, MAILS[0]) == [False]


def test_forget_deletes_what_is_kept_of_whoever_is_erased(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wanted, "MOST_GATE_VALUES", 0)
    landing = write_landing(tmp_path / "landing", has_others=True)
    folder = night_of(landing, tmp_path / "root")
    passes(landing, folder, "x")
    kept = [folder.identifying.read_bytes()]
    leak_gate.forget(folder.root, Landing(str(landing)))
    kept.append(folder.identifying.read_bytes())
    assert kept[0] == kept[1]
    # Out of landing, or out of our own lists: either is enough.
    night_of(landing, tmp_path / "root", clips=9)
    leak_gate.forget(folder.root, Landing(str(landing)))
    assert not folder.identifying.exists()
    passes(landing, folder, "x")
    write_landing(landing, has_others=True, people=IDS[1:])
    leak_gate.forget(folder.root, Landing(str(landing)))
    assert not folder.identifying.exists()
    folder.identifying.write_bytes(b"PAR1 and no more")
    leak_gate.forget(folder.root, Landing(str(landing)))
    assert not folder.identifying.exists()
