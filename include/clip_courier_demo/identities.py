"""Everything that identifies someone in the demo world: ids, names, numbers, addresses, all invented, all as columns.

Each function turns an array of indexes into an Arrow string array, by arithmetic on whole columns, so that a world of
millions costs seconds. A string depends only on the seed and the index, and never occurs by chance elsewhere: ids and
serials are 64 random bits, surnames are three invented syllables, numbers and addresses stay in reserved ranges
(555 telephone numbers, RFC 2606 domain `.example`, RFC 3849 prefix `2001:db8::/32`).
"""

import hashlib
from itertools import product
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from clip_courier_demo.dealing import Ints
from clip_courier_demo.locales import LOCALES

Words64 = NDArray[np.uint64]

_HEX = np.frombuffer(b"0123456789abcdef", dtype=np.uint8)
_DIGITS = np.frombuffer(b"0123456789", dtype=np.uint8)

_SURNAMES = [
    "".join(syllables)
    for syllables in product(
        ("Quor", "Zelph", "Brund", "Vrax", "Thwim", "Plov", "Skarn", "Gwyll", "Fjord", "Hroth", "Myrk", "Drilb"),
        ("van", "ique", "oxel", "umbra", "avist", "enko", "ibbel", "orwin", "azell", "ypher", "udron", "ellik"),
        ("thistle", "wharf", "mond", "quist", "brack", "snape", "vetch", "crombe", "garth", "tuff", "zane", "plume"),
    )
]
_FIRST_NAMES = [
    "".join(syllables)
    for syllables in product(
        ("Zavi", "Orru", "Ketti", "Mobre", "Ysol", "Fenwi", "Tulva", "Ibbri", "Quelo", "Dwemo", "Xandri", "Hjuli"),
        ("lok", "neth", "vard", "mique", "drel", "phan", "zor", "wyn", "bryx", "tosh", "gwen", "skel", "jorn", "plim"),
    )
]
_STREETS = ("Lane", "Row", "Close", "Yard")


def _bits(seed: int, purpose: str, indexes: Ints) -> Words64:
    """64 random-looking bits, different for every index: SplitMix64 (Steele, Lea, Flood 2014) is a bijection."""
    salt = int.from_bytes(hashlib.sha256(f"{seed}:{purpose}".encode()).digest()[:8], "big")
    mixed = indexes.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(salt)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def _hex(bits: Words64, prefix: str) -> Any:
    """Arrow strings `prefix` + 16 hex digits, straight from a byte matrix."""
    octets = bits.astype(">u8").view(np.uint8).reshape(len(bits), 8)
    head = np.frombuffer(prefix.encode(), dtype=np.uint8)
    matrix = np.empty((len(bits), len(head) + 16), dtype=np.uint8)
    matrix[:, : len(head)] = head
    matrix[:, len(head) :: 2] = _HEX[octets >> 4]
    matrix[:, len(head) + 1 :: 2] = _HEX[octets & 15]
    return _fixed_width(matrix)


def _fixed_width(matrix: NDArray[np.uint8]) -> Any:
    rows, width = matrix.shape
    offsets = np.arange(rows + 1, dtype=np.int32) * np.int32(width)
    data = pa.py_buffer(np.ascontiguousarray(matrix).tobytes())
    return pa.StringArray.from_buffers(rows, pa.py_buffer(offsets.tobytes()), data)


def clip_ids(seed: int, indexes: Ints) -> Any:
    """`clip-` and 16 hex digits."""
    return _hex(_bits(seed, "clip", indexes), "clip-")


def call_ids(seed: int, indexes: Ints) -> Any:
    """`call-` and 16 hex digits; null where the index is negative."""
    return pc.if_else(pa.array(indexes >= 0), _hex(_bits(seed, "call", indexes), "call-"), None)


def person_ids(seed: int, indexes: Ints) -> Any:
    """`person-` and 16 hex digits; null where the index is negative."""
    return pc.if_else(pa.array(indexes >= 0), _hex(_bits(seed, "person", indexes), "person-"), None)


def record_ids(seed: int, indexes: Ints) -> Any:
    """`consent-` and 16 hex digits."""
    return _hex(_bits(seed, "consent", indexes), "consent-")


def device_serials(seed: int, indexes: Ints) -> Any:
    """`SN-` and 16 hex digits, upper-case."""
    return pc.ascii_upper(_hex(_bits(seed, "device", indexes), "sn-"))


def ip_addresses(seed: int, indexes: Ints) -> Any:
    """Addresses in the documentation prefix, such as `2001:db8:7f3a:9c01::5e20:88d1`."""
    digits = _hex(_bits(seed, "ip", indexes), "")
    groups = [pc.utf8_slice_codeunits(digits, start, start + 4) for start in range(0, 16, 4)]
    return pc.binary_join_element_wise("2001:db8:", groups[0], ":", groups[1], "::", groups[2], ":", groups[3], "")


def surnames(seed: int, indexes: Ints) -> Any:
    """Invented surnames; in large worlds many share one."""
    return pa.array(_SURNAMES).take(_choice(seed, "surname", indexes, len(_SURNAMES)))


def first_names(seed: int, indexes: Ints) -> Any:
    """Invented first names."""
    return pa.array(_FIRST_NAMES).take(_choice(seed, "first", indexes, len(_FIRST_NAMES)))


def full_names(seed: int, indexes: Ints) -> Any:
    """First name and surname."""
    return pc.binary_join_element_wise(first_names(seed, indexes), surnames(seed, indexes), " ")


def account_emails(seed: int, indexes: Ints) -> Any:
    """`first.surname@post.example`."""
    local = pc.replace_substring(pc.ascii_lower(full_names(seed, indexes)), " ", ".")
    return pc.binary_join_element_wise(local, "post.example", "@")


def phone_numbers(seed: int, indexes: Ints, locales: Ints) -> Any:
    """`+CC-555-` and seven digits, with the calling code of the person's locale."""
    bits = _bits(seed, "phone", indexes)
    places = np.array([10**power for power in range(6, -1, -1)], dtype=np.uint64)
    digits = _fixed_width(_DIGITS[(bits[:, None] // places % np.uint64(10)).astype(np.int64)])
    codes = pa.array([locale.dial for locale in LOCALES]).take(pa.array(locales))
    return pc.binary_join_element_wise(codes, "555", digits, "-")


def street_addresses(seed: int, indexes: Ints) -> Any:
    """A house number and an invented street, such as `82 Vraxorwingarth Row`."""
    numbers = pa.array(_choice(seed, "house", indexes, 89).to_numpy() + 11).cast(pa.string())
    streets = pa.array(_SURNAMES).take(_choice(seed, "street", indexes, len(_SURNAMES)))
    kinds = pa.array(_STREETS).take(_choice(seed, "street kind", indexes, len(_STREETS)))
    return pc.binary_join_element_wise(numbers, streets, kinds, " ")


def _choice(seed: int, purpose: str, indexes: Ints, count: int) -> Any:
    return pa.array((_bits(seed, purpose, indexes) % np.uint64(count)).astype(np.int64))
