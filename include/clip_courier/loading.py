"""Stage 6, `load`: everything that is known of every night, scored and published as the warehouse.

Errors are counted on what was really said and recognised; what analysts see of it is masked like a hypothesis. That is
done once, when a night's returns change, and kept in `facts`; the analysts' file is built from there.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from datetime import date, datetime
from itertools import chain
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow.dataset import dataset

from clip_courier import facts, normalisation, scoring, warehouse
from clip_courier.batch_files import count_returned, read_own, rows_except
from clip_courier.ledger import ACCEPTED, LOADED, REFUSED, RETURNED, Batch, Ledger, Return, RowCounts, parse_stamp
from clip_courier.model import CLIPS, MANIFEST, NightFolder, Outcome, Root, write_text
from clip_courier.pseudonyms import OURSELVES, Pseudonyms
from clip_courier.redaction import Redactor
from clip_courier.redaction import rules as redaction_rules
from clip_courier.returned_rows import RETURNED as RETURNED_ROW
from clip_courier.scorers import Scorers, scorers
from clip_courier.tables import Tables

_AT: Final = pa.timestamp("us", tz="UTC")
_CROSSWALK: Final = pa.schema(
    [
        ("clip_ref", pa.string()),
        ("clip_key", pa.string()),
        ("batch_id", pa.string()),
        ("stratum", pa.string()),
        ("product", pa.string()),
        ("locale", pa.string()),
        ("recorded_at", _AT),
        ("duration_ms", pa.int32()),
        ("inclusion_probability", pa.float64()),
        ("is_withheld", pa.bool_()),
        ("speaker_key", pa.string()),
        ("speaker_keys", pa.list_(pa.string())),
        ("hypotheses", CLIPS.field("hypotheses").type),
        ("audible_hypotheses", MANIFEST.field("hypotheses").type),
    ]
)
_RETURNED: Final = pa.schema(
    [*(f for f in RETURNED_ROW if f.name != "problem"), pa.field("batch_id", pa.string()), pa.field("n", pa.int64())]
)
_LEDGER_BATCHES: Final = pa.schema(
    [
        ("batch_id", pa.string()),
        ("vendor", pa.string()),
        ("night", pa.date32()),
        ("state", pa.string()),
        ("clip_count", pa.int32()),
        ("audio_ms", pa.int64()),
        ("size_bytes", pa.int64()),
        ("manifested_at", _AT),
        ("delivered_at", _AT),
        ("due_at", _AT),
    ]
)
_LEDGER_RECALLS: Final = pa.schema(
    [
        ("batch_id", pa.string()),
        ("n", pa.int32()),
        ("vendor", pa.string()),
        ("clip_count", pa.int32()),
        ("state", pa.string()),
        ("created_at", _AT),
        ("noticed_at", _AT),
        ("receipted_at", _AT),
    ]
)
_LEDGER_RETURNS: Final = pa.schema(
    [
        ("vendor", pa.string()),
        ("batch_id", pa.string()),
        ("n", pa.int32()),
        ("state", pa.string()),
        ("reason", pa.string()),
        ("accepted_rows", pa.int64()),
        ("rejected_rows", pa.int64()),
        ("received_at", _AT),
    ]
)
_LEDGER_ROWS: Final = pa.schema(
    [
        *(("vendor", pa.string()), ("batch_id", pa.string()), ("n", pa.int32())),
        *((f.name, pa.int64()) for f in fields(RowCounts) if f.name.endswith("_rows")),
    ]
)
DELIVERED_CLIPS: Final = pa.schema(
    [
        ("clip_key", pa.string()),
        ("batch_id", pa.string()),
        ("night", pa.date32()),
        ("vendor", pa.string()),
        ("stratum", pa.string()),
        ("product", pa.string()),
        ("locale", pa.string()),
        ("recorded_week", pa.string()),
        ("duration_ms", pa.int32()),
        ("inclusion_probability", pa.float64()),
        ("is_overlap", pa.bool_()),
        ("is_withheld", pa.bool_()),
        ("speaker_key", pa.string()),
        ("speaker_keys", pa.list_(pa.string())),
    ]
)
_MASKED: Final = pa.schema(
    [
        ("clip_key", pa.string()),
        ("batch_id", pa.string()),
        ("vendor", pa.string()),
        ("status", pa.string()),
        ("text", pa.string()),
        ("chosen_rank", pa.int64()),
        ("annotator_key", pa.string()),
        ("submitted_at", _AT),
        ("revision", pa.int64()),
        ("note", pa.string()),
    ]
)
_SCORED: Final = pa.schema(
    [("clip_key", pa.string()), ("batch_id", pa.string()), ("vendor", pa.string()), *scoring.SCORE]
)
# What two vendors returned for one clip; texts are not kept.
_COMPARED: Final = pa.schema(
    [
        ("clip_key", pa.string()),
        ("batch_id", pa.string()),
        ("vendor", pa.string()),
        ("other_vendor", pa.string()),
        ("status", pa.string()),
        ("other_status", pa.string()),
        *scoring.COMPARISON,
    ]
)
_REFUSED: Final = pa.schema(
    [
        ("night", pa.date32()),
        ("stage", pa.string()),
        ("vendor", pa.string()),
        ("batch_id", pa.string()),
        ("clip_key", pa.string()),
        ("reason", pa.string()),
    ]
)
_FUNNEL: Final = pa.schema(
    [
        ("night", pa.date32()),
        ("step", pa.string()),
        ("reason", pa.string()),
        ("stratum", pa.string()),
        ("clips", pa.int64()),
        ("hours", pa.float64()),
    ]
)
# What analysts ask of transcripts and scores by: kept beside them, for joining ten million clips takes seconds.
_ASKED_BY: Final[Mapping[str, tuple[str, ...]]] = {
    "masked_transcripts": ("stratum", "locale", "is_overlap"),
    "scored": (
        *("stratum", "product", "locale", "recorded_week", "duration_ms"),
        *("inclusion_probability", "is_overlap", "is_withheld", "speaker_key", "speaker_keys"),
    ),
    "compared": ("speaker_key", "speaker_keys"),
}


def _with_clips(kind: str, schema: pa.Schema) -> pa.Schema:
    return pa.schema([*schema, *(DELIVERED_CLIPS.field(name) for name in _ASKED_BY[kind])])


FACTS: Final[Mapping[str, pa.Schema]] = {
    "delivered_clips": DELIVERED_CLIPS,
    "masked_transcripts": _with_clips("masked_transcripts", _MASKED),
    "scored": _with_clips("scored", _SCORED),
    "compared": _with_clips("compared", _COMPARED),
}
# All that sql/load_*.sql read.
RELATIONS: Final[Mapping[str, pa.Schema]] = {
    "ledger_batches": _LEDGER_BATCHES,
    "ledger_recalls": _LEDGER_RECALLS,
    "ledger_returns": _LEDGER_RETURNS,
    "ledger_rows": _LEDGER_ROWS,
    "refused": _REFUSED,
    "funnel": _FUNNEL,
    **FACTS,
}
# Scored at once: their texts and what is computed of them are in memory, some 10 KB a row.
_ROWS_AT_ONCE: Final = 8192
# Rows that a transcriber found too hard to read on: nobody reads them a second time.
_NOT_SHOWN: Final = frozenset({"sensitive", "distress"})


@dataclass(frozen=True)
class Loading:
    """What `load` needs: what may be shown on a night, and the keys of its epoch."""

    root: Root
    ledger: Ledger
    vocabulary: Callable[[NightFolder], Mapping[str, frozenset[str]]]
    pseudonyms: Callable[[date], Pseudonyms]
    recalled_keys: Callable[[], pa.Array]


def load(now: datetime, given: Loading) -> Outcome:
    """Publish the warehouse when anything that it is built from has changed, and move RETURNED batches to LOADED.

    Not for two processes at once: the caller holds the lock.
    """
    batches, returns = given.ledger.batches(), given.ledger.returns()
    inputs = _digest_of_inputs(given, batches, returns, now)
    built = _built_from(given.root)
    if built is not None and built["inputs"] == inputs:
        _mark_loaded(given.ledger, batches, now)
        return Outcome("load", built["tables"], ["load: the warehouse holds everything that is known"], is_new=False)
    _refresh(given, batches, returns, now)
    tables = _publish(given, batches, returns, inputs, now)
    _mark_loaded(given.ledger, batches, now)
    told = ", ".join(f"{name} {rows}" for name, rows in tables.items())
    return Outcome("load", dict(tables), [f"load: the warehouse was published: {told}"])


def republish(now: datetime, given: Loading) -> Outcome:
    """Publish the warehouse again when clips were erased from the facts since: the old file has their bytes.

    It asks nothing but facts and ledger, and leaves what came back since to `load`. Not for two processes at once: the
    caller holds the lock of `load`.

    Raises:
        QueryFailed: the facts are of another version; `load` makes them anew.
    """
    root, outcome = given.root, Outcome("republish", is_new=False)
    warehouse.sweep(root.warehouse)
    if not root.warehouse.exists() or facts.forgotten(root) <= set((_built_from(root) or {}).get("forgotten", [])):
        return outcome
    batches, returns = given.ledger.batches(), given.ledger.returns()
    nights = _Nights(given, batches, returns)
    inputs = "" if nights.changed else _digest_of_inputs(given, batches, returns, now)
    _publish(given, batches, returns, inputs, now)
    outcome.is_new = True
    outcome.say("recall: the warehouse was published again without what was forgotten")
    return outcome


def _built_from(root: Root) -> dict[str, Any] | None:
    """What the warehouse was built from: a digest, and the names of tombstones; None when none is published."""
    if not (root.warehouse.exists() and root.warehouse_inputs.exists()):
        return None
    return dict(json.loads(root.warehouse_inputs.read_text(encoding="utf-8")))


def _publish(given: Loading, batches: list[Batch], returns: list[Return], inputs: str, now: datetime) -> dict[str, int]:
    """Rows by table."""
    tables = warehouse.publish(given.root.warehouse, _relations(given, batches, returns), now)
    built = {"inputs": inputs, "tables": tables, "forgotten": sorted(facts.forgotten(given.root))}
    write_text(json.dumps(built) + "\n", given.root.warehouse_inputs)
    return tables


def _mark_loaded(ledger: Ledger, batches: list[Batch], now: datetime) -> None:
    """Only those that were looked at: what came back meanwhile is not in the warehouse."""
    for batch in batches:
        if batch.state == RETURNED:
            ledger.move(batch.batch_id, RETURNED, LOADED, now)


def _digest_of_inputs(given: Loading, batches: list[Batch], returns: list[Return], now: datetime) -> str:
    """Of files by name, size and time of writing, of the ledger's rows, and of the rules; LOADED says nothing new."""
    digest = hashlib.sha256(f"{normalisation.RULES} {warehouse.rules()}\n".encode())
    for path in _input_files(given.root):
        state = path.stat()
        digest.update(f"{path.relative_to(given.root.path)} {state.st_size} {state.st_mtime_ns}\n".encode())
    ours = [{**b.__dict__, "state": RETURNED if b.state == LOADED else b.state} for b in batches]
    overdue = [b.batch_id for b in batches if b.due_at and parse_stamp(b.due_at) < now]
    alerts = [(r.batch_id, r.n, r.sensitive_rows, r.distress_rows, r.breach_rows) for r in given.ledger.row_counts()]
    for row in (*ours, *returns, *given.ledger.recalls(), alerts, overdue):
        digest.update(repr(row).encode())
    return digest.hexdigest()


def _input_files(root: Root) -> list[Path]:
    folders = (root.crosswalk, root.path / "nights", root.path / "returns")
    files = (p for folder in folders for p in folder.rglob("*") if p.is_file() and not p.name.startswith("."))
    # What is made here is no input.
    return sorted(p for p in files if not p.is_relative_to(root.facts))


class _Nights:
    """Delivered batches and accepted returns by night, and which nights have changed since their facts were made."""

    def __init__(self, given: Loading, batches: list[Batch], returns: list[Return]) -> None:
        self.batches: defaultdict[date, list[Batch]] = defaultdict(list)
        for batch in batches:
            if batch.delivered_at is not None:
                self.batches[batch.night_date].append(batch)
        self.accepted: defaultdict[str, list[Return]] = defaultdict(list)
        for one in returns:
            if one.state == ACCEPTED:
                self.accepted[one.batch_id].append(one)
        made = given.root.facts_inputs
        before = json.loads(made.read_text(encoding="utf-8")) if made.exists() else {}
        now = {night: _digest_of_night(theirs, self.accepted) for night, theirs in self.batches.items()}
        self.digests = {night.isoformat(): digest for night, digest in now.items()}
        self.changed = sorted(night for night, digest in now.items() if before.get(night.isoformat()) != digest)


def _refresh(given: Loading, batches: list[Batch], returns: list[Return], now: datetime) -> None:
    """Make the facts of every night anew whose deliveries or returns have changed since they were made."""
    facts.begin(given.root)
    nights, gone = _Nights(given, batches, returns), given.recalled_keys()
    changed = [batch.batch_id for night in nights.changed for batch in nights.batches[night]]
    with scorers(sum(one.accepted_rows for batch_id in changed for one in nights.accepted[batch_id])) as counting:
        for night in nights.changed:
            _make_night(night, nights.batches[night], nights.accepted, gone, given, counting)
    facts.settle(given.root, changed)
    count_returned(given.root, given.ledger, changed, now)
    if changed:
        write_text(json.dumps(nights.digests), given.root.facts_inputs)


def _digest_of_night(batches: list[Batch], accepted: Mapping[str, list[Return]]) -> str:
    """Of what its facts follow from. What was recalled is erased from them, which makes nothing anew."""
    rules = (normalisation.RULES, warehouse.rules(), redaction_rules(), *map(str, FACTS.values()))
    digest = hashlib.sha256(repr(rules).encode())
    for batch in batches:
        files = [(one.n, one.sha256) for one in accepted[batch.batch_id]]
        digest.update(repr((batch.batch_id, batch.delivered_at, files)).encode())
    return digest.hexdigest()


def _make_night(
    night: date,
    batches: list[Batch],
    accepted: Mapping[str, list[Return]],
    gone: pa.Array,
    given: Loading,
    counting: Scorers,
) -> None:
    """The rows of one night, batch by batch, each under the bucket of its person."""
    folder = given.root.night(night)
    # Without the model: of a million transcripts it would take hours, and `strict` shows harmless words alone anyway.
    redactor = Redactor(given.vocabulary(folder), uses_model=False)
    with Tables() as tables:
        tables.register("ledger_batches", pa.Table.from_pylist([_dated(b.__dict__) for b in batches], _LEDGER_BATCHES))
        # Of an older version a crosswalk may lack a column: it is null there.
        crosswalks = [str(folder.crosswalk(b.batch_id)) for b in batches]
        tables.register("crosswalk", dataset(crosswalks, _CROSSWALK, format="parquet"))
        clips = rows_except(tables.run("delivered_clips"), "clip_key", gone)
        facts.spool(given.root, "delivered_clips", clips, facts.bucket_of(clips["speaker_key"]), night.isoformat())
        overlapped = []
        for batch in batches:
            returned = [given.root.returned(batch.batch_id, one.n) for one in accepted[batch.batch_id]]
            _view_or_empty(tables, "returned", returned, _RETURNED)
            current = rows_except(tables.run("current_transcripts"), "clip_key", gone)
            # Counted beside the masking: it waits for other processes, where there are any.
            scored = _by_part(_with_hypothesis(current), counting.score, _SCORED)
            masked = _masked(current, redactor, given.pseudonyms(night))
            ours = clips.filter(pc.equal(clips["batch_id"], batch.batch_id))
            _spool("masked_transcripts", masked, ours, batch.batch_id, given.root)
            _spool("scored", pa.concat_tables(scored), ours, batch.batch_id, given.root)
            shared = ours["clip_key"].filter(ours["is_overlap"]).combine_chunks()
            overlapped.append(current.filter(pc.is_in(current["clip_key"], shared)))
        tables.register("overlapped", pa.concat_tables(overlapped))
        compared = _compared(tables.run("overlap_pairs"))
        _spool("compared", compared, clips, night.isoformat(), given.root)


def _spool(kind: str, rows: pa.Table, clips: pa.Table, name: str, root: Root) -> None:
    """Rows with what is asked of their clips, each under the bucket of its person."""
    of_clip = clips.take(pc.index_in(rows["clip_key"], clips["clip_key"].combine_chunks()))
    columns = {column: of_clip[column] for column in _ASKED_BY[kind]}
    full = pa.table({**{column: rows[column] for column in rows.column_names}, **columns}).cast(FACTS[kind])
    facts.spool(root, kind, full, facts.bucket_of(of_clip["speaker_key"]), name)


def _relations(given: Loading, batches: list[Batch], returns: list[Return]) -> dict[str, pa.Table | list[Path]]:
    """RELATIONS, by name: a table, or the files of one."""
    rows = {
        "ledger_batches": [_dated(b.__dict__) for b in batches],
        "ledger_recalls": [_dated(r.__dict__) for r in given.ledger.recalls()],
        "ledger_returns": [_dated(r.__dict__) for r in returns],
        "ledger_rows": [r.__dict__ for r in given.ledger.row_counts()],
        "refused": list(_refused(given, batches, returns)),
        "funnel": list(_funnel(given.root)),
    }
    return {
        **{name: pa.Table.from_pylist(found, RELATIONS[name]) for name, found in rows.items()},
        **{kind: facts.files(given.root, kind) or schema.empty_table() for kind, schema in FACTS.items()},
    }


def _view_or_empty(tables: Tables, name: str, files: list[Path], schema: pa.Schema) -> None:
    if files:
        tables.view(name, files)
    else:
        tables.register(name, schema.empty_table())


def _dated(row: Mapping[str, Any]) -> dict[str, Any]:
    """A ledger row with its texts of times as times."""
    dated = dict(row)
    for name, value in row.items():
        if name.endswith("_at") and isinstance(value, str):
            dated[name] = parse_stamp(value)
        elif name == "night":
            dated[name] = date.fromisoformat(value)
    return dated


def _masked(current: pa.Table, redactor: Redactor, pseudonyms: Pseudonyms) -> pa.Table:
    """What analysts may see of each transcript."""
    is_shown = pc.invert(pc.is_in(current["status"], pa.array(sorted(_NOT_SHOWN))))
    texts = pc.if_else(is_shown, current["text"], pa.scalar(None, pa.string()))
    notes = pc.if_else(is_shown, current["note"], pa.scalar(None, pa.string()))
    annotators = pc.binary_join_element_wise(current["vendor"], current["annotator_ref"], ":").dictionary_encode()
    annotators = annotators.unify_dictionaries().combine_chunks()
    known = annotators.dictionary
    keys = pa.array(pseudonyms.refs(OURSELVES, "annotator", known.to_pylist()), pa.string())
    masked = {
        "text": _redacted(texts, current["locale"], redactor),
        "note": _redacted(notes, pa.chunked_array([["en"] * current.num_rows], pa.string()), redactor),
        "annotator_key": keys.take(annotators.indices),
    }
    columns = {name: masked[name] if name in masked else current[name] for name in _MASKED.names}
    return pa.table(columns).cast(_MASKED)


def _redacted(texts: pa.ChunkedArray, locales: pa.ChunkedArray, redactor: Redactor) -> pa.Array:
    pairs = list(zip(texts.to_pylist(), locales.to_pylist(), strict=True))
    # People say many things more than once.
    masked = {pair: redactor.redact(*pair) for pair in set(pairs) if pair[0] is not None}
    return pa.array(map(masked.get, pairs), pa.string())


def _with_hypothesis(current: pa.Table) -> pa.Table:
    """Every transcribed clip that has a first hypothesis."""
    is_text = pc.and_(pc.equal(current["status"], "transcribed"), pc.is_valid(current["hypothesis"]))
    return current.filter(is_text)


def _compared(pairs: pa.Table) -> pa.Table:
    """What two vendors made of one clip, of every such clip."""
    return pa.concat_tables(_by_part(pairs, lambda parts: map(scoring.compare, parts), _COMPARED))


def _by_part(
    rows: pa.Table, find: Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]], schema: pa.Schema
) -> Iterator[pa.Table]:
    """The rows' columns of the schema beside what is found of them, a part at a time. Finding begins at once."""
    own = [name for name in schema.names if name in rows.column_names]
    parts = [part for part in rows.to_batches(max_chunksize=_ROWS_AT_ONCE) if part.num_rows]
    columns = ([*part.select(own).columns, *found.columns] for part, found in zip(parts, find(parts), strict=True))
    return chain([schema.empty_table()], (pa.Table.from_arrays(one, schema=schema) for one in columns))


def _refused(given: Loading, batches: list[Batch], returns: list[Return]) -> Iterable[dict[str, Any]]:
    """Everything that a gate refused after sampling."""
    for folder in given.root.nights():
        night = {"night": folder.night}
        for row in _rows(folder.rejected):
            yield from (
                {**night, "stage": "validate", "clip_key": row["clip_key"], "reason": r} for r in row["reasons"]
            )
        for path in folder.left_out_files():
            yield from ({**night, "stage": "manifest", **row} for row in _rows(path))
    of = {
        batch.batch_id: {"night": batch.night_date, "vendor": batch.vendor, "batch_id": batch.batch_id}
        for batch in batches
    }
    for batch in batches:
        withheld = given.root.night(batch.night_date).withheld(batch.batch_id)
        yield from ({**of[batch.batch_id], "stage": "deliver", **row} for row in _rows(withheld))
    for returned in returns:
        # A file that named another's batch, or nobody's, has only its vendor.
        mine = of.get(returned.batch_id, {})
        about = {**(mine if mine.get("vendor") == returned.vendor else {"vendor": returned.vendor}), "stage": "collect"}
        if returned.state == REFUSED:
            yield {**about, "reason": returned.reason}
            continue
        for row in _rows(given.root.returned_rejections(returned.batch_id, returned.n)):
            yield {**about, "clip_key": row["clip_key"], "reason": row["code"]}


def _rows(path: Path) -> list[dict[str, Any]]:
    return list(read_own(path, path.name).to_pylist()) if path.exists() else []


def _funnel(root: Root) -> Iterable[dict[str, Any]]:
    for folder in root.nights():
        if folder.funnel.exists():
            counts = json.loads(folder.funnel.read_text(encoding="utf-8"))
            for reason, clips in counts["refused"].items():
                yield {"night": folder.night, "step": "refused", "reason": reason, "clips": clips}
            for step in ("clips", "eligible", "set_aside", "overheard", "selected"):
                yield {"night": folder.night, "step": step, "clips": counts.get(step, 0)}
            for one in counts.get("plan", []):
                of = {"night": folder.night, "stratum": one["stratum"]}
                yield {**of, "step": "stratum_eligible", "clips": one["eligible"], "hours": one["eligible_hours"]}
                yield {**of, "step": "stratum_wanted", "hours": one["wanted_hours"]}
                yield {**of, "step": "stratum_budget", "reason": one["limit"], "hours": one["budget_hours"]}
                yield {**of, "step": "stratum_chosen", "clips": one["chosen"], "hours": one["chosen_hours"]}
        if folder.quality.exists():
            counts = json.loads(folder.quality.read_text(encoding="utf-8"))
            for reason, clips in counts["reasons"].items():
                yield {"night": folder.night, "step": "rejected", "reason": reason, "clips": clips}
            yield {"night": folder.night, "step": "validated", "clips": counts["validated"]}
            # A night of an older version judged no landing zone.
            if landing := counts.get("landing"):
                yield {"night": folder.night, "step": "landing", "clips": landing["rows"]}
                yield {"night": folder.night, "step": "landing_rejected", "clips": landing["rejected"]}
