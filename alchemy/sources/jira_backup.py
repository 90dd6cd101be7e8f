"""`entities.xml` of a Jira backup as the issues that the REST API would return: one builder reads all.

| element | gives an issue its |
|---|---|
| `Issue` | key, texts, dates, numbers; the rest are ids of other elements |
| `Action` | comments |
| `ChangeGroup`, `ChangeItem` | history of statuses |
| `IssueLink`, `IssueLinkType` | links, parent and subtasks |
| `NodeAssociation`, `Component`, `Version` | components and versions |
| `Label`, `FileAttachment` | labels and attachments |
| `Project`, `Status`, `Resolution`, `Priority`, `IssueType` | names of these |
| `ApplicationUser`, `User` | people |

The elements stand in no useful order, and there may be more comments than memory, so the file is read twice:
first everything that issues point at goes into a database on disk, then the issues are put together one by
one. A value is an attribute, or a child element where it has several lines. Dates have no zone.
"""

import errno
import re
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from lxml import etree

from alchemy.records import RawObject, Rejected
from alchemy.sources.json_records import Found
from alchemy.sources.reasons import reject
from alchemy.sources.safe_xml import find_elements, whole_text

_DEPTH = 2  # entity-engine-xml > Issue
_ROOT = re.compile(r"<entity-engine-xml\b")


@dataclass(frozen=True, slots=True)
class _Kind:
    """Elements of one name: what they are found by, and the fields that are kept."""

    fields: tuple[str, ...]
    id: str = "id"
    owner: str = ""  # the field with the id of what they belong to


_NAMED = _Kind(("name",))
_KINDS = {
    "Action": _Kind(("type", "author", "body", "created"), owner="issue"),
    "ApplicationUser": _Kind(("lowerUserName",), id="userKey"),
    "ChangeGroup": _Kind(("author", "created"), owner="issue"),
    "ChangeItem": _Kind(("field", "oldstring", "newstring"), owner="group"),
    "Component": _NAMED,
    "FileAttachment": _Kind(("filename", "author"), owner="issue"),
    "Issue": _Kind(("key", "project", "number")),
    "IssueLink": _Kind(("linktype", "source", "destination"), owner="source"),
    "IssueLinkType": _Kind(("inward", "outward", "style")),
    "IssueType": _NAMED,
    "Label": _Kind(("label", "fieldid"), owner="issue"),
    "NodeAssociation": _Kind(("sourceNodeEntity", "sinkNodeId", "associationType"), owner="sourceNodeId"),
    "OSPropertyEntry": _Kind((), id="propertyKey", owner="id"),
    "OSPropertyString": _Kind(("value",)),
    "Priority": _NAMED,
    "Project": _Kind(("key", "pkey")),
    "Resolution": _NAMED,
    "Status": _NAMED,
    "User": _Kind(("displayName", "emailAddress"), id="lowerUserName"),
    "Version": _NAMED,
}
_SUBTASK = "jira_subtask"
_BASE_URL = "jira.baseurl"


def is_backup(head: str) -> bool:
    """Whether a file that begins so is a backup."""
    return bool(_ROOT.search(head))


def backup_issues(raw: RawObject, path: Path, limit: int) -> Iterator[Found | Rejected]:
    """Issues in the file's order, then a row for each comment of an issue that is not there."""
    with _entities() as entities:
        for found in find_elements(raw, path, _DEPTH, limit, frozenset(_KINDS)):
            if isinstance(found, Rejected):
                yield found  # and the second reading stops at the same place in silence
            else:
                entities.add(found.element)
        for found in find_elements(raw, path, _DEPTH, limit, frozenset(["Issue"])):
            if isinstance(found, Rejected):
                continue
            if entities.size("Action", found.element.get("id", "")) > limit:
                detail = f"The comments of the issue are larger than {limit} bytes."
                yield reject(raw, "too_large", detail, locator=found.locator)
            else:
                yield Found(_issue(entities, found.element), found.locator)
        for comment in entities.orphans("Action", "Issue"):
            if comment["type"] == "comment":
                detail = "The comment belongs to no issue of the backup."
                locator = f"Action {comment['id']}"
                yield reject(raw, "missing_field", detail, locator=locator, sample=comment["body"][:400])


class _Entities:
    """What issues point at, by kind, id and owner."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self.database = database
        database.execute("PRAGMA journal_mode = OFF")
        database.execute("PRAGMA synchronous = OFF")
        database.execute("CREATE TABLE entity (kind TEXT, id TEXT, owner TEXT, fields TEXT)")
        database.execute("CREATE INDEX by_id ON entity (kind, id)")
        database.execute("CREATE INDEX by_owner ON entity (kind, owner)")

    def add(self, element: etree._Element) -> None:
        values, name = _values(element), str(element.tag)
        kind = _KINDS[name]
        fields = orjson.dumps({field: values.get(field, "") for field in ("id", *kind.fields)}).decode()
        rows = [(name, values.get(kind.id, ""), values.get(kind.owner, ""), fields)]
        if name == "IssueLink":  # found from its other end too
            rows.append(("Destination", "", values.get("destination", ""), fields))
        try:
            self.database.executemany("INSERT INTO entity VALUES (?, ?, ?, ?)", rows)
        except sqlite3.OperationalError as error:
            if "full" in str(error):
                raise OSError(errno.ENOSPC, str(error)) from error
            raise

    def get(self, kind: str, identity: str) -> dict[str, str]:
        """One element's fields; none of them if it is not there."""
        query = "SELECT fields FROM entity WHERE kind = ? AND id = ?"
        row = self.database.execute(query, (kind, identity)).fetchone() if identity else None
        return orjson.loads(row[0]) if row else {}

    def of(self, kind: str, owner: str) -> list[dict[str, str]]:
        """What belongs to an element, the oldest first where it has a date."""
        query = "SELECT fields FROM entity WHERE kind = ? AND owner = ? ORDER BY rowid"
        found = [orjson.loads(row[0]) for row in self.database.execute(query, (kind, owner))]
        return sorted(found, key=lambda fields: fields.get("created", ""))

    def size(self, kind: str, owner: str) -> int:
        """Characters of what belongs to an element."""
        query = "SELECT coalesce(sum(length(fields)), 0) FROM entity WHERE kind = ? AND owner = ?"
        found: int = self.database.execute(query, (kind, owner)).fetchone()[0]
        return found

    def orphans(self, kind: str, owner: str) -> Iterator[dict[str, str]]:
        query = (
            "SELECT fields FROM entity AS one WHERE kind = ? AND NOT EXISTS"
            " (SELECT 1 FROM entity WHERE kind = ? AND id = one.owner)"
        )
        for row in self.database.execute(query, (kind, owner)):
            yield orjson.loads(row[0])


@contextmanager
def _entities() -> Iterator[_Entities]:
    with (
        tempfile.NamedTemporaryFile(prefix="alchemy-backup-", suffix=".sqlite") as file,
        closing(sqlite3.connect(file.name)) as database,
    ):
        yield _Entities(database)


def _issue(entities: _Entities, element: etree._Element) -> dict[str, Any]:
    values = _values(element)
    identity, key = values.get("id", ""), _key(entities, values)
    sinks: dict[str, list[str]] = {}
    for sink in entities.of("NodeAssociation", identity):
        if sink["sourceNodeEntity"] == "Issue":
            sinks.setdefault(sink["associationType"], []).append(sink["sinkNodeId"])
    links = list(_links(entities, identity))
    base = entities.get("OSPropertyString", entities.get("OSPropertyEntry", _BASE_URL).get("id", ""))

    def all_names(kind: str, association: str) -> list[str]:
        return [entities.get(kind, sink).get("name", "") for sink in sinks.get(association, [])]

    return {
        "key": key,
        "url": f"{base['value'].rstrip('/')}/browse/{key}" if base else None,
        "fields": {
            **{name: values.get(name) for name in ("summary", "description", "environment")},
            **{name: values.get(name) for name in ("created", "updated", "resolutiondate")},
            "status": entities.get("Status", values.get("status", "")),
            "resolution": entities.get("Resolution", values.get("resolution", "")),
            "priority": entities.get("Priority", values.get("priority", "")),
            "issuetype": entities.get("IssueType", values.get("type", "")),
            **{name: _user(entities, values.get(name, "")) for name in ("reporter", "assignee", "creator")},
            "project": {"key": _project(entities, values)},
            "labels": [one["label"] for one in entities.of("Label", identity) if not one["fieldid"]],
            "components": all_names("Component", "IssueComponent"),
            "versions": all_names("Version", "IssueVersion"),
            "fixVersions": all_names("Version", "IssueFixVersion"),
            "parent": next((link["parent"] for link in links if "parent" in link), None),
            "subtasks": [link["subtask"] for link in links if "subtask" in link],
            "issuelinks": [link for link in links if "type" in link],
            "votes": {"votes": _number(values.get("votes", ""))},
            "watches": {"watchCount": _number(values.get("watches", ""))},
            "attachment": [
                {"filename": one["filename"], "author": _user(entities, one["author"])}
                for one in entities.of("FileAttachment", identity)
            ],
            "comment": {
                "comments": [
                    {"author": _user(entities, one["author"]), "body": one["body"]}
                    for one in entities.of("Action", identity)
                    if one["type"] == "comment"
                ]
            },
        },
        "changelog": {"histories": list(_histories(entities, identity))},
    }


def _histories(entities: _Entities, issue: str) -> Iterator[dict[str, Any]]:
    for group in entities.of("ChangeGroup", issue):
        items = [
            {"field": item["field"], "fromString": item["oldstring"], "toString": item["newstring"]}
            for item in entities.of("ChangeItem", group["id"])
        ]
        yield {"created": group["created"], "author": _user(entities, group["author"]), "items": items}


def _links(entities: _Entities, issue: str) -> Iterator[dict[str, Any]]:
    """Links of both directions; those to a parent and to subtasks are `parent` and `subtask`."""
    sides = (
        ("IssueLink", "destination", "outward", "subtask"),
        ("Destination", "source", "inward", "parent"),
    )
    for kind, end, side, relative in sides:
        for link in entities.of(kind, issue):
            other = {"key": _key(entities, entities.get("Issue", link[end]))}
            verbs = entities.get("IssueLinkType", link["linktype"])
            if not other["key"]:
                continue
            if verbs.get("style") == _SUBTASK:
                yield {relative: other}
            else:
                yield {"type": verbs, f"{side}Issue": other}


def _key(entities: _Entities, issue: dict[str, str]) -> str:
    """`HAUL-7`; backups of Jira 6.1 to 6.4 may give the project and the number only."""
    if issue.get("key"):
        return issue["key"]
    project, number = _project(entities, issue), issue.get("number")
    return f"{project}-{number}" if project and number else ""


def _project(entities: _Entities, issue: dict[str, str]) -> str:
    project = entities.get("Project", issue.get("project", ""))
    return project.get("key") or project.get("pkey") or ""


def _user(entities: _Entities, key: str) -> dict[str, str]:
    name = entities.get("ApplicationUser", key).get("lowerUserName") or key
    user = entities.get("User", name.lower())
    return {"name": name, **{field: value for field, value in user.items() if field != "id" and value}}


def _values(element: etree._Element) -> dict[str, str]:
    children = {str(child.tag): whole_text(child) for child in element}
    return {**{str(name): str(value) for name, value in element.attrib.items()}, **children}


def _number(text: str) -> float | None:
    return float(text) if text.isdecimal() else None
