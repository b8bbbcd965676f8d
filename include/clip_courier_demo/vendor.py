"""A transcription vendor as we see it from outside: it takes its drops, listens, and returns transcripts.

It works on the folder of its own server, knows its own key and our public one, and hears in a recording what was said
in the demo world, but for what a tone covers. It makes the mistakes that vendors make.
"""

import hashlib
import io
import json
import subprocess
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from clip_courier import audio
from clip_courier.errors import ReturnUntrusted
from clip_courier.gpg_home import temporary_home
from clip_courier.model import stamp
from clip_courier.pgp import Keyring, OwnKey, open_keyring
from clip_courier_demo.hearing import Truth
from clip_courier_demo.keys import KeyPair

_ROWS = pa.schema(
    [
        ("clip_ref", pa.string()),
        ("status", pa.string()),
        ("text", pa.string()),
        ("chosen_rank", pa.int8()),
        ("annotator_ref", pa.string()),
        ("submitted_at", pa.timestamp("us", tz="UTC")),
        ("revision", pa.int32()),
        ("note", pa.string()),
    ]
)
_HEARD_AS_NOTHING = "unintelligible"


@dataclass(frozen=True)
class DemoVendor:
    """One vendor: its server's folder, its key pair, our public key, and the format it likes to return."""

    name: str
    home: Path
    key: KeyPair = field(repr=False)
    our_public_key: str = field(repr=False)
    our_fingerprint: str
    file_format: str = "jsonl"
    is_careless: bool = False

    def work(self, truth: Truth, now: datetime) -> list[str]:
        """Answer every drop and every recall that was not answered yet; returns the names of the files written."""
        written = []
        with open_keyring(OwnKey(self.key.fingerprint, self.key.private_key), [self.our_public_key]) as keyring:
            for batch_id in self._unanswered():
                rows = list(self._transcribe(self.take(batch_id), truth, now))
                written.append(self.send(keyring, batch_id, 1, rows, now))
            notices = sorted((self.home / "recalls").glob("*.json.pgp"))
            unanswered = [notice for notice in notices if not (self.home / "receipts" / notice.name).exists()]
            written += [self._confirm(keyring, notice, now) for notice in unanswered]
        return written

    def take(self, batch_id: str) -> dict[str, bytes]:
        """The members of a sealed batch, opened by gpg itself with the vendor's key; the signer must be pinned."""
        sealed = self.home / "outbound" / f"{batch_id}.tar.pgp"
        signature = sealed.with_name(f"{sealed.name}.sig")
        opened = self.home / "desk" / f"{batch_id}.tar"
        opened.parent.mkdir(exist_ok=True)
        with temporary_home() as home:
            _gpg(home, "--import", stdin=(self.key.private_key + self.our_public_key).encode("ascii"))
            status = _gpg(home, "--status-fd", "1", "--yes", "--output", str(opened), "--decrypt", str(sealed))
            if signature.exists():
                status = _gpg(home, "--status-fd", "1", "--verify", str(signature), str(sealed))
        if f"VALIDSIG {self.our_fingerprint}".encode("ascii") not in status:
            raise ReturnUntrusted("wrong_signer", f"{sealed.name} is not signed by the courier's key")
        with tarfile.open(opened) as tar:
            members = {m.name: part.read() for m in tar.getmembers() if (part := tar.extractfile(m)) is not None}
        opened.unlink()
        return members

    def send(self, keyring: Keyring, batch_id: str, n: int, rows: Sequence[Mapping[str, object]], now: datetime) -> str:
        """Put a return where we look for it, its ready file last."""
        sealed = keyring.seal_bytes(self._encode(rows), recipient=self.our_fingerprint, at=now)
        name = f"{batch_id}.{n}.{self.file_format}.pgp"
        folder = self.home / "returns"
        folder.mkdir(exist_ok=True)
        (folder / name).write_bytes(sealed)
        ready = {"size_bytes": len(sealed), "sha256": hashlib.sha256(sealed).hexdigest()}
        (folder / f"{batch_id}.{n}.ready.json").write_text(json.dumps(ready), encoding="utf-8")
        return name

    def _unanswered(self) -> list[str]:
        ready = (self.home / "outbound").glob("*.ready.json")
        batches = sorted(path.name.removesuffix(".ready.json") for path in ready)
        return [b for b in batches if not any((self.home / "returns").glob(f"{b}.*.ready.json"))]

    def _transcribe(self, members: Mapping[str, bytes], truth: Truth, now: datetime) -> Iterator[dict[str, object]]:
        rows = pq.read_table(io.BytesIO(members["manifest.parquet"])).to_pylist()
        for place, row in enumerate(rows):
            recording = audio.decode(members[row["audio_file"]], row["audio_sha256"])
            text = truth.hear(recording)
            hears = text is not None and not (self.is_careless and place % 17 == 16)
            yield {
                "clip_ref": row["clip_ref"],
                "status": "transcribed" if hears else _HEARD_AS_NOTHING,
                "text": text if hears else None,
                "chosen_rank": 1 if hears and row["hypotheses"] else None,
                "annotator_ref": f"t{place % 4 + 1}",
                "submitted_at": now.astimezone(UTC),
                "revision": 0,
                "note": None,
            }
        if self.is_careless and rows:
            # A row twice, a ref of nobody's, and a transcript that was forgotten.
            first = {"clip_ref": rows[0]["clip_ref"], "annotator_ref": "t1", "submitted_at": now, "revision": 0}
            yield {**first, "status": "transcribed", "text": "again"}
            yield {**first, "clip_ref": "a" * 32, "status": "no_speech"}
            yield {**first, "status": "transcribed", "revision": 1}

    def _encode(self, rows: Sequence[Mapping[str, object]]) -> bytes:
        if self.file_format == "jsonl":
            return "".join(json.dumps(row, default=_text) + "\n" for row in rows).encode("utf-8")
        table, sink = pa.Table.from_pylist([dict(row) for row in rows], _ROWS), io.BytesIO()
        if self.file_format == "csv":
            texts = [stamp(at) for at in table["submitted_at"].to_pylist()]
            place = table.schema.get_field_index("submitted_at")
            pacsv.write_csv(table.set_column(place, "submitted_at", pa.array(texts, pa.string())), sink)
        else:
            pq.write_table(table, sink)
        return sink.getvalue()

    def _confirm(self, keyring: Keyring, notice: Path, now: datetime) -> str:
        """Delete what is recalled and say so, signed."""
        asked = json.loads(keyring.open_bytes(notice.read_bytes(), signers={self.our_fingerprint}, max_bytes=1 << 20))
        receipt = {name: asked[name] for name in ("batch_id", "n", "clip_refs")} | {"deleted_at": stamp(now)}
        (self.home / "receipts").mkdir(exist_ok=True)
        sealed = keyring.seal_bytes(json.dumps(receipt).encode("utf-8"), recipient=self.our_fingerprint, at=now)
        (self.home / "receipts" / notice.name).write_bytes(sealed)
        return notice.name


def _gpg(home: Path, *arguments: str, stdin: bytes = b"") -> bytes:
    command = ["gpg", "--homedir", str(home), "--batch", "--quiet", "--trust-model", "always", *arguments]
    return subprocess.run(command, input=stdin, check=True, capture_output=True).stdout


def _text(value: object) -> str:
    if not isinstance(value, datetime):
        raise TypeError(type(value).__name__)
    return stamp(value)
