"""Everything around a night that is not ours, set up for real: a landing zone, two vendors, servers, keys.

The result is an environment (`Stage.environ`) in which the command line, Airflow and the tests run unchanged.
"""

import base64
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import yaml

from clip_courier.settings import INCLUDE
from clip_courier_demo.keys import KeyPair, make_key
from clip_courier_demo.sftp_server import RunningServer, VendorAccount, new_account, start, start_detached
from clip_courier_demo.vendor import DemoVendor
from clip_courier_demo.world import write_world

# What sets the two vendors apart: where they are, what they hear, how they answer.
VENDORS: Mapping[str, Mapping[str, Any]] = {
    "aurora": {
        "country": "US",
        "transfer_mechanism": "scc",
        "clip_countries": ["US", "GB", "IN"],
        "locales": ["en", "hi"],
        "signature": "embedded",
    },
    "borealis": {
        "country": "DE",
        "transfer_mechanism": "adequacy",
        "clip_countries": ["DE", "AT", "FR", "GB"],
        "locales": ["de", "fr", "en-GB"],
        "signature": "detached",
    },
}
_FORMATS = {"aurora": "jsonl", "borealis": "csv"}


@dataclass(frozen=True)
class Stage:
    """A world that is set up. `environ` holds CLIP_COURIER_* and AIRFLOW_CONN_*: secrets, so it is never shown."""

    folder: Path
    night: date
    environ: Mapping[str, str] = field(repr=False)
    vendors: Mapping[str, DemoVendor] = field(repr=False)
    our_key: KeyPair = field(repr=False)
    server: RunningServer = field(repr=False)

    @property
    def root(self) -> Path:
        return self.folder / "var"


def set_stage(
    folder: Path,
    *,
    seed: int,
    clips: int,
    night: date,
    is_detached: bool = False,
    names: Sequence[str] = tuple(VENDORS),
    progress: Callable[[str, int, int], None] | None = None,
    prefer: str | None = None,
) -> Stage:
    """Write what is missing under `folder`, start the vendors' server; the newest recordings are of the day before."""
    if not (folder / "world" / "demo" / "truth.parquet").exists():
        write_world(folder / "world", seed=seed, clips=clips, last_day=night - timedelta(days=1), progress=progress)
    keys = _keys(folder / "keys.json", names, night)
    accounts = _accounts(folder, names)
    begin = start_detached if is_detached else start
    server = begin(folder / "sftp", accounts, prefer=prefer)
    vendors = {
        name: DemoVendor(
            name=name,
            home=server.accounts[name].home,
            key=keys[name],
            our_public_key=keys["ours"].public_key,
            our_fingerprint=keys["ours"].fingerprint,
            file_format=_FORMATS[name],
            is_careless=name == "borealis",
        )
        for name in names
    }
    for name in names:
        write_vendor(folder / "vendors", name, keys[name], night)
    environ = {**_places(folder), **_connections(server, keys["ours"], seed, night)}
    return Stage(folder, night, environ, vendors, keys["ours"], server)


def vendor_file(name: str, key: KeyPair, night: date) -> dict[str, Any]:
    """The content of a vendor's file whose agreements hold around `night`."""
    holds = {"from": (night - timedelta(days=200)).isoformat(), "until": (night + timedelta(days=200)).isoformat()}
    return {
        "name": name,
        **VENDORS[name],
        "mechanism_valid": holds,
        "agreements": {"nda": holds, "dpa": holds, "staff_training": holds},
        "hours_per_night": 4,
        "batch_max_bytes": 4_000_000,
        "due_days": 3,
        "recipient_fingerprint": key.fingerprint,
        "signer_fingerprint": key.fingerprint,
        "public_key": f"{name}.asc",
        "sftp_conn_id": f"sftp_{name}",
        "remote_root": ".",
    }


def write_vendor(folder: Path, name: str, key: KeyPair, night: date, **changes: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.asc").write_text(key.public_key, encoding="ascii")
    content = yaml.safe_dump({**vendor_file(name, key, night), **changes}, sort_keys=False)
    (folder / f"{name}.yaml").write_text(content, encoding="utf-8")


def _keys(path: Path, names: Sequence[str], night: date) -> dict[str, KeyPair]:
    """Made once and kept, as real keys are; older than the night."""
    if path.exists():
        return {name: KeyPair(**fields) for name, fields in json.loads(path.read_text(encoding="utf-8")).items()}
    made_at = datetime.combine(night - timedelta(days=100), time.min, UTC)
    keys = {name: make_key(f"{name} demo", made_at=made_at) for name in ("ours", *names)}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    fields = ("fingerprint", "private_key", "public_key", "revocation")
    path.write_text(json.dumps({name: {f: getattr(key, f) for f in fields} for name, key in keys.items()}), "utf-8")
    return keys


def _accounts(folder: Path, names: Sequence[str]) -> list[VendorAccount]:
    accounts = [new_account(name, folder / "vendor_servers" / name) for name in names]
    for account in accounts:
        for part in ("outbound", "returns", "reports", "recalls", "receipts"):
            (account.home / part).mkdir(exist_ok=True)
    return accounts


def _places(folder: Path) -> dict[str, str]:
    return {
        "CLIP_COURIER_ROOT": str(folder / "var"),
        "CLIP_COURIER_LANDING": str(folder / "world" / "landing"),
        "CLIP_COURIER_VENDORS": str(folder / "vendors"),
        "CLIP_COURIER_POLICY": str(INCLUDE / "policy"),
    }


def _connections(server: RunningServer, ours: KeyPair, seed: int, night: date) -> dict[str, str]:
    """The contract's connections as Airflow and the command line read them from the environment."""
    epoch = {"key": secret_of(seed, "pseudonyms"), "from": (night - timedelta(days=90)).isoformat()}
    connections: dict[str, dict[str, object]] = {
        "clip_courier_pgp": {
            "conn_type": "generic",
            "password": "",
            "extra": {"private_key": ours.private_key, "fingerprint": ours.fingerprint},
        },
        "clip_courier_pseudonyms": {"conn_type": "generic", "extra": {"epochs": {"demo": epoch}}},
        "clip_courier_sampling": {"conn_type": "generic", "password": secret_of(seed, "sampling")},
    }
    for name, account in server.accounts.items():
        connections[f"sftp_{name}"] = {
            "conn_type": "sftp",
            "host": server.host,
            "port": server.port,
            "login": account.login,
            "extra": {"private_key": account.private_key, "host_key": server.host_key},
        }
    return {f"AIRFLOW_CONN_{name.upper()}": json.dumps(fields) for name, fields in connections.items()}


def secret_of(seed: int, purpose: str) -> str:
    """32 bytes in base64, the same for the same demo. Real keys come from a random source."""
    return base64.b64encode(hashlib.sha256(f"demo {seed} {purpose}".encode()).digest()).decode("ascii")
