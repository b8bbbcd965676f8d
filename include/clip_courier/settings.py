"""Configuration, contracts §7: the environment, the vendors' files and the policies, each checked before any work.

A file is YAML whose scalars are read as text, so that `no` is a country and `1.0` a version; pydantic gives them their
types. Unknown keys are errors. Secrets never stand in a file: files name connections.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self, TypeVar

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    RootModel,
    StringConstraints,
    ValidationError,
    WithJsonSchema,
    model_validator,
)

from clip_courier.errors import ConnectionInvalid, ConnectionMissing, SettingsInvalid, VendorUnknown
from clip_courier.model import Connection, Root
from clip_courier.rules import LANDING_RULES, Action, Over

M = TypeVar("M", bound=BaseModel)

INCLUDE = Path(__file__).resolve().parents[1]
_KEY_BLOCK: Final = b"-----BEGIN PGP PUBLIC KEY BLOCK-----"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _utc_start(value: object) -> object:
    """A plain date means its first instant in UTC; a time without a zone is UTC."""
    if isinstance(value, str) and len(value) == 10:
        value += "T00:00:00"
    moment = datetime.fromisoformat(value.replace("Z", "+00:00")) if isinstance(value, str) else value
    return moment.replace(tzinfo=UTC) if isinstance(moment, datetime) and moment.tzinfo is None else moment


def _iso_day(value: object) -> object:
    """Pydantic alone would also take a number, as seconds since 1970: `from: 0` would hold for ever."""
    if isinstance(value, str) and not re.fullmatch(r"\d{4}-\d{2}-\d{2}", value, re.ASCII):
        raise ValueError("must be a date, YYYY-MM-DD")
    return value


Fingerprint = Annotated[str, StringConstraints(pattern=r"^[0-9A-Fa-f]{40}$", to_upper=True, strip_whitespace=True)]
Day = Annotated[date, BeforeValidator(_iso_day)]
CountryCode = Annotated[str, StringConstraints(pattern=r"^[A-Z]{2}$")]
LanguageRange = Annotated[str, StringConstraints(pattern=r"^(\*|[A-Za-z]{1,8})(-(\*|[A-Za-z0-9]{1,8}))*$")]
StartOfDay = Annotated[
    datetime,
    BeforeValidator(_utc_start),
    WithJsonSchema({"anyOf": [{"type": "string", "format": "date"}, {"type": "string", "format": "date-time"}]}),
]


class Validity(_Strict):
    """Both days included."""

    from_: Day = Field(alias="from")
    until: Day

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if self.until < self.from_:
            raise ValueError("`until` lies before `from`")
        return self

    def holds_on(self, day: date) -> bool:
        return self.from_ <= day <= self.until


class Agreements(_Strict):
    """What a vendor has signed: confidentiality, data processing (GDPR Art. 28), and the training of its staff."""

    nda: Validity
    dpa: Validity
    staff_training: Validity


class Vendor(_Strict):
    """One transcription vendor: what the law and the contracts allow it, and the keys that are pinned for it."""

    name: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
    country: CountryCode
    transfer_mechanism: Literal["domestic", "adequacy", "scc"]
    mechanism_valid: Validity | None = None
    agreements: Agreements
    clip_countries: list[CountryCode] | Literal["any"]
    locales: Annotated[list[LanguageRange], Field(min_length=1)]
    hours_per_night: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    batch_max_bytes: Annotated[int, Field(ge=65_536)]
    due_days: Annotated[int, Field(ge=1)]
    recipient_fingerprint: Fingerprint
    signer_fingerprint: Fingerprint
    public_key: str
    signature: Literal["embedded", "detached"] = "embedded"
    # A disguise makes a voice harder to know again, and harder to understand; it makes nobody anonymous.
    voice: Literal["natural", "disguised"] = "natural"
    # What of a hypothesis this vendor reads: known harmless words alone, or all but what identifies somebody.
    redaction: Literal["strict", "entities"] = "strict"
    sftp_conn_id: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_]+$")]
    remote_root: str = "."

    @model_validator(mode="after")
    def _check_mechanism(self) -> Self:
        if self.mechanism_valid is None and self.transfer_mechanism != "domestic":
            raise ValueError("`mechanism_valid` must say from when until when the transfer mechanism holds")
        return self

    def lapsed_on(self, day: date) -> list[str]:
        """The names of what does not hold on that day; empty when the gate is open."""
        dated = {
            "nda": self.agreements.nda,
            "dpa": self.agreements.dpa,
            "staff_training": self.agreements.staff_training,
            "transfer mechanism": self.mechanism_valid,
        }
        return [name for name, validity in dated.items() if validity and not validity.holds_on(day)]

    def may_receive(self, country: str, day: date) -> bool:
        """Whether the law of the clip's country lets it go to this vendor on that day; deny by default."""
        if self.lapsed_on(day):
            return False
        if self.transfer_mechanism == "domestic" and country != self.country:
            return False
        return self.clip_countries == "any" or country in self.clip_countries

    def speaks(self, locale: str) -> bool:
        return any(matches_range(locale, wanted) for wanted in self.locales)


def matches_range(tag: str, language_range: str) -> bool:
    """Extended filtering of a BCP 47 tag by a language range, RFC 4647 §3.3.2."""
    subtags, wanted = tag.lower().split("-"), language_range.lower().split("-")
    if wanted[0] not in ("*", subtags[0]):
        return False
    position = 1
    for part in wanted[1:]:
        if part == "*":
            continue
        while position < len(subtags) and subtags[position] != part:
            if len(subtags[position]) == 1:
                return False
            position += 1
        if position == len(subtags):
            return False
        position += 1
    return True


class Notice(_Strict):
    """What a version of the notice told the person who saw it."""

    discloses_human_review: bool
    discloses_vendors: bool
    effective_from: StartOfDay


class Notices(RootModel[dict[str, Notice]]):
    """Version of the notice → what it told."""


class Hours(_Strict):
    """The least and the most that a stratum gets in a night, in hours of audio, where so much may be had."""

    floor: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0
    ceiling: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.5

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if self.floor > self.ceiling:
            raise ValueError("`floor` is above `ceiling`")
        return self


class Sampling(_Strict):
    """What may be sampled, and the sampling plan. Every participant of a clip counts wherever a person does."""

    strata: Annotated[list[Literal["product", "locale", "country", "activation"]], Field(min_length=1)] = [
        "product",
        "locale",
    ]
    hours_per_night: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 150
    hours_per_stratum: Hours = Hours()
    # Strata that differ, by name: the values of `strata` with " × " between them.
    hours_of_stratum: dict[str, Hours] = {}
    allocation: Literal["proportional", "sqrt", "neyman"] = "proportional"
    # What a clip without any confidence weighs more than 1, as one with full confidence does.
    uncertainty_weight: Annotated[float, Field(ge=0, le=100)] = 0
    clips_per_person: Annotated[int, Field(gt=0)] = 3
    # What vendors may hear of one person in so many days; a clip that two vendors hear counts twice.
    exposure_seconds: Annotated[int, Field(gt=0)] = 600
    exposure_days: Annotated[int, Field(gt=0)] = 30
    # Of all clips in the landing window, how large a share may ever be with vendors.
    max_share: Annotated[float, Field(gt=0, le=1)] = 1
    # Of the chosen clips, how large a share goes to two vendors, and of how many the hypotheses are not shown.
    overlap_share: Annotated[float, Field(ge=0, le=1)] = 0
    withheld_share: Annotated[float, Field(ge=0, le=1)] = 0
    # Two clips of one call whose recordings begin closer than this never lie with one vendor.
    call_distance_seconds: Annotated[int, Field(ge=0)] = 300
    min_duration_ms: Annotated[int, Field(gt=0)] = 500
    # Half a day: what is longer is no clip, and its square would be too long for the statements.
    max_duration_ms: Annotated[int, Field(gt=0, le=43_200_000)] = 30_000
    retention_days: Annotated[int, Field(gt=0)] = 90
    birth_year_required: bool = True

    @model_validator(mode="after")
    def _check_strata(self) -> Self:
        if len(set(self.strata)) < len(self.strata):
            raise ValueError("`strata` names a column twice")
        return self

    def hours(self, stratum: str) -> Hours:
        return self.hours_of_stratum.get(stratum, self.hours_per_stratum)


class Disclosure(_Strict):
    """What keeps persons from being told apart by what leaves: docs/disclosure.md."""

    # A word of a hypothesis leaves only when this many distinct persons said it in the landing window.
    vocabulary_k: Annotated[int, Field(ge=2)] = 5
    # So many distinct persons, at the least, are in every group that a vendor sees.
    k: Annotated[int, Field(ge=2)] = 2
    # Where buckets of duration end: each clip is counted in one.
    duration_bounds_ms: list[Annotated[int, Field(gt=0)]] = [2_000, 5_000, 10_000, 20_000]
    # Where coarser buckets end: what is alone with its length is made as long as its bucket, by silence at its end.
    padded_bounds_ms: list[Annotated[int, Field(gt=0)]] = [10_000, 30_000]
    # The share of a batch's persons that an attack may link to another vendor's or epoch's, beyond chance.
    max_linkage: Annotated[float, Field(ge=0, le=1)] = 0.1
    # Six months.
    epoch_max_days: Annotated[int, Field(ge=1, le=184)] = 184
    # Silenced before and after a word that may not be heard: how far a recogniser's times may be off.
    beep_margin_ms: Annotated[int, Field(ge=0, le=1000)] = 100

    @model_validator(mode="after")
    def _check_bounds(self) -> Self:
        for name in ("duration_bounds_ms", "padded_bounds_ms"):
            bounds = getattr(self, name)
            if bounds != sorted(set(bounds)):
                raise ValueError(f"`{name}` must ascend")
        return self


class Threshold(_Strict):
    """How many rows of the landing window may break a rule, and what happens when more do.

    `stop`: the night stops. `quarantine`: the rows are rejected, as they are under `stop`, and nothing more.
    `warn`: they are counted and not rejected.
    """

    action: Action
    max_share: Annotated[float, Field(ge=0, le=1)] | None = None
    max_rows: Annotated[int, Field(ge=0)] | None = None

    @model_validator(mode="after")
    def _check_one(self) -> Self:
        if (self.max_share is None) == (self.max_rows is None):
            raise ValueError("needs either `max_share` or `max_rows`")
        return self


class Quality(_Strict):
    """The share of a night's sample that may be rejected before the night is stopped as a broken contract.

    `landing`: thresholds of the rules for the landing zone that differ from those of clip_courier/rules.py.
    """

    max_rejected_share: Annotated[float, Field(gt=0, le=1)] = 0.5
    landing: dict[str, Threshold] = {}

    @model_validator(mode="after")
    def _check_rules(self) -> Self:
        known = [rule.reason for rule in LANDING_RULES]
        for unknown in sorted(self.landing.keys() - set(known)):
            close = get_close_matches(unknown, known, n=1)
            raise ValueError(f"`landing`: there is no rule {unknown}{f'; did you mean {close[0]}?' if close else ''}")
        return self

    def over(self) -> dict[str, Over]:
        """Of each rule for the landing zone, what happens above how much."""
        given = {reason: Over(t.action, t.max_share, t.max_rows) for reason, t in self.landing.items()}
        return {rule.reason: given.get(rule.reason, rule.over) for rule in LANDING_RULES if rule.over}


@dataclass(frozen=True)
class Policy:
    notices: Mapping[str, Notice]
    sampling: Sampling
    disclosure: Disclosure
    quality: Quality


@dataclass(frozen=True)
class Settings:
    root: Root
    vendors_folder: Path
    policy_folder: Path
    ledger_url: str

    def policy(self) -> Policy:
        """The policies; notices must be there, the others fall back to their documented defaults."""
        notices = self.policy_folder / "notices.yaml"
        if not notices.exists():
            raise SettingsInvalid(f"{notices.name}: not found, and without notices nothing was disclosed to anyone")
        return Policy(
            notices=_parse(Notices, _mapping(notices), notices).root,
            sampling=self._optional("sampling.yaml", Sampling),
            disclosure=self._optional("disclosure.yaml", Disclosure),
            quality=self._optional("quality.yaml", Quality),
        )

    def _optional(self, name: str, kind: type[M]) -> M:
        path = self.policy_folder / name
        return _parse(kind, _mapping(path), path) if path.exists() else kind()

    def vendors(self) -> dict[str, Vendor]:
        """Every vendor that has a file, by name."""
        return {file.stem: self._vendor(file) for file in self._vendor_files()}

    def _vendor_files(self) -> list[Path]:
        if not self.vendors_folder.is_dir():
            raise SettingsInvalid(f"{self.vendors_folder}: CLIP_COURIER_VENDORS: there is no such folder")
        return sorted(self.vendors_folder.glob("*.yaml"))

    def vendor(self, name: str) -> Vendor:
        file = self.vendors_folder / f"{name}.yaml"
        if file.parent != self.vendors_folder or not file.exists():
            known = ", ".join(path.stem for path in self._vendor_files()) or "none"
            raise VendorUnknown(f"no vendor of that name; known: {known}")
        return self._vendor(file)

    def _vendor(self, file: Path) -> Vendor:
        vendor = _parse(Vendor, _mapping(file), file)
        if vendor.name != file.stem:
            raise SettingsInvalid(f"{file.name}: name: must be the file's stem, {file.stem}")
        return vendor

    def public_keys(self, vendor: Vendor) -> list[bytes]:
        """The vendor's key file, beside the vendor's own: one key, or two where it signs with another than it decrypts.

        Each block is one text, as `gpg --armor --export` writes it; two keys may stand in one or one after the other.
        """
        where = f"{vendor.name}.yaml: public_key"
        path = self.vendors_folder / vendor.public_key
        if path.name != vendor.public_key or not path.is_file():
            raise SettingsInvalid(f"{where}: no such file beside the vendor's file")
        content = path.read_bytes()
        if b"PRIVATE KEY BLOCK" in content:
            raise SettingsInvalid(f"{where}: the file holds a private key; ask the vendor to replace it, it is burnt")
        # A file that is not armoured is left to the keyring to judge.
        blocks = [_KEY_BLOCK + text for text in content.split(_KEY_BLOCK)[1:]] or [content]
        if len(blocks) > 1 + (vendor.recipient_fingerprint != vendor.signer_fingerprint):
            raise SettingsInvalid(f"{where}: the file holds {len(blocks)} keys, more than the fingerprints name")
        return blocks


def load_settings(environ: Mapping[str, str], root: Path | None = None) -> Settings:
    """Settings from CLIP_COURIER_*; `root` (the command line's --root) wins over CLIP_COURIER_ROOT."""
    path = (root or Path(environ.get("CLIP_COURIER_ROOT") or "var")).absolute()
    landing = environ.get("CLIP_COURIER_LANDING") or str(path / "landing")
    return Settings(
        root=Root(path, landing),
        vendors_folder=Path(environ.get("CLIP_COURIER_VENDORS") or INCLUDE / "vendors").absolute(),
        policy_folder=Path(environ.get("CLIP_COURIER_POLICY") or INCLUDE / "policy").absolute(),
        ledger_url=environ.get("CLIP_COURIER_LEDGER") or f"sqlite:///{path / 'ledger.sqlite'}",
    )


def credentials_from(environ: Mapping[str, str], conn_id: str) -> Connection:
    """The connection as Airflow writes it into the environment: AIRFLOW_CONN_<ID>, JSON."""
    text = environ.get(f"AIRFLOW_CONN_{conn_id.upper()}")
    if text is None:
        raise ConnectionMissing(f"connection {conn_id} is not defined")
    connection = _connection(conn_id, text)
    if connection is None:
        # Raised out here: the error that was caught in there holds the text, and the text holds secrets.
        raise ConnectionInvalid(f"connection {conn_id} is not the JSON of a connection")
    return connection


def _connection(conn_id: str, text: str) -> Connection | None:
    try:
        fields = json.loads(text)
        texts = {name: fields.get(name) for name in ("host", "login", "password")}
        extra = fields.get("extra") or {}
        extra = json.loads(extra) if isinstance(extra, str) else extra
        port = fields.get("port")
        if not isinstance(extra, dict) or not all(isinstance(value, str | None) for value in texts.values()):
            return None
        return Connection(conn_id=conn_id, port=int(port) if port is not None else None, extra=extra, **texts)
    except (ValueError, TypeError, AttributeError, RecursionError):
        return None


class _TextLoader(yaml.CBaseLoader):
    """Scalars stay text, and a key that stands twice is an error instead of the last one winning."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[object, object]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = sorted({str(key) for key in keys if keys.count(key) > 1})
        if twice:
            raise yaml.constructor.ConstructorError(None, None, f"{', '.join(twice)}: stands twice", node.start_mark)
        return super().construct_mapping(node, deep)


def _mapping(path: Path) -> dict[str, object]:
    try:
        # Its base builds nothing but text, lists and mappings.
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_TextLoader)  # noqa: S506
    except (OSError, UnicodeDecodeError) as broken:
        raise SettingsInvalid(f"{path.name}: cannot be read ({type(broken).__name__})") from broken
    except yaml.MarkedYAMLError as broken:
        line = f"line {broken.problem_mark.line + 1}: " if broken.problem_mark else ""
        raise SettingsInvalid(f"{path.name}: {line}{broken.problem}") from broken
    except yaml.YAMLError as broken:
        raise SettingsInvalid(f"{path.name}: is not YAML ({type(broken).__name__})") from broken
    if content in (None, ""):
        return {}
    if not isinstance(content, dict):
        raise SettingsInvalid(f"{path.name}: must be a mapping of keys to values")
    return content


def _parse(kind: type[M], content: object, path: Path) -> M:
    try:
        return kind.model_validate(content)
    except ValidationError as invalid:
        # A mistyped key is both unknown and missing: the first says more.
        first = min(invalid.errors(), key=lambda error: error["type"] != "extra_forbidden")
        where = ".".join(str(part) for part in first["loc"] if not str(part).startswith(("list[", "literal[")))
        hint = _did_you_mean(kind, first["loc"]) if first["type"] == "extra_forbidden" else ""
        more = f" (and {invalid.error_count() - 1} more)" if invalid.error_count() > 1 else ""
        says = first["msg"].removeprefix("Value error, ")
        raise SettingsInvalid(f"{path.name}: {where}{': ' if where else ''}{says}{hint}{more}") from invalid


def _did_you_mean(kind: type[BaseModel], loc: tuple[int | str, ...]) -> str:
    """The closest key of the model that the unknown one stands in."""
    schema = kind.model_json_schema()
    here: Any = schema
    for part in loc[:-1]:
        here = here.get("properties", {}).get(part) or here.get("additionalProperties") or {}
        here = next((one for one in here.get("anyOf", []) if "$ref" in one), here)
        here = schema["$defs"][here["$ref"].rpartition("/")[2]] if "$ref" in here else here
    close = get_close_matches(str(loc[-1]), here.get("properties", {}), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def json_schemas() -> dict[str, str]:
    """File name → JSON Schema text, for editors; the files under include/schema are written from this."""
    kinds: dict[str, type[BaseModel]] = {
        "vendor": Vendor,
        "notices": Notices,
        "sampling": Sampling,
        "disclosure": Disclosure,
        "quality": Quality,
    }
    return {f"{name}.json": json.dumps(kind.model_json_schema(), indent=2) + "\n" for name, kind in kinds.items()}
