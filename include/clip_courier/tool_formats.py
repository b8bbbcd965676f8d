"""Exports of annotation tools as rows: Label Studio's JSON, NIST's STM and CTM (docs/contracts.md, extensions).

Bytes that are not UTF-8, and what cannot be read, are the fault of a row and not of the file.
"""

import io
import json
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from clip_courier.errors import ReturnUnreadable
from clip_courier.model import STATUSES
from clip_courier.returned_rows import MAX_ROW_BYTES, NOT_UTF8, Row, moment_of, object_of

# A ref in the name of the recording, wherever a tool has put it: `/data/upload/3/1a2b3c4d-<ref>.flac`.
_REF_IN_NAME = re.compile(r"(?<![a-z0-9])([a-z2-7]{32})(?:\.[a-z0-9]{2,4})?(?![a-z0-9])")
# No recording is longer.
_MOST_SECONDS: Final = 1e6
# Revisions of Label Studio's annotations count from here, in seconds.
_REVISIONS_SINCE: Final = datetime(2020, 1, 1, tzinfo=UTC)


def label_studio(content: bytes) -> Iterator[Row]:
    """Label Studio's export JSON: tasks, each with annotations. One row an annotation that was not cancelled."""
    try:
        text = content.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
        tasks = json.loads(text, object_pairs_hook=object_of)
    except (ValueError, RecursionError):
        raise ReturnUnreadable("bad_format", "the file is not readable as labelstudio.json") from None
    if not isinstance(tasks, list):
        raise ReturnUnreadable("bad_format", "the file is not readable as labelstudio.json")
    for task in tasks:
        annotations = task.get("annotations") if isinstance(task, dict) else None
        if not isinstance(annotations, list):
            yield "unreadable_row"
            continue
        for annotation in annotations:
            if not isinstance(annotation, dict) or annotation.get("was_cancelled") not in (None, True, False):
                yield "unreadable_row"
            elif not annotation.get("was_cancelled"):
                yield _annotated(task.get("data"), annotation)


def _annotated(data: object, annotation: Mapping[str, Any]) -> Row:
    results = annotation.get("result")
    if not isinstance(data, dict) or not isinstance(results, list):
        return "unreadable_row"
    said: list[tuple[float, str]] = []
    notes: list[str] = []
    chosen: list[tuple[bool, str]] = []
    for result in results:
        value = result.get("value") if isinstance(result, dict) else None
        if not isinstance(value, dict):
            return "unreadable_row"
        field, start = result.get("from_name"), value.get("start")
        told = value.get("text")
        texts = told if isinstance(told, list) else [told]
        if not (isinstance(start, int | float) and abs(start) < _MOST_SECONDS):
            if start is not None:
                return "unreadable_row"
            start = 0
        lines = [(float(start), t) for t in texts if isinstance(t, str)]
        if field == "note":
            notes += [text for _, text in lines]
        else:
            said += lines
        choices = value.get("choices")
        # Tools ask more than we do: what else was chosen says nothing here.
        answers = [c for c in choices if isinstance(c, str)] if isinstance(choices, list) else []
        chosen += [(field != "status", c) for c in answers if field == "status" or c in STATUSES]
    by = annotation.get("completed_by")
    # Of a person's profile the number alone: an address must not come in here.
    by = by.get("id") if isinstance(by, dict) else by
    changed = annotation.get("updated_at") or annotation.get("created_at")
    moment = moment_of(changed)
    row = {
        "clip_ref": _ref_in(data),
        "status": min(chosen)[1] if chosen else "transcribed",
        "text": " ".join(text for _, text in sorted(said, key=lambda part: part[0])) or None,
        "note": " ".join(notes) or None,
        "annotator_ref": str(by) if isinstance(by, int) and not isinstance(by, bool) else by,
        "submitted_at": changed,
        # An annotation that was changed replaces what it was; one that is exported again is a duplicate.
        "revision": int((moment - _REVISIONS_SINCE).total_seconds()) if moment else 0,
    }
    is_text = all(value is None or isinstance(value, int) or not NOT_UTF8.search(str(value)) for value in row.values())
    return row if is_text else "not_utf8"


def _ref_in(data: Mapping[str, Any]) -> str | None:
    """The ref that a task names, else the one in the name of its recording."""
    if isinstance(data.get("clip_ref"), str):
        return str(data["clip_ref"])
    found = {ref for value in data.values() if isinstance(value, str) for ref in _REF_IN_NAME.findall(value)}
    return found.pop() if len(found) == 1 else None


class _Part(NamedTuple):
    """A timed piece of a clip: its ref, when it begins in seconds, and what is said in it; None is not judged."""

    clip_ref: str
    begins_s: float
    text: str | None


# What may be told of the lines that follow, in a comment: `;; annotator_ref: t1`.
_TOLD_OF_LINES: Final = frozenset({"annotator_ref", "submitted_at", "revision"})
_ALTERNATIVES = re.compile(r"\{([^{}/]*)(?:/[^{}]*)?\}")
_OPTIONAL = re.compile(r"\(([^()\s]*)\)")


def by_clip(content: bytes, read_line: Callable[[list[str]], _Part], at: datetime | None) -> Iterator[tuple[int, Row]]:
    """Lines of NIST's formats, put together by clip; a row has the number of its first line.

    Source: sctk's doc/infmts.htm. `{a / b}` stands for its first alternative, `(word)` for the word.
    """
    told = {"annotator_ref": "unnamed", "submitted_at": at.isoformat() if at else None, "revision": "0"}
    first: dict[str, tuple[int, dict[str, Any]]] = {}
    parts: dict[str, list[_Part]] = {}
    faults: list[tuple[int, Row]] = []
    is_other_choice = False
    text = content.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
    for number, line in enumerate(io.StringIO(text, newline=None), start=1):
        told |= _told_in(line)
        fields = line.split()
        if not fields or line.startswith(";;"):
            continue
        marks = set(fields) & {"<ALT_BEGIN>", "<ALT>", "<ALT_END>"}
        is_other_choice = (is_other_choice and not marks) or "<ALT>" in marks
        if marks or is_other_choice:
            continue
        try:
            if NOT_UTF8.search(line) or len(line) > MAX_ROW_BYTES:
                raise UnicodeError
            part = read_line(fields)
        except UnicodeError:
            faults.append((number, "row_too_long" if len(line) > MAX_ROW_BYTES else "not_utf8"))
        except (ValueError, IndexError):
            faults.append((number, "unreadable_row"))
        else:
            first.setdefault(part.clip_ref, (number, dict(told)))
            parts.setdefault(part.clip_ref, []).append(part)
    if not first:
        raise ReturnUnreadable("bad_format", "the file has no line of its format")
    rows: list[tuple[int, Row]] = [
        (number, {**about, "clip_ref": ref, **_joined(parts[ref])}) for ref, (number, about) in first.items()
    ]
    yield from sorted([*rows, *faults], key=lambda row: row[0])


def _told_in(line: str) -> dict[str, str]:
    name, _, value = line.removeprefix(";;").partition(":")
    is_told = line.startswith(";;") and name.strip() in _TOLD_OF_LINES and value.strip()
    return {name.strip(): value.strip()} if is_told else {}


def _joined(parts: list[_Part]) -> dict[str, str | None]:
    said = [part.text for part in sorted(parts, key=lambda part: part.begins_s) if part.text]
    if said:
        return {"status": "transcribed", "text": " ".join(said)}
    return {"status": "unintelligible" if any(part.text is None for part in parts) else "no_speech", "text": None}


def stm_line(fields: list[str]) -> _Part:
    """`<recording> <channel> <speaker> <begin> <end> [<label>] transcript`."""
    begins, ends = _seconds(fields[3]), _seconds(fields[4])
    if ends < begins:
        raise ValueError
    words = fields[5:]
    if words and words[0].startswith("<") and words[0].endswith(">"):
        words = words[1:]
    if words == ["IGNORE_TIME_SEGMENT_IN_SCORING"]:
        return _Part(_recording(fields[0]), begins, None)
    text = _OPTIONAL.sub(r"\1", _ALTERNATIVES.sub(r"\1", " ".join(words)))
    return _Part(_recording(fields[0]), begins, " ".join(word for word in text.split() if word != "@"))


def ctm_line(fields: list[str]) -> _Part:
    """`<recording> <channel> <begin> <duration> <word> [<confidence>]`."""
    _seconds(fields[3])
    return _Part(_recording(fields[0]), _seconds(fields[2]), fields[4] if fields[4] != "@" else "")


def _seconds(field: str) -> float:
    seconds = float(field)
    if not 0 <= seconds < _MOST_SECONDS:
        raise ValueError
    return seconds


def _recording(name: str) -> str:
    found = _REF_IN_NAME.search(name)
    return found[1] if found else name
