"""Keyed pseudonyms: the same id becomes another ref for every vendor, key epoch and kind of thing.

HMAC-SHA-256 (RFC 2104, FIPS 198-1) over the length-prefixed parts (vendor, epoch, kind, id), cut to 160 bits and in
base32, 32 characters. Without the key no ref can be computed or reversed; two vendors' refs cannot be joined.

A key serves for one epoch, which ends. When it is destroyed (its epoch taken out of the connection) nobody can make its
refs again; what still needs them finds them in the crosswalk, until that is erased, too.
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import date, timedelta

import numpy as np

from clip_courier.errors import ConnectionInvalid
from clip_courier.model import Connection

# The "vendor" of refs that never leave: row keys in results, and the warehouse.
OURSELVES = ""
_REF_BYTES, _REF_LENGTH = 20, 32
# So many that what is computed of them stays in the processor's cache.
_AT_ONCE_BYTES = _REF_BYTES * 2048
_ALPHABET = np.frombuffer(b"abcdefghijklmnopqrstuvwxyz234567", np.uint8)


@dataclass(frozen=True)
class Pseudonyms:
    """The key of one epoch."""

    epoch: str
    key: bytes = field(repr=False)

    def refs(self, vendor: str, kind: str, ids: Iterable[str]) -> list[str]:
        """Refs of `ids`, in their order; `kind` is `clip` or `person`."""
        prefix = hmac.new(self.key, digestmod=hashlib.sha256)
        for part in (vendor, self.epoch, kind):
            prefix.update(_framed(part))
        digests = bytearray()
        for value in ids:
            mac = prefix.copy()
            mac.update(_framed(value))
            digests += mac.digest()[:_REF_BYTES]
        text = "".join(
            _base32(digests[start : start + _AT_ONCE_BYTES]) for start in range(0, len(digests), _AT_ONCE_BYTES)
        )
        return [text[start : start + _REF_LENGTH] for start in range(0, len(text), _REF_LENGTH)]


def _base32(digests: bytearray) -> str:
    """RFC 4648 in lower case, of many refs at once: 20 bytes are 32 characters without padding.

    Python's own takes as long as all the hashing.
    """
    numbers = np.zeros((len(digests) // 5, 8), np.uint8)
    numbers[:, 3:] = np.frombuffer(digests, np.uint8).reshape(-1, 5)
    digits = (numbers.view(">u8") >> np.arange(35, -1, -5, dtype=np.uint64)) & np.uint64(31)
    return _ALPHABET[digits.astype(np.intp)].tobytes().decode("ascii")


def _framed(part: str) -> bytes:
    """Length first, so that no two lists of parts give the same bytes."""
    encoded = part.encode("utf-8")
    return len(encoded).to_bytes(4, "big") + encoded


def pseudonyms_for(connection: Connection, night: date, longest: timedelta) -> Pseudonyms:
    """The epoch in force on the night: the latest one whose `from` is not after it.

    No epoch lasts longer than `longest`: a key that serves on begins another one by itself, with other refs, each time
    that span is over. So nobody's neglect lets refs grow old, and a night never stops for it.

    Raises:
        ConnectionInvalid: an epoch lacks its 32-byte key or its date, or none has begun.
    """
    begins, pseudonyms = max(_begun(connection, night), key=lambda epoch: (epoch[0], epoch[1].epoch))
    spans = (night - begins) // longest
    return replace(pseudonyms, epoch=f"{pseudonyms.epoch}+{spans}") if spans else pseudonyms


def last_pseudonyms(connection: Connection, day: date) -> Pseudonyms:
    """The latest epoch that has begun, however long ago: for keys that are never given to a vendor.

    Raises:
        ConnectionInvalid: an epoch lacks its 32-byte key or its date, or none has begun.
    """
    return max(_begun(connection, day), key=lambda epoch: (epoch[0], epoch[1].epoch))[1]


def _begun(connection: Connection, day: date) -> list[tuple[date, Pseudonyms]]:
    epochs = connection.extra.get("epochs")
    if not isinstance(epochs, dict) or not epochs:
        raise ConnectionInvalid(f"connection {connection.conn_id}: extra.epochs names no epoch")
    begun = []
    for name, epoch in epochs.items():
        try:
            key, begins = base64.b64decode(epoch["key"], validate=True), date.fromisoformat(epoch["from"])
        except (KeyError, TypeError, ValueError, binascii.Error):
            raise ConnectionInvalid(
                f"connection {connection.conn_id}: epoch {name} needs `key` (base64) and `from`"
            ) from None
        if len(key) != 32:
            raise ConnectionInvalid(f"connection {connection.conn_id}: the key of epoch {name} must be 32 bytes")
        if begins <= day:
            begun.append((begins, Pseudonyms(str(name), key)))
    if not begun:
        raise ConnectionInvalid(f"connection {connection.conn_id}: no epoch has begun by {day}")
    return begun
