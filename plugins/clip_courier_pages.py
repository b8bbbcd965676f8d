"""Pages in Airflow's user interface: where every night and batch is, a night's Data Docs, and the reports.

Airflow does not guard what a plugin mounts, so each route asks for a logged-in user itself. Nothing here changes
anything, and nothing shown is more than counts, states and reasons.
"""

from collections.abc import Iterable
from datetime import date
from html import escape
from pathlib import Path
from urllib.parse import quote

from airflow.api_fastapi.core_api.security import get_user
from airflow.plugins_manager import AirflowPlugin
from fastapi import APIRouter, Depends, FastAPI, HTTPException
from fastapi.responses import FileResponse, HTMLResponse

from clip_courier_airflow import courier, data_docs, reports

_STYLE = """
:root{color-scheme:light dark}body{font:15px/1.5 system-ui,sans-serif;margin:1.5rem;max-width:80rem}
h1{font-size:1.3rem}h2{font-size:1.05rem;margin:1.5rem 0 0}.wide{overflow-x:auto}
table{border-collapse:collapse;min-width:40rem;width:100%}
th,td{border-bottom:1px solid #8884;padding:.35rem .6rem;text-align:left;vertical-align:top}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}.late{color:#d33;font-weight:600}.none{opacity:.6}
"""
_HEADERS = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'", "Cache-Control": "no-store"}

app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
secured = APIRouter(dependencies=[Depends(get_user)])


@secured.get("/status")
def status() -> HTMLResponse:
    """Nights, batches and recalls, newest first."""
    seen = courier().overview()
    nights = (
        [
            _text(one.night),
            *(
                _number(n)
                for n in (one.clips, one.eligible, one.selected, one.validated, one.in_batches, one.delivered)
            ),
            _text(", ".join(f"{reason} {clips}" for reason, clips in one.refused.items() if clips)),
            f'<td><a href="data-docs/{one.night}/index.html">Data Docs</a></td>' if one.has_data_docs else _text(""),
        ]
        for one in seen.nights
    )
    batches = (
        [
            *(_text(t) for t in (one.batch_id, one.vendor, one.state)),
            _number(one.clips),
            _number(one.returned_rows),
            _text(one.delivered_at or ""),
            _late(one.due_at, "overdue") if one.is_overdue else _text(one.due_at or ""),
        ]
        for one in seen.batches
    )
    alerts = ([_text(one.batch_id), _text(one.vendor), _alarm(told)] for one in seen.batches for told in one.alerts)
    recalls = (
        [_text(one.batch_id), _number(one.n), _number(one.clip_count), _text(one.state), _text(one.noticed_at or "")]
        for one in seen.recalls
    )
    pages = sorted(reports().glob("[0-9]*.html"), reverse=True)
    written = ([f'<td><a href="reports/{quote(page.name)}">{escape(page.stem)}</a></td>'] for page in pages)
    keys = (
        [
            _text("ours" if one.is_ours else one.vendor),
            _text(one.fingerprint),
            _late(one.expires_at, "expires soon") if one.is_expiring else _text(one.expires_at or "never"),
        ]
        for one in seen.keys
    )
    return _page(
        _table("Alerts", "batch,vendor,what", alerts),
        _table("Nights", "night,clips#,eligible#,selected#,validated#,in batches#,delivered#,refused,", nights),
        _table("Reports", "night or week", written),
        _table("Batches", "batch,vendor,state,clips#,rows returned#,delivered,due", batches),
        _table("Recalls", "batch,recall#,clips#,state,noticed", recalls),
        _table("Keys", "whose,fingerprint,expires", keys),
    )


@secured.get("/data-docs/{night}/{path:path}")
def docs(night: date, path: str) -> FileResponse:
    """A file of the night's Data Docs, and nothing beside them."""
    return _file(data_docs(night), path)


@secured.get("/reports/{path}")
def report(path: str) -> FileResponse:
    """The page about a night or a week."""
    return _file(reports(), path)


def _file(within: Path, path: str) -> FileResponse:
    folder = within.resolve()
    file = (folder / path).resolve()
    if not file.is_relative_to(folder) or not file.is_file():
        raise HTTPException(404, "there is no such page")
    return FileResponse(file)


def _page(*tables: str) -> HTMLResponse:
    head = "<meta charset=utf-8><meta name=viewport content='width=device-width'><title>Clip Courier</title>"
    body = f"<body><h1>Clip Courier</h1>{''.join(tables)}</body>"
    page = f"<!doctype html><html lang=en><head>{head}<style>{_STYLE}</style></head>{body}</html>"
    return HTMLResponse(page, headers=_HEADERS)


def _table(title: str, columns: str, rows: Iterable[list[str]]) -> str:
    """Columns are parted by commas; one that ends in # holds numbers."""
    names = columns.split(",")
    heads = "".join(f'<th class="n">{n[:-1]}</th>' if n.endswith("#") else f"<th>{n}</th>" for n in names)
    body = "".join(f"<tr>{''.join(row)}</tr>" for row in rows)
    nothing = f'<tr><td class="none" colspan="{len(names)}">none yet</td></tr>'
    return f'<h2>{title}</h2><div class="wide"><table><tr>{heads}</tr>{body or nothing}</table></div>'


def _text(value: str) -> str:
    return f"<td>{escape(value)}</td>"


def _alarm(value: str) -> str:
    return f'<td class="late">{escape(value)}</td>'


def _late(value: str | None, why: str) -> str:
    return f'<td class="late">{escape(value or "")} {why}</td>'


def _number(value: int | None) -> str:
    return f'<td class="n">{"" if value is None else value}</td>'


app.include_router(secured)


class ClipCourierPages(AirflowPlugin):
    """One entry in the navigation."""

    name = "clip_courier_pages"
    fastapi_apps = [{"app": app, "url_prefix": "/clip-courier", "name": "Clip Courier"}]  # noqa: RUF012
    external_views = [  # noqa: RUF012
        {
            "name": "Clip Courier",
            "href": "clip-courier/status",
            "destination": "nav",
            "url_route": "clip-courier",
            "category": "browse",
        }
    ]
