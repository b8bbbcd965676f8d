"""Configuration: what contracts §7 says, each mistake by file and key, and no secret in any text."""

import json
import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from clip_courier.courier import Courier
from clip_courier.errors import ConnectionInvalid, ConnectionMissing, SettingsInvalid, VendorUnknown
from clip_courier.ledger import Ledger
from clip_courier.model import Connection
from clip_courier.pgp import OwnKey, open_keyring
from clip_courier.settings import (
    INCLUDE,
    Settings,
    Vendor,
    credentials_from,
    json_schemas,
    load_settings,
    matches_range,
)
from clip_courier_demo.keys import make_key
from clip_courier_demo.stage import Stage, write_vendor
from conftest import NIGHT, NOW

HOLDS = {"from": "2026-01-01", "until": "2026-12-31"}
VENDOR: dict[str, Any] = {
    "name": "aurora",
    "country": "US",
    "transfer_mechanism": "scc",
    "mechanism_valid": HOLDS,
    "agreements": {"nda": HOLDS, "dpa": HOLDS, "staff_training": HOLDS},
    "clip_countries": ["US", "GB"],
    "locales": ["en", "hi"],
    "hours_per_night": 4,
    "batch_max_bytes": 4_000_000,
    "due_days": 3,
    "recipient_fingerprint": "A" * 40,
    "signer_fingerprint": "B" * 40,
    "public_key": "aurora.asc",
    "sftp_conn_id": "sftp_aurora",
}
ANY_DAY = st.dates(date(2025, 12, 1), date(2027, 2, 1))


@pytest.fixture
def configured(tmp_path: Path) -> Settings:
    """One vendor and the policies of the repository, in folders that a test may spoil."""
    (tmp_path / "vendors").mkdir()
    (tmp_path / "policy").mkdir()
    for policy in (INCLUDE / "policy").glob("*.yaml"):
        (tmp_path / "policy" / policy.name).write_text(policy.read_text(encoding="utf-8"), encoding="utf-8")
    write(tmp_path / "vendors" / "aurora.yaml", VENDOR)
    return load_settings(
        {
            "CLIP_COURIER_ROOT": str(tmp_path / "var"),
            "CLIP_COURIER_VENDORS": str(tmp_path / "vendors"),
            "CLIP_COURIER_POLICY": str(tmp_path / "policy"),
        }
    )


def write(path: Path, content: object) -> None:
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")


def refused(settings: Settings) -> str:
    with pytest.raises(SettingsInvalid) as error:
        settings.vendors()
    assert "\n" not in str(error.value)
    return str(error.value)


# -- the environment -------------------------------------------------------------------------------------------


def test_load_settings_has_the_defaults_of_the_contract(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = load_settings({})
    assert settings.root.path == tmp_path / "var"
    assert settings.root.landing == str(tmp_path / "var" / "landing")
    assert settings.vendors_folder == INCLUDE / "vendors"
    assert settings.policy_folder == INCLUDE / "policy"
    assert settings.ledger_url == f"sqlite:///{tmp_path}/var/ledger.sqlite"
    # A variable that is set to nothing is not set.
    names = ("ROOT", "LANDING", "VENDORS", "POLICY", "LEDGER")
    assert load_settings({f"CLIP_COURIER_{name}": "" for name in names}) == settings


def test_load_settings_reads_every_variable(tmp_path: Path) -> None:
    environ = {
        "CLIP_COURIER_ROOT": str(tmp_path / "root"),
        "CLIP_COURIER_LANDING": "s3://bucket/landing",
        "CLIP_COURIER_VENDORS": str(tmp_path / "v"),
        "CLIP_COURIER_POLICY": str(tmp_path / "p"),
        "CLIP_COURIER_LEDGER": "postgresql://db/ledger",
    }
    settings = load_settings(environ)
    assert settings.root.landing == "s3://bucket/landing"
    assert (settings.vendors_folder, settings.policy_folder) == (tmp_path / "v", tmp_path / "p")
    assert settings.ledger_url == "postgresql://db/ledger"
    assert load_settings(environ, tmp_path / "other").root.path == tmp_path / "other"


def test_policy_of_the_repository_is_read() -> None:
    policy = load_settings({}).policy()
    assert policy.notices["2026-02"].discloses_vendors
    assert not policy.notices["2024-01"].discloses_human_review
    assert policy.notices["2026-02"].effective_from == datetime(2026, 2, 1, tzinfo=UTC)
    assert policy.disclosure.vocabulary_k == 5
    assert policy.sampling.clips_per_person == 3


def test_policy_falls_back_but_not_for_notices(configured: Settings) -> None:
    for name in ("sampling", "disclosure", "quality"):
        (configured.policy_folder / f"{name}.yaml").unlink()
    assert configured.policy().quality.max_rejected_share == 0.5
    (configured.policy_folder / "notices.yaml").unlink()
    with pytest.raises(SettingsInvalid, match=r"notices\.yaml: not found"):
        configured.policy()


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("notices.yaml", '"1": {discloses_human_review: yes}', r"notices\.yaml: 1\.discloses_vendors: Field required"),
        (
            "notices.yaml",
            '"1": {discloses_human_review: perhaps, discloses_vendors: no, effective_from: 2026-01-01}',
            r"notices\.yaml: 1\.discloses_human_review:",
        ),
        (
            "notices.yaml",
            '"1": {discloses_human_review: no, discloses_vendors: no, effective_from: soon}',
            r"notices\.yaml: 1\.effective_from:",
        ),
        (
            "notices.yaml",
            '"1": {discloses_humans: no, discloses_vendors: no, effective_from: 2026-01-01}',
            r"notices\.yaml: 1\.discloses_humans: .*; did you mean discloses_human_review\?",
        ),
        ("sampling.yaml", "clip_per_person: 3", r"sampling\.yaml: clip_per_person: .*did you mean clips_per_person\?"),
        ("sampling.yaml", "clips_per_person: many", r"sampling\.yaml: clips_per_person:"),
        ("sampling.yaml", "strata: [product, product]", r"sampling\.yaml: .*names a column twice"),
        ("sampling.yaml", "strata: [speaker]", r"sampling\.yaml: strata\.0:"),
        ("sampling.yaml", "hours_per_stratum: {floor: 2, ceiling: 1}", r"`floor` is above `ceiling`"),
        ("sampling.yaml", "max_share: 2", r"sampling\.yaml: max_share:"),
        ("sampling.yaml", "retention_days: 0", r"sampling\.yaml: retention_days:"),
        ("disclosure.yaml", "vocabulary_k: 1", r"disclosure\.yaml: vocabulary_k:"),
        ("disclosure.yaml", "k: 1", r"disclosure\.yaml: k:"),
        ("disclosure.yaml", "epoch_max_days: 185", r"disclosure\.yaml: epoch_max_days:"),
        ("disclosure.yaml", "max_linkage: 1.1", r"disclosure\.yaml: max_linkage:"),
        ("disclosure.yaml", "padded_bounds_ms: [30000, 10000]", r"disclosure\.yaml: .*`padded_bounds_ms` must ascend"),
        ("disclosure.yaml", "duration_bounds_ms: [5000, 2000]", r"disclosure\.yaml: `duration_bounds_ms` must ascend"),
        ("quality.yaml", "max_rejected_share: 1.5", r"quality\.yaml: max_rejected_share:"),
        ("quality.yaml", "max_rejected_share: nan", r"quality\.yaml: max_rejected_share:"),
        ("quality.yaml", "- 0.5", r"quality\.yaml: must be a mapping"),
    ],
)
def test_policy_names_the_file_and_the_key_of_a_mistake(
    configured: Settings, name: str, content: str, says: str
) -> None:
    (configured.policy_folder / name).write_text(content, encoding="utf-8")
    with pytest.raises(SettingsInvalid, match=says):
        configured.policy()


# -- vendors' files --------------------------------------------------------------------------------------------


def test_vendors_are_read_as_the_contract_says(configured: Settings) -> None:
    vendor = configured.vendor("aurora")
    assert configured.vendors() == {"aurora": vendor}
    assert (vendor.signature, vendor.remote_root) == ("embedded", ".")
    assert vendor.agreements.nda.from_ == date(2026, 1, 1)
    assert vendor.hours_per_night == 4.0


def test_vendors_read_words_of_yaml_as_text(configured: Settings) -> None:
    """`NO` is Norway and not false, and a fingerprint of digits is not a number."""
    changes = {"country": "NO", "clip_countries": ["NO"], "recipient_fingerprint": "1" * 40}
    content = yaml.safe_dump(VENDOR | changes).replace("'", "")
    (configured.vendors_folder / "aurora.yaml").write_text(content, encoding="utf-8")
    vendor = configured.vendor("aurora")
    assert (vendor.country, vendor.clip_countries, vendor.recipient_fingerprint) == ("NO", ["NO"], "1" * 40)


def test_vendors_take_fingerprints_in_any_case(configured: Settings) -> None:
    write(configured.vendors_folder / "aurora.yaml", VENDOR | {"signer_fingerprint": "abcdef0123" * 4})
    assert configured.vendor("aurora").signer_fingerprint == "ABCDEF0123" * 4


@pytest.mark.parametrize("key", sorted({*VENDOR} - {"mechanism_valid"}))
def test_vendors_need_every_key(configured: Settings, key: str) -> None:
    write(configured.vendors_folder / "aurora.yaml", {k: v for k, v in VENDOR.items() if k != key})
    assert refused(configured) == f"aurora.yaml: {key}: Field required"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"name": "borealis"}, "aurora.yaml: name: must be the file's stem, aurora"),
        ({"name": "Aurora!"}, "aurora.yaml: name: "),
        ({"country": "USA"}, "aurora.yaml: country: "),
        ({"country": ["US"]}, "aurora.yaml: country: "),
        ({"transfer_mechanism": "handshake"}, "aurora.yaml: transfer_mechanism: "),
        ({"mechanism_valid": None}, "aurora.yaml: mechanism_valid: "),
        (
            {"mechanism_valid": {"from": "2026-12-31", "until": "2026-01-01"}},
            "aurora.yaml: mechanism_valid: `until` lies",
        ),
        ({"agreements": {"nda": HOLDS, "dpa": HOLDS}}, "aurora.yaml: agreements.staff_training: Field required"),
        (
            {"agreements": VENDOR["agreements"] | {"nda": {"from": "2026-02-30", "until": "2026-12-31"}}},
            "agreements.nda.from",
        ),
        (
            {"agreements": VENDOR["agreements"] | {"nda": {"from": 0, "until": "2026-12-31"}}},
            "agreements.nda.from: must be",
        ),
        (
            {"agreements": VENDOR["agreements"] | {"nda": {"from": 20260101, "until": "2026-12-31"}}},
            "agreements.nda.from",
        ),
        (
            {"agreements": VENDOR["agreements"] | {"dpa": {"from": "2026-01-01", "untill": "2026-12-31"}}},
            "did you mean until?",
        ),
        (
            {"agreements": VENDOR["agreements"] | {"ndaa": HOLDS}},
            "agreements.ndaa: Extra inputs are not permitted; did you",
        ),
        ({"clip_countries": "all"}, "aurora.yaml: clip_countries: "),
        ({"clip_countries": ["US", "Germany"]}, "aurora.yaml: clip_countries.1: "),
        ({"locales": []}, "aurora.yaml: locales: "),
        ({"locales": ["en_US"]}, "aurora.yaml: locales.0: "),
        ({"hours_per_night": "some"}, "aurora.yaml: hours_per_night: "),
        ({"hours_per_night": 0}, "aurora.yaml: hours_per_night: "),
        ({"hours_per_night": "inf"}, "aurora.yaml: hours_per_night: "),
        ({"batch_max_bytes": "4 MB"}, "aurora.yaml: batch_max_bytes: "),
        ({"batch_max_bytes": 10}, "aurora.yaml: batch_max_bytes: "),
        ({"due_days": 2.5}, "aurora.yaml: due_days: "),
        ({"recipient_fingerprint": "A" * 39}, "aurora.yaml: recipient_fingerprint: "),
        ({"recipient_fingerprint": "AAAA BBBB " * 5}, "aurora.yaml: recipient_fingerprint: "),
        ({"signer_fingerprint": "0x" + "A" * 38}, "aurora.yaml: signer_fingerprint: "),
        ({"signature": "none"}, "aurora.yaml: signature: "),
        ({"sftp_conn_id": "sftp aurora"}, "aurora.yaml: sftp_conn_id: "),
        ({"locale": ["en"]}, "aurora.yaml: locale: Extra inputs are not permitted; did you mean locales?"),
        ({"password": "hunter2"}, "aurora.yaml: password: Extra inputs are not permitted"),
    ],
)
def test_vendors_name_the_file_and_the_key_of_a_mistake(
    configured: Settings, changes: dict[str, object], says: str
) -> None:
    write(configured.vendors_folder / "aurora.yaml", VENDOR | changes)
    assert says in refused(configured)
    assert refused(configured).startswith("aurora.yaml: ")


def test_vendors_name_a_mistyped_key_before_the_one_that_is_missing(configured: Settings) -> None:
    content = {("contry" if key == "country" else key): value for key, value in VENDOR.items()}
    write(configured.vendors_folder / "aurora.yaml", content)
    assert refused(configured) == (
        "aurora.yaml: contry: Extra inputs are not permitted; did you mean country? (and 1 more)"
    )


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ("due_days: 3", "due_days: 3\ndue_days: 30", "aurora.yaml: line 1: due_days: stands twice"),
        ("  nda:", "  nda: {from: 2026-01-01, until: 2099-12-31}\n  nda:", ": nda: stands twice"),
        ("due_days: 3", "due_days: [3", "aurora.yaml: line "),
        ("due_days: 3", "due_days: 3\n---\nname: other", "aurora.yaml: line "),
        ("due_days: 3", "\tdue_days: 3", "aurora.yaml: line "),
    ],
)
def test_vendors_name_the_line_of_what_is_not_yaml(configured: Settings, before: str, after: str, says: str) -> None:
    path = configured.vendors_folder / "aurora.yaml"
    text = path.read_text(encoding="utf-8")
    assert before in text
    path.write_text(text.replace(before, after, 1), encoding="utf-8")
    assert says in refused(configured)


def test_vendors_refuse_a_file_that_is_no_text(configured: Settings) -> None:
    (configured.vendors_folder / "aurora.yaml").write_bytes(b"\xff\xfe\x00name")
    assert refused(configured) == "aurora.yaml: cannot be read (UnicodeDecodeError)"
    (configured.vendors_folder / "aurora.yaml").write_bytes(b"")
    assert "Field required" in refused(configured)


def test_vendors_refuse_a_folder_that_is_not_there(configured: Settings) -> None:
    (configured.vendors_folder / "aurora.yaml").unlink()
    assert configured.vendors() == {}
    configured.vendors_folder.rmdir()
    assert "CLIP_COURIER_VENDORS" in refused(configured)


@pytest.mark.parametrize("name", ["borealis", "../vendors/aurora", "aurora.yaml", "", ".", "/etc/passwd"])
def test_vendor_knows_only_files_of_the_folder(configured: Settings, name: str) -> None:
    with pytest.raises(VendorUnknown, match="known: aurora"):
        configured.vendor(name)


def test_no_vendor_is_active_in_the_repository() -> None:
    assert load_settings({}).vendors() == {}


def test_readme_of_the_vendors_shows_a_file_that_is_read(tmp_path: Path) -> None:
    text = (INCLUDE / "vendors" / "README.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    (tmp_path / "example.yaml").write_text(example, encoding="utf-8")
    vendor = load_settings({"CLIP_COURIER_VENDORS": str(tmp_path)}).vendor("example")
    assert vendor.speaks("de-AT")
    assert vendor.speaks("fr-CH")
    assert not vendor.speaks("fr-BE")
    # Complete: whoever copies it sees every key.
    shown = set(yaml.safe_load(example))
    assert shown == set(Vendor.model_fields)
    assert all("#" in line for line in example.splitlines() if line[:1].isalpha() and not line.startswith("from"))


def test_schemas_are_fresh_and_named_where_they_apply() -> None:
    schemas = json_schemas()
    assert {path.name for path in (INCLUDE / "schema").iterdir()} == set(schemas)
    for name, text in schemas.items():
        assert (INCLUDE / "schema" / name).read_text(encoding="utf-8") == text
        assert json.loads(text)["type"] == "object"
    for policy in (INCLUDE / "policy").glob("*.yaml"):
        first = policy.read_text(encoding="utf-8").splitlines()[0]
        assert first == f"# yaml-language-server: $schema=../schema/{policy.stem}.json"
    assert "$schema=../schema/vendor.json" in (INCLUDE / "vendors" / "README.md").read_text(encoding="utf-8")


# -- what a vendor may have ------------------------------------------------------------------------------------


@given(day=ANY_DAY, begins=ANY_DAY, days=st.integers(0, 200))
def test_lapsed_on_counts_both_days_of_each_agreement(day: date, begins: date, days: int) -> None:
    ends = begins + timedelta(days=days)
    dates = {"from": begins.isoformat(), "until": ends.isoformat()}
    always = {"from": "2000-01-01", "until": "2100-01-01"}
    all_hold = VENDOR | {"mechanism_valid": always, "agreements": dict.fromkeys(VENDOR["agreements"], always)}
    assert Vendor.model_validate(all_hold).lapsed_on(day) == []
    for name in ("nda", "dpa", "staff_training"):
        content = all_hold | {"agreements": all_hold["agreements"] | {name: dates}}
        assert Vendor.model_validate(content).lapsed_on(day) == ([] if begins <= day <= ends else [name])
    content = all_hold | {"mechanism_valid": dates}
    assert Vendor.model_validate(content).lapsed_on(day) == ([] if begins <= day <= ends else ["transfer mechanism"])


@pytest.mark.parametrize("mechanism", ["domestic", "adequacy", "scc"])
@pytest.mark.parametrize("vendor_country", ["US", "DE"])
@pytest.mark.parametrize("clip_countries", [[], ["US"], ["DE", "GB"], "any"])
@pytest.mark.parametrize("day", [date(2025, 12, 31), date(2026, 1, 1), date(2026, 12, 31), date(2027, 1, 1)])
@pytest.mark.parametrize("is_mechanism_dated", [True, False])
def test_may_receive_denies_what_is_not_allowed(
    mechanism: str, vendor_country: str, clip_countries: list[str] | str, day: date, is_mechanism_dated: bool
) -> None:
    content = VENDOR | {
        "country": vendor_country,
        "transfer_mechanism": mechanism,
        "clip_countries": clip_countries,
        "agreements": {name: {"from": "2020-01-01", "until": "2030-01-01"} for name in VENDOR["agreements"]},
    }
    if not is_mechanism_dated:
        del content["mechanism_valid"]
        if mechanism != "domestic":
            with pytest.raises(ValueError, match="mechanism_valid"):
                Vendor.model_validate(content)
            return
    vendor = Vendor.model_validate(content)
    holds = not is_mechanism_dated or day.year == 2026
    for country in ("US", "DE", "GB", "ZZ", "", "us"):
        is_listed = clip_countries == "any" or country in clip_countries
        is_near = mechanism != "domestic" or country == vendor_country
        assert vendor.may_receive(country, day) == (holds and is_listed and is_near)


def plainly_matches(tag: list[str], wanted: list[str]) -> bool:
    """RFC 4647 §3.3.2 as a recursion: the first subtags agree, the others follow in order, none beyond a singleton."""

    def rest(tag: list[str], wanted: list[str]) -> bool:
        if not wanted:
            return True
        if wanted[0] == "*":
            return rest(tag, wanted[1:])
        if not tag:
            return False
        if tag[0] == wanted[0]:
            return rest(tag[1:], wanted[1:])
        return len(tag[0]) > 1 and rest(tag[1:], wanted)

    return wanted[0] in ("*", tag[0]) and rest(tag[1:], wanted[1:])


SUBTAGS = st.sampled_from(["de", "fr", "latn", "hant", "ch", "at", "1901", "x", "a", "ab"])


@given(st.lists(SUBTAGS, min_size=1, max_size=5), st.lists(st.one_of(SUBTAGS, st.just("*")), min_size=1, max_size=4))
def test_matches_range_is_that_of_the_rfc(tag: list[str], wanted: list[str]) -> None:
    assert matches_range("-".join(tag).upper(), "-".join(wanted)) == plainly_matches(tag, wanted)


def test_matches_range_agrees_with_the_examples_of_the_rfc() -> None:
    matching = "de-DE de-de de-Latn-DE de-Latf-DE de-DE-x-goethe de-Latn-DE-1996 de-Deva-DE".split()
    others = "de de-x-DE de-Deva".split()
    for wanted in ("de-DE", "de-*-DE"):
        assert all(matches_range(tag, wanted) for tag in matching)
        assert not any(matches_range(tag, wanted) for tag in others)


# -- public keys -----------------------------------------------------------------------------------------------


def test_public_keys_are_one_or_two_as_the_fingerprints_say(configured: Settings) -> None:
    one, two, three = (
        f"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n{name}\n-----END PGP PUBLIC KEY BLOCK-----\n" for name in "abc"
    )
    vendor, path = configured.vendor("aurora"), configured.vendors_folder / "aurora.asc"
    path.write_text(one, encoding="ascii")
    assert configured.public_keys(vendor) == [one.encode()]
    path.write_text(f"The key we decrypt with:\n{one}\nThe key we sign with:\n{two}", encoding="ascii")
    assert [text.decode()[: len(one)] for text in configured.public_keys(vendor)] == [one, two]
    path.write_text(one + two + three, encoding="ascii")
    with pytest.raises(SettingsInvalid, match=r"aurora\.yaml: public_key: .*3 keys"):
        configured.public_keys(vendor)
    path.write_text(one + two, encoding="ascii")
    same = vendor.model_copy(update={"signer_fingerprint": vendor.recipient_fingerprint})
    with pytest.raises(SettingsInvalid, match=r"aurora\.yaml: public_key: .*2 keys"):
        configured.public_keys(same)


def test_public_keys_lie_beside_the_vendors_file(configured: Settings) -> None:
    (configured.vendors_folder.parent / "secret.asc").write_text("secret", encoding="ascii")
    vendor = configured.vendor("aurora")
    for name in ("aurora.asc", "../secret.asc", str(configured.vendors_folder.parent / "secret.asc"), "", ".", ".."):
        with pytest.raises(SettingsInvalid, match=r"aurora\.yaml: public_key: no such file"):
            configured.public_keys(vendor.model_copy(update={"public_key": name}))


def test_public_keys_refuse_a_private_key(configured: Settings) -> None:
    pair = make_key("careless vendor")
    (configured.vendors_folder / "aurora.asc").write_text(pair.public_key + pair.private_key, encoding="ascii")
    with pytest.raises(SettingsInvalid, match="private key"):
        configured.public_keys(configured.vendor("aurora"))


def test_a_vendor_that_signs_with_a_second_key_is_believed(
    stage: Stage, make_courier: Callable[..., Courier], truth: dict[str, str]
) -> None:
    """Sealed for the first key; the return is signed by the second one, with real gpg."""
    aurora = stage.vendors["aurora"]
    second = make_key("aurora signs", made_at=NOW - timedelta(days=30))
    folder = stage.folder / "vendors"
    write_vendor(folder, "aurora", aurora.key, NIGHT, signer_fingerprint=second.fingerprint)
    (folder / "aurora.asc").write_text(aurora.key.public_key + second.public_key, encoding="ascii")
    courier = make_courier(stage)
    assert not courier.night(NIGHT, "aurora").failures
    (batch_id,) = aurora._unanswered()
    rows = list(aurora._transcribe(aurora.take(batch_id), truth, NOW))
    with open_keyring(OwnKey(second.fingerprint, second.private_key), [stage.our_key.public_key]) as keyring:
        aurora.send(keyring, batch_id, 1, rows, NOW)
    assert not courier.collect("aurora").failures
    (returned,) = Ledger(load_settings(stage.environ).ledger_url).returns("aurora")
    assert (returned.state, returned.accepted_rows) == ("ACCEPTED", len(rows))


# -- connections -----------------------------------------------------------------------------------------------


def test_credentials_read_the_json_of_airflow() -> None:
    fields = {"conn_type": "sftp", "host": "sftp.example", "port": "2222", "login": "us", "password": "p"}
    for extra in ({"host_key": "k"}, '{"host_key": "k"}'):
        text = json.dumps(fields | {"extra": extra})
        connection = credentials_from({"AIRFLOW_CONN_SFTP_AURORA": text}, "sftp_aurora")
        assert connection == Connection("sftp_aurora", "sftp.example", 2222, "us", "p", {"host_key": "k"})


def test_credentials_are_missing_by_name() -> None:
    with pytest.raises(ConnectionMissing, match="sftp_aurora"):
        credentials_from({"AIRFLOW_CONN_SFTP_BOREALIS": "{}"}, "sftp_aurora")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hunter2",
        "sftp://us:hunter2@sftp.example",
        '{"password": "hunter2"',
        '["hunter2"]',
        '"hunter2"',
        '{"extra": "hunter2"}',
        '{"extra": ["hunter2"]}',
        '{"extra": [["hunter2", "hunter2"]]}',
        '{"password": "hunter2", "port": "hunter2"}',
        '{"password": "hunter2", "port": [22]}',
        '{"password": 5, "login": "hunter2"}',
        '{"host": {"hunter2": 1}}',
        "[" * 100_000,
    ],
)
def test_credentials_that_are_garbled_show_no_secret(text: str) -> None:
    with pytest.raises(ConnectionInvalid, match="clip_courier_pgp") as error:
        credentials_from({"AIRFLOW_CONN_CLIP_COURIER_PGP": text}, "clip_courier_pgp")
    chain, shown = error.value, []
    while chain is not None:
        shown += [str(chain), repr(chain), repr(vars(chain))]
        chain = chain.__cause__ or chain.__context__  # type: ignore[assignment]
    assert not any("hunter2" in one for one in shown)


def test_connection_shows_no_secret() -> None:
    connection = Connection("c", "host", 22, "login", "hunter2", {"private_key": "hunter2"})
    assert "hunter2" not in repr(connection)
    assert "hunter2" not in str(connection)
