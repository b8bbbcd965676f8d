"""The page about a night or a week: its figures are the warehouse's, and a browser can show it to anyone anywhere."""

import base64
import fcntl
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from random import Random
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from clip_courier import loading, reports, warehouse
from clip_courier.errors import ReportEmpty, WarehouseMissing
from clip_courier.model import Root

NIGHT = date(2026, 11, 20)
NOW = datetime(2026, 11, 30, tzinfo=UTC)
DELIVERED = datetime(2026, 11, 20, 2, tzinfo=UTC)
# What a policy may call a stratum, and a vendor's file a vendor, is text, whatever it holds.
EVIL = "<script>alert(1)</script> & $x^2$"
STRATA = ("assistant × en-GB", "translator × hi-IN", "translator × de-DE", EVIL)
SAID = "quorvanthistle"


def _night_of(vendor: str, batch_id: str, night: date, random: Random, clips: int) -> dict[str, list[dict[str, Any]]]:
    """What a night leaves behind: one batch to one vendor, most of it returned and scored."""
    times = {"manifested_at": DELIVERED, "delivered_at": DELIVERED, "due_at": NOW - timedelta(days=1)}
    of = {"vendor": vendor, "batch_id": batch_id}
    batch = {**of, "night": night, "state": "LOADED", "clip_count": clips, "audio_ms": 5000 * clips, "size_bytes": 7}
    rows: dict[str, list[dict[str, Any]]] = {
        "ledger_batches": [batch | times],
        "ledger_returns": [{**of, "n": 1, "state": "ACCEPTED", "accepted_rows": clips - 2, "rejected_rows": 3}],
        "ledger_rows": [{**of, "n": 1, "distress_rows": 1, "sensitive_rows": 2, "breach_rows": 0}],
        "ledger_recalls": [{**of, "n": 1, "clip_count": 4, "state": "NOTICED", "created_at": NOW}],
        "refused": [{**of, "night": night, "stage": "collect", "reason": "unknown_ref"} for _ in range(3)],
        **{name: [] for name in ("delivered_clips", "masked_transcripts", "scored", "funnel")},
    }
    for n in range(clips):
        stratum = random.choice(STRATA)
        product, _, locale = stratum.partition(" × ")
        week = f"2026-W{random.randrange(40, 48)}"
        about = {"product": product, "locale": locale or "en", "recorded_week": week, "stratum": stratum}
        clip = {**of, "clip_key": f"{batch_id}-{n}", "duration_ms": 5000} | about
        clip |= {"inclusion_probability": random.choice([0.1, 0.5]), "speaker_key": f"p{n // 3}", "is_overlap": False}
        clip |= {"is_withheld": n % 4 == 0, "speaker_keys": [f"p{n // 3}"]}
        rows["delivered_clips"].append(clip | {"night": night})
        if n < clips - 2:
            told = {"status": "transcribed", "text": SAID, "submitted_at": DELIVERED + timedelta(hours=n % 30 + 1)}
            rows["masked_transcripts"].append(clip | told)
            counts = {"words": 12, "substitutions": random.randrange(4), "deletions": 1, "insertions": 0}
            counts["hits"] = 11 - counts["substitutions"]
            rows["scored"].append(clip | counts | {f"character_{name}": 0 for name in (*counts, "hits")})
    chosen = [("clips", 4_000_000), ("eligible", 3_061_995), ("set_aside", 0), ("overheard", 7)]
    steps = [*chosen, ("selected", clips + 30), ("validated", clips)]
    rows["funnel"] += [{"night": night, "step": step, "clips": count} for step, count in steps]
    rows["funnel"] += [{"night": night, "step": "refused", "reason": "withdrawn", "clips": 938_005}]
    rows["funnel"] += [{"night": night, "step": "rejected", "reason": "silent", "clips": 30}]
    for stratum in STRATA:
        at = {"night": night, "stratum": stratum}
        hours = random.random()
        rows["funnel"] += [
            {**at, "step": "stratum_eligible", "clips": 70_000, "hours": 216.045},
            {**at, "step": "stratum_wanted", "hours": hours},
            {**at, "step": "stratum_budget", "reason": "ceiling", "hours": hours / 2},
            {**at, "step": "stratum_chosen", "clips": 20, "hours": hours / 3},
        ]
    return rows


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Root:
    """Two nights of one week and one of the next, published."""
    random = Random(3)
    parts = [
        _night_of("aurora", "aurora-1", NIGHT, random, 60),
        _night_of("borealis", "borealis-1", NIGHT - timedelta(days=2), random, 40),
        _night_of("aurora", "aurora-2", NIGHT + timedelta(days=4), random, 20),
    ]
    return _published(tmp_path_factory.mktemp("reports"), parts)


def _published(folder: Path, parts: list[dict[str, list[dict[str, Any]]]]) -> Root:
    root = Root(folder, "landing")
    relations: dict[str, pa.Table | list[Path]] = {
        name: pa.Table.from_pylist([row for part in parts for row in part.get(name, [])], schema)
        for name, schema in loading.RELATIONS.items()
    }
    warehouse.publish(root.warehouse, relations, NOW)
    return root


class Read(HTMLParser):
    """The tables of a page below their headings, row by row; of a figure the value that stands behind it."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[Any]]] = {}
        self.text: list[str] = []
        self._heading, self._open = "", ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._open = tag
        if tag == "tr":
            self.tables.setdefault(self._heading, []).append([])
        elif tag in ("th", "td"):
            self.tables[self._heading][-1].append([])
        elif tag == "data":
            self.tables[self._heading][-1][-1].append(float(dict(attrs)["value"] or "nan"))
        elif tag in ("h2", "h3"):
            self._heading = ""

    def handle_data(self, data: str) -> None:
        self.text.append(data)
        if self._open in ("h2", "h3"):
            self._heading += data
        elif self._open in ("th", "td") and self._heading in self.tables:
            self.tables[self._heading][-1][-1].append(data)

    def handle_endtag(self, tag: str) -> None:
        self._open = ""

    def rows(self, heading: str) -> list[list[Any]]:
        """Cells of one figure or text are that; an interval is a list."""
        rows = self.tables.get(heading, [[]])[1:]
        return [[(cell[0] if cell else None) if len(cell) < 2 else cell for cell in row] for row in rows]


def _asked(root: Root, query: str) -> list[tuple[Any, ...]]:
    with duckdb.connect(str(root.warehouse), read_only=True) as connection:
        return connection.execute(query).fetchall()


def _written(root: Root, period: reports.Period) -> str:
    outcome = reports.report(root, period, NOW)
    assert outcome.lines == [f"report: {root.path}/reports/{period.name}.html"]
    return (root.path / "reports" / f"{period.name}.html").read_text(encoding="utf-8")


PERIODS = {
    "night": (reports.Period.of_night(NIGHT), "night = '2026-11-20'"),
    "week": (reports.Period.of_week("2026-W47"), "night BETWEEN '2026-11-16' AND '2026-11-22'"),
}


@pytest.mark.parametrize("kind", PERIODS)
def test_report_has_the_warehouses_figures(root: Root, kind: str) -> None:
    period, within = PERIODS[kind]
    page = Read(_written(root, period))

    steps = dict(_asked(root, f"SELECT step, sum(clips) FROM nights WHERE {within} AND reason IS NULL GROUP BY step"))
    told = {row[0]: row[1] for row in page.rows("Funnel")}
    assert told == {name: steps[step] for step, name in reports._STEPS.items()}
    query = (
        f"SELECT reason, step, sum(clips) FROM nights WHERE {within} AND step IN ('refused', 'rejected') GROUP BY ALL"
    )
    assert sorted(page.rows("Why clips were left out")) == sorted(map(list, _asked(root, query)))

    def hours(step: str, what: str = "hours") -> str:
        return f"sum({what}) FILTER (step = 'stratum_{step}')"

    columns = (hours("eligible", "clips"), hours("eligible"), hours("wanted"), hours("budget"))
    plan = f"SELECT stratum, {', '.join(columns)}, {hours('chosen', 'clips')}, {hours('chosen')}, 'ceiling' FROM nights"
    plan += f" WHERE {within} AND stratum IS NOT NULL GROUP BY stratum"
    assert {row[0]: row[1:] for row in page.rows("Sampling plan")} == {
        row[0]: [*map(pytest.approx, row[1:-1]), "ceiling"] for row in _asked(root, plan)
    }

    for name, column in (
        ("stratum", "stratum"),
        ("product", "product"),
        ("locale", "locale"),
        ("week", "recorded_week"),
    ):
        rates = _asked(
            root,
            f"SELECT {column}, [estimate, ci_low, ci_high], clips, speakers, effective_clips, hours, hours_needed"
            f" FROM wer_by_{name} ORDER BY 1",
        )
        assert len(rates) > 2
        assert page.rows(f"By {name}") == [list(row) for row in rates]

    cards = [dict(zip(*pair, strict=True)) for pair in _cards(root)]
    shown = {row[0]: row[1:] for row in page.rows("Vendors")}
    for label in ("batches", "overdue batches", "clips", "returned clips", "transcribed clips", "rejected rows"):
        assert shown[label] == [card[label.replace(" ", "_")] for card in cards]
    for label, figure, ends in (
        ("reject rate", "reject_rate", "reject_rate"),
        ("median hours to return", "median_turnaround_hours", "turnaround"),
        ("steering effect, points", "steering_effect", "steering_effect"),
    ):
        for cell, card in zip(shown[label], cards, strict=True):
            value, low, high = (card[name] for name in (figure, f"{ends}_low", f"{ends}_high"))
            assert cell == (value if low is None else [value, low, high])

    refused = f"SELECT reason, stage, vendor, count(*) FROM rejections WHERE {within} GROUP BY ALL"
    assert sorted(page.rows("Rejections")) == sorted(map(list, _asked(root, refused)))
    batches = f"SELECT batch_id FROM deliveries WHERE {within}"
    recalled = (
        f"SELECT vendor, state, count(*), sum(clip_count) FROM recalls WHERE batch_id IN ({batches}) GROUP BY ALL"
    )
    assert sorted(page.rows("Recalls")) == sorted(map(list, _asked(root, recalled)))
    alerts = f"SELECT vendor, sum(owed_clips) FROM deliveries WHERE {within} GROUP BY vendor"
    for vendor, owed in _asked(root, alerts):
        assert [vendor, owed, "clips are overdue"] in page.rows("Alerts")
        assert [vendor, 1, "rows say that a person is in distress"] in page.rows("Alerts")
        assert [vendor, 1, "recalls have no receipt"] in page.rows("Alerts")
    assert len(page.rows("Deliveries")) == len(_asked(root, alerts)) == (1 if kind == "night" else 2)


def _cards(root: Root) -> list[tuple[list[str], tuple[Any, ...]]]:
    with duckdb.connect(str(root.warehouse), read_only=True) as connection:
        found = connection.execute("SELECT * FROM vendor_scorecard ORDER BY vendor")
        names = [column[0] for column in found.description or []]
        return [(names, row) for row in found.fetchall()]


def test_report_is_whole_in_itself_and_holds_no_row(root: Root) -> None:
    page = _written(root, PERIODS["week"][0])
    names = [
        pair[0] for pair in _asked(root, "SELECT DISTINCT clip_key FROM clips UNION SELECT speaker_key FROM clips")
    ]
    text = " ".join(Read(page).text).split()
    assert SAID not in page
    assert not {*names, "aurora-1"} & set(text)
    assert "<script" not in page
    assert EVIL in "".join(Read(page).text)
    # What a page can load is named in an attribute or a style; namespaces are names.
    assert set(re.findall(r"\w+://[^\"' ]+", page)) == {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert not re.search(r"\b(src|srcset|action|data|poster)=|@import|url\((?!#)|href=\"(?!#)", page)
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert {*re.findall(r"url\(#([^)]+)\)", page), *re.findall(r'href="#([^"]+)"', page)} <= set(ids)


def test_report_is_the_same_when_it_is_written_again(root: Root) -> None:
    period = PERIODS["night"][0]
    assert _written(root, period) == _written(root, period)


def test_report_of_a_night_of_which_nothing_came_back(tmp_path: Path) -> None:
    part = _night_of("aurora", "aurora-1", NIGHT, Random(1), 5)
    kept = {name: part[name] for name in ("ledger_batches", "funnel")}
    page = Read(_written(_published(tmp_path, [kept]), PERIODS["night"][0]))
    assert ["delivered", 5] in page.rows("Funnel")
    assert page.rows("By week") == page.rows("Rejections") == page.rows("Recalls") == []


def test_report_of_nothing_is_a_named_error(root: Root, tmp_path: Path) -> None:
    with pytest.raises(WarehouseMissing) as missing:
        reports.report(Root(tmp_path, "landing"), PERIODS["night"][0], NOW)
    assert "load" in missing.value.way_out
    with pytest.raises(ReportEmpty, match="2026-W02"):
        reports.report(root, reports.Period.of_week("2026-W02"), NOW)
    assert not (root.path / "reports" / "2026-W02.html").exists()


@pytest.mark.parametrize("text", ["2026-W54", "2025-W53", "2026W47", "2026-W00", "2026-W4", "٢٠٢٦-W47", "../x"])
def test_period_of_what_is_no_week(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        reports.Period.of_week(text)


def test_period_of_a_week_that_begins_in_the_year_before() -> None:
    period = reports.Period.of_week("2026-W01")
    assert (period.first, period.last) == (date(2025, 12, 29), date(2026, 1, 4))


class Browser:
    """Chromium over its pipe: commands out, answers and events back, parted by zero bytes (DevTools protocol)."""

    def __init__(self, out: int, back: int) -> None:
        self._out, self._back, self._n, self._rest = out, back, 0, b""
        self.events: list[dict[str, Any]] = []
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]

    _session: str | None = None

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        self._n += 1
        session = {"sessionId": self._session} if self._session else {}
        os.write(self._out, json.dumps({"id": self._n, "method": method, "params": params, **session}).encode() + b"\0")
        while (told := self._next()).get("id") != self._n:
            self.events.append(told)
        assert "error" not in told, told
        return dict(told["result"])

    def wait_for(self, event: str) -> None:
        while all(told["method"] != event for told in self.events):
            self.events.append(self._next())

    def value(self, expression: str) -> Any:
        return self.ask("Runtime.evaluate", expression=expression, returnByValue=True)["result"]["value"]

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            read = os.read(self._back, 1 << 16)
            assert read, "the browser is gone"
            self._rest += read
        line, _, self._rest = self._rest.partition(b"\0")
        return dict(json.loads(line))


@contextmanager
def _browser(profile: Path) -> Iterator[Browser]:
    # In the child they are 3 and 4, so here they must be neither.
    pipes = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for pair in (os.pipe(), os.pipe()) for end in pair]
    theirs_in, out, back, theirs_out = pipes
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        "--remote-debugging-pipe",
        f"--user-data-dir={profile}",
    ]
    command = ["bash", "-c", f'exec "$0" "$@" 3<&{theirs_in} 4>&{theirs_out}', shutil.which("chromium") or "chromium"]
    with subprocess.Popen([*command, *options], pass_fds=(theirs_in, theirs_out), stderr=subprocess.DEVNULL) as child:
        os.close(theirs_in)
        os.close(theirs_out)
        browser = Browser(out, back)
        try:
            yield browser
        finally:
            child.kill()
            os.close(out)
            os.close(back)


# The worst contrast (WCAG 2.2, 1.4.3) of any text with what lies behind it, and how much wider than the window the
# page is. Letters of a plot are filled, not coloured.
_LOOK = """(() => {
  const parts = c => c.match(/[\\d.]+/g).map(Number);
  const light = c => parts(c).slice(0, 3).map(v => v / 255)
    .map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const behind = e => {
    for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor; if (parts(c)[3] !== 0) return c; }
    return 'rgb(255, 255, 255)';
  };
  const texts = [...document.querySelectorAll('body *')].filter(e => !e.closest('style,defs') &&
    [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()));
  const ratio = e => {
    const s = getComputedStyle(e), [a, b] = [light(e.closest('svg') ? s.fill : s.color), light(behind(e))];
    return (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
  };
  const drawn = [...document.querySelectorAll('svg')].map(e => e.getBoundingClientRect());
  const root = document.documentElement;
  return {
    contrast: Math.min(...texts.map(ratio)),
    letters: texts.filter(e => e.closest('svg')).length,
    overflow: root.scrollWidth - root.clientWidth,
    width: root.clientWidth,
    drawn: drawn.map(r => [r.left, r.right, r.height]),
    smallest: Math.min(...[...document.querySelectorAll('svg text')].map(e => e.getBoundingClientRect().height)),
    page: behind(document.body),
  };
})()"""


def test_report_in_a_browser(root: Root, tmp_path: Path) -> None:
    """In light and dark, on a desk and on a phone: nothing is asked for, nothing hangs over, every letter shows."""
    _written(root, PERIODS["week"][0])
    address = (root.path / "reports" / "2026-W47.html").as_uri()
    pages = set()
    with _browser(tmp_path / "profile") as browser:
        browser.ask("Network.enable")
        browser.ask("Page.enable")
        browser.ask("Log.enable")
        for scheme in ("light", "dark"):
            for width, height in ((1280, 900), (360, 740)):
                size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
                browser.ask("Emulation.setDeviceMetricsOverride", **size)
                browser.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
                browser.events.clear()
                browser.ask("Page.navigate", url=address)
                browser.wait_for("Page.loadEventFired")
                seen = browser.value(_LOOK)
                asked = [
                    e["params"]["request"]["url"] for e in browser.events if e["method"] == "Network.requestWillBeSent"
                ]
                assert asked == [address]
                assert [e["params"] for e in browser.events if e["method"] == "Log.entryAdded"] == []
                assert (seen["width"], seen["overflow"]) == (width, 0)
                assert seen["contrast"] >= 4.5
                assert seen["letters"] >= 40
                assert len(seen["drawn"]) == 4
                assert all(left >= 0 and right <= width and height > 60 for left, right, height in seen["drawn"])
                assert seen["smallest"] >= 9
                pages.add(seen["page"])
                if folder := os.environ.get("CLIP_COURIER_SCREENSHOTS"):
                    shot = browser.ask("Page.captureScreenshot", captureBeyondViewport=True)
                    Path(folder, f"{scheme}-{width}.png").write_bytes(base64.b64decode(shot["data"]))
    assert len(pages) == 2
