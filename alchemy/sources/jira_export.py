"""Jira's file exports as the issues that its REST API would return, so that one builder reads all.

| shape | known by | notes |
|---|---|---|
| RSS 0.92 ("Export XML") | `<rss` or `<item` in the beginning | texts are HTML, links are kept |
| CSV ("all" or "current fields") | a header with "Issue key" and "Summary" | repeated headers hold lists |

CSV dates have no zone and depend on the profile of who exported; those that are not understood stay away.
"""

import csv
import re
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, BinaryIO

from lxml import etree

from alchemy.records import RawObject, Rejected
from alchemy.sources.json_records import Found, open_utf8
from alchemy.sources.reasons import reject
from alchemy.sources.safe_xml import FoundElement, child_text, find_elements, whole_text
from alchemy.text.decode import decode

_ITEM_DEPTH = 3  # rss > channel > item
_DELIMITERS = ",;\t|"
_CSV_DATES = (
    "%d/%b/%y %I:%M %p", "%d/%b/%y %H:%M", "%d/%b/%Y %I:%M %p", "%d/%b/%Y %H:%M", "%d/%b/%y",
    "%Y/%m/%d %H:%M", "%b %d, %Y, %I:%M %p",
)  # fmt: skip
_LINK_COLUMN = re.compile(r"(inward|outward) issue link \((.{1,100})\)\Z")
_COMMENT_CELL = re.compile(r"\A([^;\n]{6,40});([^;\n]{0,200});(.*)\Z", re.DOTALL)
_ISSUE_KEY = re.compile(r"\b[A-Z][A-Z0-9_]+-\d+\b")
_NAMED = {
    "status": "status", "resolution": "resolution", "priority": "priority", "issue type": "issuetype",
    "work type": "issuetype",
}  # fmt: skip
_USERS = ("reporter", "assignee", "creator")
_LISTS = {
    "labels": "labels", "component/s": "components", "components": "components",
    "affects version/s": "versions", "affects versions": "versions", "fix version/s": "fixVersions",
    "fix versions": "fixVersions",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Html:
    """Text that the export rendered as HTML."""

    text: str


def is_csv(head: str) -> bool:
    """Whether a file that begins so is a CSV export of issues."""
    columns = _columns(head.lstrip("\ufeff \r\n").partition("\n")[0])
    return "summary" in columns and ("issue key" in columns or "key" in columns)


def rss_issues(raw: RawObject, path: Path, limit: int) -> Iterator[Found | Rejected]:
    for found in find_elements(raw, path, _ITEM_DEPTH, limit, frozenset(["item"])):
        yield Found(_rss_issue(found.element), found.locator) if isinstance(found, FoundElement) else found


def csv_issues(raw: RawObject, path: Path, limit: int) -> Iterator[Found | Rejected]:
    csv.field_size_limit(max(csv.field_size_limit(), limit))
    with closing(open_utf8(path)) as file:
        lines = _lines(file, limit)
        first = next((line for line in lines if line.strip()), "")
        header = _columns(first)
        rows = csv.reader(lines, delimiter=_delimiter(first), strict=True)
        number = 1
        while True:
            number += 1
            locator = f"row {number}"
            try:
                row = next(rows)
            except StopIteration:
                return
            except csv.Error as error:
                cut = "end of data" in str(error)
                detail = "The file ends inside a quoted cell." if cut else f"The row is not CSV: {error}."
                yield reject(raw, "truncated" if cut else "broken", detail, locator=locator)
                continue
            if not any(row):
                continue
            if len(row) != len(header):
                detail = f"The row has {len(row)} cells, the header {len(header)}."
                yield reject(raw, "ragged_row", detail, locator=locator, sample=",".join(row)[:400])
                continue
            yield Found(_csv_issue(header, row), locator)


def _rss_issue(item: etree._Element) -> dict[str, Any]:
    def text(tag: str) -> str:
        return child_text(item, tag).strip()

    def texts(tag: str) -> list[str]:
        return [value for found in item.findall(tag) if (value := whole_text(found).strip())]

    def named(tag: str) -> dict[str, str]:
        return {"name": text(tag)}

    def user(tag: str) -> dict[str, Any]:
        found = item.find(tag)
        if found is None or found.get("username") == "-1" or found.get("accountid") == "-1":
            return {}
        return {"displayName": whole_text(found).strip(), "name": found.get("username")}

    resolved, resolution, project = _mail_date(text("resolved")), text("resolution"), item.find("project")
    comments = [
        {"author": {"displayName": found.get("author")}, "body": Html(whole_text(found))}
        for found in item.findall("comments/comment")
    ]
    return {
        "key": text("key"),
        "url": text("link"),
        "fields": {
            "summary": text("summary") or re.sub(r"\A\[[^\]]{1,40}\]\s*", "", text("title")),
            "description": Html(text("description")),
            "environment": Html(text("environment")),
            "status": named("status"),
            "resolution": {} if resolution == "Unresolved" else {"name": resolution},
            "priority": named("priority"),
            "issuetype": named("type"),
            "reporter": user("reporter"),
            "assignee": user("assignee"),
            "labels": texts("labels/label"),
            "components": texts("component"),
            "versions": texts("version"),
            "fixVersions": texts("fixVersion"),
            "parent": {"key": text("parent") or None},
            "project": {"key": project.get("key") if project is not None else None},
            "created": _mail_date(text("created")),
            "updated": _mail_date(text("updated")),
            "resolutiondate": resolved,
            "votes": {"votes": _number(text("votes"))},
            "watches": {"watchCount": _number(text("watches"))},
            "issuelinks": list(_rss_links(item)),
            "attachment": [
                {"filename": found.get("name")} for found in item.findall("attachments/attachment")
            ],
            "subtasks": texts("subtasks/subtask"),
            "comment": {"comments": comments},
        },
    }


def _rss_links(item: etree._Element) -> Iterator[dict[str, Any]]:
    for side, issue in (("outward", "outwardIssue"), ("inward", "inwardIssue")):
        for group in item.findall(f"issuelinks/issuelinktype/{side}links"):
            for key in group.findall("issuelink/issuekey"):
                yield {"type": {side: group.get("description")}, issue: {"key": whole_text(key).strip()}}


def _csv_issue(header: list[str], row: list[str]) -> dict[str, Any]:
    values: dict[str, list[str]] = {}
    for column, cell in zip(header, row, strict=True):
        if cell.strip():
            values.setdefault(column, []).append(cell)

    def first(*columns: str) -> str:
        return next((values[column][0].strip() for column in columns if column in values), "")

    fields: dict[str, Any] = {
        "summary": first("summary"),
        "description": first("description"),
        "environment": first("environment"),
        "project": {"key": first("project key") or None},
        "parent": {"key": next(iter(_ISSUE_KEY.findall(first("parent", "parent key"))), None)},
        "created": _csv_date(first("created")),
        "updated": _csv_date(first("updated")),
        "resolutiondate": _csv_date(first("resolved")),
        "votes": {"votes": _number(first("votes"))},
        "watches": {"watchCount": _number(first("watchers count")) or len(values.get("watchers", []))},
        "comment": {"comments": [_csv_comment(cell) for cell in values.get("comment", [])]},
        "attachment": [{"filename": cell} for cell in values.get("attachment", [])],
        "subtasks": values.get("sub-tasks", []),
        "issuelinks": list(_csv_links(values)),
    }
    for column, name in _NAMED.items():
        if value := first(column):
            fields[name] = {"name": value}
    if first("resolution") == "Unresolved":
        del fields["resolution"]
    for name in _USERS:
        if value := first(name):
            fields[name] = {"displayName": value}
    for column, name in _LISTS.items():
        if column in values:
            fields[name] = [value.strip() for value in values[column]]
    return {"key": first("issue key", "key"), "fields": fields}


def _csv_links(values: dict[str, list[str]]) -> Iterator[dict[str, Any]]:
    for column, cells in values.items():
        found = _LINK_COLUMN.match(column)
        if not found and column != "linked issues":
            continue
        for cell in cells:
            for key in _ISSUE_KEY.findall(cell):
                side = found.group(1) if found else "outward"
                verb = found.group(2) if found else "relates to"
                yield {"type": {side: f"{verb} ({side})" if found else verb}, f"{side}Issue": {"key": key}}


def _csv_comment(cell: str) -> dict[str, Any]:
    """A comment cell reads "date;author;text"; one of another form is all text."""
    found = _COMMENT_CELL.match(cell)
    if not found or not _csv_date(found.group(1)):
        return {"body": cell}
    return {"author": {"displayName": found.group(2)}, "body": found.group(3)}


def _columns(line: str) -> list[str]:
    try:
        row = next(csv.reader([line.rstrip("\r\n")], delimiter=_delimiter(line)), [])
    except csv.Error:
        return []
    return [column.strip().lower() for column in row]


def _delimiter(line: str) -> str:
    return max(_DELIMITERS, key=line.count)


def _lines(file: BinaryIO, limit: int) -> Iterator[str]:
    while line := file.readline(limit + 1):
        try:
            text = line.decode()
        except UnicodeDecodeError:
            text = decode(line).text
        yield text.replace("\0", "")


def _mail_date(text: str) -> str | None:
    try:
        return parsedate_to_datetime(text).isoformat()
    except (TypeError, ValueError, IndexError):
        return None


def _csv_date(text: str) -> str | None:
    if not text:
        return None
    try:
        return datetime.fromisoformat(text).isoformat()
    except ValueError:
        pass
    for form in _CSV_DATES:
        try:
            return datetime.strptime(text, form).isoformat()
        except ValueError:
            continue
    return None


def _number(text: str) -> float | None:
    return float(text) if text.isdecimal() else None
