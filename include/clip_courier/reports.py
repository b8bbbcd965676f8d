"""One page about a night or an ISO week, for people without a database: funnel, error rates, vendors, what was refused.

It is read from the analysts' file alone, in counts and rates; no row of a clip is in it. It loads nothing: style and
plots stand in the page, and its own policy forbids the browser to ask for anything.
"""

import io
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from html import escape
from typing import TYPE_CHECKING, Any, Final, Self

from clip_courier.errors import ReportEmpty, WarehouseMissing
from clip_courier.model import Outcome, Root, stamp, write_text
from clip_courier.tables import Tables

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_QUERIES: Final = ("alerts", "funnel", "strata", "deliveries", "rates", "scorecard", "rejections", "recalls")

_STEPS: Final = {
    "clips": "in the window",
    "eligible": "eligible",
    "set_aside": "set aside: rejected before",
    "overheard": "set aside: a person was heard enough",
    "selected": "selected",
    "validated": "validated",
    "manifested": "in batches",
    "delivered": "delivered",
}
_PLOTTED_STEPS: Final = ("clips", "eligible", "selected", "validated", "manifested", "delivered")

# Strata beyond these stand in the table only.
_PLOTTED_STRATA: Final = 40

# matplotlib knows no colour of the page's, so it is given colours that nothing else has, which are then exchanged.
_INK, _BAR, _LINE = "#010203", "#010204", "#010205"
_COLOURS: Final = {_INK: "currentColor", _BAR: "var(--bar)", _LINE: "var(--line)"}
_LOOK: Final[dict[Any, Any]] = {
    "svg.fonttype": "none",  # text stays text: it can be read aloud, searched and copied
    "text.parse_math": False,
    "font.size": 9,
    "axes.edgecolor": _LINE,
    "axes.facecolor": "none",
    "axes.spines.right": False,
    "axes.spines.top": False,
    "grid.color": _LINE,
    "grid.linewidth": 0.5,
    "xtick.color": _LINE,
    "ytick.color": _LINE,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
}
# A phone is about as wide: there the letters keep their size.
_WIDTH_INCHES: Final = 4.4
_ROW_INCHES: Final = 0.24

_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'"
_STYLE: Final = """
:root{color-scheme:light dark;--page:#fff;--ink:#1b1b1b;--soft:#5a5a5a;--line:#b5b5b5;--bar:#1f6fb2;--late:#b3261e}
@media(prefers-color-scheme:dark){
:root{--page:#16181b;--ink:#e8e8e8;--soft:#a9adb2;--line:#565a60;--bar:#6cb2f0;--late:#ff8a80}}
body{font:15px/1.5 system-ui,sans-serif;background:var(--page);color:var(--ink)}
body{max-width:68rem;margin:0 auto;padding:1rem}
h1{font-size:1.4rem;margin:.2rem 0}h2{font-size:1.15rem;margin:2rem 0 .3rem}h3{font-size:1rem;margin:1.2rem 0 .2rem}
p,figcaption{color:var(--soft);margin:.2rem 0 .6rem;max-width:42rem}figure{margin:.8rem 0;max-width:36rem}
svg{display:block;width:100%;height:auto}svg text{font-family:inherit!important}
.wide{overflow-x:auto}table{border-collapse:collapse}
th,td{border-bottom:1px solid var(--line);padding:.3rem .7rem;text-align:left;vertical-align:top;white-space:nowrap}
th[scope=row]{position:sticky;left:0;background:var(--page);font-weight:400}
.n{text-align:right;font-variant-numeric:tabular-nums}.late{color:var(--late);font-weight:600;white-space:normal}
th.here{font-weight:700}
thead th{white-space:normal;vertical-align:bottom}
@media(max-width:30rem){th,td{padding:.3rem .5rem}
th[scope=row]{white-space:normal;min-width:6.5rem;max-width:9rem;overflow-wrap:break-word}}
"""

Row = dict[str, Any]


@dataclass(frozen=True)
class Period:
    """The nights that a report is about, and its name: a date, or an ISO 8601 week such as 2026-W47."""

    name: str
    first: date
    last: date

    @classmethod
    def of_night(cls, night: date) -> Self:
        return cls(night.isoformat(), night, night)

    @classmethod
    def of_week(cls, week: str) -> Self:
        """Monday to Sunday; ValueError for what is no week."""
        if not (found := re.fullmatch(r"([0-9]{4})-W([0-9]{2})", week)):
            raise ValueError("no ISO week")
        monday = date.fromisocalendar(int(found[1]), int(found[2]), 1)
        return cls(week, monday, monday + timedelta(days=6))

    @property
    def title(self) -> str:
        return f"Night {self.name}" if self.first == self.last else f"Week {self.name}, {self.first} to {self.last}"


def report(root: Root, period: Period, now: datetime) -> Outcome:
    """Write the page of the period to the root's reports, over one that is there.

    Raises:
        WarehouseMissing: nothing was published yet.
        ReportEmpty: the published file has no night of the period.
    """
    if not root.warehouse.exists():
        raise WarehouseMissing("there is no warehouse yet")
    published = datetime.fromtimestamp(root.warehouse.stat().st_mtime, UTC)
    values = {"first": period.first, "last": period.last, "now": now}
    with Tables(root.warehouse, is_read_only=True) as tables:
        found: dict[str, list[Row]] = {name: tables.run(f"report_{name}", values).to_pylist() for name in _QUERIES}
    if not found["funnel"]:
        raise ReportEmpty(f"{period.name}: the warehouse of {stamp(published)} has nothing of it")
    told = f"Written {stamp(now)} from the warehouse that was published {stamp(published)}."
    path = root.report(period.name)
    write_text(_page(period, told, found), path)
    return Outcome("report", {"report": period.name, "path": str(path)}, [f"report: {path}"])


def _page(period: Period, told: str, found: dict[str, list[Row]]) -> str:
    title = f"Clip Courier: {escape(period.title)}"
    body = "".join(
        (
            *(f"<h1>{title}</h1>", f"<p>{escape(told)}</p>"),
            _alerts(found["alerts"]),
            _funnel(found["funnel"]),
            _plan(found["strata"]),
            _deliveries(found["deliveries"]),
            _rates(found["rates"], period),
            _scorecard(found["scorecard"]),
            _rejections(found["rejections"]),
            _recalls(found["recalls"]),
        )
    )
    return (
        "<!doctype html>\n<html lang=en><head><meta charset=utf-8>"
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name=viewport content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{_STYLE}</style></head>\n<body><main>{body}</main></body></html>\n"
    )


# -- the parts -------------------------------------------------------------------------------------------------


def _alerts(rows: list[Row]) -> str:
    cells = ([_name(row["vendor"]), _count(row["rows"]), _text(row["alert"], "late")] for row in rows)
    return _section("Alerts", "In batches of this time.", _table("vendor,count#,what", cells))


def _funnel(rows: list[Row]) -> str:
    clips = {row["step"]: row["clips"] for row in rows if row["reason"] is None}
    steps = [step for step in _PLOTTED_STEPS if step in clips]

    def draw(axes: "Axes") -> None:
        labels = [_STEPS[step] for step in steps]
        bars = axes.barh(labels, [clips[step] for step in steps], color=_BAR)
        axes.bar_label(bars, [f"{clips[step]:,}" for step in steps], padding=3)
        # Of millions thousands are chosen: on an even scale the chosen could not be seen.
        axes.set_xscale("symlog", linthresh=1)
        axes.set_xlim(0, 30 * max(1, *(clips[step] for step in steps)))
        axes.xaxis.set_visible(False)
        axes.spines["bottom"].set_visible(False)
        axes.invert_yaxis()

    reasons = [row for row in rows if row["reason"] is not None and row["clips"]]
    return _section(
        "Funnel",
        "Clips that passed each step; one that was looked at on several nights counts on each.",
        _plot("funnel", "Clips that passed each step", len(steps), draw, "Bars on a logarithmic scale."),
        _table("step,clips#", ([_name(told), _count(clips[s])] for s, told in _STEPS.items() if s in clips)),
        "<h3>Why clips were left out</h3>",
        _table("reason,step,clips#", ([_name(r["reason"]), _text(r["step"]), _count(r["clips"])] for r in reasons)),
    )


def _plan(rows: list[Row]) -> str:
    shown = rows[:_PLOTTED_STRATA]

    def draw(axes: "Axes") -> None:
        places = range(len(shown))
        axes.barh(places, [row["chosen_hours"] or 0 for row in shown], color=_BAR)
        axes.plot([row["wanted_hours"] or 0 for row in shown], places, "|", color=_INK, markersize=9)
        _list(axes, [row["stratum"] for row in shown])
        axes.set_xlabel("hours")

    columns = ("eligible_clips", "eligible_hours", "wanted_hours", "budget_hours", "chosen_clips", "chosen_hours")
    cells = (
        [
            _name(row["stratum"]),
            *(_count(row[c]) if c.endswith("clips") else _decimal(row[c], 3) for c in columns),
            _text(row["limited_by"]),
        ]
        for row in rows
    )
    heads = "stratum,eligible clips#,eligible h#,wanted h#,budget h#,chosen clips#,chosen h#,limited by"
    return _section(
        "Sampling plan",
        "What each stratum has, wants by its share, may have, and gave.",
        _plot("plan", "Hours chosen by stratum", len(shown), draw, f"Bars: chosen; marks: wanted{_of(rows)}."),
        _table(heads, cells),
    )


def _deliveries(rows: list[Row]) -> str:
    cells = (
        [
            _name(row["vendor"]),
            *(_count(row["batches"]), _count(row["clips"]), _decimal(row["hours"], 3)),
            *(_count(row[name]) for name in ("delivered_clips", "answered_clips", "owed_clips")),
        ]
        for row in rows
    )
    heads = "vendor,batches#,clips#,hours#,delivered clips#,answered#,owed#"
    return _section("Deliveries", "Batches of this time and what came back of them.", _table(heads, cells))


def _rates(rows: list[Row], period: Period) -> str:
    known = [row for row in rows if row["estimate"] is not None]
    weeks = [row for row in known if row["kind"] == "week"]
    strata = sorted((r for r in known if r["kind"] == "stratum"), key=lambda row: -row["clips"])
    shown = strata[:_PLOTTED_STRATA]

    def draw_weeks(axes: "Axes") -> None:
        places = range(len(weeks))
        axes.errorbar(places, _percent(weeks), _arms(weeks), fmt="o-", color=_BAR, capsize=3, markersize=4)
        step = -(-len(weeks) // 5)
        axes.set_xticks(places[::step], [row["name"] for row in weeks][::step])
        axes.set_xlim(-0.5, len(weeks) - 0.5)
        axes.set_ylim(0, _most(weeks))
        axes.set_ylabel("word error rate, %")
        axes.grid(axis="y")

    def draw_strata(axes: "Axes") -> None:
        axes.errorbar(
            _percent(shown), range(len(shown)), xerr=_arms(shown), fmt="o", color=_BAR, capsize=3, markersize=4
        )
        _list(axes, [row["name"] for row in shown])
        axes.set_xlim(0, _most(shown))
        axes.set_xlabel("word error rate, %")
        axes.grid(axis="x")

    about = (
        "Errors of the recogniser's first hypothesis over words, in all that is published, weighted by the inverse"
        " inclusion probability; clips of one person go together in the 95 % intervals, of which there is none where"
        " one person is all. Hours needed: so many more of the same kind would bring the interval to ± 1 point."
    )
    return _section(
        "Word error rate",
        about,
        _plot("weeks", "Word error rate by week of recording", 9 if weeks else 0, draw_weeks, "By week of recording."),
        _rates_by("week", rows, period),
        _plot("strata", "Word error rate by stratum", len(shown), draw_strata, f"By stratum{_of(strata)}."),
        *(_rates_by(kind, rows, period) for kind in ("stratum", "product", "locale")),
    )


def _rates_by(kind: str, rows: list[Row], period: Period) -> str:
    cells = (
        [
            _name(row["name"], "here" if row["name"] == period.name else ""),
            _interval(row, "estimate", "ci_low", "ci_high", _share),
            *(_count(row["clips"]), _count(row["speakers"]), _decimal(row["effective_clips"], 0)),
            *(_decimal(row["hours"], 2), _decimal(row["hours_needed"], 2)),
        ]
        for row in rows
        if row["kind"] == kind
    )
    heads = "clips#,persons#,worth clips#,hours#,hours needed#"
    return f"<h3>By {kind}</h3>" + _table(f"{kind},word error rate (95 %)#,{heads}", cells)


def _scorecard(rows: list[Row]) -> str:
    def line(label: str, cell: Callable[[Row], str]) -> list[str]:
        return [_name(label), *(cell(row) for row in rows)]

    def count(name: str) -> Callable[[Row], str]:
        return lambda row: _count(row[name])

    def ranged(name: str, ends: str, shown: Callable[[float], str]) -> Callable[[Row], str]:
        return lambda row: _interval(row, name, f"{ends}_low", f"{ends}_high", shown)

    lines = [
        *(
            line(label.replace("_", " "), count(label))
            for label in ("batches", "overdue_batches", "clips", "returned_clips", "transcribed_clips")
        ),
        *(line(label.replace("_", " "), count(label)) for label in ("rejected_rows", "refused_files")),
        line("reject rate", ranged("reject_rate", "reject_rate", _share)),
        line("median hours to return", ranged("median_turnaround_hours", "turnaround", _plain)),
        line("overlap clips", count("overlap_clips")),
        line("word error rate against other vendors", ranged("pairwise_wer", "pairwise_wer", _share)),
        line("agreement on words (Krippendorff's alpha)", ranged("word_alpha", "word_alpha", _plain)),
        line("agreement on status (Krippendorff's alpha)", ranged("status_alpha", "status_alpha", _plain)),
        line("clips with hypotheses withheld", count("withheld_clips")),
        line("steering effect, points", ranged("steering_effect", "steering_effect", _points)),
    ]
    heads = ",".join(["measure", *(f"{escape(row['vendor'])}#" for row in rows)])
    about = "Over everything that is published, with 95 % intervals. Steering: how far hypotheses pull transcribers."
    return _section("Vendors", about, _table(heads, lines if rows else []))


def _rejections(rows: list[Row]) -> str:
    cells = ([_name(row["reason"]), _text(row["stage"]), _text(row["vendor"]), _count(row["rows"])] for row in rows)
    return _section("Rejections", "After sampling, in this time.", _table("reason,stage,vendor,count#", cells))


def _recalls(rows: list[Row]) -> str:
    cells = ([_name(row["vendor"]), _text(row["state"]), _count(row["recalls"]), _count(row["clips"])] for row in rows)
    return _section("Recalls", "Of batches of this time.", _table("vendor,state,recalls#,clips#", cells))


# -- plots -----------------------------------------------------------------------------------------------------


def _plot(name: str, title: str, rows: int, draw: Callable[["Axes"], None], caption: str) -> str:
    """A figure that takes its colours from the page; nothing where there is nothing to show."""
    if not rows:
        return ""
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with mpl.rc_context({**_LOOK, "svg.hashsalt": name}):
        figure = Figure(figsize=(_WIDTH_INCHES, 0.6 + _ROW_INCHES * rows), layout="constrained", facecolor="none")
        FigureCanvasSVG(figure)
        draw(figure.subplots())
        written = io.StringIO()
        # Without metadata, which would be a date and addresses.
        figure.savefig(written, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    svg = written.getvalue()
    svg = svg[svg.index("<svg") :].replace("<svg", f'<svg role="img" aria-label="{escape(title)}"', 1)
    for colour, of_the_page in _COLOURS.items():
        svg = svg.replace(colour, of_the_page)
    # Several figures stand in one page, and each counts its parts from 1.
    svg = svg.replace(' id="', f' id="{name}-').replace('href="#', f'href="#{name}-').replace("url(#", f"url(#{name}-")
    return f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>"


def _list(axes: "Axes", names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)


def _of(rows: Sequence[Row]) -> str:
    return f"; the first {_PLOTTED_STRATA} of {len(rows)}" if len(rows) > _PLOTTED_STRATA else ""


def _percent(rows: Sequence[Row]) -> list[float]:
    return [100 * row["estimate"] for row in rows]


def _arms(rows: Sequence[Row]) -> list[list[float]]:
    """Lengths of the intervals below and above the estimates, 0 where there is none."""

    def arm(row: Row, end: str) -> float:
        return 0.0 if row[end] is None else 100 * abs(row[end] - row["estimate"])

    return [[arm(row, "ci_low") for row in rows], [arm(row, "ci_high") for row in rows]]


def _most(rows: Sequence[Row]) -> float:
    """The end of a scale in %: an interval that goes far beyond all estimates would press the others flat."""
    estimates = _percent(rows)
    ends = [high + estimate for high, estimate in zip(_arms(rows)[1], estimates, strict=True)]
    return 1.05 * max(1.0, min(max(ends), max(100.0, *estimates)))


# -- tables ----------------------------------------------------------------------------------------------------


def _section(title: str, about: str, *parts: str) -> str:
    return f"\n<section><h2>{escape(title)}</h2><p>{escape(about)}</p>{''.join(parts)}</section>"


def _table(columns: str, rows: Iterable[list[str]]) -> str:
    """Columns are parted by commas; one that ends in # holds numbers. Cells come as HTML."""
    heads = "".join(
        f'<th scope=col class="n">{name[:-1]}</th>' if name.endswith("#") else f"<th scope=col>{name}</th>"
        for name in columns.split(",")
    )
    body = "".join(f"\n<tr>{''.join(row)}</tr>" for row in rows)
    # A table that scrolls can be reached by the keyboard too.
    table = f"<table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="wide" tabindex="0">{table}</div>' if body else "<p>None.</p>"


def _name(value: str, kind: str = "") -> str:
    return f'<th scope=row class="{kind}">{escape(value)}</th>' if kind else f"<th scope=row>{escape(value)}</th>"


def _text(value: str | None, kind: str = "") -> str:
    return f'<td class="{kind}">{escape(value or "")}</td>'


def _number(value: float | None, shown: str) -> str:
    """The figure as it is read, and the whole of it for machines."""
    return '<td class="n">–</td>' if value is None else f'<td class="n"><data value="{value!r}">{shown}</data></td>'


def _count(value: int | None) -> str:
    return _number(value, f"{value or 0:,}")


def _decimal(value: float | None, places: int) -> str:
    return _number(value, f"{value or 0:,.{places}f}")


def _interval(row: Row, name: str, low: str, high: str, shown: Callable[[float], str]) -> str:
    if row[name] is None:
        return _number(None, "")
    value, *ends = (
        f'<data value="{row[each]!r}">{shown(row[each])}</data>' for each in (name, low, high) if row[each] is not None
    )
    between = f" ({' to '.join(ends)})" if len(ends) == 2 else ""
    return f'<td class="n">{value}{between}</td>'


def _share(value: float) -> str:
    return f"{100 * value:.1f} %"


def _points(value: float) -> str:
    return f"{100 * value:+.1f}"


def _plain(value: float) -> str:
    return f"{value:.2f}"
