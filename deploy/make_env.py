"""Write .env from .env.example with fresh secrets, for a deployment whose vendors are the stand-in SFTP server.

Run by `make deploy-env`. A .env that exists is left alone: a new pseudonym or sampling key would break the link to
everything that was sent before.
"""

import base64
import json
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

PROJECT = Path(__file__).resolve().parents[1]
SSH_HOST = "sftp"  # the service of docker-compose.yaml


def main(example: Path = PROJECT / ".env.example", target: Path = PROJECT / ".env") -> int:
    if target.exists():
        print(f"{target.name} exists and is left alone; remove it first to start anew")
        return 0
    text = fill(example.read_text(encoding="utf-8"))
    with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    print(f"{target.name} written: readable by you alone, and to be kept")
    return 0


def fill(example: str) -> str:
    """The example with a fresh value behind every name that has none."""
    vendors = [
        line.removeprefix("AIRFLOW_CONN_SFTP_").removesuffix("=").lower()
        for line in example.splitlines()
        if line.startswith("AIRFLOW_CONN_SFTP_")
    ]
    values = fresh_values(vendors)
    lines = [f"{line}'{values[line[:-1]]()}'" if line.endswith("=") else line for line in example.splitlines()]
    return "\n".join(lines) + "\n"


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


def sftp_connection(vendor: str, client_key: Ed25519PrivateKey, host_key: Ed25519PrivateKey) -> str:
    extra = {"private_key": private_text(client_key), "host_key": public_line(host_key)}
    return json.dumps({"conn_type": "sftp", "host": SSH_HOST, "port": 22, "login": vendor, "extra": extra})


def pseudonyms_connection() -> str:
    epochs = {"e1": {"key": fresh_key(), "from": datetime.now(UTC).date().isoformat()}}
    return json.dumps({"conn_type": "generic", "extra": {"epochs": epochs}})


def pgp_connection() -> str:
    """A new signing key with an encryption subkey, valid for two years, and the passphrase that locks it."""
    passphrase = secrets.token_urlsafe(24)
    with tempfile.TemporaryDirectory(prefix="gpg") as home:
        gpg = ["gpg", "--homedir", home, "--batch", "--pinentry-mode", "loopback", "--passphrase-fd", "0"]

        def run(*arguments: str) -> str:
            done = subprocess.run([*gpg, *arguments], input=passphrase, capture_output=True, text=True, check=True)
            return done.stdout

        try:
            run("--quick-generate-key", "Clip Courier", "ed25519", "sign", "2y")
            listing = run("--with-colons", "--list-secret-keys").splitlines()
            fingerprint = next(line.split(":")[9] for line in listing if line.startswith("fpr"))
            run("--quick-add-key", fingerprint, "cv25519", "encr", "2y")
            private_key = run("--armor", "--export-secret-keys", fingerprint)
        finally:
            subprocess.run(["gpgconf", "--homedir", home, "--kill", "all"], check=False)
    extra = {"private_key": private_key, "fingerprint": fingerprint}
    return json.dumps({"conn_type": "generic", "password": passphrase, "extra": extra})


def fresh_key() -> str:
    return base64.b64encode(secrets.token_bytes(32)).decode()


def private_text(key: Ed25519PrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()


def public_line(key: Ed25519PrivateKey) -> str:
    return key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


if __name__ == "__main__":
    sys.exit(main())
