"""The packet reader, against packets put together here (RFC 4880 §4.2)."""

from contextlib import suppress
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clip_courier.errors import SealFailed
from clip_courier.openpgp_packets import NotPackets, Packet, check_sealed_packets, packets

KEY_ID = bytes(range(8))
SESSION = b"\x03" + KEY_ID + b"\x12" + bytes(80)


def old(tag: int, body: bytes, octets: int = 1) -> bytes:
    kind = {1: 0, 2: 1, 4: 2}[octets]
    return bytes([0x80 | tag << 2 | kind]) + len(body).to_bytes(octets, "big") + body


def new(tag: int, body: bytes) -> bytes:
    return bytes([0xC0 | tag]) + length(body) + body


def length(body: bytes) -> bytes:
    size = len(body)
    if size < 192:
        return bytes([size])
    if size < 8384:
        return bytes([(size - 192 >> 8) + 192, size - 192 & 0xFF])
    return b"\xff" + size.to_bytes(4, "big")


def partial(tag: int, body: bytes, power: int = 9) -> bytes:
    parts, step = bytes([0xC0 | tag]), 1 << power
    while len(body) >= step:
        parts, body = parts + bytes([0xE0 | power]) + body[:step], body[step:]
    return parts + length(body) + body


GOOD = old(1, SESSION) + partial(18, b"\x01" + bytes(5000))


def test_check_sealed_packets_accepts_every_form_of_the_two_packets():
    for session in (old(1, SESSION), old(1, SESSION, 2), old(1, SESSION, 4), new(1, SESSION)):
        for size in (1, 191, 192, 193, 5000, 8383, 8384, 70_000):
            body = b"\x01".ljust(size, b"x")
            check_sealed_packets(BytesIO(session + new(18, body)), key_id=KEY_ID)
            check_sealed_packets(BytesIO(session + partial(18, body)), key_id=KEY_ID)


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"plain text",
        old(1, SESSION),
        partial(18, b"\x01" + bytes(5000)),
        old(1, SESSION) + GOOD,  # a second recipient
        old(1, b"\x03" + bytes(8) + SESSION[9:]) + partial(18, b"\x01" + bytes(600)),  # another or a hidden recipient
        old(1, b"\x06" + SESSION[1:]) + partial(18, b"\x01" + bytes(600)),  # RFC 9580
        old(3, b"\x04" + SESSION[1:]) + partial(18, b"\x01" + bytes(600)),  # a passphrase
        old(1, SESSION) + partial(18, b"\x02" + bytes(600)),  # SEIPD v2
        old(1, SESSION) + partial(20, b"\x01" + bytes(600)),  # AEAD of gpg 2.3
        old(1, SESSION) + old(9, b"\x01" + bytes(80)),  # no integrity
        partial(18, b"\x01" + bytes(600)) + old(1, SESSION),
        old(10, b"PGP") + GOOD,
        GOOD + old(10, b"PGP"),
        GOOD + b"\n",
        GOOD[:-1],
        GOOD[: len(GOOD) // 2],
        GOOD[:1],
        b"\x87" + GOOD,  # indeterminate length
    ],
)
def test_check_sealed_packets_refuses_anything_else(message):
    with pytest.raises(SealFailed):
        check_sealed_packets(BytesIO(message), key_id=KEY_ID)


BODY = st.binary(max_size=10_000)
TAG = st.integers(0, 63)
PACKET = st.one_of(
    st.builds(lambda tag, body: (tag, body, old(tag, body, 2)), st.integers(0, 15), BODY),
    st.builds(lambda tag, body: (tag, body, new(tag, body)), TAG, BODY),
    st.builds(lambda tag, body, power: (tag, body, partial(tag, body, power)), TAG, BODY, st.integers(3, 12)),
)


@given(st.lists(PACKET, max_size=4))
def test_packets_gives_back_what_was_put_together(made):
    read = list(packets(BytesIO(b"".join(message for *_, message in made))))
    assert [packet.tag for packet in read] == [tag for tag, *_ in made]
    assert all(body.startswith(packet.head) for packet, (_, body, _) in zip(read, made, strict=True))


@given(st.binary(max_size=300))
def test_packets_ends_on_any_bytes(noise):
    with suppress(NotPackets):
        assert all(isinstance(packet, Packet) for packet in packets(BytesIO(noise)))
