"""The landing zone when it is not as the contract says: a named error, nothing half-written, nothing else read."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.local import LocalFileSystem

from clip_courier.courier import Courier
from clip_courier.errors import (
    AudioStoreDown,
    AudioUnusable,
    CourierError,
    LandingMissing,
    LandingSchemaBroken,
    LandingUnreadable,
)
from clip_courier.landing import MAX_AUDIO_BYTES, Landing
from clip_courier.model import CLIPS, CONSENT_EVENTS, PERSONS
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


# As a folder, as a URL of one, and as what is no folder of this machine: read by Arrow, or by Python through Arrow.
WAYS = ["folder", "url", "arrow", "python"]


def reading(stage: Stage, make_courier: Callable[..., Courier], landing: Path, way: str) -> Courier:
    location = {"url": landing.as_uri(), "python": f"fsspec+file://{landing}/"}.get(way, str(landing))
    courier = make_courier(stage, CLIP_COURIER_LANDING=location)
    if way == "arrow":
        # An object store is read by Arrow's own code; so is this folder, once it is not known to be one.
        courier._landing._is_local = False
    return courier


def newest(landing: Path) -> Path:
    return sorted((landing / "clips").rglob("*.parquet"))[-1]


def files_of(landing: Path, relation: str) -> list[Path]:
    return sorted((landing / relation).rglob("*.parquet"))


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


@pytest.mark.parametrize("relation", ["clips", "consent_events", "persons"])
@pytest.mark.parametrize("way", WAYS)
def test_select_with_a_damaged_page_behind_a_whole_footer_names_the_file(
    stage: Stage, make_courier: Callable[..., Courier], landing: Path, relation: str, way: str
) -> None:
    path = files_of(landing, relation)[-1]
    content = bytearray(path.read_bytes())
    # Parquet: magic, pages, footer, the footer's length in four bytes, magic.
    pages = len(content) - 8 - int.from_bytes(content[-8:-4], "little") - 4
    content[4 : 4 + pages] = b"\xff" * pages
    path.write_bytes(content)
    assert pq.read_metadata(path).num_rows, "the footer is whole"
    with pytest.raises(LandingUnreadable, match=f"^{path.relative_to(landing)} is damaged$") as damaged:
        reading(stage, make_courier, landing, way).select(NIGHT)
    # What DuckDB or Arrow said of it may hold a value.
    assert damaged.value.__suppress_context__
    assert not list((stage.root / "crosswalk").rglob("*.parquet"))


def test_select_with_a_file_cut_short_names_it(landing: Path, select: Select) -> None:
    path = newest(landing)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(LandingUnreadable, match=path.name):
        select()


def test_select_with_a_file_where_a_folder_should_be(landing: Path, select: Select) -> None:
    shutil.rmtree(landing / "clips")
    (landing / "clips").write_bytes(b"")
    with pytest.raises(LandingMissing, match="clips"):
        select()


def test_select_leaves_alone_what_a_writer_has_not_finished(
    stage: Stage, courier: Courier, landing: Path, select: Select
) -> None:
    expected = courier.select(NIGHT).counts
    shutil.rmtree(stage.root)
    partition = newest(landing).parent
    for name in (
        ".part-1.parquet",
        "_part-1.parquet",
        "_temporary/0/part-1.parquet",
        ".hidden/x.parquet",
        "part-1.tmp",
    ):
        (partition / name).parent.mkdir(parents=True, exist_ok=True)
        (partition / name).write_bytes(b"half a file")
    assert select() == expected


def test_select_reads_a_partition_whose_name_is_no_date(
    stage: Stage, courier: Courier, landing: Path, select: Select
) -> None:
    """Its rows are judged by their own time: no clip is lost in silence, and no clip passes for young."""
    expected = courier.select(NIGHT).counts
    shutil.rmtree(stage.root)
    clips = landing / "clips"
    (clips / newest(landing).parent.name).rename(clips / "recorded_date=2026-13-45")
    (clips / files_of(landing, "clips")[0].parent.name).rename(clips / "recorded_date=__HIVE_DEFAULT_PARTITION__")
    assert select() == expected


def test_select_from_a_folder_with_characters_that_a_pattern_would_expand(
    stage: Stage, make_courier: Callable[..., Courier], courier: Courier, landing: Path, tmp_path: Path
) -> None:
    expected = courier.select(NIGHT).counts
    shutil.rmtree(stage.root)
    odd = tmp_path / "land [x] * ? {a,b} recorded_date=2001-01-01"
    landing.rename(odd)
    assert make_courier(stage, CLIP_COURIER_LANDING=str(odd)).select(NIGHT).counts == expected


@pytest.mark.parametrize("name", CLIPS.names)
def test_select_with_a_wrong_type_names_the_column(landing: Path, select: Select, name: str) -> None:
    wrong = pa.date32() if name != "recorded_at" else pa.timestamp("us")
    rewrite(newest(landing), recast(name, wrong))
    with pytest.raises(LandingSchemaBroken, match=f"column {name} is "):
        select()


@pytest.mark.parametrize(
    "wrong",
    [
        pa.timestamp("us"),
        pa.timestamp("us", tz="Europe/Berlin"),
        pa.string(),
        pa.int64(),
        pa.date32(),
    ],
)
@pytest.mark.parametrize(
    ("relation", "column"),
    [("clips", "recorded_at"), ("consent_events", "occurred_at"), ("consent_events", "received_at")],
)
def test_select_with_a_time_that_is_not_utc(
    landing: Path, select: Select, relation: str, column: str, wrong: pa.DataType
) -> None:
    rewrite(files_of(landing, relation)[-1], recast(column, wrong))
    with pytest.raises(
        LandingSchemaBroken, match=rf"{relation}/.*: column {column} is .*, must be timestamp\[us, tz=UTC\]"
    ):
        select()


PEOPLE = [("consent_events", name) for name in CONSENT_EVENTS.names] + [("persons", name) for name in PERSONS.names]


@pytest.mark.parametrize(("relation", "column"), PEOPLE)
def test_select_with_a_wrong_type_about_people(landing: Path, select: Select, relation: str, column: str) -> None:
    rewrite(files_of(landing, relation)[0], recast(column, pa.date32()))
    with pytest.raises(LandingSchemaBroken, match=f"{relation}/.*: column {column} is date32"):
        select()


REQUIRED = [("clips", name) for name in CLIPS.names if name not in ("call_id", "audio_sha256", "words")]


@pytest.mark.parametrize(("relation", "column"), [*REQUIRED, *PEOPLE])
def test_select_with_a_missing_column(landing: Path, select: Select, relation: str, column: str) -> None:
    """Also where a value may be null: without `is_restricted` nobody would be restricted."""
    rewrite(files_of(landing, relation)[-1], lambda table: table.drop_columns([column]))
    with pytest.raises(LandingSchemaBroken, match=f"{relation}/.*: column {column} is missing"):
        select()


@pytest.mark.parametrize("name", ["CLIP_ID", "Participants", "Call_Id"])
def test_select_with_a_column_that_differs_in_its_letters_only(landing: Path, select: Select, name: str) -> None:
    """SQL takes the one for the other."""
    rewrite(newest(landing), lambda table: table.append_column(name, pa.array([CANARY] * table.num_rows)))
    with pytest.raises(LandingSchemaBroken, match=f"column {name.lower()} stands twice, or in other letters"):
        select()


@pytest.mark.parametrize(
    "kind",
    [
        pa.struct([("person_id", pa.string()), ("role", pa.string())]),
        pa.list_(pa.string()),
        pa.list_(pa.struct([("role", pa.string())])),
        pa.list_(pa.struct([("person_id", pa.int64()), ("role", pa.string())])),
    ],
)
def test_select_with_participants_of_another_shape(landing: Path, select: Select, kind: pa.DataType) -> None:
    rewrite(newest(landing), recast("participants", kind))
    with pytest.raises(LandingSchemaBroken, match="column participants is "):
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


@pytest.mark.parametrize("way", WAYS)
def test_select_never_reads_what_the_contract_does_not_name(
    stage: Stage, make_courier: Callable[..., Courier], courier: Courier, landing: Path, way: str
) -> None:
    """Neither a column beside the others nor a field inside a list, whatever their order."""
    courier.select(NIGHT)
    expected = pq.read_table(selected(stage.root))
    shutil.rmtree(stage.root)
    for path in files_of(landing, "clips"):
        rewrite(path, with_canaries)
    reading(stage, make_courier, landing, way).select(NIGHT)
    assert pq.read_table(selected(stage.root)).to_pylist() == expected.to_pylist()
    for path in (path for path in stage.root.rglob("*") if path.is_file()):
        assert CANARY.encode() not in path.read_bytes()
        assert path.suffix != ".parquet" or CANARY not in str(pq.read_table(path).to_pylist())


def selected(root: Path) -> Path:
    return root / "crosswalk" / NIGHT.isoformat() / "selected.parquet"


def with_canaries(table: pa.Table) -> pa.Table:
    """A column, and in every struct a field, that the contract does not name; the other fields in reverse."""
    for name in ("participants", "hypotheses"):
        rows = [
            lists and [entry and {"owner": CANARY, **dict(reversed(entry.items()))} for entry in lists]
            for lists in table[name].to_pylist()
        ]
        inner = table.schema.field(name).type.value_type
        kind = pa.struct([("owner", pa.string()), *reversed([(f.name, f.type) for f in inner])])
        place = table.schema.get_field_index(name)
        table = table.set_column(place, name, pa.array(rows, pa.list_(kind)))
    return table.append_column("owner", pa.array([CANARY] * table.num_rows))


@pytest.mark.parametrize("unit", ["ms", "ns"])
@pytest.mark.parametrize("way", WAYS)
def test_select_reads_times_of_another_precision(
    stage: Stage, make_courier: Callable[..., Courier], courier: Courier, landing: Path, unit: str, way: str
) -> None:
    expected = courier.select(NIGHT).counts
    shutil.rmtree(stage.root)

    def change(table: pa.Table) -> pa.Table:
        for name in {"recorded_at", "occurred_at", "received_at"} & set(table.column_names):
            place, kind = table.schema.get_field_index(name), pa.timestamp(unit, tz="UTC")
            table = table.set_column(place, name, table[name].cast(kind, safe=False))
        return table

    for relation in ("clips", "consent_events"):
        for path in files_of(landing, relation):
            rewrite(path, change)
    assert reading(stage, make_courier, landing, way).select(NIGHT).counts == expected


@pytest.mark.parametrize("way", WAYS)
def test_select_reads_a_landing_zone_at_any_address(
    stage: Stage, make_courier: Callable[..., Courier], courier: Courier, landing: Path, way: str
) -> None:
    """With a file that lacks columns and one of other widths."""
    expected = courier.select(NIGHT).counts
    shutil.rmtree(stage.root)
    rewrite(files_of(landing, "clips")[-1], lambda table: table.drop_columns(["call_id", "words"]))

    def wider(table: pa.Table) -> pa.Table:
        place = table.schema.get_field_index("duration_ms")
        return table.set_column(place, "duration_ms", table["duration_ms"].cast(pa.int64()))

    rewrite(files_of(landing, "clips")[-2], wider)
    assert reading(stage, make_courier, landing, way).select(NIGHT).counts == expected


@pytest.mark.parametrize("url", ["nosuch://bucket/landing", "s3://", "file://relative", "hf://datasets/a/b"])
def test_select_at_an_address_that_is_none(stage: Stage, make_courier: Callable[..., Courier], url: str) -> None:
    with pytest.raises(LandingMissing):
        make_courier(stage, CLIP_COURIER_LANDING=url).select(NIGHT)


@pytest.mark.parametrize(
    "uri",
    [
        "../../../etc/passwd",
        "../secret.wav",
        "a/../../secret.wav",
        "a/../sound.wav",
        "/etc/passwd",
        "{landing}/audio/sound.wav",
        "file:///etc/passwd",
        "FILE:///etc/passwd",
        "file://{landing}/secret.wav",
        "file://{landing}/audio/../secret.wav",
        "file://{landing}/audio/%2e%2e/secret.wav",
        "file://localhost{landing}/audio/sound.wav",
        "local://{landing}/secret.wav",
        "local:///etc/passwd",
        "fsspec+file:///etc/passwd",
        "fsspec+local://{landing}/secret.wav",
        "hf://datasets/a/b.wav",
        "mock://x.wav",
        "http://127.0.0.1:9/x.wav",
        "s3://login:secret@bucket/x.wav",
        "s3://bucket/x.wav?endpoint_override=127.0.0.1:9",
        "link.wav",
        "linked/secret.wav",
        "circle.wav",
        "circle/x.wav",
        "a\nb.wav",
        "a\0b.wav",
        "sound.wav\x7f",
        "file://{landing}/audio/sound%00.wav",
        "a\\..\\b.wav",
        "",
    ],
)
@pytest.mark.parametrize("scheme", ["", "file://"])
def test_audio_that_leads_outside_is_refused(tmp_path: Path, uri: str, scheme: str) -> None:
    landing = tmp_path / "landing"
    audio = landing / "audio"
    audio.mkdir(parents=True)
    (audio / "sound.wav").write_bytes(b"sound")
    for secret in (tmp_path / "secret.wav", landing / "secret.wav"):
        secret.write_bytes(b"secret")
    (audio / "link.wav").symlink_to(tmp_path / "secret.wav")
    (audio / "linked").symlink_to(tmp_path)
    for name, other in (("circle", "circle.wav"), ("circle.wav", "circle")):
        (audio / name).symlink_to(audio / other)
    uri = uri.replace("{landing}", str(landing))
    with pytest.raises(AudioUnusable) as refused:
        Landing(f"{scheme}{landing}").audio(uri)
    assert refused.value.reason == "audio_outside"
    assert not uri or uri not in str(refused.value)


def test_audio_is_read_from_below_the_folder(tmp_path: Path) -> None:
    audio = tmp_path / "landing" / "audio" / "2026"
    audio.mkdir(parents=True)
    (audio / "a b é 20%.wav").write_bytes(b"sound")
    (audio / "link.wav").symlink_to(audio / "a b é 20%.wav")
    for location in (str(tmp_path / "landing"), (tmp_path / "landing").as_uri(), f"fsspec+file://{tmp_path}/landing/"):
        landing = Landing(location)
        assert landing.audio("2026/a b é 20%.wav") == b"sound"
        assert landing.audio("2026/link.wav") == b"sound"
    assert Landing(str(tmp_path / "landing")).audio((audio / "a b é 20%.wav").as_uri()) == b"sound"


def test_audio_that_is_stored_elsewhere_by_a_link_of_the_whole_folder_is_read(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "a.wav").write_bytes(b"sound")
    (tmp_path / "landing").mkdir()
    (tmp_path / "landing" / "audio").symlink_to(tmp_path / "store")
    assert Landing(str(tmp_path / "landing")).audio("a.wav") == b"sound"


@pytest.mark.parametrize("uri", ["none.wav", "none/none.wav", "2026", ".", "x" * 5000, "pipe", "sound.wav/x"])
def test_audio_that_is_not_there(tmp_path: Path, uri: str) -> None:
    audio = tmp_path / "audio"
    (audio / "2026").mkdir(parents=True)
    (audio / "sound.wav").write_bytes(b"sound")
    # Reading it would wait for ever.
    os.mkfifo(audio / "pipe")
    with pytest.raises(AudioUnusable) as refused:
        Landing(str(tmp_path)).audio(uri)
    assert refused.value.reason == "audio_missing"
    assert len(uri) == 1 or uri not in str(refused.value)


@pytest.mark.parametrize("lost", ["empty", "gone", "no folder"])
def test_audio_of_a_store_that_is_lost_is_not_missing(tmp_path: Path, lost: str) -> None:
    """As when a mount is lost: then every recording would look as if it had been removed."""
    audio = tmp_path / "audio"
    audio.mkdir()
    (audio / "a.wav").write_bytes(b"sound")
    landing = Landing(str(tmp_path))
    assert landing.audio("a.wav") == b"sound"
    (audio / "a.wav").unlink()
    if lost != "empty":
        audio.rmdir()
    if lost == "no folder":
        audio.write_bytes(b"")
    with pytest.raises(AudioStoreDown):
        landing.audio("a.wav")


class Outage(LocalFileSystem):
    """A store of fsspec's that is there and has the file, but whose line is down."""

    protocol = "outage"
    fault: ClassVar[OSError]

    def _open(self, *given: Any, **options: Any) -> Any:
        raise self.fault


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (TimeoutError(errno.ETIMEDOUT, "Connection timed out"), AudioStoreDown),
        (OSError(errno.EIO, "Input/output error"), AudioStoreDown),
        (OSError(errno.ESTALE, "Stale file handle"), AudioStoreDown),
        (ConnectionResetError(errno.ECONNRESET, "Connection reset"), AudioStoreDown),
        (OSError("the store did not answer"), AudioStoreDown),
        (OSError("AWS Error NETWORK_CONNECTION during GetObject operation: a.wav"), AudioStoreDown),
        (OSError("AWS Error ACCESS_DENIED during GetObject operation: a.wav"), AudioStoreDown),
        (OSError("AWS Error NO_SUCH_KEY during GetObject operation: a.wav"), AudioUnusable),
        (FileNotFoundError(errno.ENOENT, "a.wav"), AudioUnusable),
    ],
)
def test_audio_of_a_store_that_does_not_answer(tmp_path: Path, fault: OSError, error: type[CourierError]) -> None:
    fsspec.register_implementation("outage", Outage, clobber=True)
    (tmp_path / "audio").mkdir()
    (tmp_path / "audio" / "a.wav").write_bytes(b"sound")
    Outage.fault = fault
    with pytest.raises(error) as refused:
        Landing(f"fsspec+outage://{tmp_path}").audio("a.wav")
    assert "a.wav" not in str(refused.value)


def test_audio_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "audio").mkdir()
    with (tmp_path / "audio" / "sparse.wav").open("wb") as file:
        file.truncate(MAX_AUDIO_BYTES + 1)
    with pytest.raises(AudioUnusable) as refused:
        Landing(str(tmp_path)).audio("sparse.wav")
    assert refused.value.reason == "audio_too_large"
