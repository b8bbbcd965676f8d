"""What gpg's answers mean: its status lines and its key listings, and the rules that judge them.

Both formats are those of GnuPG's doc/DETAILS. Lines are taken as bytes and end at \\n only: a user id may hold
U+0085, at which str.splitlines() breaks, and so could write status lines of its own.
"""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

from clip_courier.errors import KeyUnusable, ReturnUntrusted, SealFailed

STATUS = b"[GNUPG:] "
ALGORITHMS = {1: "RSA", 16: "ElGamal", 17: "DSA", 18: "ECDH", 19: "ECDSA", 22: "EdDSA"}  # RFC 4880 §9.1, RFC 6637
MIN_BITS = {"RSA": 2048, "ElGamal": 2048, "DSA": 2048}  # NIST SP 800-131A; every curve that gpg knows is above it
SOUND_HASHES = {"8", "9", "10", "11"}  # SHA-256, 384, 512, 224 (RFC 4880 §9.4): no signature over MD5 or SHA-1
BAD_PASSPHRASE = 11  # libgpg-error's code, in the low 16 bits of what ERROR and FAILURE report


@dataclass
class Answer:
    """What one run of gpg gave: exit status, status lines as keyword and arguments, standard output.

    The names of fields are those that python-gnupg fills; `stderr` stays empty, for it holds user ids.
    """

    returncode: int | None = None
    lines: list[tuple[str, list[str]]] = field(default_factory=list)
    data: bytes = field(default=b"", repr=False)
    stderr: str = ""
    on_data_failure: Exception | None = None

    def all(self, *keywords: str) -> list[list[str]]:
        return [arguments for keyword, arguments in self.lines if keyword in keywords]

    @property
    def codes(self) -> list[int]:
        """The codes of libgpg-error in what failed, without their source."""
        told = [arguments[1].partition("_")[0] for arguments in self.all("ERROR", "FAILURE") if len(arguments) > 1]
        return [int(code) & 0xFFFF for code in told if code.isdecimal()]  # written 67108875 or 11_BAD_PASSPHRASE

    @property
    def summary(self) -> str:
        """What may be shown: keywords and codes, never a user id or a file name."""
        keywords = " ".join(keyword for keyword, _ in self.lines)
        return f"exit status {self.returncode}, error codes {self.codes}, {keywords or 'no status lines'}"


def status_lines(stderr: Iterable[bytes]) -> Iterator[tuple[str, list[str]]]:
    """Keyword and arguments of each status line, out of what gpg wrote, line by line."""
    for line in stderr:
        if line.startswith(STATUS) and (words := line.removeprefix(STATUS).split()):
            keyword, *arguments = (word.decode("ascii", "replace") for word in words)
            yield keyword, arguments


# -- keys ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Key:
    """A primary key or a subkey, from its row of a listing; `capabilities` are its own: e, s, c, a."""

    fingerprint: str
    validity: str
    length_bits: int
    algorithm: str
    key_id: bytes
    created_at: datetime
    expires_at: datetime | None
    capabilities: str

    def fault(self, at: datetime) -> str | None:
        """Why the key cannot be used at an instant."""
        if self.validity == "r":
            return "revoked"
        if self.validity in set("din") or "D" in self.capabilities:
            return "disabled or invalid"
        if self.expires_at and self.expires_at <= at:
            return f"expired on {self.expires_at:%Y-%m-%d}"
        if self.algorithm not in ALGORITHMS.values():
            return f"of an algorithm that is not accepted ({self.algorithm})"
        if self.length_bits < (needed := MIN_BITS.get(self.algorithm, 0)):
            return f"too short: {self.algorithm} of {self.length_bits} bits, {needed} are needed"
        return None


def fingerprint_of(text: str) -> str:
    """Forty hexadecimal digits in upper case. Raises KeyUnusable for anything else, an address above all."""
    if len(text) != 40 or not set(text) <= set("0123456789abcdefABCDEF"):
        raise KeyUnusable(f"a key is named by 40 hexadecimal digits; this name has {len(text)} characters")
    return text.upper()


def keys_listed(listing: bytes) -> list[Key]:
    """Primary keys and subkeys in the order of `gpg --list-keys --with-colons --fixed-list-mode`."""
    keys: list[Key] = []
    row: list[str] = []
    for line in listing.split(b"\n"):
        kind, *fields = line.decode("utf-8", "replace").split(":")
        if kind in ("pub", "sub"):
            row = fields
        elif kind == "fpr" and row:
            keys.append(_key(row, fingerprint=fields[8]))
            row = []
    return keys


def _key(row: list[str], fingerprint: str) -> Key:
    validity, length, algorithm, key_id, created, expires, *_ = row
    return Key(
        fingerprint=fingerprint,
        validity=validity,
        length_bits=int(length),
        algorithm=ALGORITHMS.get(int(algorithm), algorithm),
        key_id=bytes.fromhex(key_id),
        created_at=datetime.fromtimestamp(int(created), UTC),
        expires_at=datetime.fromtimestamp(int(expires), UTC) if expires else None,
        capabilities=row[10],
    )


def usable_key(keys: list[Key], fingerprint: str, *, at: datetime, can: str) -> tuple[Key, Key]:
    """The primary key and its newest (sub)key that can `encrypt` or `sign` at an instant. Raises KeyUnusable."""
    refused = f"key {fingerprint} cannot {can} on {at:%Y-%m-%d}: "
    if not keys or keys[0].fingerprint != fingerprint:
        raise KeyUnusable(f"{refused}no primary key of that fingerprint is in the ring")
    primary, letter = keys[0], can[0]
    if fault := primary.fault(at):
        raise KeyUnusable(f"{refused}it is {fault}")
    serving = sorted((k for k in keys if letter in k.capabilities), key=lambda k: k.created_at, reverse=True)
    for key in serving:
        if not key.fault(at):
            return primary, key
    raise KeyUnusable(refused + (f"its subkey is {serving[0].fault(at)}" if serving else "it was not made for that"))


def check_passphrase(answer: Answer, own: str) -> None:
    """Tell our own fault from the vendor's. Raises KeyUnusable when gpg could not unlock our private key."""
    if answer.all("NEED_PASSPHRASE_SYM"):
        return
    if BAD_PASSPHRASE in answer.codes or (answer.all("NEED_PASSPHRASE") and answer.returncode != 0):
        raise KeyUnusable(f"the passphrase given does not open our key {own}")


def check_imported(answer: Answer, *, secret_keys: int) -> frozenset[str]:
    """The fingerprints of the primary keys in a key file: one private key, or one public key or two.

    Two public keys are a recipient and a signer. Raises KeyUnusable when the file held anything else.
    """
    found = frozenset(arguments[1] for arguments in answer.all("IMPORT_OK"))
    counts = answer.all("IMPORT_RES")  # the 1st is the number of keys read, the 10th that of secret keys
    allowed = {1} if secret_keys else {1, 2}
    if len(found) not in allowed or [(c[0], c[9]) for c in counts] != [(str(len(found)), str(secret_keys))]:
        what = "one private key" if secret_keys else "one public key or two"
        told = f"a key file must hold {what} and nothing else; {len(found)} keys were read"
        raise KeyUnusable(f"{told} that are good by this machine's clock")  # gpg does not take one of tomorrow
    return found


# -- sealing -------------------------------------------------------------------------------------------------------


def check_sealing(answer: Answer, *, by: str, to: str, signatures: str) -> None:
    """One encryption with MDC (2) under AES-256 (9), begun and ended; `signatures` are "S" for one inside, or none.

    `by` and `to` are fingerprints. Raises KeyUnusable when gpg refused one of them, SealFailed for anything else.
    """
    check_passphrase(answer, by)
    if answer.all("INV_RECP"):
        raise KeyUnusable(f"gpg refuses key {to}: it is not valid by this machine's clock")
    begun, ended = [a[:2] for a in answer.all("BEGIN_ENCRYPTION")], len(answer.all("END_ENCRYPTION"))
    if begun != [["2", "9"]] or ended != 1:
        raise SealFailed(f"gpg did not encrypt: {answer.summary}")
    check_signing(answer, by=by, signatures=signatures)


def check_signing(answer: Answer, *, by: str, signatures: str = "D") -> None:
    """The signatures asked for and no others; "D" is one detached. Raises KeyUnusable or SealFailed."""
    check_passphrase(answer, by)
    if answer.all("INV_SGNR"):
        raise KeyUnusable(f"gpg cannot sign with our key {by}")
    if answer.returncode != 0 or [a[0] for a in answer.all("SIG_CREATED")] != list(signatures):
        raise SealFailed(f"gpg did not end well: {answer.summary}")


# -- opening -------------------------------------------------------------------------------------------------------

WHOLE = ("BEGIN_DECRYPTION", "PLAINTEXT", "DECRYPTION_OKAY", "GOODMDC", "END_DECRYPTION")
SIGNATURE_FAULTS = {
    "REVKEYSIG": ("revoked_signer", "its signer's key is revoked"),
    "EXPKEYSIG": ("expired_signer", "its signer's key has expired"),
    "NO_PUBKEY": ("wrong_signer", "its signer's key is not known"),
    "BADSIG": ("bad_signature", "its signature does not fit its contents"),
    "EXPSIG": ("bad_signature", "its signature has expired"),
    "ERRSIG": ("bad_signature", "its signature could not be checked"),
}


def check_opening(answer: Answer, *, signers: Collection[str]) -> tuple[str, datetime]:
    """Accept one whole message, encrypted to us, with one sound signature by a pinned key.

    Returns the signer's primary fingerprint and the time of signing. Raises ReturnUntrusted.
    """
    if not answer.all("DECRYPTION_KEY"):
        raise ReturnUntrusted(*_other_than_ours(answer))
    for keyword, refusal in SIGNATURE_FAULTS.items():  # first, because gpg stops at some of them
        if answer.all(keyword):
            raise ReturnUntrusted(*refusal)
    if [len(answer.all(keyword)) for keyword in WHOLE] != [1] * len(WHOLE):
        raise ReturnUntrusted("damaged", "it was altered or cut off, or something follows it")
    if not answer.all("NEWSIG"):
        raise ReturnUntrusted("unsigned", "it is not signed")
    signed = answer.all("VALIDSIG")
    if len(signed) != 1 or len(answer.all("NEWSIG")) != 1 or len(answer.all("GOODSIG")) != 1:
        raise ReturnUntrusted("bad_signature", f"it has {len(answer.all('NEWSIG'))} signatures, not one that is good")
    [fields] = signed  # fingerprint, date, time, expiry, version, reserved, algorithm, hash, class, primary key
    if fields[9] not in signers:
        raise ReturnUntrusted("wrong_signer", f"it is signed by key {fields[9]}, which is not the pinned one")
    if fields[7] not in SOUND_HASHES or fields[8] not in ("00", "01"):
        raise ReturnUntrusted("bad_signature", f"its signature is of hash {fields[7]} and class {fields[8]}")
    if answer.returncode != 0:
        raise ReturnUntrusted("damaged", f"gpg reported a fault: {answer.summary}")
    return fields[9], datetime.fromtimestamp(int(fields[2]), UTC)


def _other_than_ours(answer: Answer) -> tuple[str, str]:
    if answer.all("ENC_TO", "NEED_PASSPHRASE_SYM", "BEGIN_DECRYPTION"):
        return "not_for_us", "it is not encrypted to our key"
    if answer.all("PLAINTEXT", "NEWSIG"):
        return "not_encrypted", "it is not encrypted"
    return "not_openpgp", "it is not an OpenPGP message"
