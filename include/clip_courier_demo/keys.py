"""OpenPGP keys for the demo's vendors and for tests: made by the real gpg in a home that is thrown away."""

import subprocess
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from clip_courier.gpg_home import temporary_home

KINDS = {
    "ed25519": ("Key-Type: EDDSA\nKey-Curve: ed25519", "Subkey-Type: ECDH\nSubkey-Curve: cv25519"),
    "rsa2048": ("Key-Type: RSA\nKey-Length: 2048", "Subkey-Type: RSA\nSubkey-Length: 2048"),
    "rsa1024": ("Key-Type: RSA\nKey-Length: 1024", "Subkey-Type: RSA\nSubkey-Length: 1024"),
}


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A primary key that signs and a subkey that encrypts; all texts are ASCII-armoured."""

    fingerprint: str
    private_key: str = field(repr=False)
    public_key: str
    revocation: str = field(repr=False)


def make_key(
    name: str, *, expires: str = "2y", made_at: datetime | None = None, kind: str = "ed25519", passphrase: str = ""
) -> KeyPair:
    """A new key pair with the user id `name`.

    It was made at `made_at`, yesterday if not said: a key is not valid before it was made, and a `now` may have been
    read a little earlier. `expires` counts from there, as gpg writes it ("1d", "2y", "0" for never), so an expired
    key is `make_key(name, expires="1d", made_at=long_ago)`. `kind` is one of KINDS.
    """
    if "\n" in name or "\n" in passphrase:
        raise ValueError("a name and a passphrase are one line each")
    with temporary_home() as home:
        (home / "gpg-agent.conf").write_text("s2k-count 65536\n")  # passphrases of made-up keys need not be slow
        clock = (made_at or datetime.now(UTC) - timedelta(days=1)).timestamp()
        _gpg(home, f"--faked-system-time={clock:.0f}!", "--gen-key", stdin=_recipe(name, expires, kind, passphrase))
        fingerprint, certificate = _revocation(home)
        unlock = ["--pinentry-mode", "loopback", "--passphrase-fd", "0"]
        return KeyPair(
            fingerprint=fingerprint,
            private_key=_gpg(home, *unlock, "--armor", "--export-secret-keys", fingerprint, stdin=passphrase),
            public_key=_gpg(home, "--armor", "--export", fingerprint),
            revocation=certificate,
        )


def _recipe(name: str, expires: str, kind: str, passphrase: str) -> str:
    """The batch file of `gpg --gen-key` (GnuPG manual, Unattended key generation)."""
    primary, subkey = KINDS[kind]
    protection = f"Passphrase: {passphrase}" if passphrase else "%no-protection"
    usage = f"Key-Usage: sign\n{subkey}\nSubkey-Usage: encrypt"
    return f"{primary}\n{usage}\nName-Real: {name}\nExpire-Date: {expires}\n{protection}\n%commit\n"


def _revocation(home: Path) -> tuple[str, str]:
    """The fingerprint and the revocation certificate that gpg keeps with every new key, disarmed by a colon."""
    (path,) = (home / "openpgp-revocs.d").iterdir()
    return path.stem, path.read_text().replace("\n:-----BEGIN", "\n-----BEGIN")


def _gpg(home: Path, *arguments: str, stdin: str = "") -> str:
    command = ["gpg", "--homedir", str(home), "--batch", "--no-tty", "--quiet", "--no-auto-key-locate", *arguments]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, check=True).stdout
