"""Identifying values are found in every form and place, and nothing else is; what is found stops a delivery."""

import base64
import bz2
import gzip
import html
import io
import json
import lzma
import os
import re
import sqlite3
import tarfile
import unicodedata
import zipfile
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile as sf
from hypothesis import given, settings
from hypothesis import strategies as st

from clip_courier.__main__ import main
from clip_courier.courier import Courier
from clip_courier.errors import LeakFound
from clip_courier.leaks import LeakScan, Searched, files_under, search
from clip_courier.needles import OVERLAP, PIECE_BYTES, Search
from clip_courier.unpacking import Unpacking
from clip_courier.wanted import Wanted
from clip_courier_demo.stage import Stage
from conftest import NIGHT, NOW
from snapshots import landing_copy, manifested

MakeCourier = Callable[..., Courier]
CANARY = "person-7f3a9c015e2088d1"
OTHERS = ["person-0011223344556677", "Orruvard Quorvanthistle", "+49-555-1234567", "anna.weiß@post.example"]


def watch_of(*values: str, kind: str = "person_id"):
    wanted = Wanted()
    wanted.add_values(kind, values)
    return wanted.watch()


def hits(octets: bytes, *values: str, cut: int = 1 << 20, kind: str = "person_id") -> int:
    """How many are found in a stream that comes in pieces of `cut` bytes."""
    looking = Search(watch_of(*values, kind=kind).needles)
    found = [one for at in range(0, len(octets), cut) for one in looking.feed(octets[at : at + cut])]
    return len(found) + len(list(looking.end()))


# -- forms -----------------------------------------------------------------------------------------------------


def full_width(text: str) -> str:
    return "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text)


def every_character(pattern: str) -> Callable[[str], bytes]:
    return lambda text: "".join(pattern % ord(c) for c in text).encode()


FORMS: dict[str, Callable[[str], bytes]] = {
    "as it is": str.encode,
    "upper": lambda text: text.upper().encode(),
    "title": lambda text: text.title().encode(),
    "decomposed": lambda text: unicodedata.normalize("NFD", text).encode(),
    "full width": lambda text: full_width(text).encode(),
    "spaced out": lambda text: " ".join(text).encode(),
    "other dashes": lambda text: (
        text.replace("-", "\N{NON-BREAKING HYPHEN}").replace(" ", "\N{NO-BREAK SPACE}").encode()
    ),
    "without signs": lambda text: "".join(c for c in text if c.isalnum()).encode(),
    "in brackets": lambda text: text.replace("-", ") (").encode(),
    "soft hyphens": lambda text: "\u00ad".join(text).encode(),
    "broken lines": lambda text: f"{text[:9]}\r\n{text[9:]}".encode(),
    "base64": lambda text: base64.b64encode(text.encode()),
    "base64, second alignment": lambda text: base64.b64encode(b"{" + text.encode() + b"}"),
    "base64, third alignment": lambda text: base64.urlsafe_b64encode(b"??" + text.encode() + b"\xff\xfe"),
    "base64 of a mail": lambda text: base64.encodebytes(b"." * 47 + text.encode() + b"." * 40),
    "base64 of upper case": lambda text: base64.b64encode(text.upper().encode()),
    "base64 of UTF-16": lambda text: base64.b64encode(text.encode("utf-16")),
    "hex": lambda text: text.encode().hex().encode(),
    "hex, odd": lambda text: b"7" + text.encode().hex().upper().encode(),
    "URL": lambda text: quote(text, safe="").encode(),
    "URL of all": lambda text: b"".join(b"%%%02x" % byte for byte in text.encode()),
    "URL twice": lambda text: quote(quote(text, safe="")).encode(),
    "JSON": lambda text: json.dumps(text).encode(),
    "JSON of all": lambda text: json.dumps(full_width(text)).encode(),
    "JSON in JSON": lambda text: json.dumps(json.dumps(full_width(text))).encode(),
    "Python": every_character("\\U%08x"),
    "HTML": lambda text: html.escape(text).encode("ascii", "xmlcharrefreplace"),
    "HTML of all": every_character("&#x%x;"),
    "URL of base64 of a mail": lambda text: quote(base64.encodebytes(b"." * 53 + text.encode()), safe="").encode(),
    "HTML in decimal": every_character("&#%d;"),
    "UTF-16": lambda text: text.encode("utf-16-le"),
    "UTF-16, big end first": lambda text: text.encode("utf-16-be"),
    "UTF-32": lambda text: text.encode("utf-32-le") if text.isascii() else text.encode(),
}
LETTERS = st.sampled_from("abcdefghjkmnpqrtuvwxyzABCDEF0123456789-._ éüßжñ王")
VALUES = st.text(LETTERS, min_size=14, max_size=60).filter(lambda text: sum(c.isalnum() for c in text) >= 12)
# Nothing in it can be a part of a value's form but by chance.
FILLER = b"the quick (brown) fox; "


@settings(max_examples=int(os.environ.get("EXAMPLES", "30")), deadline=None, derandomize=True)
@given(VALUES, st.sampled_from(sorted(FORMS)), st.integers(0, 3 * OVERLAP), st.integers(1000, PIECE_BYTES))
def test_search_finds_any_value_in_any_form_across_any_border(value: str, form: str, before: int, cut: int) -> None:
    """The oracle is that it was put there: once."""
    padding = (FILLER * (PIECE_BYTES // len(FILLER) + 1))[: PIECE_BYTES - OVERLAP + before]
    octets = padding + b" <" + FORMS[form](value) + b"> " + FILLER * 3
    assert hits(octets, value, *OTHERS, cut=cut) == 1
    assert hits(padding + FILLER * 3, value, *OTHERS, cut=cut) == 0


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("value", [CANARY, *OTHERS, "Müllerová Žaneta", "王小明的电话号码本", "SN-9C015E2088D17F3A"])
def test_search_finds_usual_values_in_every_form(value: str, form: str) -> None:
    assert hits(b"x=" + FORMS[form](value) + b"; " + FILLER, value) == 1


@settings(max_examples=int(os.environ.get("EXAMPLES", "60")), deadline=None, derandomize=True)
@given(st.lists(st.text("abc1", min_size=12, max_size=20), min_size=1, max_size=40), st.text("abc1", max_size=4000))
def test_search_finds_what_a_naive_search_finds(values: list[str], text: str) -> None:
    wanted = {v for v in values if not v.isdigit()}
    naive = sum(text.startswith(value, at) for value in wanted for at in range(len(text)))
    planted = text + "abc1" + "".join(values)
    assert hits(text.encode(), *wanted) == naive
    assert hits(planted.encode(), *wanted) >= len(wanted)


@settings(max_examples=int(os.environ.get("EXAMPLES", "60")), deadline=None, derandomize=True)
@given(
    st.lists(st.text("abžé-", min_size=5, max_size=5).filter(lambda v: sum(c.isalpha() for c in v) >= 4), max_size=6),
    st.lists(st.sampled_from(["ab", "Abéžb", "-", " ", "\n", "1", "é", "\0"]), max_size=60),
    st.integers(0, PIECE_BYTES + OVERLAP),
)
def test_search_finds_names_of_their_own_where_a_naive_search_does(
    names: list[str], parts: list[str], before: int
) -> None:
    """Too short to be looked for within words; zero bytes may be spaces, or nothing as in UTF-16."""
    text = "".join([*parts, *(part for name in names for part in (" ", name.upper(), "."))])
    wanted = {name.lower() for name in names}

    def naive(text: str) -> set[str]:
        alone = (rf"(?<![0-9a-z]){re.escape(name)}(?![0-9a-z])" for name in wanted)
        return {name for name, pattern in zip(wanted, alone, strict=True) if re.search(pattern, text.lower())}

    watch = watch_of(*sorted(wanted), kind="clips.name")
    looking = Search(watch.needles)
    found = [*looking.feed(b"; " * (before // 2) + text.encode()), *looking.end()]
    assert len({one.needle for one in found}) == len(naive(text) | naive(text.replace("\0", "")))


@pytest.mark.parametrize(
    "written",
    [
        "+49 (555) 123-45.67",
        "0049 555 1234567",
        "49/555/1234567",
        "tel:+49-555-1234567",
        "+٤٩ ٥٥٥ ١٢٣٤٥٦٧",
        "４９５５５１２３４５６７",
    ],
)
def test_search_finds_a_telephone_number_however_it_is_written(written: str) -> None:
    numbers = [f"+49-555-{n:07}" for n in range(1_234_000, 1_235_000)]
    assert hits(f"call {written} now".encode(), *numbers, kind="clips.phone_number") == 1
    assert hits(b"20264955512345678811", *numbers, kind="clips.phone_number") == 0


# -- what is not looked for ------------------------------------------------------------------------------------


def test_watch_counts_what_it_does_not_look_for() -> None:
    wanted = Wanted(harmless=["red", "bicycle"])
    row = {"clip_id": "1", "product": "translator", "colour": "red bicycle", "seen": "2026-11-20", "note": "zq9"}
    row |= {"like": "Translator", "word": "Yesterday", "serial": CANARY}
    wanted.add("clips", pa.RecordBatch.from_pylist([row]))
    watch = wanted.watch()
    assert watch.not_looked_for == {"too_short": 2, "may_leave": 4}
    assert watch.values == 1
    assert [watch.kinds[kind] for kind in watch.kind_of] == ["clips.serial"]


def test_watch_looks_for_an_id_though_it_is_a_product_as_well() -> None:
    wanted = Wanted(harmless=[CANARY])
    wanted.add("clips", pa.RecordBatch.from_pylist([{"product": CANARY, "participants": [{"person_id": CANARY}]}]))
    assert [wanted.watch().kinds[k] for k in wanted.watch().kind_of] == ["person_id"]


def test_watch_looks_for_extra_columns_of_any_shape() -> None:
    nested = {"deep": [{"inner": {"mail": "zed@quor.example"}}], "map": [("key-quorvan-77", "val-quorvan-88")]}
    schema = pa.schema(
        [
            ("deep", pa.list_(pa.struct([("inner", pa.struct([("mail", pa.string())]))]))),
            ("map", pa.map_(pa.string(), pa.string())),
            ("packed", pa.dictionary(pa.int8(), pa.string())),
            ("number", pa.int64()),
        ]
    )
    wanted = Wanted()
    row = nested | {"packed": "packed-quorvan-99", "number": 4915551234567890}
    wanted.add("clips", pa.RecordBatch.from_pylist([row], schema))
    watch = wanted.watch()
    kinds = {watch.kinds[kind] for kind in watch.kind_of}
    assert kinds == {"clips.deep.inner.mail", "clips.map.key", "clips.map.value", "clips.packed", "clips.number"}


def test_search_finds_an_id_without_what_all_ids_begin_with() -> None:
    ids = [f"person-{n:016x}" for n in np.random.default_rng(3).integers(1 << 60, size=1000).tolist()]
    assert hits(f"who={ids[7].removeprefix('person-').upper()};".encode(), *ids) == 1
    assert hits(b"who=person-0123;", *ids) == 0


def test_search_finds_a_short_name_as_a_word_of_its_own_only() -> None:
    for text, expected in (("my name is ZAVILOK.", 1), ("zavilokation", 0), ("za%76ilok", 1), ("2zavilok", 0)):
        assert hits(text.encode(), "Zavilok", kind="clips.name") == expected, text


# -- places ----------------------------------------------------------------------------------------------------


def parquet(rows: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(rows, sink, compression="zstd")
    return sink.getvalue()


def unused_entry() -> bytes:
    """A dictionary page with an entry that no row uses."""
    words = pa.DictionaryArray.from_arrays(pa.array([0, 0], pa.int8()), pa.array(["nothing", CANARY]))
    return parquet(pa.table({"word": words}))


def flac(comment: str) -> bytes:
    sink = io.BytesIO()
    with sf.SoundFile(sink, "w", 16_000, 1, format="FLAC", subtype="PCM_16") as file:
        file.comment = comment
        file.write(np.zeros(400, np.int16))
    return sink.getvalue()


def tar(name: str, content: bytes) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as archive:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return sink.getvalue()


def zipped(name: str, content: bytes) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return sink.getvalue()


def sqlite(value: str) -> bytes:
    with sqlite3.connect(":memory:") as connection:
        connection.execute(f"CREATE TABLE kept AS SELECT {value} AS said")
        return connection.serialize()


TEXT = pa.table({"said": [[{"rank": 1, "text": f"i am {CANARY} hello"}], None]})
PLACES: dict[str, bytes] = {
    "a log": f"INFO [{CANARY}] done".encode(),
    "a nested column": parquet(TEXT),
    "an entry of a dictionary": unused_entry(),
    "key-value metadata": parquet(pa.table({"a": [1]}).replace_schema_metadata({"from": CANARY})),
    "the name of a column": parquet(pa.table({CANARY: [1]})),
    "FLAC comments": flac(f"by {CANARY}"),
    "the name of a member": tar(f"audio/{CANARY}.flac", b""),
    "a member of a member": tar("in.gz", gzip.compress(parquet(TEXT))),
    "a database in an archive": zipped("rows.db", sqlite(f"'{CANARY}'")),
    "zip": zipped("page.html", CANARY.encode()),
    "bzip2": bz2.compress(CANARY.encode()),
    "xz": lzma.compress(CANARY.encode()),
    "zstd": pa.compress(CANARY.encode(), "zstd", asbytes=True),
}


def searched(folder: Path, *values: str) -> Searched:
    def places(unpacking: Unpacking):
        for path, name in files_under(folder):
            yield from unpacking.file(path, name)

    return search([watch_of(*values)], places)


@pytest.mark.parametrize("place", PLACES)
def test_search_opens_whatever_is_packed(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_bytes(PLACES[place])
    found = searched(tmp_path, CANARY)
    assert {leak.kind for leak in found.leaks} == {"person_id"}
    assert found.unopened == []
    assert not searched(tmp_path, CANARY[:-1] + "0").leaks


def test_search_opens_databases(tmp_path: Path) -> None:
    with duckdb.connect(str(tmp_path / "a.duckdb")) as connection:
        connection.execute("CREATE TABLE kept AS SELECT ? || '' AS said, i FROM range(5000) t(i)", [CANARY])
    with sqlite3.connect(tmp_path / "b ?%41.db") as connection:
        connection.execute("CREATE TABLE xcom (key TEXT, value BLOB)")
        connection.execute("INSERT INTO xcom VALUES ('k', ?)", (gzip.compress(CANARY.encode()),))
    connection.close()
    found = {(leak.place, leak.member): leak for leak in searched(tmp_path, CANARY).leaks}
    assert found["a.duckdb", "kept"].count == 5000
    assert found["a.duckdb", "kept"].column == "said"
    assert ("b ?%41.db", "xcom/(gzip)") in found


@pytest.mark.parametrize("distinct", [500, 150_000])
def test_search_looks_through_a_dictionary_once(distinct: int) -> None:
    """The larger one is more than Parquet keeps a dictionary for; each has something in the last row alone."""
    words = pa.array([f"{n:032x}" for n in range(distinct)]).take(pa.array(np.arange(200_000) % distinct))
    file = parquet(pa.table({"word": pa.chunked_array([words, pa.array([CANARY])])}))
    parts = [part for part in Unpacking().content(file, "rows") if part.column == "word"]
    looked_at = b"\n".join(piece for part in parts for piece in part.pieces)
    assert looked_at.count(CANARY.encode()) == 1
    assert {words[0].as_py().encode(), words[-1].as_py().encode()} <= set(looked_at.split())
    assert len(looked_at) < 1.4 * 33 * distinct


def test_search_says_what_it_cannot_open(tmp_path: Path) -> None:
    (tmp_path / "half.parquet").write_bytes(parquet(TEXT)[:-30])
    assert searched(tmp_path, CANARY).unopened == ["half.parquet"]


def test_search_never_tells_a_name_that_identifies(tmp_path: Path) -> None:
    (tmp_path / f"{CANARY}.log").write_text(CANARY)
    (tmp_path / "rows.tar").write_bytes(tar("in.gz", gzip.compress(parquet(pa.table({CANARY: ["x"]})))))
    found = searched(tmp_path, CANARY)
    assert len(found.leaks) >= 3
    assert CANARY not in repr(found)


def test_search_tells_place_and_offset(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_bytes(b"." * 5_000_000 + base64.b64encode(b"?" * 30 + CANARY.encode()))
    (leak,) = searched(tmp_path, CANARY).leaks
    assert (leak.place, leak.offset, leak.count) == ("a.log", 5_000_040, 1)


# -- the gate, and the verb ------------------------------------------------------------------------------------


def test_scan_of_sound_finds_values_in_it_and_in_its_metadata() -> None:
    for octets in (flac("x") + CANARY.encode(), flac(CANARY)):
        scan = LeakScan(watch_of(CANARY))
        scan.take_content(octets, "audio/a.flac")
        with pytest.raises(LeakFound) as caught:
            scan.check("")
        assert (caught.value.kind, caught.value.member, caught.value.count) == ("person_id", "audio/a.flac", 1)


def test_scan_finds_brief_and_foreign_names_beside_compressed_bytes() -> None:
    """What can be read and what cannot lie in one stream, and less is looked for in what cannot."""
    noise = np.random.default_rng(1).bytes(200_000)
    for name in ("Zavilok", "Žaneta Müllerová"):
        rows = pa.table({"said": [f"i am {name.upper()} hello"], "noise": [noise]})
        scan = LeakScan(watch_of(name, kind="clips.name"))
        scan.take_content(parquet(rows), "manifest.parquet")
        assert ("said", 1) in [(leak.column, leak.count) for leak in scan.leaks()], name


def test_deliver_stops_a_batch_that_names_someone(stage: Stage, make_courier: MakeCourier, tmp_path: Path) -> None:
    """A product team calls its product by a person's id, and products leave: for one vendor's languages only."""
    landing = landing_copy(stage, tmp_path / "landing")
    person = pq.read_table(landing / "persons")["person_id"][0].as_py()
    for path in (landing / "clips").rglob("*.parquet"):
        rows = pq.read_table(path, partitioning=None)
        renamed = [
            person if locale.startswith("de") else product
            for product, locale in zip(rows["product"].to_pylist(), rows["locale"].to_pylist(), strict=True)
        ]
        pq.write_table(rows.set_column(rows.schema.get_field_index("product"), "product", pa.array(renamed)), path)
    outcome = make_courier(stage, CLIP_COURIER_LANDING=str(landing)).night(NIGHT)
    (leak,) = outcome.failures
    assert isinstance(leak, LeakFound)
    assert (leak.kind, leak.member, leak.column) == ("person_id", "manifest.parquet", "product")
    assert person not in str(leak)
    assert list((stage.root / "sealed").iterdir()) == []
    assert list((stage.vendors["borealis"].home / "outbound").iterdir()) == []
    assert len(list((stage.vendors["aurora"].home / "outbound").iterdir())) == 2
    states = {b.vendor: b.state for b in make_courier(stage).overview().batches}
    assert states == {"aurora": "DELIVERED", "borealis": "MANIFESTED"}


def test_verify_leaks_finds_nothing_on_a_clean_night_and_what_is_put_there(
    stage: Stage, make_courier: MakeCourier, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    manifested(stage, make_courier)
    for name, value in stage.environ.items():
        monkeypatch.setenv(name, value)
    asked = ["verify", "--leaks", "--json", "--now", NOW.isoformat()]
    assert main(asked) == 0
    clean = json.loads(capsys.readouterr().out)
    assert clean["values"] > 1000
    assert clean["hits"] == 0
    mail = pq.read_table(stage.folder / "world/landing/clips", columns=["account_email"])["account_email"][0].as_py()
    batch = next((stage.root / "nights").rglob("aurora-*"))
    (batch / "extra.json").write_text(json.dumps({"x": base64.b64encode(mail.encode()).decode()}))
    assert main(asked) == 1
    told = capsys.readouterr()
    leaks = json.loads(told.out)["leaks"]
    # The address is made of the name.
    assert {leak["kind"] for leak in leaks} == {"clips.account_email", "clips.speaker_name"}
    assert all(leak["place"].endswith("extra.json") for leak in leaks)
    assert mail not in told.out + told.err
    assert "error: LeakFound" in told.err
    assert main([*asked, "--vendor", "borealis"]) == 0
    assert main([*asked, "--night", "2026-11-19"]) == 0
    assert main([*asked, "--night", NIGHT.isoformat(), "--vendor", "aurora"]) == 1
