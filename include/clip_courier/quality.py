"""Stage 2, `validate`: Great Expectations judges the night's sample row by row.

What it sees are facts without a value that identifies anyone (sql/facts.sql), and what it returns are row keys. A row
that fails is rejected with its reasons; a night of which too much fails is a broken contract and stops.
"""

import json
import logging
import re
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, time
from html import escape
from pathlib import Path
from typing import Any

import langcodes
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pycountry

from clip_courier import audio
from clip_courier.errors import AudioUnusable, ContractBroken
from clip_courier.landing import Landing
from clip_courier.model import NightFolder, Outcome, Progress, write_parquet, write_text
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
_COUNTRIES = sorted(country.alpha_2 for country in pycountry.countries)
# No subtag of one letter: what follows it (`x-` above all) is anybody's to fill, and a registry says nothing about it.
_TAG = re.compile(r"[A-Za-z]{2,8}(-[A-Za-z0-9]{2,8})*", re.ASCII)


@dataclass(frozen=True)
class Rule:
    """One expectation of the sample: `reason` is the code of a row that fails it."""

    reason: str
    expectation: str
    column: str
    values: Mapping[str, Any]


# The one declaration of what a row must be. What stands in a column that leaves must look like what it claims to be.
RULES: Sequence[Rule] = (
    Rule("duplicate_clip_id", "ExpectColumnValuesToBeInSet", "copies", {"value_set": [1]}),
    Rule("bad_product", "ExpectColumnValuesToMatchRegex", "product", {"regex": r"\A[a-z][a-z0-9_-]{1,31}\Z"}),
    # Like a word of a hypothesis, the name of a product leaves only when enough persons share it.
    Rule("rare_product", "ExpectColumnValuesToBeInSet", "is_product_common", {"value_set": [True]}),
    Rule("bad_activation", "ExpectColumnValuesToBeInSet", "activation", {"value_set": ["call", "button", "wake_word"]}),
    Rule("bad_locale", "ExpectColumnValuesToBeInSet", "is_locale_known", {"value_set": [True]}),
    Rule("bad_country", "ExpectColumnValuesToBeInSet", "country", {"value_set": _COUNTRIES}),
    Rule("bad_duration", "ExpectColumnValuesToBeBetween", "duration_ms", {"min_value": 1, "max_value": 2**31 - 1}),
    Rule(
        "bad_sample_rate", "ExpectColumnValuesToBeBetween", "sample_rate_hz", {"min_value": 4_000, "max_value": 192_000}
    ),
    Rule("bad_channels", "ExpectColumnValuesToBeBetween", "channels", {"min_value": 1, "max_value": 8}),
    # A null passes every other expectation. Columns that are not here were asked for by `select`.
    Rule("bad_sample_rate", "ExpectColumnValuesToNotBeNull", "sample_rate_hz", {}),
    Rule("bad_channels", "ExpectColumnValuesToNotBeNull", "channels", {}),
    Rule("bad_hypothesis_rank", "ExpectColumnValuesToBeInSet", "has_sound_ranks", {"value_set": [True]}),
    Rule("bad_hypothesis_text", "ExpectColumnValuesToBeInSet", "has_texts", {"value_set": [True]}),
    Rule("bad_confidence", "ExpectColumnValuesToBeInSet", "has_sound_confidences", {"value_set": [True]}),
    Rule("audio_missing", "ExpectColumnValuesToBeInSet", "is_audio_there", {"value_set": [True]}),
    Rule("audio_hash_mismatch", "ExpectColumnValuesToBeInSet", "is_audio_the_one", {"value_set": [True]}),
    Rule("audio_corrupt", "ExpectColumnValuesToBeInSet", "is_audio_whole", {"value_set": [True]}),
    Rule("audio_mismatch", "ExpectColumnValuesToBeInSet", "is_audio_as_described", {"value_set": [True]}),
)


def validate(folder: NightFolder, landing: Landing, policy: Policy, progress: Progress) -> Outcome:
    """Write `validated.parquet`, `rejected.parquet`, the counts and the Data Docs of the night.

    Raises:
        StageMissing: the night was not selected.
        ContractBroken: more of the sample fails than the policy allows; no `validated.parquet` is written.
    """
    if folder.validated.exists():
        done = json.loads(folder.quality.read_text(encoding="utf-8"))
        return Outcome("validate", done, [f"validate: night {folder.night} was validated before"], is_new=False)
    selected = pq.read_table(folder.require(folder.selected, "select"))
    failed = (
        _judge(_facts(selected, landing, policy.disclosure.vocabulary_k, progress), folder) if selected.num_rows else {}
    )
    keys = dict(zip(selected.column("row").to_pylist(), selected.column("clip_key").to_pylist(), strict=True))
    rejected = [{"clip_key": keys[row], "reasons": reasons} for row, reasons in sorted(failed.items())]
    write_parquet(pa.Table.from_pylist(rejected, REJECTED), folder.rejected)
    counts = _counts(folder, selected.num_rows, failed)
    write_text(json.dumps(counts, indent=2) + "\n", folder.quality)
    if folder.data_docs.exists():
        write_text(_front_page(counts, folder.data_docs), folder.data_docs / "index.html")
    share = len(failed) / max(selected.num_rows, 1)
    if share > policy.quality.max_rejected_share:
        raise ContractBroken(
            f"night {folder.night}: {len(failed)} of {selected.num_rows} rows fail validation, more than the"
            f" {policy.quality.max_rejected_share:.0%} that policy allows; most often: {_most_often(failed)}"
        )
    keep = pc.invert(pc.is_in(selected.column("row"), pa.array(list(failed), pa.int64())))
    write_parquet(selected.filter(keep), folder.validated)
    reasons = counts["reasons"] or "none"
    told = f"validate: {counts['validated']} of {counts['rows']} rows are good; rejected: {reasons}"
    return Outcome("validate", counts, [told.replace("{", "").replace("}", "").replace("'", "")])


def _counts(folder: NightFolder, rows: int, failed: dict[int, list[str]]) -> dict[str, Any]:
    reasons = Counter(code for codes in failed.values() for code in codes)
    return {
        "night": folder.night.isoformat(),
        "rows": rows,
        "validated": rows - len(failed),
        "rejected": len(failed),
        "reasons": dict(sorted(reasons.items())),
    }


def _most_often(failed: dict[int, list[str]]) -> str:
    codes = [code for reasons in failed.values() for code in reasons]
    return max(sorted(set(codes)), key=codes.count)


def _facts(selected: pa.Table, landing: Landing, k: int, progress: Progress) -> pa.Table:
    probed = _probe(selected, landing, progress)
    locales = {locale for locale in selected.column("locale").to_pylist() if _is_tag(locale)}
    with Tables() as tables:
        tables.register("selected", selected)
        tables.register("probed", probed)
        tables.register("known_tags", pa.table({"locale": pa.array(sorted(locales), pa.string())}))
        return tables.run("facts", {"k": k})


def _is_tag(locale: str) -> bool:
    """Well-formed BCP 47, and every subtag registered."""
    return bool(_TAG.fullmatch(locale)) and bool(langcodes.tag_is_valid(locale))


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


def _judge(facts: pa.Table, folder: NightFolder) -> dict[int, list[str]]:
    """Row → the codes of the rules that it fails, as Great Expectations finds them; builds the Data Docs."""
    _say_nothing()
    # Two seconds and 200 MB: imported where it is used, so that a DAG file or another verb does not pay for it.
    import great_expectations as gx
    import great_expectations.expectations as gxe
    from great_expectations.data_context.types.base import (
        DataContextConfig,
        InMemoryStoreBackendDefaults,
        ProgressBarsConfig,
    )

    # In memory, and without the site in a temporary folder that it would have by itself.
    config = DataContextConfig(store_backend_defaults=InMemoryStoreBackendDefaults())
    context = gx.get_context(mode="ephemeral", project_config=config)
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    suite = gx.ExpectationSuite(name="sample")
    for rule in RULES:
        kind = getattr(gxe, rule.expectation)
        suite.add_expectation(kind(column=rule.column, meta={"reason": rule.reason}, notes=rule.reason, **rule.values))
    asset = context.data_sources.add_pandas("night").add_dataframe_asset("sample")
    definition = context.validation_definitions.add(
        gx.ValidationDefinition(
            name="sample", data=asset.add_batch_definition_whole_dataframe("rows"), suite=context.suites.add(suite)
        )
    )
    # Keys only: a value that fails may be what identifies someone.
    keys_only = {
        "result_format": "COMPLETE",
        "unexpected_index_column_names": ["row", "clip_key"],
        "exclude_unexpected_values": True,
        "include_unexpected_rows": False,
        "return_unexpected_index_query": False,
    }
    # Named for the night, so that a second run writes the same pages.
    midnight = datetime.combine(folder.night, time.min, UTC)
    result = definition.run(
        batch_parameters={"dataframe": facts.to_pandas()},
        result_format=keys_only,
        run_id=gx.RunIdentifier(run_name=folder.night.isoformat(), run_time=midnight),
    )
    _build_data_docs(context, folder.data_docs)
    return _failed_rows(result)


def _say_nothing() -> None:
    """What Great Expectations logs may quote what it judges; its results say all that is needed."""
    theirs = logging.getLogger("great_expectations")
    theirs.handlers, theirs.propagate = [logging.NullHandler()], False


def _failed_rows(result: Any) -> dict[int, list[str]]:
    failed: dict[int, list[str]] = {}
    for one in result.results:
        raised = one.exception_info.get("raised_exception") if one.exception_info else False
        if raised or (not one.success and "unexpected_index_list" not in one.result):
            raise ContractBroken(f"the rule {one.expectation_config.meta['reason']} could not be judged")
        for group in one.result.get("unexpected_index_list") or []:
            for row in group["row"] if isinstance(group["row"], list) else [group["row"]]:
                reasons = failed.setdefault(int(row), [])
                if one.expectation_config.meta["reason"] not in reasons:
                    reasons.append(one.expectation_config.meta["reason"])
    return failed


# The pages load scripts, styles and pictures from elsewhere, and opening one would tell strangers about it. What only
# works with them goes too.
_DEAD = re.compile(
    r"<script\b.*?</script>|<style\b.*?</style>|<link\b[^>]*>|<img\b[^>]*>|<footer\b.*?</footer>|<title></title>",
    re.IGNORECASE | re.DOTALL,
)
_HEAD = """<head><meta charset="UTF-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<style>
body {font: 1rem/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 64rem; padding: 0 1.5rem}
:root {color-scheme: light dark}
table {border-collapse: collapse; margin: .3rem 0 1rem}
td, th {border: 1px solid #8886; padding: .3rem .7rem; text-align: left; vertical-align: top}
td.count {text-align: right; font-variant-numeric: tabular-nums}
h4, h5 {font-size: 1.15rem; margin: 1.2rem 0 .2rem} h6 {font-size: 1rem; margin: .8rem 0 .2rem}
.badge {border: 1px solid #8886; border-radius: .3rem; padding: 0 .3rem; font-family: ui-monospace, monospace}
.text-danger {color: #c33} .fa-times::before {content: "✘"} .fa-check-circle::before {content: "✔"; color: #384}
.col-lg-2, .navbar-brand, .modal, .cooltip .top, [data-toggle=collapse] {display: none}
nav.navbar {height: auto !important}
ol.breadcrumb {list-style: none; padding: 0; display: flex; gap: 1rem}
</style>"""


def _build_data_docs(context: Any, folder: Path) -> None:
    """The site is built aside and appears whole, in the place of an earlier one."""
    aside = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(aside, ignore_errors=True)
    store = {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(aside)}
    context.add_data_docs_site(
        "night", {"class_name": "SiteBuilder", "store_backend": store, "show_how_to_buttons": False}
    )
    context.build_data_docs(site_names=["night"])
    shutil.rmtree(aside / "static", ignore_errors=True)
    for page in aside.rglob("*.html"):
        text = _DEAD.sub("", page.read_text(encoding="utf-8"))
        page.write_text(text.replace("<head>", _HEAD, 1), encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    aside.rename(folder)


def _front_page(counts: Mapping[str, Any], folder: Path) -> str:
    """The index that Great Expectations writes is drawn by scripts from elsewhere; this one is plain."""
    column_of = {rule.reason: rule.column for rule in RULES}
    rows = "".join(
        f"<tr><td>{escape(reason)}</td><td>{escape(column_of[reason])}</td><td class=count>{clips}</td></tr>"
        for reason, clips in counts["reasons"].items()
    )
    pages = sorted(page.relative_to(folder).as_posix() for page in folder.rglob("*.html") if page.name != "index.html")
    links = "".join(f'<li><a href="{escape(page)}">{escape(page.split("/")[0])}</a></li>' for page in pages)
    return f"""<!DOCTYPE html>
<html lang="en">{_HEAD}<title>Validation of {counts["night"]}</title></head>
<body><h4>Validation of the night of {counts["night"]}</h4>
<p>{counts["validated"]} of {counts["rows"]} rows are good, {counts["rejected"]} are rejected.
A row may fail several rules.</p>
<table><tr><th>reason</th><th>column judged</th><th>rows</th></tr>{rows}</table>
<p>Which rows: <code>rejected.parquet</code> in the night's folder, by key. What was judged:</p><ul>{links}</ul>
</body></html>
"""
