"""A night's Data Docs: the pages as Great Expectations builds them, without anything from outside, and a front page."""

import re
import shutil
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from clip_courier.model import write_text
from clip_courier.rules import RULES

# The pages load scripts, styles and pictures from elsewhere, and opening one would tell strangers about it. What only
# works with them goes too.
_DEAD = re.compile(
    r"<script\b.*?</script>|<style\b.*?</style>|<link\b[^>]*>|<img\b[^>]*>|<footer\b.*?</footer>|<title></title>",
    re.IGNORECASE | re.DOTALL,
)
_HEAD = """<head><meta charset="UTF-8"><meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<style>
:root {color-scheme: light dark; --bad: #b3261e; --good: #1b6e3c; --line: #8886}
@media (prefers-color-scheme: dark) {:root {--bad: #ff8a80; --good: #7fd6a0}}
body {font: 1rem/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 64rem; padding: 0 1.5rem}
body, td, th {overflow-wrap: anywhere}
table {border-collapse: collapse; margin: .3rem 0 1rem; max-width: 100%}
td, th {border: 1px solid var(--line); padding: .3rem .7rem; text-align: left; vertical-align: top}
td.count, th.count {text-align: right; font-variant-numeric: tabular-nums}
th, td:first-child, td.count {overflow-wrap: normal}
h4, h5 {font-size: 1.15rem; margin: 1.2rem 0 .2rem} h6 {font-size: 1rem; margin: .8rem 0 .2rem}
.badge {border: 1px solid var(--line); border-radius: .3rem; padding: 0 .3rem; font-family: ui-monospace, monospace}
.text-danger, .over {color: var(--bad)} .over {font-weight: 600}
.fa-times::before {content: "✘"} .fa-check-circle::before {content: "✔"; color: var(--good)}
.col-lg-2, .navbar-brand, .modal, .cooltip .top, [data-toggle=collapse] {display: none}
nav.navbar {height: auto !important}
ol.breadcrumb {list-style: none; padding: 0; display: flex; flex-wrap: wrap; gap: 1rem}
@media (max-width: 40rem) {
  body {margin: 1rem auto; padding: 0 .6rem}
  td, th {padding: .2rem .35rem; font-size: .9rem}
  .pl-5, .pl-4, .px-5, .px-4 {padding: 0}
}
</style>"""


def build(context: Any, folder: Path, counts: Mapping[str, Any]) -> None:
    """Build the site of a context of Great Expectations aside; it appears whole, in the place of an earlier one."""
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
    write_text(_front_page(counts, aside), aside / "index.html")
    shutil.rmtree(folder, ignore_errors=True)
    aside.rename(folder)


def _front_page(counts: Mapping[str, Any], folder: Path) -> str:
    """The index that Great Expectations writes is drawn by scripts from elsewhere; this one is plain."""
    pages = sorted(page.relative_to(folder).as_posix() for page in folder.rglob("*.html") if page.name != "index.html")
    links = "".join(f'<li><a href="{escape(page)}">{_named(page)}</a></li>' for page in pages)
    return f"""<!DOCTYPE html>
<html lang="en">{_HEAD}<title>Validation of {counts["night"]}</title></head>
<body><h4>Validation of the night of {counts["night"]}</h4>
{_of_landing(counts)}{_of_sample(counts) if "rows" in counts else "<p>The sample was not judged.</p>"}
<h5>What was judged</h5><ul>{links}</ul>
</body></html>
"""


def _named(page: str) -> str:
    """Great Expectations' folders: a suite's rules, and what a run found of them."""
    kind, _, rest = page.partition("/")
    suite = rest.split("/")[0].removesuffix(".html")
    return escape(f"{suite}: {'rules' if kind == 'expectations' else 'results'}")


def _of_landing(counts: Mapping[str, Any]) -> str:
    found = counts["landing"]
    rows = "".join(
        f"<tr{' class=over' if rule['is_over'] else ''}><td>{escape(rule['reason'])}</td>"
        f"<td class=count>{rule['rows']}</td><td class=count>{rule['share']:.4%}</td>"
        f"<td class=count>{escape(rule['limit'])}</td>"
        f"<td>{escape(rule['action'])}{', over' if rule['is_over'] else ''}</td></tr>"
        for rule in counts["landing_rules"]
    )
    return f"""<h5>The landing zone</h5>
<p>{found["rows"]} rows in {found["partitions"]} partitions, {found["rejected"]} are rejected. Which ones:
<code>landing_rejected.parquet</code> in the night's folder, by key; by partition:
<code>landing_counts.parquet</code>.</p>
<table><tr><th>rule</th><th class=count>rows</th><th class=count>share</th><th class=count>at most</th>
<th>action</th></tr>{rows}</table>
"""


def _of_sample(counts: Mapping[str, Any]) -> str:
    column_of = {rule.reason: one.column for rule in RULES for one in rule.expectations[:1]}
    rows = "".join(
        f"<tr><td>{escape(reason)}</td><td>{escape(column_of.get(reason, 'landing'))}</td>"
        f"<td class=count>{clips}</td></tr>"
        for reason, clips in counts["reasons"].items()
    )
    return f"""<h5>The sample</h5>
<p>{counts["validated"]} of {counts["rows"]} rows are good, {counts["rejected"]} are rejected.
A row may fail several rules. Which ones: <code>rejected.parquet</code> in the night's folder, by key.</p>
<table><tr><th>reason</th><th>column judged</th><th class=count>rows</th></tr>{rows}</table>
"""
