"""The landing zone when it is not as the contract says: a named error, nothing half-written, nothing else read."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from clip_courier.courier import Courier
from clip_courier.errors import (
    AudioUnusable,
    CourierError,
    LandingMissing,
    LandingSchemaBroken,
    LandingUnreadable,
)
from clip_courier.landing import Landing
from clip_courier.model import CLIPS
from clip_courier_demo.stage import Stage
from conftest import NIGHT

CANARY = "canary-quorvanthistle"
Select = Callable[[], dict[str, object]]


@pytest.fixture
def landing(stage: Stage, tmp_path: Path) -> Path:
    """A copy of the demo world's landing zone; the recordings are only linked to."""
    source, copy = Path(stage.environ["CLIP_COURIER_LANDING"]), tmp_path / "landing"
    for name in ("clips", "consent_events", "persons"):
        shutil.copytree(source / name, copy / name)
    (copy / "audio").symlink_to(source / "audio")
    return copy


@pytest.fixture
def select(stage: Stage, make_courier: Callable[..., Courier], landing: Path) -> Select:
    """Select on that copy; when it fails, nothing stands where a later stage would look."""

    def select() -> dict[str, object]:
        try:
            return make_courier(stage, CLIP_COURIER_LANDING=str(landing)).select(NIGHT).counts
        except CourierError:
            assert not list((stage.root / "crosswalk").rglob("*.parquet"))
            assert not (stage.root / "nights").exists()
            raise

    return select


def newest(landing: Path) -> Path:
    return sorted((landing / "clips").rglob("*.parquet"))[-1]


def rewrite(path: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    pq.write_table(change(pq.read_table(path, partitioning=None)), path)


def recast(name: str, kind: pa.DataType) -> Callable[[pa.Table], pa.Table]:
    """The column with values of another type; its values do not matter."""

    def change(table: pa.Table) -> pa.Table:
        return table.set_column(table.schema.get_field_index(name), name, pa.nulls(table.num_rows, kind))

    return change


def test_select_without_a_partition_in_the_window_names_the_newest(landing: Path, select: Select) -> None:
    for partition in list((landing / "clips").iterdir()):
        if partition.name > "recorded_date=2026-08":
            shutil.rmtree(partition)
    with pytest.raises(LandingMissing, match=r"no partition .* since 2026-08-21; the newest is 2026-0"):
        select()


@pytest.mark.parametrize("name", ["clips", "consent_events", "persons"])
def test_select_without_a_relation(landing: Path, select: Select, name: str) -> None:
    shutil.rmtree(landing / name)
    with pytest.raises(LandingMissing, match=name):
        select()


@pytest.mark.parametrize("content", [b"", b"PAR1", b"not parquet at all", b"PAR1" + b"\0" * 100 + b"PAR1"])
def test_select_with_a_file_that_is_not_parquet_names_it(landing: Path, select: Select, content: bytes) -> None:
    newest(landing).write_bytes(content)
    with pytest.raises(LandingUnreadable, match=newest(landing).name):
        select()


def test_select_with_a_damaged_page_behind_a_whole_footer_names_the_file(landing: Path, select: Select) -> None:
    path = newest(landing)
    content = bytearray(path.read_bytes())
    content[4 : len(content) // 2] = b"\xff" * (len(content) // 2 - 4)
    path.write_bytes(content)
    with pytest.raises(LandingUnreadable, match=path.name):
        select()


@pytest.mark.parametrize("name", CLIPS.names)
def test_select_with_a_wrong_type_names_the_column(landing: Path, select: Select, name: str) -> None:
    wrong = pa.date32() if name != "recorded_at" else pa.timestamp("us")
    rewrite(newest(landing), recast(name, wrong))
    with pytest.raises(LandingSchemaBroken, match=f"column {name} is "):
        select()


@pytest.mark.parametrize(
    ("relation", "column"),
    [("consent_events", "received_at"), ("consent_events", "decision"), ("persons", "is_restricted")],
)
def test_select_with_a_wrong_type_about_people(landing: Path, select: Select, relation: str, column: str) -> None:
    rewrite(sorted((landing / relation).glob("*.parquet"))[0], recast(column, pa.date32()))
    with pytest.raises(LandingSchemaBroken, match=column):
        select()


@pytest.mark.parametrize("name", ["clip_id", "participants", "recorded_at", "duration_ms"])
def test_select_with_a_missing_column(landing: Path, select: Select, name: str) -> None:
    rewrite(newest(landing), lambda table: table.drop_columns([name]))
    with pytest.raises(LandingSchemaBroken, match=f"column {name} is missing"):
        select()


def test_select_takes_what_other_teams_write_of_the_same_meaning(
    stage: Stage, courier: Courier, landing: Path, select: Select
) -> None:
    """Wider integers, large and dictionary-encoded strings, other orders of columns, nullable columns left out."""
    expected = courier.select(NIGHT).counts
    shutil.rmtree(stage.root)
    for place, path in enumerate(sorted((landing / "clips").rglob("*.parquet"))):

        def change(table: pa.Table, place: int = place) -> pa.Table:
            columns = {name: table[name] for name in reversed(table.column_names)}
            columns["duration_ms"] = columns["duration_ms"].cast(pa.int64())
            columns["clip_id"] = columns["clip_id"].cast(pa.large_string())
            columns["locale"] = pc.dictionary_encode(columns["locale"])
            columns[f"extra_{place}"] = pa.array([CANARY] * table.num_rows)
            for name in ("call_id", "words")[: place % 3]:
                del columns[name]
            return pa.table(columns)

        rewrite(path, change)
    assert select() == expected


def test_select_never_reads_a_column_that_the_contract_does_not_name(
    stage: Stage, landing: Path, select: Select
) -> None:
    for path in (landing / "clips").rglob("*.parquet"):
        rewrite(path, lambda table: table.append_column("owner", pa.array([CANARY] * table.num_rows)))
    select()
    written = [path for path in stage.root.rglob("*") if path.is_file()]
    assert written
    for path in written:
        assert CANARY.encode() not in path.read_bytes()
        if path.suffix == ".parquet":
            assert CANARY not in str(pq.read_table(path).to_pylist())


def test_select_reads_a_landing_zone_at_a_url(
    stage: Stage, make_courier: Callable[..., Courier], courier: Courier, landing: Path
) -> None:
    expected = courier.select(NIGHT).counts
    shutil.rmtree(stage.root)
    assert make_courier(stage, CLIP_COURIER_LANDING=landing.as_uri()).select(NIGHT).counts == expected


@pytest.mark.parametrize("url", ["nosuch://bucket/landing", "s3://", "file://relative"])
def test_select_at_an_address_that_is_none(stage: Stage, make_courier: Callable[..., Courier], url: str) -> None:
    with pytest.raises(LandingMissing):
        make_courier(stage, CLIP_COURIER_LANDING=url).select(NIGHT)


@pytest.mark.parametrize(
    "uri",
    [
        "../../../etc/passwd",
        "a/../../secret.wav",
        "/etc/passwd",
        "file:///etc/passwd",
        "link.wav",
        "linked/secret.wav",
        "a\nb.wav",
        "a\\..\\b.wav",
        "",
        "http://127.0.0.1:9/x.wav",
    ],
)
def test_audio_that_leads_outside_is_refused(tmp_path: Path, uri: str) -> None:
    audio = tmp_path / "landing" / "audio"
    audio.mkdir(parents=True)
    (tmp_path / "secret.wav").write_bytes(b"secret")
    (tmp_path / "landing" / "secret.wav").write_bytes(b"secret")
    (audio / "link.wav").symlink_to(tmp_path / "secret.wav")
    (audio / "linked").symlink_to(tmp_path)
    with pytest.raises(AudioUnusable) as refused:
        Landing(str(tmp_path / "landing")).audio(uri)
    assert refused.value.reason in {"audio_outside", "audio_missing"}
    assert not uri or uri not in str(refused.value)


def test_audio_is_read_from_below_the_folder_and_is_missing_where_it_is_not(tmp_path: Path) -> None:
    audio = tmp_path / "landing" / "audio" / "2026"
    audio.mkdir(parents=True)
    (audio / "a b.wav").write_bytes(b"sound")
    landing = Landing(str(tmp_path / "landing"))
    assert landing.audio("2026/a b.wav") == b"sound"
    assert landing.audio((audio / "a b.wav").as_uri().replace("%20", " ")) == b"sound"
    for uri in ("2026/none.wav", "2026"):
        with pytest.raises(AudioUnusable) as refused:
            landing.audio(uri)
        assert refused.value.reason == "audio_missing"
