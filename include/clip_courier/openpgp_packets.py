"""The outer packets of an OpenPGP file, read from their headers alone (RFC 4880 §4.2).

GnuPG says that it wrote what was asked for; this says what lies in the file. It needs no key and reads no body.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from clip_courier.errors import SealFailed

SESSION_KEY, PROTECTED_DATA = 1, 18  # RFC 4880 §4.3: public-key encrypted session key; integrity protected data
HEAD_BYTES = 9  # a session key's version and key id (§5.1); the version is the first byte of protected data (§5.13)

# A part of 2¹³ bytes of a body whose length was not known beforehand (§4.2.2.4), as GnuPG writes it.
_GNUPG_PART, _GNUPG_PART_BYTES = b"\xed", 1 << 13


class NotPackets(Exception):
    """The bytes are not a sequence of whole OpenPGP packets."""


@dataclass(frozen=True, slots=True)
class Packet:
    """One packet: its tag, and the first bytes of its body, at most HEAD_BYTES of them."""

    tag: int
    head: bytes


def check_sealed_packets(sealed: BinaryIO, *, key_id: bytes) -> None:
    """Refuse a sealed file that is not one v3 session key for `key_id` (8 bytes), then one v1 protected packet.

    This is what every OpenPGP reader understands: no second recipient, no AEAD, nothing before, between or after.
    Raises SealFailed.
    """
    expected = [Packet(SESSION_KEY, b"\x03" + key_id), Packet(PROTECTED_DATA, b"\x01")]
    try:
        found = [p if p.tag != PROTECTED_DATA else Packet(p.tag, p.head[:1]) for p in packets(sealed)]
    except NotPackets as error:
        raise SealFailed(f"the sealed file is not whole: {error}") from error
    if found != expected:
        tags = ", ".join(str(packet.tag) for packet in found)
        raise SealFailed(f"the sealed file is not one session key for the recipient and one protected packet: {tags}")


def packets(stream: BinaryIO) -> Iterator[Packet]:
    """Every outer packet from the start of a seekable stream to its end. Raises NotPackets."""
    end = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    while stream.tell() < end:
        yield _packet(stream, end)


def _packet(stream: BinaryIO, end: int) -> Packet:
    first = _octet(stream)
    if not first & 0x80:
        raise NotPackets("a byte that starts no packet")
    if first & 0x40:
        tag, (length, is_partial) = first & 0x3F, _new_length(stream)
    else:
        tag, length, is_partial = first >> 2 & 0x0F, _old_length(stream, first & 0x03), False
    start = stream.tell()
    head = stream.read(min(HEAD_BYTES, length))
    stream.seek(start + length)
    while is_partial:
        if (octet := stream.read(1)) == _GNUPG_PART:  # a large file has nothing but these: it is read in one go
            stream.seek(_GNUPG_PART_BYTES, os.SEEK_CUR)
            continue
        stream.seek(-len(octet), os.SEEK_CUR)
        length, is_partial = _new_length(stream)
        stream.seek(length, os.SEEK_CUR)
    if stream.tell() > end:
        raise NotPackets("the last packet is cut off")
    return Packet(tag, head)


def _new_length(stream: BinaryIO) -> tuple[int, bool]:
    """The length in octets, and whether it is that of a part with more to follow (§4.2.2)."""
    first = _octet(stream)
    if first < 192:
        return first, False
    if first < 224:
        return (first - 192 << 8) + _octet(stream) + 192, False
    if first < 255:
        return 1 << (first & 0x1F), True
    return _number(stream, 4), False


def _old_length(stream: BinaryIO, kind: int) -> int:
    """The length in octets (§4.2.1). An indeterminate one could hide anything behind it and is refused."""
    if kind == 3:
        raise NotPackets("a packet of indeterminate length")
    return _number(stream, 1 << kind)


def _octet(stream: BinaryIO) -> int:
    return _number(stream, 1)


def _number(stream: BinaryIO, octets: int) -> int:
    read = stream.read(octets)
    if len(read) < octets:
        raise NotPackets("the last packet is cut off")
    return int.from_bytes(read, "big")
