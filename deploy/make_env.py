"""Write .env from .env.example with fresh secrets, for a deployment whose vendors are the stand-in SFTP server.

Beside it, in var/stand-in, come the vendors' files and keys, and a landing zone to sample from. Run by
`make deploy-env`. A .env that exists is left alone: a new pseudonym or sampling key would break the link to everything
that was sent before.
"""

import base64
import json
import os
import re
import secrets
import sys
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from clip_courier_demo.keys import make_key
from clip_courier_demo.stage import write_vendor
from clip_courier_demo.world import write_world

PROJECT = Path(__file__).resolve().parents[1]
SFTP_SERVICE = "sftp"  # in docker-compose.yaml


def main(target: Path = PROJECT / ".env", stand_in: Path = PROJECT / "var" / "stand-in") -> int:
    if target.exists():
        print(f"{target.name} exists and is left alone; remove it first to start anew")
        return 0
    example = (PROJECT / ".env.example").read_text(encoding="utf-8")
    write_stand_in(stand_in, vendors_in(example), datetime.now(UTC).date())
    write_private(target, fill(example))
    print(f"{target.name} written, for your eyes only: keep it; the stand-in vendors are in {stand_in}")
    return 0


def vendors_in(example: str) -> list[str]:
    return [name.lower() for name in re.findall(r"^AIRFLOW_CONN_SFTP_(\w+)=", example, re.MULTILINE)]


def write_stand_in(folder: Path, vendors: list[str], today: date) -> None:
    """What the vendors and the product teams would provide: vendors/, landing/, and each vendor's private key."""
    write_world(folder, seed=1, clips=400, last_day=today - timedelta(days=1))
    for vendor in vendors:
        key = make_key(f"{vendor} demo")
        write_vendor(folder / "vendors", vendor, key, today)
        write_private(folder / f"{vendor}.private.asc", key.private_key)


def fill(example: str) -> str:
    """The example with a fresh value behind every name that has none."""
    values = fresh_values(vendors_in(example))
    return re.sub(r"^(\w+)=$", lambda line: f"{line[1]}='{values[line[1]]()}'", example, flags=re.MULTILINE)


def fresh_values(vendors: list[str]) -> dict[str, Callable[[], str]]:
    """What makes the value of each name in .env.example."""
    host_key = Ed25519PrivateKey.generate()
    client_keys = {vendor: Ed25519PrivateKey.generate() for vendor in vendors}
    return {
        "POSTGRES_PASSWORD": secrets.token_hex,
        "LEDGER_PASSWORD": secrets.token_hex,
        "REDIS_PASSWORD": secrets.token_hex,
        "AIRFLOW_FERNET_KEY": lambda: base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
        "AIRFLOW_JWT_SECRET": lambda: secrets.token_hex(64),
        "AIRFLOW_SECRET_KEY": secrets.token_hex,
        "UI_ADMIN_PASSWORD": lambda: secrets.token_urlsafe(12),
        "UI_VIEWER_PASSWORD": lambda: secrets.token_urlsafe(12),
        "AIRFLOW_CONN_CLIP_COURIER_PGP": pgp_connection,
        "AIRFLOW_CONN_CLIP_COURIER_PSEUDONYMS": pseudonyms_connection,
        "AIRFLOW_CONN_CLIP_COURIER_SAMPLING": lambda: json.dumps({"conn_type": "generic", "password": fresh_key()}),
        "SFTP_ACCOUNTS": lambda: "; ".join(f"{vendor} {public_line(key)}" for vendor, key in client_keys.items()),
        "SFTP_HOST_KEY": lambda: base64.b64encode(private_text(host_key).encode()).decode(),
    } | {
        f"AIRFLOW_CONN_SFTP_{vendor.upper()}": lambda vendor=vendor, key=key: sftp_connection(vendor, key, host_key)
        for vendor, key in client_keys.items()
    }


def pgp_connection() -> str:
    passphrase = secrets.token_urlsafe(24)
    key = make_key("Clip Courier", passphrase=passphrase)
    extra = {"private_key": key.private_key, "fingerprint": key.fingerprint}
    return json.dumps({"conn_type": "generic", "password": passphrase, "extra": extra})


def pseudonyms_connection() -> str:
    # An epoch that began a while ago also covers the nights that are run after the fact.
    begin = datetime.now(UTC).date() - timedelta(days=90)
    return json.dumps(
        {"conn_type": "generic", "extra": {"epochs": {"first": {"key": fresh_key(), "from": begin.isoformat()}}}}
    )


def sftp_connection(vendor: str, client_key: Ed25519PrivateKey, host_key: Ed25519PrivateKey) -> str:
    extra = {"private_key": private_text(client_key), "host_key": public_line(host_key)}
    return json.dumps({"conn_type": "sftp", "host": SFTP_SERVICE, "port": 22, "login": vendor, "extra": extra})


def fresh_key() -> str:
    return base64.b64encode(secrets.token_bytes(32)).decode()


def private_text(key: Ed25519PrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()


def public_line(key: Ed25519PrivateKey) -> str:
    return key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def write_private(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)


if __name__ == "__main__":
    sys.exit(main())
