"""Sealing what goes to a vendor and opening what comes back: the only module that imports gnupg.

A keyring lives as long as one `with` block. Its verbs leave a whole, checked file under the final name, or nothing.
python-gnupg runs gpg and keeps its pipes moving; its own conclusions (`ok`, `valid`, `status`) are not used, because
each of them is wrong for some message. `openpgp_rules` judges gpg's status lines instead.
"""

import fcntl
import hashlib
import io
import logging
import os
import subprocess
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from threading import Event, Timer
from typing import IO, Any, BinaryIO, Literal

import gnupg

from clip_courier import openpgp_rules as rules
from clip_courier.errors import GnupgMissing, KeyUnusable, ReturnUntrusted, SealFailed
from clip_courier.gpg_home import temporary_home
from clip_courier.model import whole_file
from clip_courier.openpgp_packets import check_sealed_packets

PlaintextWriter = Callable[[BinaryIO], object]
CHUNK_BYTES = 1 << 20
# The largest return takes two seconds; compression within compression could keep gpg busy for years.
MAX_OPENING_S = 120
ENDING_S = 10  # for gpg to say why, when it has closed its input

# The ring holds reviewed keys only: ownership is settled by pinning, so nothing is looked up and nobody is asked.
OPTIONS = ["--no-options", "--trust-model", "always", "--no-auto-key-locate", "--no-auto-key-retrieve"]
OPTIONS += ["--disable-dirmngr", "--no-symkey-cache", "--pinentry-mode", "loopback"]
# --rfc4880 keeps newer gpg from writing AEAD, which Sequoia cannot read. FLAC does not compress, and libgcrypt 1.10
# has a fast SHA-256 but no fast SHA-512: together seven times faster than gpg's defaults.
SEALING = ["--rfc4880", "--cipher-algo", "AES256", "--digest-algo", "SHA256", "--compress-algo", "none"]

# python-gnupg logs every user id and the head of every key it imports, private ones too. A filter, because levels
# and handlers are set again by whoever configures logging after us, as Airflow does.
logging.getLogger(gnupg.__name__).addFilter(lambda record: False)


@dataclass(frozen=True, slots=True)
class OwnKey:
    """Our key pair: 40 hex digits, ASCII-armoured text, and its passphrase, which may be empty."""

    fingerprint: str
    private_key: str = field(repr=False)
    passphrase: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class KeyFacts:
    """A primary key, with the algorithm and length of the (sub)key that serves; the first of their expiries."""

    fingerprint: str
    expires_at: datetime | None
    algorithm: str
    length_bits: int


@dataclass(frozen=True, slots=True)
class Sealed:
    """A sealed file as it lies on disk; `signature_path` when the signature is detached."""

    size_bytes: int
    sha256: str
    signature_path: Path | None


@dataclass(frozen=True, slots=True)
class Opened:
    """Who signed what was opened (primary fingerprint) and when, by the signer's clock."""

    signer_fingerprint: str
    signed_at: datetime


@contextmanager
def open_keyring(own: OwnKey, public_keys: Iterable[str | bytes]) -> Iterator["Keyring"]:
    """A keyring of our key pair and of public keys: one in each text, or a recipient's and a signer's.

    It exists in a private home under the system's temporary folder, gone afterwards together with its agent.
    Raises GnupgMissing, and KeyUnusable when a text does not hold exactly the one key that it should.
    """
    with temporary_home() as home:
        try:
            gpg = _Gpg(gnupghome=str(home), options=OPTIONS, encoding="utf-8")
        except (OSError, ValueError) as error:
            raise GnupgMissing("gpg was not found on the PATH, or does not run") from error
        if (gpg.version or (0,)) < (2, 2):
            raise GnupgMissing("gpg is older than 2.2")
        yield Keyring(gpg, own, public_keys)


class Keyring:
    """The verbs of one open keyring. Not for several threads at once."""

    def __init__(self, gpg: "_Gpg", own: OwnKey, public_keys: Iterable[str | bytes]) -> None:
        self._gpg = gpg
        self._own = rules.fingerprint_of(own.fingerprint)
        if set(own.passphrase) & set("\r\n\0"):
            raise KeyUnusable(f"the passphrase given for our key {self._own} is more than one line")
        self._passphrase = own.passphrase or None  # "" would make gpg read the first line of the data as one
        for text in public_keys:
            self._import(text, secret_keys=0)
        if self._import(own.private_key, secret_keys=1) != {self._own}:
            raise KeyUnusable(f"the private key given for {self._own} has another fingerprint")

    def check_key(self, fingerprint: str, *, at: datetime, can: Literal["encrypt", "sign"]) -> KeyFacts:
        """The facts of a key that can be used for a purpose at an instant; raises KeyUnusable, which says why not.

        Neither the primary key nor the (sub)key that serves may be revoked, disabled, expired, or RSA, DSA or ElGamal
        under 2048 bits; one that is not valid yet gpg refuses, by the machine's clock. A key is named by the 40 hex
        digits of its primary key and by nothing else: an address would stand for whoever made the newest key with it.
        """
        wanted = rules.fingerprint_of(fingerprint)
        primary, serving = rules.usable_key(self._gpg.keys(wanted), wanted, at=at, can=can)
        expiries = [key.expires_at for key in (primary, serving) if key.expires_at]
        return KeyFacts(wanted, min(expiries, default=None), serving.algorithm, serving.length_bits)

    def seal(
        self, write_plaintext: PlaintextWriter, out: Path, *, recipient: str, at: datetime, detached: bool = False
    ) -> Sealed:
        """Sign what `write_plaintext` writes, encrypt it to the recipient's fingerprint, and put it at `out`.

        The plaintext goes through a pipe and never lies on disk. `detached` puts the signature, over the sealed
        bytes, at `<out>.sig` instead. Raises KeyUnusable before anything is written, SealFailed, or whatever
        `write_plaintext` raised.
        """
        key = self._sealing_key(recipient, at)
        with ExitStack() as files:
            part = files.enter_context(_private_file(out))
            answer = self._encrypt_stream(write_plaintext, key, part, signed=not detached)
            rules.check_sealing(answer, by=self._own, to=key.fingerprint, signatures="" if detached else "S")
            with io.BufferedReader(io.FileIO(part), CHUNK_BYTES) as sealed:
                check_sealed_packets(sealed, key_id=key.key_id)
                sealed.seek(0)
                sha256 = hashlib.file_digest(sealed, "sha256").hexdigest()
            signature = out.with_name(f"{out.name}.sig") if detached else None
            if signature:  # entered last, so it appears first: no sealed file ever stands there unsigned
                self._sign_detached(part, files.enter_context(_private_file(signature)))
        return Sealed(out.stat().st_size, sha256, signature)

    def seal_bytes(self, data: bytes, *, recipient: str, at: datetime) -> bytes:
        """`seal` for what fits in memory, with the signature inside. Raises KeyUnusable or SealFailed."""
        key = self._sealing_key(recipient, at)
        answer = self._encrypt(io.BytesIO(data), key, signed=True)
        rules.check_sealing(answer, by=self._own, to=key.fingerprint, signatures="S")
        check_sealed_packets(io.BytesIO(answer.data), key_id=key.key_id)
        return answer.data

    def open(self, source: Path, out: Path, *, signers: Collection[str], max_bytes: int) -> Opened:
        """Decrypt `source` to `out` if it is whole, encrypted to us, and signed by one of the pinned `signers`.

        `signers` are primary fingerprints; `max_bytes` limits the plaintext, for 13 MB can hold 10 GiB of it. Raises
        ReturnUntrusted for one of these reasons: unsigned, wrong_signer, bad_signature, expired_signer,
        revoked_signer, not_encrypted, not_for_us, damaged, too_large, not_openpgp; KeyUnusable when our own key fails.
        """
        with source.open("rb") as sealed, _private_file(out) as part, part.open("wb") as plain:
            return self._decrypt(sealed, plain, signers, max_bytes)

    def open_bytes(self, data: bytes, *, signers: Collection[str], max_bytes: int) -> bytes:
        """`open` for what fits in memory, with the same errors."""
        plain = io.BytesIO()
        self._decrypt(io.BytesIO(data), plain, signers, max_bytes)
        return plain.getvalue()

    def _import(self, text: str | bytes, *, secret_keys: int) -> frozenset[str]:
        minimal = ["--import-options", "import-minimal"]  # without the signatures of others (CVE-2022-3219)
        answer = self._run(self._gpg.import_keys, text, extra_args=minimal, passphrase=self._passphrase)
        return rules.check_imported(answer, secret_keys=secret_keys)

    def _sealing_key(self, recipient: str, at: datetime) -> rules.Key:
        self.check_key(self._own, at=at, can="sign")
        wanted = rules.fingerprint_of(recipient)
        return rules.usable_key(self._gpg.keys(wanted), wanted, at=at, can="encrypt")[1]

    def _encrypt_stream(
        self, write_plaintext: PlaintextWriter, key: rules.Key, part: Path, *, signed: bool
    ) -> rules.Answer:
        """gpg runs from a thread of its own, so that the writer keeps the caller's: its connections, its interrupts."""
        inlet = self._gpg.inlet = _Inlet()
        with ThreadPoolExecutor(1, "seal") as thread:
            sealing = thread.submit(self._encrypt, inlet, key, signed=signed, output=str(part))
            sealing.add_done_callback(lambda _: inlet.opened.set())  # also when gpg never asked for its input
            try:
                inlet.opened.wait()
                if not sealing.done():
                    write_plaintext(inlet.sink)
                    inlet.sink.flush()
                    inlet.close()
                return sealing.result()
            except BrokenPipeError:
                wait([sealing], ENDING_S)
                if sealing.done() and sealing.result().returncode != 0:
                    return sealing.result()  # gpg gave up first; the writer only saw its pipe break
                raise
            finally:
                self._gpg.inlet = None
                if not sealing.done():
                    self._gpg.stop()
                inlet.close()

    def _encrypt(
        self, source: "BinaryIO | _Inlet", key: rules.Key, *, signed: bool, output: str | None = None
    ) -> rules.Answer:
        return self._run(
            self._gpg.encrypt_file,
            source,
            f"{key.fingerprint}!",  # this very subkey and not the newest, which gpg would take
            sign=signed,
            passphrase=self._passphrase if signed else None,
            armor=False,
            output=output,
            extra_args=[*SEALING, "--local-user", self._own],
        )

    def _sign_detached(self, sealed: Path, signature: Path) -> None:
        with sealed.open("rb") as source:
            answer = self._run(
                self._gpg.sign_file,
                source,
                passphrase=self._passphrase,
                clearsign=False,
                detach=True,
                binary=True,
                output=str(signature),
                extra_args=[*SEALING, "--local-user", self._own],
            )
            if source.tell() != sealed.stat().st_size:  # python-gnupg signs what it got before a read failed
                raise SealFailed("the sealed file could not be read to its end")
        rules.check_signing(answer, by=self._own)

    def _decrypt(self, sealed: BinaryIO, plain: BinaryIO, signers: Collection[str], max_bytes: int) -> Opened:
        size_bytes = 0

        def take(chunk: bytes) -> bool:
            nonlocal size_bytes
            size_bytes += len(chunk)
            if size_bytes > max_bytes:
                self._gpg.stop()  # with --max-output alone gpg reads a bomb to its end and reports DECRYPTION_OKAY
            else:
                plain.write(chunk)
            return False  # not to be kept in memory as well

        self._gpg.on_data = take
        # What unpacks to packets that are no plaintext never comes to `take`.
        watch = Timer(MAX_OPENING_S, self._gpg.stop)
        watch.start()
        try:
            limit = ["--max-output", str(max_bytes + 4 * CHUNK_BYTES)]  # beyond ours: gpg stops short of its own
            answer = self._run(self._gpg.decrypt_file, sealed, passphrase=self._passphrase, extra_args=limit)
        finally:
            is_late = watch.finished.is_set()
            watch.cancel()
            self._gpg.on_data = None
        if answer.on_data_failure:
            raise answer.on_data_failure
        if is_late:
            raise ReturnUntrusted("too_large", f"it takes more than {MAX_OPENING_S} s to unpack")
        if size_bytes > max_bytes:
            raise ReturnUntrusted("too_large", f"it holds more than {max_bytes} bytes")
        rules.check_passphrase(answer, self._own)
        return Opened(*rules.check_opening(answer, signers={rules.fingerprint_of(name) for name in signers}))

    def _run(self, verb: Callable[..., object], *arguments: object, **options: object) -> rules.Answer:
        with suppress(OSError, ValueError):  # gpg stopped reading before the end; its status lines say why
            verb(*arguments, **options)
        return self._gpg.answer


class _Inlet:
    """Stands for the source of what gpg is to seal, while a writer has gpg's input: what is copied is copied once.

    The input is a descriptor of its own. python-gnupg closes the first one when gpg ends, perhaps in mid-write, and its
    number may be another file's by then.
    """

    def __init__(self) -> None:
        self.opened, self._closed = Event(), Event()
        self.sink: BinaryIO = io.BytesIO()
        self._stdin: IO[bytes] = self.sink

    def fit(self, stdin: IO[bytes]) -> None:
        self.sink, self._stdin = os.fdopen(os.dup(stdin.fileno()), "wb", CHUNK_BYTES), stdin

    def read(self, _size: int) -> bytes:
        """Called when gpg runs and its passphrase is written; nothing comes from here."""
        with suppress(OSError, ValueError):  # gpg has ended
            self._stdin.flush()
        self.opened.set()
        self._closed.wait()
        return b""

    def close(self) -> None:
        with suppress(OSError):  # what gpg does not take any more
            self.sink.close()
        self._closed.set()


def _widen(pipe: int) -> None:
    """Let a pipe hold a whole piece, where the system can: by default both ends change places every 64 KiB."""
    if hasattr(fcntl, "F_SETPIPE_SZ"):
        with suppress(OSError):  # a limit of the system's for one user
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, CHUNK_BYTES)


@contextmanager
def _private_file(path: Path) -> Iterator[Path]:
    """`whole_file`, there from the start and readable by nobody else."""
    with whole_file(path) as part:
        part.unlink(missing_ok=True)
        part.touch(mode=0o600, exist_ok=False)
        yield part


def _new_answer(gpg: "_Gpg") -> rules.Answer:
    gpg.answer = rules.Answer()  # kept, because python-gnupg raises without its result when gpg stops reading
    return gpg.answer


class _Gpg(gnupg.GPG):  # type: ignore[misc]
    """python-gnupg, with status lines read as openpgp_rules wants them, and gpg within reach to be stopped."""

    result_map = dict.fromkeys(gnupg.GPG.result_map, _new_answer)
    buffer_size = CHUNK_BYTES
    answer: rules.Answer
    process: subprocess.Popen[bytes]
    inlet: _Inlet | None = None

    def stop(self) -> None:
        self.process.kill()

    def keys(self, fingerprint: str) -> list[rules.Key]:
        """The primary key of a fingerprint and its subkeys; empty when there is none."""
        process = self._open_subprocess(["--with-subkey-fingerprint", "--list-keys", fingerprint])
        self._collect_output(process, _new_answer(self), stdin=process.stdin)
        return rules.keys_listed(self.answer.data)

    def _open_subprocess(self, *arguments: Any, **options: Any) -> subprocess.Popen[bytes]:
        self.process = super()._open_subprocess(*arguments, **options)
        if self.process.stdin is not None:
            _widen(self.process.stdin.fileno())
            if self.inlet is not None:
                self.inlet.fit(self.process.stdin)
        return self.process

    def _read_response(self, stream: Any, result: rules.Answer) -> None:
        result.lines = list(rules.status_lines(stream.stream))
