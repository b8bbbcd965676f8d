"""Stage 2, `validate`: Great Expectations over what was counted in the landing zone, and over the sample row by row.

What it sees are counts, and facts without a value that identifies anyone (sql/facts.sql); what it returns are row keys.
A row that breaks a rule is rejected with its reasons; a landing zone or a night of which too much does is a broken
contract and stops.
"""

import json
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from clip_courier import audio, data_docs
from clip_courier.errors import AudioUnusable, ContractBroken
from clip_courier.inspection import Inspected, inspect, teach
from clip_courier.landing import Landing
from clip_courier.model import NightFolder, Outcome, Progress, silent, whole_file, write_text
from clip_courier.pseudonyms import Pseudonyms
from clip_courier.rules import LANDING_RULES, RULES, Over
from clip_courier.settings import Policy
from clip_courier.tables import Tables

REJECTED = pa.schema([("clip_key", pa.string()), ("reasons", pa.list_(pa.string()))])
_PROBED = pa.schema(
    [
        ("row", pa.int64()),
        ("audio_problem", pa.string()),
        ("measured_ms", pa.int64()),
        ("measured_sample_rate_hz", pa.int64()),
        ("measured_channels", pa.int64()),
    ]
)
# Rows of the sample that are in memory at once.
_ROWS_AT_ONCE: Final = 50_000

# Row → the codes of the rules that it breaks.
Failed = dict[int, list[str]]


@dataclass(frozen=True)
class Validation:
    """What `validate` needs beside the night; `oldest`: the first partition that the night's selection read."""

    landing: Landing
    policy: Policy
    pseudonyms: Pseudonyms
    oldest: date
    progress: Progress = silent


def validate(folder: NightFolder, given: Validation) -> Outcome:
    """Write `validated.parquet`, the rejected rows of landing and sample, the counts and the Data Docs of the night.

    Raises:
        StageMissing: the night was not selected.
        LandingMissing, LandingUnreadable, LandingSchemaBroken: nothing was written.
        ContractBroken: more rows break a rule than policy allows; no `validated.parquet` is written.
    """
    if folder.validated.exists():
        done = json.loads(folder.quality.read_text(encoding="utf-8"))
        return Outcome("validate", done, [f"validate: night {folder.night} was validated before"], is_new=False)
    selected = folder.require(folder.selected, "select")
    over = given.policy.quality.over()
    inspected = inspect(folder, given.landing, given.oldest, over, given.pseudonyms, given.progress)
    judge = _Judge(folder.night)
    counts = _landing_counts(folder, inspected, over)
    exceeded = judge.exceeded(counts["landing_rules"])
    for rule in counts["landing_rules"]:
        rule["is_over"] = rule["reason"] in exceeded
    stopped = [rule for rule in counts["landing_rules"] if rule["is_over"] and rule["action"] == "stop"]
    if stopped:
        data_docs.build(judge.context, folder.data_docs, counts)
        raise ContractBroken(_told_why(stopped, inspected))
    with whole_file(folder.validated) as partial:
        with whole_file(folder.rejected) as rejected:
            reasons, good, bad = _split(pq.ParquetFile(selected), folder, given, judge, partial, rejected)
        counts |= {"rows": good + bad, "validated": good, "rejected": bad, "reasons": dict(sorted(reasons.items()))}
        write_text(json.dumps(counts, indent=2) + "\n", folder.quality)
        data_docs.build(judge.context, folder.data_docs, counts)
        if bad / max(good + bad, 1) > given.policy.quality.max_rejected_share:
            raise ContractBroken(
                f"night {folder.night}: {bad} of {good + bad} rows fail validation, more than the"
                f" {given.policy.quality.max_rejected_share:.0%} that policy allows; most often:"
                f" {max(sorted(reasons), key=reasons.__getitem__)}"
            )
    return Outcome("validate", counts, _told(counts))


# -- what is said ----------------------------------------------------------------------------------------------


def _landing_counts(folder: NightFolder, inspected: Inspected, over: Mapping[str, Over]) -> dict[str, Any]:
    rules = [
        {
            "reason": rule.reason,
            "rows": inspected.of(rule.reason),
            "share": inspected.of(rule.reason) / max(inspected.rows, 1),
            "max_share": over[rule.reason].max_share,
            "max_rows": over[rule.reason].max_rows,
            "limit": over[rule.reason].limit,
            "action": over[rule.reason].action,
        }
        for rule in LANDING_RULES
    ]
    landing = {name: getattr(inspected, name) for name in ("rows", "partitions", "judged_now", "rejected")}
    return {"night": folder.night.isoformat(), "landing": landing, "landing_rules": rules}


def _told_why(stopped: Sequence[Mapping[str, Any]], inspected: Inspected) -> str:
    """The rule that most rows break, and the names of the others."""
    worst = max(stopped, key=lambda rule: rule["share"])
    others = [rule["reason"] for rule in stopped if rule is not worst]
    day = inspected.most_in(worst["reason"])
    where = f"partition {day}" if day else "partitions without a date"
    also = f"; over theirs as well: {', '.join(others)}" if others else ""
    return (
        f"landing: {worst['rows']} of {inspected.rows} rows ({worst['share']:.4%}) break the rule {worst['reason']},"
        f" more than the {worst['limit']} that quality.yaml allows, most of them in {where}{also}"
    )


def _told(counts: Mapping[str, Any]) -> list[str]:
    landing = counts["landing"]
    reasons = ", ".join(f"{reason}: {rows}" for reason, rows in counts["reasons"].items())
    return [
        f"validate: {counts['validated']} of {counts['rows']} rows are good; rejected: {reasons or 'none'}",
        f"validate: {landing['rejected']} of {landing['rows']} rows of landing are rejected, in"
        f" {landing['partitions']} partitions, {landing['judged_now']} of them judged now",
        *_table(counts["landing_rules"]),
    ]


def _table(rules: Sequence[Mapping[str, Any]]) -> list[str]:
    """The rules that some row of landing breaks."""
    lines = [
        f"  {rule['reason']:<20} {rule['rows']:>10} {rule['share']:>9.4%} {rule['limit']:>12}"
        f"  {rule['action']}{', OVER' if rule['is_over'] else ''}"
        for rule in rules
        if rule["rows"]
    ]
    return [f"  {'rule':<20} {'rows':>10} {'share':>9} {'at most':>12}  action", *lines] if lines else []


# -- the sample ------------------------------------------------------------------------------------------------


def _split(
    selected: pq.ParquetFile, folder: NightFolder, given: Validation, judge: "_Judge", validated: Any, rejected: Any
) -> tuple[Counter[str], int, int]:
    """Write the good rows into one file, keys and reasons of the others into another; reasons, good rows, bad rows."""
    refused = pq.read_table(folder.landing_rejected)
    reasons: Counter[str] = Counter()
    good = bad = 0
    with ExitStack() as files:
        goods = files.enter_context(pq.ParquetWriter(validated, selected.schema_arrow, compression="zstd"))
        bads = files.enter_context(pq.ParquetWriter(rejected, REJECTED, compression="zstd"))
        for batch in selected.iter_batches(_ROWS_AT_ONCE):
            rows = pa.Table.from_batches([batch])
            failed = judge.failed(_facts(rows, given))
            _add_landing(failed, rows, refused)
            is_bad = pc.is_in(rows["row"], pa.array(list(failed), pa.int64()))
            goods.write_table(rows.filter(pc.invert(is_bad)))
            told = [failed[row] for row in rows["row"].filter(is_bad).to_pylist()]
            bads.write_table(pa.table([rows["clip_key"].filter(is_bad), told], schema=REJECTED))
            reasons.update(code for codes in told for code in codes)
            good, bad = good + rows.num_rows - len(failed), bad + len(failed)
    return reasons, good, bad


def _add_landing(failed: Failed, rows: pa.Table, refused: pa.Table) -> None:
    """What the pass over the landing zone has against a clip holds against it in the sample."""
    at = pc.index_in(rows["clip_key"], refused["row_key"].combine_chunks())
    is_refused = pc.is_valid(at)
    codes = refused["reasons"].take(at.filter(is_refused)).to_pylist()
    for row, found in zip(rows["row"].filter(is_refused).to_pylist(), codes, strict=True):
        known = failed.setdefault(row, [])
        known += [code for code in found if code not in known]


def _facts(selected: pa.Table, given: Validation) -> pa.Table:
    probed = _probe(selected, given.landing, given.progress)
    with Tables() as tables:
        tables.register("selected", selected)
        tables.register("probed", probed)
        teach(tables, pc.unique(selected["locale"]))
        return tables.run("facts", {"k": given.policy.disclosure.vocabulary_k})


def _probe(selected: pa.Table, landing: Landing, progress: Progress) -> pa.Table:
    """Fetch and decode every recording of the sample; two at a time, since decoding leaves the interpreter's lock."""
    asked = selected.select(["row", "audio_uri", "audio_sha256"]).to_pylist()

    def probe(row: dict[str, Any]) -> dict[str, Any]:
        try:
            recording = audio.decode(landing.audio(row["audio_uri"] or ""), row["audio_sha256"])
        except AudioUnusable as unusable:
            return {"row": row["row"], "audio_problem": unusable.reason}
        return {
            "row": row["row"],
            "measured_ms": recording.duration_ms,
            "measured_sample_rate_hz": recording.sample_rate_hz,
            "measured_channels": recording.channels,
        }

    found = []
    with ThreadPoolExecutor(max_workers=2) as pool:
        for done, facts in enumerate(pool.map(probe, asked), start=1):
            found.append(facts)
            progress("listening to recordings", done, len(asked))
    return pa.Table.from_pylist(found, _PROBED)


# -- Great Expectations ----------------------------------------------------------------------------------------


class _Judge:
    """Great Expectations in memory: one suite over the counts of landing, one over the rows of the sample."""

    def __init__(self, night: date) -> None:
        # What it logs may quote what it judges; its results say all that is needed.
        theirs = logging.getLogger("great_expectations")
        theirs.handlers, theirs.propagate = [logging.NullHandler()], False
        # Nine seconds of the processor and 200 MB: once a night, and not for a DAG file or another verb.
        import great_expectations as gx
        from great_expectations.data_context.types.base import (
            DataContextConfig,
            InMemoryStoreBackendDefaults,
            ProgressBarsConfig,
        )

        # Without the site in a temporary folder that it would have by itself.
        config = DataContextConfig(store_backend_defaults=InMemoryStoreBackendDefaults())
        self.context = gx.get_context(mode="ephemeral", project_config=config)
        self.context.variables.progress_bars = ProgressBarsConfig(globally=False)
        self._source = self.context.data_sources.add_pandas("night")
        # Named for the night, so that a second run writes the same pages.
        midnight = datetime.combine(night, time.min, UTC)
        self._run_id = gx.RunIdentifier(run_name=night.isoformat(), run_time=midnight)
        self._sample: Any = None
        self._seen: Any = None

    def exceeded(self, rules: Sequence[Mapping[str, Any]]) -> set[str]:
        """The rules of landing that more rows break than policy allows."""
        import great_expectations.expectations as gxe
        import pandas as pd

        expectations = [
            gxe.ExpectColumnMaxToBeBetween(
                column=rule["reason"],
                max_value=rule["max_rows"] if rule["max_share"] is None else rule["max_share"],
                meta={"reason": rule["reason"]},
                notes=f"{'rows' if rule['max_share'] is None else 'share of rows'}; above: {rule['action']}",
            )
            for rule in rules
        ]
        judged = {rule["reason"]: [rule["rows"] if rule["max_share"] is None else rule["share"]] for rule in rules}
        result = self._definition("landing", expectations).run(
            batch_parameters={"dataframe": pd.DataFrame(judged)}, run_id=self._run_id
        )
        for one in result.results:
            _check_judged(one)
        return {one.expectation_config.meta["reason"] for one in result.results if not one.success}

    def failed(self, facts: pa.Table) -> Failed:
        """Of some rows of the sample those that break a rule; what is shown in the end is of all of them together."""
        import great_expectations.expectations as gxe

        if self._sample is None:
            expectations = [
                getattr(gxe, one.kind)(column=one.column, meta={"reason": rule.reason}, notes=rule.reason, **one.values)
                for rule in RULES
                for one in rule.expectations
            ]
            self._sample = self._definition("sample", expectations)
        # Keys only: a value that fails may be what identifies someone.
        keys_only = {
            "result_format": "COMPLETE",
            "unexpected_index_column_names": ["row", "clip_key"],
            "exclude_unexpected_values": True,
            "include_unexpected_rows": False,
            "return_unexpected_index_query": False,
        }
        result = self._sample.run(
            batch_parameters={"dataframe": facts.to_pandas()}, result_format=keys_only, run_id=self._run_id
        )
        failed = _failed_rows(result)
        self._keep(result)
        return failed

    def _definition(self, name: str, expectations: Sequence[Any]) -> Any:
        import great_expectations as gx

        asset = self._source.add_dataframe_asset(name)
        suite = self.context.suites.add(gx.ExpectationSuite(name=name, expectations=expectations))
        return self.context.validation_definitions.add(
            gx.ValidationDefinition(name=name, data=asset.add_batch_definition_whole_dataframe("rows"), suite=suite)
        )

    def _keep(self, result: Any) -> None:
        """In the store, one result of the whole sample stands for those of its parts; the keys are in our own file."""
        for one in result.results:
            for name in ("unexpected_index_list", "partial_unexpected_index_list"):
                one.result.pop(name, None)
        if self._seen is not None:
            for before, one in zip(self._seen.results, result.results, strict=True):
                _add(one, before)
            result.success = all(one.success for one in result.results)
            good = sum(one.success for one in result.results)
            result.statistics |= {
                "successful_expectations": good,
                "unsuccessful_expectations": len(result.results) - good,
                "success_percent": good / len(result.results) * 100,
            }
            store = self.context.validation_results_store
            (key,) = (key for key in store.list_keys() if key.expectation_suite_identifier.name == "sample")
            store.set(key, result)
        self._seen = result


def _add(one: Any, before: Any) -> None:
    """Add the counts of an expectation's result over other rows."""
    one.success = one.success and before.success
    for name in ("element_count", "unexpected_count", "missing_count"):
        if name in one.result:
            one.result[name] += before.result[name]
    elements, missing = one.result["element_count"], one.result.get("missing_count", 0)
    unexpected = one.result["unexpected_count"]
    for name, part, whole in (
        ("missing_percent", missing, elements),
        ("unexpected_percent", unexpected, elements - missing),
        ("unexpected_percent_nonmissing", unexpected, elements - missing),
        ("unexpected_percent_total", unexpected, elements),
    ):
        if name in one.result:
            one.result[name] = part / whole * 100 if whole else 0.0


def _check_judged(one: Any) -> None:
    if one.exception_info and one.exception_info.get("raised_exception"):
        raise ContractBroken(f"the rule {one.expectation_config.meta['reason']} could not be judged")


def _failed_rows(result: Any) -> Failed:
    failed: Failed = {}
    for one in result.results:
        _check_judged(one)
        reason = one.expectation_config.meta["reason"]
        if not one.success and "unexpected_index_list" not in one.result:
            raise ContractBroken(f"the rule {reason} could not be judged")
        for row in _rows(one.result.get("unexpected_index_list") or []):
            reasons = failed.setdefault(row, [])
            if reason not in reasons:
                reasons.append(reason)
    return failed


def _rows(groups: Sequence[Mapping[str, Any]]) -> Iterator[int]:
    for group in groups:
        yield from map(int, group["row"] if isinstance(group["row"], list) else [group["row"]])
