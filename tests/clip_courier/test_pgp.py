"""Sealing and opening against the real gpg: the vendors here use nothing but its command line."""

import hashlib
import logging
import os
import resource
import shutil
import stat
import subprocess
import tempfile
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import psutil
import pytest

from clip_courier.errors import GnupgMissing, KeyUnusable, ReturnUntrusted, SealFailed
from clip_courier.gpg_home import temporary_home
from clip_courier.openpgp_packets import packets
from clip_courier.pgp import Keyring, OwnKey, open_keyring
from clip_courier_demo.keys import KeyPair, make_key

NOW = datetime.now(UTC)
LONG_AGO = datetime(2025, 1, 1, tzinfo=UTC)
MIB = 1 << 20
DATA = os.urandom(355_000)
ADDRESS = "a.person@example.org"


class Home:
    """Another party: a gpg home and its command line."""

    def __init__(self, home: Path) -> None:
        self._command = ["gpg", "--homedir", str(home), "--batch", "--trust-model", "always", "--no-auto-key-locate"]

    def gpg(self, *arguments: str, stdin: bytes = b"", can_fail: bool = False) -> bytes:
        ran = subprocess.run([*self._command, *arguments], input=stdin, capture_output=True)
        assert can_fail or ran.returncode == 0, ran.stderr.decode()
        return ran.stdout

    def own(self, key: KeyPair) -> str:
        self.gpg("--import", stdin=key.private_key.encode())
        return key.fingerprint


# -- parties, made once ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def us() -> KeyPair:
    return make_key(f"Clip Courier <{ADDRESS}>", expires="20y", made_at=LONG_AGO)


@pytest.fixture(scope="module")
def vendor() -> KeyPair:
    return make_key(f"Lüdtke Ås Transcripts <{ADDRESS}>", expires="20y", made_at=LONG_AGO)


@pytest.fixture(scope="module")
def mallory(vendor: KeyPair) -> KeyPair:
    """Pinned for another vendor, so in the same ring. The user id holds the first vendor's address and status lines:
    who takes U+0085 for the end of a line, as str.splitlines() does, believes them."""
    lines = ("GOODSIG 1 x", f"VALIDSIG {vendor.fingerprint} 2026-01-01 1 0 4 0 22 10 00 {vendor.fingerprint}")
    return make_key(f"<{ADDRESS}>" + "".join(f"\x85[GNUPG:] {line}" for line in lines))


@pytest.fixture(scope="module")
def stranger() -> KeyPair:
    return make_key("Stranger")


@pytest.fixture(scope="module")
def expired() -> KeyPair:
    return make_key("Expired", expires="1d", made_at=LONG_AGO)


@pytest.fixture(scope="module")
def revoked() -> KeyPair:
    pair = make_key(f"Revoked <{ADDRESS}>")
    with temporary_home() as folder:
        home = Home(folder)
        home.own(pair)
        home.gpg("--trust-model", "pgp", "--import", stdin=pair.revocation.encode())
        return replace(pair, public_key=home.gpg("--armor", "--export").decode())


@pytest.fixture(scope="module")
def outside(us, vendor, mallory, stranger, expired, revoked) -> Iterator[Home]:
    """Everybody but us, in one home."""
    with temporary_home() as folder:
        home = Home(folder)
        home.gpg("--import", stdin=us.public_key.encode())
        for pair in (vendor, mallory, stranger, expired, revoked):
            home.gpg("--import", stdin=pair.private_key.encode())
        yield home


@pytest.fixture(scope="module")
def write(outside, us, vendor, mallory, stranger, expired, revoked) -> Callable[..., bytes]:
    """A message from gpg's arguments on one line, in which the parties stand by name."""
    pairs = {
        "us": us,
        "vendor": vendor,
        "mallory": mallory,
        "stranger": stranger,
        "expired": expired,
        "revoked": revoked,
    }

    def gpg(arguments: str, stdin: bytes = DATA) -> bytes:
        words = [pairs[word].fingerprint if word in pairs else word for word in arguments.split()]
        return outside.gpg(*words, stdin=stdin)

    return gpg


@pytest.fixture(scope="module")
def ring(us, vendor, mallory, expired, revoked) -> Iterator[Keyring]:
    public_keys = [pair.public_key for pair in (vendor, mallory, expired, revoked)]
    with open_keyring(OwnKey(us.fingerprint, us.private_key), public_keys) as keyring:
        yield keyring


@pytest.fixture
def seal_to_vendor(ring: Keyring, vendor: KeyPair, tmp_path: Path) -> Callable[..., Path]:
    def seal(write: Callable[[BinaryIO], object], **options: object) -> Path:
        ring.seal(write, tmp_path / "b.tar.pgp", recipient=vendor.fingerprint, at=NOW, **options)
        return tmp_path / "b.tar.pgp"

    return seal


# -- sealing -----------------------------------------------------------------------------------------------------------


def test_seal_reaches_the_vendor_signed_by_us(ring, us, vendor, outside, tmp_path):
    sealed = ring.seal(
        lambda sink: sink.write(DATA), tmp_path / "b.tar.pgp", recipient=vendor.fingerprint.lower(), at=NOW
    )
    message = (tmp_path / "b.tar.pgp").read_bytes()
    assert outside.gpg("--decrypt", stdin=message) == DATA
    status = outside.gpg("--status-fd", "1", "--output", "/dev/null", "--yes", "--decrypt", stdin=message).decode()
    signature = status.split("VALIDSIG ", 1)[1].split("\n", 1)[0].split()
    assert (signature[7], signature[9]) == ("8", us.fingerprint)  # SHA-256, by us
    assert "[GNUPG:] GOODMDC\n" in status
    assert "[GNUPG:] DECRYPTION_INFO 2 9 0\n" in status  # MDC, AES-256, no AEAD
    assert sealed.size_bytes == len(message)
    assert sealed.sha256 == hashlib.sha256(message).hexdigest()
    assert sealed.signature_path is None
    assert os.listdir(tmp_path) == ["b.tar.pgp"]


def test_seal_writes_one_session_key_and_one_protected_packet(seal_to_vendor, vendor, outside):
    sealed = seal_to_vendor(lambda sink: sink.write(DATA))
    rows = outside.gpg("--with-colons", "--list-keys", vendor.fingerprint).decode().splitlines()
    subkey_id = bytes.fromhex(next(row.split(":")[4] for row in rows if row.startswith("sub:")))
    with sealed.open("rb") as stream:
        session_key, data = packets(stream)
    assert (session_key.tag, session_key.head) == (1, b"\x03" + subkey_id)
    assert (data.tag, data.head[:1]) == (18, b"\x01")


def test_seal_detached_puts_a_signature_of_the_sealed_bytes_beside(ring, us, vendor, outside, tmp_path):
    sealed = ring.seal(
        lambda sink: sink.write(DATA), tmp_path / "b.tar.pgp", recipient=vendor.fingerprint, at=NOW, detached=True
    )
    assert sealed.signature_path == tmp_path / "b.tar.pgp.sig"
    assert sorted(os.listdir(tmp_path)) == ["b.tar.pgp", "b.tar.pgp.sig"]
    verified = outside.gpg(
        "--status-fd", "1", "--verify", str(sealed.signature_path), str(tmp_path / "b.tar.pgp")
    ).decode()  # fmt: skip
    assert f" {us.fingerprint}\n" in verified.split("VALIDSIG", 1)[1]
    opened = outside.gpg("--status-fd", "2", "--decrypt", stdin=(tmp_path / "b.tar.pgp").read_bytes())
    assert opened == DATA


def test_seal_streams_and_leaves_no_plaintext_on_disk(us, vendor, outside, tmp_path, monkeypatch):
    block = os.urandom(MIB)
    with temporary_home() as folder:
        monkeypatch.setattr(tempfile, "tempdir", str(folder))
        seen: set[str] = set()

        def write(sink: BinaryIO) -> None:
            for n in range(20):
                sink.write(block)
                for path in (*folder.rglob("*"), *tmp_path.rglob("*")) if n % 5 == 4 else ():
                    if path.is_file():
                        seen.add(path.name)
                        assert block[:64] not in path.read_bytes()

        with open_keyring(OwnKey(us.fingerprint, us.private_key), [vendor.public_key]) as keyring:
            keyring.seal(write, tmp_path / "b.tar.pgp", recipient=vendor.fingerprint, at=NOW)
    assert ".b.tar.pgp.part" in seen
    assert "pubring.kbx" in seen  # the home was looked into
    assert outside.gpg("--decrypt", stdin=(tmp_path / "b.tar.pgp").read_bytes()) == block * 20


def test_seal_runs_the_writer_in_the_callers_thread(seal_to_vendor):
    threads = []
    seal_to_vendor(lambda sink: threads.append(threading.get_ident()))
    assert threads == [threading.get_ident()]


@pytest.mark.parametrize("megabytes", [0, 5])
@pytest.mark.parametrize("fault", [LookupError("no such clip"), KeyboardInterrupt()])
def test_seal_passes_on_what_the_writer_raises_and_leaves_nothing(seal_to_vendor, tmp_path, megabytes, fault):
    def write(sink: BinaryIO) -> None:
        sink.write(bytes(megabytes * MIB))
        raise fault

    with pytest.raises(type(fault)) as raised:
        seal_to_vendor(write)
    assert raised.value is fault
    assert os.listdir(tmp_path) == []


def test_seal_removes_what_gpg_wrote_for_a_second_recipient(us, vendor, mallory, tmp_path, monkeypatch):
    """As an `encrypt-to` in somebody's configuration would have it; gpg says nothing of it."""
    wrapper = tmp_path / "bin" / "gpg"
    wrapper.parent.mkdir()
    wrapper.write_text(f'#!/bin/sh\nexec {shutil.which("gpg")} --encrypt-to {mallory.fingerprint} "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{wrapper.parent}:{os.environ['PATH']}")
    out = tmp_path / "out"
    out.mkdir()
    with open_keyring(OwnKey(us.fingerprint, us.private_key), [vendor.public_key, mallory.public_key]) as keyring:
        with pytest.raises(SealFailed, match="one session key for the recipient"):
            keyring.seal(lambda s: s.write(DATA), out / "x", recipient=vendor.fingerprint, at=NOW)
        with pytest.raises(SealFailed, match="one session key for the recipient"):
            keyring.seal_bytes(DATA, recipient=vendor.fingerprint, at=NOW)
    assert os.listdir(out) == []


def test_seal_that_fails_never_had_a_whole_file(seal_to_vendor, outside, tmp_path):
    """gpg is stopped, not told that the text ends here: that would be a batch cut short under our good signature."""
    kept = tmp_path.with_name(f"{tmp_path.name}-kept")

    def write(sink: BinaryIO) -> None:
        sink.write(bytes(8 * MIB))
        os.link(tmp_path / ".b.tar.pgp.part", kept)
        raise LookupError

    with pytest.raises(LookupError):
        seal_to_vendor(write)
    assert b"GOODMDC" not in outside.gpg(
        "--status-fd", "1", "--decrypt", "-o", "/dev/null", "--yes", str(kept), can_fail=True
    )


def test_seal_that_fails_leaves_the_file_that_was_there(seal_to_vendor, tmp_path):
    (tmp_path / "b.tar.pgp").write_bytes(b"the one before")
    with pytest.raises(ZeroDivisionError):
        seal_to_vendor(lambda sink: 1 / 0)
    assert (tmp_path / "b.tar.pgp").read_bytes() == b"the one before"
    assert os.listdir(tmp_path) == ["b.tar.pgp"]


def test_seal_fails_when_gpg_dies_and_does_not_hang(seal_to_vendor, tmp_path):
    def write(sink: BinaryIO) -> None:
        sink.write(bytes(4 * MIB))
        [gpg] = [child for child in psutil.Process().children() if child.name() == "gpg"]
        gpg.kill()
        for _ in range(64):
            sink.write(bytes(MIB))

    with pytest.raises(SealFailed):
        seal_to_vendor(write)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("who", ["expired", "revoked", "stranger"])
def test_seal_refuses_a_recipient_before_any_work(ring, tmp_path, request, who):
    called = []
    with pytest.raises(KeyUnusable):
        ring.seal(called.append, tmp_path / "x", recipient=request.getfixturevalue(who).fingerprint, at=NOW)
    assert called == []
    assert os.listdir(tmp_path) == []


def test_seal_refuses_when_our_own_key_has_expired(expired, vendor, tmp_path):
    called = []
    with (
        open_keyring(OwnKey(expired.fingerprint, expired.private_key), [vendor.public_key]) as keyring,
        pytest.raises(KeyUnusable, match="cannot sign"),
    ):
        keyring.seal(called.append, tmp_path / "x", recipient=vendor.fingerprint, at=NOW)
    assert called == []


def test_seal_names_the_key_that_gpg_refuses_by_the_clock(ring, expired, tmp_path):
    """Replayed at an instant when the key was valid: gpg goes by the clock of the machine."""
    with pytest.raises(KeyUnusable, match="this machine's clock"):
        ring.seal(lambda sink: None, tmp_path / "x", recipient=expired.fingerprint, at=LONG_AGO + timedelta(hours=1))
    assert os.listdir(tmp_path) == []


def test_seal_takes_the_sound_subkey_where_gpg_would_take_the_newest(us, tmp_path):
    pair = make_key("Two subkeys", kind="rsa2048", made_at=LONG_AGO, expires="20y")
    with temporary_home() as folder:
        home = Home(folder)
        home.own(pair)
        home.gpg(
            "--pinentry-mode",
            "loopback",
            "--passphrase",
            "",
            "--quick-add-key",
            pair.fingerprint,
            "rsa1024",
            "encr",
            "20y",
        )
        public_key = home.gpg("--export")
        with open_keyring(OwnKey(us.fingerprint, us.private_key), [public_key]) as keyring:
            assert keyring.check_key(pair.fingerprint, at=NOW, can="encrypt").length_bits == 2048
            message = keyring.seal_bytes(b"recall", recipient=pair.fingerprint, at=NOW)
        assert home.gpg("--decrypt", stdin=message, can_fail=True) == b"recall"


# -- keys --------------------------------------------------------------------------------------------------------------


def test_check_key_gives_the_facts_of_the_serving_subkey(ring, vendor):
    encrypts, signs = (ring.check_key(vendor.fingerprint, at=NOW, can=can) for can in ("encrypt", "sign"))
    assert (encrypts.fingerprint, encrypts.algorithm, encrypts.length_bits) == (vendor.fingerprint, "ECDH", 255)
    assert signs.algorithm == "EdDSA"
    assert encrypts.expires_at == signs.expires_at == LONG_AGO + timedelta(days=20 * 365)


def test_check_key_ends_at_the_second_of_expiry(ring, expired):
    facts = ring.check_key(expired.fingerprint, at=LONG_AGO + timedelta(hours=23), can="encrypt")
    assert facts.expires_at == LONG_AGO + timedelta(days=1)
    last = facts.expires_at - timedelta(seconds=1)
    assert ring.check_key(expired.fingerprint, at=last, can="sign").expires_at == facts.expires_at
    with pytest.raises(KeyUnusable, match="expired on 2025-01-02"):
        ring.check_key(expired.fingerprint, at=facts.expires_at, can="encrypt")


@pytest.mark.parametrize(
    ("who", "at", "message"),
    [
        ("expired", NOW, "expired on 2025-01-02"),
        ("revoked", NOW, "revoked"),
        ("stranger", NOW, "no primary key of that fingerprint"),
    ],
)
def test_check_key_names_the_key_the_date_and_the_reason(ring, request, who, at, message):
    fingerprint = request.getfixturevalue(who).fingerprint
    with pytest.raises(KeyUnusable, match=message) as refused:
        ring.check_key(fingerprint, at=at, can="encrypt")
    assert fingerprint in str(refused.value)
    assert f"{at:%Y-%m-%d}" in str(refused.value)


def test_check_key_refuses_any_name_but_a_primary_fingerprint(ring, vendor, outside):
    listing = outside.gpg("--with-colons", "--list-keys", vendor.fingerprint).decode().splitlines()
    subkey = [row.split(":")[9] for row in listing if row.startswith("fpr:")][1]
    for name in (ADDRESS, vendor.fingerprint[-16:], f"0x{vendor.fingerprint}", f"{vendor.fingerprint}!", "", subkey):
        with pytest.raises(KeyUnusable) as refused:
            ring.check_key(name, at=NOW, can="encrypt")
        assert ADDRESS not in str(refused.value)


def test_check_key_refuses_short_expired_and_missing_subkeys(us):
    short = make_key("Short", kind="rsa1024")
    past, signs_only = (make_key(name, made_at=LONG_AGO, expires="20y") for name in ("Past", "Signs only"))
    with temporary_home() as folder:
        home = Home(folder)
        home.own(past)
        home.gpg("--faked-system-time", "1735700000", "--quick-set-expire", past.fingerprint, "1d", "*")
        past_key = home.gpg("--export", past.fingerprint)
        home.own(signs_only)
        bare_key = home.gpg("--export-filter", "drop-subkey=secret >= 0", "--export", signs_only.fingerprint)
    with open_keyring(OwnKey(us.fingerprint, us.private_key), [short.public_key, past_key, bare_key]) as keyring:
        for pair, message in (
            (short, "too short: RSA of 1024 bits, 2048 are needed"),
            (past, "its subkey is expired on 2025-01-02"),
            (signs_only, "not made for that"),
        ):
            with pytest.raises(KeyUnusable, match=message):
                keyring.check_key(pair.fingerprint, at=NOW, can="encrypt")
        assert keyring.check_key(past.fingerprint, at=NOW, can="sign").expires_at > NOW


def test_check_key_goes_by_the_machines_clock_for_a_replay_of_an_instant_before_the_key(ring, vendor):
    assert ring.check_key(vendor.fingerprint, at=LONG_AGO - timedelta(days=1), can="encrypt").expires_at > NOW


def test_open_keyring_takes_a_recipients_and_a_signers_key_from_one_text(us, vendor, mallory):
    both = vendor.public_key + mallory.public_key
    with open_keyring(OwnKey(us.fingerprint, us.private_key), [both]) as keyring:
        assert keyring.check_key(vendor.fingerprint, at=NOW, can="encrypt")
        assert keyring.check_key(mallory.fingerprint, at=NOW, can="sign")


def test_open_keyring_refuses_a_text_that_is_not_keys_of_its_kind(us, vendor, mallory, expired):
    own = OwnKey(us.fingerprint, us.private_key)
    with temporary_home() as folder:
        home = Home(folder)
        for pair in (vendor, mallory, expired):
            home.own(pair)
        three = home.gpg("--armor", "--export")
        nameless = home.gpg("--export-filter", "keep-uid=uid = nobody", "--export", vendor.fingerprint)
    for text in (three, nameless, vendor.private_key, "not a key", ""):
        with pytest.raises(KeyUnusable, match="must hold one public key or two"), open_keyring(own, [text]):
            pass
    for wrong in (
        replace(own, private_key=us.public_key),
        replace(own, private_key=us.private_key + vendor.private_key),
        replace(own, fingerprint=vendor.fingerprint),
        replace(own, passphrase="two\nlines"),
    ):
        with pytest.raises(KeyUnusable), open_keyring(wrong, [vendor.public_key]):
            pass


def test_open_keyring_takes_the_same_key_twice(us, vendor):
    with open_keyring(OwnKey(us.fingerprint, us.private_key), [vendor.public_key, vendor.public_key]) as keyring:
        assert keyring.check_key(vendor.fingerprint, at=NOW, can="sign").fingerprint == vendor.fingerprint


def test_passphrase_opens_our_key_and_its_fault_is_not_the_vendors(vendor, outside, tmp_path):
    locked = make_key("Locked", passphrase="gehеim ünlock")
    own = OwnKey(locked.fingerprint, locked.private_key, "gehеim ünlock")
    assert "ünlock" not in repr(own)
    assert "PRIVATE KEY" not in repr(own)
    outside.gpg("--import", stdin=locked.public_key.encode())
    answer = outside.gpg("-u", vendor.fingerprint, "-r", locked.fingerprint, "--sign", "--encrypt", stdin=DATA)
    guessed = outside.gpg("--pinentry-mode", "loopback", "--passphrase", "x", "--symmetric", stdin=DATA)
    with open_keyring(own, [vendor.public_key]) as keyring:
        message = keyring.seal_bytes(DATA, recipient=vendor.fingerprint, at=NOW)
        assert outside.gpg("--decrypt", stdin=message) == DATA
        keyring.seal(lambda s: s.write(DATA), tmp_path / "x", recipient=vendor.fingerprint, at=NOW, detached=True)
        outside.gpg("--verify", str(tmp_path / "x.sig"), str(tmp_path / "x"))
        assert keyring.open_bytes(answer, signers=[vendor.fingerprint], max_bytes=MIB) == DATA
        with pytest.raises(ReturnUntrusted) as refused:
            keyring.open_bytes(guessed, signers=[vendor.fingerprint], max_bytes=MIB)
        assert refused.value.reason == "not_for_us"
    for passphrase in ("", "wrong"):
        with open_keyring(replace(own, passphrase=passphrase), [vendor.public_key]) as keyring:
            with pytest.raises(KeyUnusable, match="passphrase"):
                keyring.seal_bytes(DATA, recipient=vendor.fingerprint, at=NOW)
            with pytest.raises(KeyUnusable, match="passphrase"):
                keyring.seal(
                    lambda s: s.write(DATA), tmp_path / "y", recipient=vendor.fingerprint, at=NOW, detached=True
                )
            with pytest.raises(KeyUnusable, match="passphrase"):
                keyring.open_bytes(answer, signers=[vendor.fingerprint], max_bytes=MIB)


# -- opening -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def good(write) -> bytes:
    return write("-u vendor -r us -se")


def test_open_gives_the_text_the_signer_and_the_time(ring, vendor, good, tmp_path):
    (tmp_path / "r.pgp").write_bytes(good)
    (tmp_path / ".r.part").write_bytes(b"left by a crash, for all to read")
    opened = ring.open(tmp_path / "r.pgp", tmp_path / "r", signers=[vendor.fingerprint.lower()], max_bytes=len(DATA))
    assert (tmp_path / "r").read_bytes() == DATA
    assert opened.signer_fingerprint == vendor.fingerprint
    assert timedelta(0) <= opened.signed_at - NOW.replace(microsecond=0)
    assert opened.signed_at <= datetime.now(UTC)
    assert stat.S_IMODE((tmp_path / "r").stat().st_mode) == 0o600
    assert sorted(os.listdir(tmp_path)) == ["r", "r.pgp"]


@pytest.mark.parametrize(
    "options", ["--armor", "--textmode", "-z 0", "--compress-algo bzip2", "-r stranger", "--throw-keyids"]
)
def test_open_takes_what_other_settings_of_gpg_write(ring, write, vendor, options):
    message = write(f"{options} -u vendor -r us -se", stdin=b"text\n" * 99)
    assert ring.open_bytes(message, signers=[vendor.fingerprint], max_bytes=MIB) == b"text\n" * 99


def flipped(message: bytes, place: int) -> bytes:
    changed = bytearray(message)
    changed[place] ^= 1
    return bytes(changed)


def without_integrity(message: bytes) -> bytes:
    """The packet of tag 18 renamed to tag 9 (EFAIL's downgrade): the same ciphertext, no MDC."""
    stream = BytesIO(message)
    start = 2 + message[1]  # gpg's session key packet has a header of two octets
    assert message[start] == 0xC0 | 18
    bodies, at = b"", start + 1
    while 224 <= message[at] < 255:
        length = 1 << (message[at] & 0x1F)
        bodies, at = bodies + message[at + 1 : at + 1 + length], at + 1 + length
    skip = 1 if message[at] < 192 else 2 if message[at] < 224 else 5
    body = (bodies + message[at + skip :])[1:]
    return stream.read(start) + bytes([0xC0 | 9, 255]) + len(body).to_bytes(4, "big") + body


ALTERED: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "bit flipped in the middle": (lambda m: flipped(m, len(m) // 2), "damaged"),
    "bit flipped in the tail": (lambda m: flipped(m, -3), "damaged"),
    "cut in half": (lambda m: m[: len(m) // 2], "damaged"),
    "last byte cut off": (lambda m: m[:-1], "damaged"),
    "cut within the header": (lambda m: m[:60], "not_openpgp"),
    "garbage behind": (lambda m: m + b"garbage", "damaged"),
    "a second message behind": (lambda m: m + m, "damaged"),
    "integrity check stripped": (without_integrity, "damaged"),
    "empty": (lambda m: b"", "not_openpgp"),
    "not OpenPGP": (lambda m: b"clip_ref,status\n" * 5000, "not_openpgp"),
    "a picture": (lambda m: b"\x89PNG\r\n\x1a\n" + bytes(300_000), "not_openpgp"),
}

WRITTEN = {
    "-r us -e": "unsigned",
    "-u mallory -r us -se": "wrong_signer",  # in our ring, for another vendor
    "-u stranger -r us -se": "wrong_signer",
    "-u vendor -u mallory -r us -se": "bad_signature",
    "-u vendor -r us --digest-algo SHA1 -se": "bad_signature",
    "--faked-system-time 1735700000 -u expired -r us -se": "expired_signer",
    "--faked-system-time 1735700000 --default-sig-expire 1d -u vendor -r us -se": "bad_signature",
    "-u revoked -r us -se": "revoked_signer",
    "-u vendor --sign": "not_encrypted",
    "-u vendor --clear-sign": "not_encrypted",
    "--store": "not_encrypted",  # a literal packet
    "-u vendor -r stranger -se": "not_for_us",
    "-u vendor --pinentry-mode loopback --passphrase x --sign --symmetric": "not_for_us",
}


def refusal(ring: Keyring, message: bytes, signer: str, folder: Path, max_bytes: int = MIB) -> str:
    """The reason, after seeing that nothing was left behind by a file, and the same for bytes."""
    (folder / "r.pgp").write_bytes(message)
    with pytest.raises(ReturnUntrusted) as refused:
        ring.open(folder / "r.pgp", folder / "r", signers=[signer], max_bytes=max_bytes)
    assert os.listdir(folder) == ["r.pgp"]
    with pytest.raises(ReturnUntrusted) as again:
        ring.open_bytes(message, signers=[signer], max_bytes=max_bytes)
    assert again.value.reason == refused.value.reason
    assert ADDRESS not in str(refused.value)
    return refused.value.reason


@pytest.mark.parametrize("case", ALTERED)
def test_open_refuses_what_was_altered(ring, vendor, good, tmp_path, case):
    alter, reason = ALTERED[case]
    assert refusal(ring, alter(good), vendor.fingerprint, tmp_path) == reason


@pytest.mark.parametrize(
    ("alter", "reason"),
    [
        (lambda m: flipped(m, len(m) // 2), "bad_signature"),  # gpg sees it before it comes to the integrity check
        (lambda m: flipped(m, -3), "damaged"),
        (lambda m: m[:-1], "damaged"),
    ],
)
def test_open_refuses_what_was_altered_uncompressed(ring, write, vendor, tmp_path, alter, reason):
    """Without zlib in between nothing but signature and integrity check stand against it."""
    assert refusal(ring, alter(write("-z 0 -u vendor -r us -se")), vendor.fingerprint, tmp_path) == reason


@pytest.mark.parametrize("arguments", WRITTEN)
def test_open_refuses_what_should_not_have_been_sent(ring, write, vendor, tmp_path, arguments):
    assert refusal(ring, write(arguments), vendor.fingerprint, tmp_path) == WRITTEN[arguments]


def test_open_stops_at_the_limit_without_reading_a_bomb_to_its_end(ring, write, vendor, tmp_path):
    zeros = tmp_path / "zeros"
    with zeros.open("wb") as stream:
        stream.truncate(512 * MIB)
    (tmp_path / "bomb").write_bytes(write(f"-o - -u vendor -r us -se {zeros}"))
    started = time.monotonic()
    with pytest.raises(ReturnUntrusted) as refused:
        ring.open(tmp_path / "bomb", tmp_path / "r", signers=[vendor.fingerprint], max_bytes=MIB)
    assert refused.value.reason == "too_large"
    assert time.monotonic() - started < 1  # to the end takes seconds
    assert sorted(os.listdir(tmp_path)) == ["bomb", "zeros"]


def test_open_counts_the_limit_to_the_byte(ring, vendor, good, tmp_path):
    assert ring.open_bytes(good, signers=[vendor.fingerprint], max_bytes=len(DATA)) == DATA
    assert refusal(ring, good, vendor.fingerprint, tmp_path, max_bytes=len(DATA) - 1) == "too_large"


def test_open_holds_no_more_than_pieces_in_memory(ring, write, vendor, tmp_path):
    (tmp_path / "r.pgp").write_bytes(write("-u vendor -r us -se", stdin=bytes(32 * MIB)))
    tracemalloc.start()
    try:
        ring.open(tmp_path / "r.pgp", tmp_path / "r", signers=[vendor.fingerprint], max_bytes=32 * MIB)
        assert tracemalloc.get_traced_memory()[1] < 16 * MIB
    finally:
        tracemalloc.stop()
    assert (tmp_path / "r").stat().st_size == 32 * MIB


def test_open_leaves_the_file_that_was_there(ring, vendor, good, tmp_path):
    (tmp_path / "r").write_bytes(b"the one before")
    (tmp_path / "r.pgp").write_bytes(flipped(good, -3))
    with pytest.raises(ReturnUntrusted):
        ring.open(tmp_path / "r.pgp", tmp_path / "r", signers=[vendor.fingerprint], max_bytes=MIB)
    assert (tmp_path / "r").read_bytes() == b"the one before"


def test_open_bytes_gives_back_what_seal_bytes_sealed(us, vendor):
    """A recall notice from us to the vendor, read by the vendor with the same module."""
    with open_keyring(OwnKey(us.fingerprint, us.private_key), [vendor.public_key]) as ours:
        notice = ours.seal_bytes(b'{"recall": 1}', recipient=vendor.fingerprint, at=NOW)
    with open_keyring(OwnKey(vendor.fingerprint, vendor.private_key), [us.public_key]) as theirs:
        assert theirs.open_bytes(notice, signers=[us.fingerprint], max_bytes=MIB) == b'{"recall": 1}'


def test_neither_verb_leaves_a_piece_where_there_is_no_room(ring, write, vendor, tmp_path):
    """A limit on the size of files stands for a full disk."""
    (tmp_path / "r.pgp").write_bytes(write("-u vendor -r us -se", stdin=bytes(4 * MIB)))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 * MIB, hard))
    try:
        with pytest.raises(SealFailed):
            ring.seal(lambda s: s.write(bytes(4 * MIB)), tmp_path / "x", recipient=vendor.fingerprint, at=NOW)
        with pytest.raises(OSError, match="File too large"):
            ring.open(tmp_path / "r.pgp", tmp_path / "r", signers=[vendor.fingerprint], max_bytes=4 * MIB)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert os.listdir(tmp_path) == ["r.pgp"]


# -- around it ---------------------------------------------------------------------------------------------------------


def test_open_keyring_ends_its_agent_and_removes_its_home(us, vendor, monkeypatch):
    with temporary_home() as folder:
        monkeypatch.setattr(tempfile, "tempdir", str(folder))

        def running() -> list[str]:
            lines = [" ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"])]
            return [line for line in lines if str(folder) in line]

        with (
            pytest.raises(ZeroDivisionError),
            open_keyring(OwnKey(us.fingerprint, us.private_key), [vendor.public_key]) as keyring,
        ):
            keyring.seal_bytes(DATA, recipient=vendor.fingerprint, at=NOW)
            assert any("gpg-agent" in line for line in running())
            [home] = folder.glob("courier-*")
            assert stat.S_IMODE(home.stat().st_mode) == 0o700
            raise ZeroDivisionError
        assert not list(folder.glob("courier-*"))
        deadline = time.monotonic() + 2  # asked to end, it does so at its own pace
        while running() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert running() == []


def test_open_keyring_works_where_the_temporary_folder_has_a_long_name(us, vendor, tmp_path, monkeypatch):
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    with open_keyring(OwnKey(us.fingerprint, us.private_key), [vendor.public_key]) as keyring:
        assert keyring.seal_bytes(DATA, recipient=vendor.fingerprint, at=NOW)


def test_open_keyring_says_when_gpg_is_missing(us, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(GnupgMissing), open_keyring(OwnKey(us.fingerprint, us.private_key), []):
        pass


def test_nothing_of_a_key_or_a_text_is_logged(us, vendor, revoked, good, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    logging.getLogger("gnupg").setLevel(logging.DEBUG)
    try:
        with open_keyring(OwnKey(us.fingerprint, us.private_key), [vendor.public_key, revoked.public_key]) as keyring:
            keyring.seal(lambda s: s.write(DATA), tmp_path / "x", recipient=vendor.fingerprint, at=NOW, detached=True)
            keyring.open_bytes(good, signers=[vendor.fingerprint], max_bytes=MIB)
            with pytest.raises(ReturnUntrusted):
                keyring.open_bytes(flipped(good, 2000), signers=[vendor.fingerprint], max_bytes=MIB)
            with pytest.raises(KeyUnusable):
                keyring.check_key(revoked.fingerprint, at=NOW, can="encrypt")
            with pytest.raises(ZeroDivisionError):
                keyring.seal(lambda s: 1 / 0, tmp_path / "y", recipient=vendor.fingerprint, at=NOW)
    finally:
        logging.getLogger("gnupg").setLevel(logging.NOTSET)
    assert caplog.text == ""


def test_make_key_leaves_no_home_behind(monkeypatch):
    with temporary_home() as folder:
        monkeypatch.setattr(tempfile, "tempdir", str(folder))
        assert make_key("Somebody").fingerprint != make_key("Somebody").fingerprint
        assert not list(folder.glob("courier-*"))
