"""What is looked for: the values of the landing zone that identify, and of which forms each is telling.

Ids, addresses and hashes of recordings, and whatever products wrote beyond the contract, which counts as identifying.
What says too little to be told from anything else, or may leave by rule, is not looked for, and counted.

The rules, and what they leave out, are docs/leaks.md.
"""

import math
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from functools import lru_cache, partial
from typing import Final, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from clip_courier.forms import condensed, folded
from clip_courier.landing import Landing
from clip_courier.model import CLIPS, CONSENT_EVENTS, PERSONS
from clip_courier.needles import MOST_GRAMS, Needles
from clip_courier.unpacking import leaves

# A random value of its class would stand in a text by chance less often than once in 2^16 places: below that, a hit
# says nothing. From 2^32 on it is looked for in any form; between the two only as a word of its own.
_LEAST_BITS: Final = 16.0
_TELLING_BITS: Final = 32.0
_TELLING_BYTES: Final = 8
_BRIEF_BYTES: Final = 4
# Numbers are written in many ways, so that a telephone number is looked for in all of them.
_NUMERAL_DIGITS: Final = 9
_BITS_OF_DIGIT, _BITS_OF_LETTER, _BITS_BEYOND_ASCII, _BITS_OF_IDEOGRAPH = math.log2(10), math.log2(26), 6.0, 9.0

# Of so many values on, what all of them begin with is taken for a part of the form and not of the value.
_FEW: Final = 16
# Judged at once.
_ROWS: Final = 1 << 18
# Of one search at most so many values; more of them are looked for one after the other.
MOST_VALUES: Final = 5_000_000

# The contract's columns that identify, and those whose values may leave or are shown as counts by. The others hold
# neither: what was said is looked at by redaction, and numbers and instants of the contract say too little.
_IDENTIFYING: Final = {
    "clip_id": "clip_id",
    "call_id": "call_id",
    "audio_uri": "audio_uri",
    "audio_sha256": "audio_sha256",
    "participants.person_id": "person_id",
    "person_id": "person_id",
    "record_id": "record_id",
}
_MAY_LEAVE: Final = frozenset(
    {"product", "activation", "locale", "country", "participants.role", "hypotheses.engine"}
    | {"purpose", "decision", "notice_version", "language"}
)
_CONTRACTS: Final = {"persons": PERSONS, "consent_events": CONSENT_EVENTS, "clips": CLIPS}
_KEPT: Final = pa.schema([("kind", pa.string()), ("value", pa.string()), ("is_numeric", pa.bool_())])
_MAY_LEAVE_KIND: Final = "(may leave)"
_IDS: Final = frozenset(name.split(".")[0] for name in _IDENTIFYING)
_TOLD: Final = _IDS | _MAY_LEAVE
# Ahead of sealing: all of the landing window up to so many values, beyond that all of the night's clips and people.
MOST_GATE_VALUES: Final = 1_000_000
# How many values a row has by the contract that no other relation has.
_VALUES_A_ROW: Final = {"persons": 1, "consent_events": 1, "clips": 6}
# What was said; large, and by the contract free of ids.
_SPEECH: Final = ("hypotheses", "words")

_DATE: Final = r"^([a-z_]+=)?\d{4}-?\d{2}-?\d{2}([ t]\d{2}:?\d{2}(:?\d{2})?(z|[+-]\d{2}:?\d{2})?)?$"
_WORDS: Final = r"^[a-z' .-]+$"
_EVERYDAY_WORDS: Final = 50_000


@dataclass(frozen=True)
class Watch:
    """What one search looks for, and what it does not: counts of values by reason."""

    needles: Needles = field(repr=False)
    kinds: list[str]
    kind_of: NDArray[np.int32] = field(repr=False)
    not_looked_for: dict[str, int]

    @property
    def values(self) -> int:
        return len(self.kind_of)


class Wanted:
    """Collects identifying values; `harmless` are the words that may leave in a hypothesis."""

    def __init__(self, harmless: Collection[str] = ()) -> None:
        self._found: dict[str, list[pa.Array]] = defaultdict(list)
        self._numeric: set[str] = set()
        self._may_leave: set[bytes] = set()
        self._harmless = frozenset(folded(word.encode("utf-8")) for word in harmless)
        self.count = 0

    def add(self, relation: str, rows: pa.RecordBatch | pa.Table) -> None:
        """Take what identifies from rows of a relation of the landing zone."""
        contract = _CONTRACTS[relation]
        for name in rows.schema.names:
            column = rows[name]
            for chunk in column.chunks if isinstance(column, pa.ChunkedArray) else [column]:
                for path, cells in leaves(chunk, name):
                    self._add(relation, path, cells, is_ours=name in contract.names)

    @property
    def has_others(self) -> bool:
        """Whether there are values of columns beyond the contract."""
        return bool(self._found.keys() - set(_IDENTIFYING.values()))

    def kept(self) -> pa.Table:
        """Everything that was added, as `of` takes it."""
        parts = {kind: pa.chunked_array(found, pa.string()).unique() for kind, found in self._found.items()}
        parts[_MAY_LEAVE_KIND] = pa.array(sorted(self._may_leave), pa.binary()).cast(pa.string())
        rows = [
            [pa.array([kind] * len(part)), part, pa.array([kind in self._numeric] * len(part))]
            for kind, part in parts.items()
            if len(part)
        ]
        return pa.concat_tables([_KEPT.empty_table(), *(pa.table(columns, schema=_KEPT) for columns in rows)])

    @classmethod
    def of(cls, kept: pa.Table, harmless: Collection[str]) -> Self:
        """What `kept` gave."""
        wanted = cls(harmless)
        for kind in pc.unique(kept["kind"]).to_pylist():
            rows = kept.filter(pc.equal(kept["kind"], kind))
            if kind == _MAY_LEAVE_KIND:
                wanted._may_leave.update(rows["value"].cast(pa.binary()).to_pylist())
                continue
            wanted._keep(kind, rows["value"].combine_chunks())
            if rows["is_numeric"][0].as_py():
                wanted._numeric.add(kind)
        return wanted

    def add_values(self, kind: str, values: Iterable[str]) -> None:
        """Take strings of a kind of its own."""
        self._keep(kind, pa.array(list(values), pa.string()))

    def _add(self, relation: str, path: str, cells: pa.Array, *, is_ours: bool) -> None:
        if path in _IDENTIFYING:
            self._keep(_IDENTIFYING[path], cells)
        elif path in _MAY_LEAVE:
            self._may_leave.update(folded(str(v).encode("utf-8")) for v in pc.unique(cells).to_pylist() if v)
        elif not is_ours or (path.startswith("participants.")):
            self._keep(f"{relation}.{path}", cells)

    def _keep(self, kind: str, cells: pa.Array) -> None:
        type_ = cells.type
        if pa.types.is_integer(type_) or pa.types.is_floating(type_) or pa.types.is_decimal(type_):
            self._numeric.add(kind)
        elif pa.types.is_binary(type_) or pa.types.is_large_binary(type_) or pa.types.is_fixed_size_binary(type_):
            cells = pa.array([v and v.decode("utf-8", "replace") for v in cells.to_pylist()], pa.string())
        elif not (pa.types.is_string(type_) or pa.types.is_large_string(type_)):
            return  # instants, days and yes or no
        values = pc.unique(cells.drop_null()).cast(pa.string())
        self._found[kind].append(values)
        self.count += len(values) * (3 if kind == "audio_uri" else 1)

    def watch(self, most_grams: int = MOST_GRAMS) -> Watch:
        """Everything that was added, ready to be looked for; sooner, and slower, with fewer grams."""
        found = {kind: pa.chunked_array(parts, pa.string()).unique() for kind, parts in self._found.items()}
        if uris := found.pop("audio_uri", None):
            found.update(_parts_of_addresses(uris.combine_chunks() if isinstance(uris, pa.ChunkedArray) else uris))
        made = _Making()
        for kind, values in sorted(found.items()):
            self._judge(kind, values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values, made)
        return made.watch(most_grams)

    def _judge(self, kind: str, values: pa.Array, made: "_Making") -> None:
        is_id = kind in _IDENTIFYING.values()
        shared_bits = math.log2(max(1, len(values)))
        made.begin(kind)
        is_ascii = pc.string_is_ascii(values)
        plain = pc.ascii_lower(values.filter(is_ascii)).cast(pa.binary())
        if not is_id:
            is_shown = self._is_shown(plain)
            made.leave_out("may_leave", int(np.count_nonzero(is_shown)))
            plain = plain.filter(pa.array(~is_shown))
        beginning = _beginning_of_all(plain) if len(plain) >= _FEW else 0
        for start in range(0, len(plain), _ROWS):
            made.add_ascii(plain.slice(start, _ROWS), shared_bits, beginning, is_numeric=kind in self._numeric)
        for value in values.filter(pc.invert(is_ascii)).to_pylist():
            if not is_id and folded(value.encode("utf-8")) in self._may_leave | self._harmless:
                made.leave_out("may_leave", 1)
            else:
                made.add_other(value, shared_bits)

    def _is_shown(self, values: pa.Array) -> NDArray[np.bool_]:
        """What may leave: a product, a locale, a day, an everyday word, or words that hypotheses may show."""
        shown = pc.is_in(values, pa.array(sorted(self._may_leave), pa.binary()))
        texts = values.cast(pa.string())
        shown = pc.or_(shown, pc.match_substring_regex(texts, _DATE))
        is_shown = np.array(shown.to_numpy(zero_copy_only=False), dtype=np.bool_)
        is_words = pc.match_substring_regex(texts, _WORDS).to_numpy(zero_copy_only=False)
        for row in np.flatnonzero(is_words & ~is_shown).tolist():
            words = texts[row].as_py().replace(".", " ").replace("-", " ").split()
            is_everyday = len(words) == 1 and words[0] in _everyday()
            is_shown[row] = is_everyday or all(word.encode("ascii") in self._harmless for word in words)
        return is_shown


def _beginning_of_all(values: pa.Array) -> int:
    """How many letters and digits all begin with, such as those of `person-`."""
    ends = pc.min_max(values)
    first, last = ends["min"].as_py(), ends["max"].as_py()
    same = next((place for place, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
    return len(condensed(first[:same]))


@lru_cache(maxsize=1)
def _everyday() -> frozenset[str]:
    """English words: what we write ourselves, and pages and logs of others, consist of them."""
    # Where it is used: the process that delivers asks only when products write words of their own.
    import wordfreq

    return frozenset(wordfreq.top_n_list("en", _EVERYDAY_WORDS, wordlist="small"))


def _parts_of_addresses(uris: pa.Array) -> dict[str, pa.Array]:
    """An address of a recording, the name of its file without the ending, and its folders."""
    names = pc.replace_substring_regex(uris, r"^.*/", "")
    stems = pc.replace_substring_regex(names, r"\.[A-Za-z0-9]{1,5}$", "")
    folders = pc.list_flatten(pc.split_pattern(pc.replace_substring_regex(uris, r"[^/]*$", ""), "/"))
    return {
        "audio_uri": uris,
        "audio_uri (file)": stems.unique(),
        "audio_uri (folder)": pc.replace_substring_regex(folders, r"^[A-Za-z_]+[:=]", "").unique(),
    }


class _Making:
    """Needles in the making: strings with the numbers of their values."""

    def __init__(self) -> None:
        self._kinds: list[str] = []
        self._kind_of: list[NDArray[np.int32]] = []
        self._numerals: list[NDArray[np.bool_]] = []
        self._telling: list[tuple[pa.Array, NDArray[np.int32]]] = []
        self._brief: list[tuple[pa.Array, NDArray[np.int32]]] = []
        self._not: dict[str, int] = {"too_short": 0, "may_leave": 0}
        self._next = 0

    def begin(self, kind: str) -> None:
        self._kinds.append(kind)

    def leave_out(self, reason: str, count: int) -> None:
        self._not[reason] += count

    def add_ascii(self, values: pa.Array, shared_bits: float, beginning: int, *, is_numeric: bool) -> None:
        """Lower-case ASCII, judged all at once; of each as much is looked for as is not the same in all of them."""
        lengths = np.asarray(pc.binary_length(values))
        self.leave_out("too_short", int(np.count_nonzero(lengths == 0)))
        values = values.filter(pa.array(lengths > 0))
        if not len(values):
            return
        flat, offsets = _flat(values)
        is_kept = _IS_KEPT.take(flat)
        short, digits = _counts(is_kept, offsets), _counts((flat - np.uint8(48)) < 10, offsets)
        bits = digits * _BITS_OF_DIGIT + (short - digits) * _BITS_OF_LETTER - shared_bits
        bare_flat = flat[is_kept]
        begins = np.cumsum(short) - short
        # What all begin with says the same of each.
        own_bits = bits - _bits_of(bare_flat[:beginning].tobytes().decode("ascii"))
        is_cut = (own_bits >= _TELLING_BITS) & (short - beginning >= _TELLING_BYTES)
        if beginning and np.any(is_cut):
            is_looked_for = np.ones(len(bare_flat), np.bool_)
            for place in range(beginning):
                is_looked_for[begins[is_cut] + place] = False
            bare_flat = bare_flat[is_looked_for]
        ends = np.concatenate([[0], np.cumsum(short - beginning * is_cut)]).astype(np.int32)
        bare = pa.Array.from_buffers(pa.binary(), len(values), [None, pa.py_buffer(ends), pa.py_buffer(bare_flat)])
        is_numeral = (digits == short) & (short >= _NUMERAL_DIGITS) & (bits >= _LEAST_BITS) & (not is_numeric)
        is_telling = is_numeral | ((bits >= _TELLING_BITS) & (short >= _TELLING_BYTES))
        is_brief = ~is_telling & (bits >= _LEAST_BITS) & (np.diff(offsets) >= _BRIEF_BYTES) & (not is_numeric)
        is_wanted = is_telling | is_brief
        self.leave_out("too_short", int(np.count_nonzero(~is_wanted)))
        numbers = np.cumsum(is_wanted, dtype=np.int32) - 1 + self._next
        self._number(int(np.count_nonzero(is_wanted)), (is_numeral & (bits < _TELLING_BITS))[is_wanted])
        telling = bare.filter(pa.array(is_telling))
        self._telling.append((telling, numbers[is_telling].astype(np.int32)))
        self._brief.append((values.filter(pa.array(is_brief)), numbers[is_brief].astype(np.int32)))
        self._add_without_zeros(bare, numbers, is_numeral)

    def _add_without_zeros(self, bare: pa.Array, numbers: NDArray[np.int32], is_numeral: NDArray[np.bool_]) -> None:
        """A number that begins with zeros may stand behind a country's code instead."""
        rows = np.flatnonzero(is_numeral)
        shorter = pc.ascii_ltrim(bare.take(pa.array(rows)).cast(pa.string()), characters="0").cast(pa.binary())
        is_other = np.asarray(pc.less(pc.binary_length(shorter), pc.binary_length(bare.take(pa.array(rows)))))
        is_long = np.asarray(pc.greater_equal(pc.binary_length(shorter), _NUMERAL_DIGITS))
        wanted = is_other.astype(np.bool_) & is_long.astype(np.bool_)
        self._telling.append((shorter.filter(pa.array(wanted)), numbers[rows[wanted]].astype(np.int32)))

    def add_other(self, value: str, shared_bits: float) -> None:
        """Beyond ASCII: in the canonical form, and as the bytes that encodings give the usual spellings."""
        spelt = folded(value.encode("utf-8"))
        bits = _bits_of(spelt.decode("utf-8", "replace")) - shared_bits
        bare = condensed(spelt)
        if bits < _LEAST_BITS or len(spelt) < _BRIEF_BYTES:
            self.leave_out("too_short", 1)
            return
        number = np.array([self._next], np.int32)
        self._number(1, np.zeros(1, np.bool_))
        if bits < _TELLING_BITS or len(bare) < _TELLING_BYTES:
            self._brief.append((pa.array([spelt], pa.binary()), number))
            return
        forms = {bare}
        for text in (value, value.upper(), value.lower(), unicodedata.normalize("NFD", value)):
            forms.update(condensed(text.encode(name, "replace")) for name in ("utf-8", "utf-16-le", "utf-16-be"))
        strings = pa.array(sorted(form for form in forms if len(form) >= _TELLING_BYTES), pa.binary())
        self._telling.append((strings, np.repeat(number, len(strings))))

    def _number(self, count: int, is_numeral: NDArray[np.bool_]) -> None:
        self._kind_of.append(np.full(count, len(self._kinds) - 1, np.int32))
        self._numerals.append(is_numeral)
        self._next += count

    def watch(self, most_grams: int) -> Watch:
        numerals = _joined(self._numerals, np.bool_)
        needles = Needles(*_together(self._telling), *_together(self._brief), numerals, most_grams)
        return Watch(needles, self._kinds, _joined(self._kind_of, np.int32), self._not)


def _together(parts: list[tuple[pa.Array, NDArray[np.int32]]]) -> tuple[pa.Array, NDArray[np.int32]]:
    strings = pa.concat_arrays([part for part, _ in parts] or [pa.array([], pa.binary())])
    return strings, _joined([numbers for _, numbers in parts], np.int32)


def _joined(parts: list[NDArray], kind: type) -> NDArray:  # type: ignore[type-arg]
    return np.concatenate(parts) if parts else np.zeros(0, kind)


def _counts(is_it: NDArray[np.bool_], offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many are set in each stretch from an offset to the next; none is empty."""
    return np.add.reduceat(is_it.view(np.uint8), offsets[:-1], dtype=np.int64)


def _flat(values: pa.Array) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The bytes of a binary array and the offsets of its values in them."""
    offsets = np.frombuffer(values.buffers()[1], "<i4")[values.offset :][: len(values) + 1].astype(np.int64)
    data = np.frombuffer(values.buffers()[2] or b"", np.uint8)
    return data[offsets[0] : offsets[-1]], offsets - offsets[0]


_IS_KEPT: Final = np.array([chr(b).isalnum() and b < 128 for b in range(256)])


def _bits_of(text: str) -> float:
    def bits(letter: str) -> float:
        if not letter.isalnum():
            return 0.0
        if letter.isascii():
            return _BITS_OF_DIGIT if letter.isdigit() else _BITS_OF_LETTER
        return (
            _BITS_OF_IDEOGRAPH if unicodedata.category(letter) == "Lo" and ord(letter) > 0x2E80 else _BITS_BEYOND_ASCII
        )

    return sum(map(bits, text))


# -- of the landing zone ---------------------------------------------------------------------------------------


def everything(landing: Landing, harmless: Collection[str]) -> Iterator[Watch]:
    """All that identifies in the landing zone; where it is too much to be looked for at once, in several parts."""
    wanted = Wanted(harmless)
    for relation in _CONTRACTS:
        for batch in landing.rows(relation, None, partial(_columns, relation, _TOLD)):
            wanted.add(relation, batch)
            if wanted.count >= MOST_VALUES:
                yield wanted.watch()
                wanted = Wanted(harmless)
    yield wanted.watch()


def of_window(landing: Landing, harmless: Collection[str], oldest: date) -> Wanted | None:
    """Everything in the landing window that identifies; None where that is too much."""
    rows = sum(landing.row_count(relation, oldest) * values for relation, values in _VALUES_A_ROW.items())
    wanted = Wanted(harmless)
    return wanted if rows <= MOST_GATE_VALUES and _collect(wanted, landing, oldest, None) else None


def of_clips(landing: Landing, harmless: Collection[str], oldest: date, clips: pa.Table) -> Wanted:
    """What the landing window holds about some clips and their people; of the clips what `clips` holds goes without
    saying."""
    wanted = Wanted(harmless)
    _collect(wanted, landing, oldest, {"person_id": people_of(clips), "clip_id": clips["clip_id"].unique()})
    return wanted


def people_of(clips: pa.Table) -> pa.Array:
    """Whoever is audible in some clips."""
    return pc.struct_field(pc.list_flatten(clips["participants"]), "person_id").unique().drop_null()


def _collect(wanted: Wanted, landing: Landing, oldest: date, keys: Mapping[str, pa.Array] | None) -> bool:
    """Take what identifies of all rows since, or of those with such keys; False where that is too much."""
    for names in (_IDS, _TOLD):
        for relation in _CONTRACTS:
            key = "clip_id" if relation == "clips" else "person_id"
            for batch in landing.rows(relation, oldest, partial(_columns, relation, names, is_keyed=keys is not None)):
                is_ours = pc.is_in(batch[key].cast(pa.string()), keys[key]) if keys else None
                wanted.add(relation, batch.filter(is_ours) if is_ours else batch)
                if not keys and wanted.count > MOST_GATE_VALUES:
                    return False
        if not wanted.has_others:
            break  # so that nobody asks what of them may leave
    return True


def _columns(relation: str, names: Collection[str], schema: pa.Schema, *, is_keyed: bool = False) -> list[str]:
    """Of the contract's columns such of these names, and all others but what was said.

    Nothing where rows are picked by keys that are all that the file would tell.
    """
    contract = _CONTRACTS[relation]
    others = [name for name in schema.names if name not in contract.names and name not in _SPEECH]
    is_plain = not others and all(schema.field(n).type == contract.field(n).type for n in names if n in schema.names)
    if is_keyed and names is _IDS and is_plain and relation != "consent_events":
        return []
    return [*(name for name in schema.names if name in names and name in contract.names), *others]
