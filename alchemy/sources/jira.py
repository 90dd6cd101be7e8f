"""Jira issues: what its REST API returns, and what its users export.

| shape | known by |
|---|---|
| REST v2 and v3 search pages (`issues`), also one after another or slurped into one array | JSON |
| a bare array of issues, JSON lines, one issue per file | JSON |
| RSS 0.92 ("Export XML") | `<rss` or `<item` |
| `entities.xml` of a backup | `<entity-engine-xml` |
| CSV with repeated headers | a header with "Issue key" and "Summary" |

Texts are wiki markup (v2, CSV, backup), document trees (v3) or HTML (RSS). A page that holds fewer comments
than the issue has says so in the field `comments_truncated`.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from alchemy.records import Draft, RawObject, Rejected
from alchemy.settings import CleanOptions
from alchemy.sources.adf import adf_parts, is_document
from alchemy.sources.drafts import (
    as_dict,
    as_list,
    as_number,
    comma,
    days_between,
    draft,
    iso,
    names,
    one_line,
    people,
    required,
)
from alchemy.sources.jira_backup import backup_issues, is_backup
from alchemy.sources.jira_export import Html, csv_issues, is_csv, rss_issues
from alchemy.sources.json_records import Found, build_all, head_text, read_records
from alchemy.sources.reasons import Unreadable, reject
from alchemy.sources.wiki import WikiText, wiki_parts
from alchemy.text.html import heading_part, parse_html, read_html

_PRIORITIES = {
    "blocker": 5, "critical": 4, "major": 3, "minor": 2, "trivial": 1,
    "highest": 5, "high": 4, "medium": 3, "low": 2, "lowest": 1,
}  # fmt: skip
_HISTORY_CHARACTERS = 400


def read(raw: RawObject, path: Path, options: CleanOptions) -> Iterator[Draft | Rejected]:
    limit = options.max_document_bytes
    head = head_text(path)
    if head.startswith("<") and ("<rss" in head or "<item" in head):
        yield from build_all(raw, rss_issues(raw, path, limit), _build)
    elif head.startswith("<") and is_backup(head):
        yield from build_all(raw, backup_issues(raw, path, limit), _build)
    elif head.startswith("<"):
        detail = "The file is XML or HTML, but neither an RSS export of issues nor a backup."
        yield reject(raw, "unsupported", detail, sample=head[:400])
    elif not head.startswith(("{", "[")) and is_csv(head):
        yield from build_all(raw, csv_issues(raw, path, limit), _build)
    else:
        yield from read_records(raw, path, _build, ("issues",), limit)


def _build(found: Found) -> Draft:
    issue = found.value
    key = required(issue, "key")
    fields = issue.get("fields")
    if fields is None:
        raise Unreadable("missing_field", "The issue has no 'fields'.")
    if not isinstance(fields, dict):
        raise Unreadable("wrong_shape", "The field 'fields' is not an object.")
    summary = required(fields, "summary")
    description = fields.get("description")
    body = _text(description, "description")
    environment = _text(fields.get("environment"), "environment")
    comments = _comments(fields)
    parts = list(body.parts)
    if _has_text(environment):
        parts += [heading_part("Environment", 2), *environment.parts]
    for author, comment in comments:
        parts += [heading_part(f"Comment by {author}" if author else "Comment", 2), *comment.parts]
    texts = [body, environment, *(comment for _, comment in comments)]
    created, updated = fields.get("created"), fields.get("updated")
    resolved = fields.get("resolutiondate")
    project = as_dict(fields.get("project")).get("key") or key.rpartition("-")[0]
    total = _total(fields.get("comment"), _returned(fields.get("comment")))
    missing = int(total) - _returned(fields.get("comment"))
    statuses = _statuses(issue.get("changelog"))
    links = [link for link in map(_link, as_list(fields.get("issuelinks"))) if link]
    return draft(
        "issue",
        key,
        summary,
        parts,
        found.locator,
        project=project,
        fields={
            "status": _name(fields.get("status")),
            "resolution": _name(fields.get("resolution")),
            "priority": _name(fields.get("priority")),
            "type": _name(fields.get("issuetype")),
            "reporter": _user(fields.get("reporter")),
            "assignee": _user(fields.get("assignee")),
            "labels": comma(names(fields.get("labels"))),
            "components": comma(names(fields.get("components"))),
            "versions": comma(names(fields.get("versions"))),
            "fix_versions": comma(names(fields.get("fixVersions"))),
            "parent": as_dict(fields.get("parent")).get("key"),
            "links": comma(links),
            "created": iso(created),
            "resolved": iso(resolved),
            "comments_truncated": f"{int(total) - missing} of {int(total)}" if missing else "",
            "status_history": one_line(" > ".join(statuses or ()), _HISTORY_CHARACTERS),
        },
        metrics={
            "comments": total,
            "comments_missing": missing or None,
            "status_changes": None if statuses is None else max(len(statuses) - 1, 0),
            "votes": as_dict(fields.get("votes")).get("votes"),
            "watches": as_dict(fields.get("watches")).get("watchCount"),
            "priority_rank": _PRIORITIES.get(_name(fields.get("priority")).lower()),
            "age_days": days_between(created, resolved or updated),
            "resolution_days": days_between(created, resolved),
            "links": len(links),
            "attachments": len(as_list(fields.get("attachment"))),
            "subtasks": len(as_list(fields.get("subtasks"))),
            "description_length": _length(description, body),
        },
        people=_people(issue, fields, [name for text in texts for name in text.mentions]),
        url=_browse(issue.get("self"), key) or _web(issue.get("url")),
        updated=iso(updated) or iso(resolved) or iso(created),
    )


def _comments(fields: dict[str, Any]) -> list[tuple[str, WikiText]]:
    """Author and text of each comment in order."""
    holder = fields.get("comment")
    comments = as_list(holder.get("comments")) if isinstance(holder, dict) else as_list(holder)
    found = []
    for comment in comments:
        if not isinstance(comment, dict):
            raise Unreadable("wrong_shape", "A comment of the issue is not an object.")
        text = _text(comment.get("body"), "comment.body")
        if _has_text(text):
            found.append((_user(comment.get("author")), text))
    return found


def _text(value: Any, name: str) -> WikiText:
    """Parts of wiki markup, of a v3 document tree, or of an export's HTML."""
    if value is None:
        return WikiText()
    if isinstance(value, str):
        return wiki_parts(value)
    if isinstance(value, Html):
        page = read_html(parse_html(value.text))
        return WikiText(page.parts, links=page.links, code_blocks=page.code_blocks)
    if is_document(value):
        return adf_parts(value)
    raise Unreadable("wrong_shape", f"The field {name!r} is neither text nor a document.")


def _length(value: Any, text: WikiText) -> int:
    return len(value) if isinstance(value, str) else sum(len(part.text) for part in text.parts)


def _has_text(text: WikiText) -> bool:
    return any(part.text.strip() for part in text.parts)


def _name(value: Any) -> str:
    name = as_dict(value).get("name") or as_dict(value).get("value")
    return name if isinstance(name, str) else ""


def _user(value: Any) -> str:
    user = as_dict(value)
    return one_line(user.get("displayName") or user.get("name") or "")


def _link(value: Any) -> str:
    """A linked issue in words: "is duplicated by HADOOP-1"."""
    link = as_dict(value)
    for side, verb in (("outwardIssue", "outward"), ("inwardIssue", "inward")):
        key = as_dict(link.get(side)).get("key")
        if isinstance(key, str):
            return f"{as_dict(link.get('type')).get(verb) or 'relates to'} {key}"
    return ""


def _total(holder: Any, counted: int) -> float:
    total = as_number(as_dict(holder).get("total"))
    return max(total or 0.0, float(counted))


def _returned(holder: Any) -> int:
    return len(as_list(holder.get("comments") if isinstance(holder, dict) else holder))


def _statuses(changelog: Any) -> list[str] | None:
    """The statuses that an issue went through, oldest first; None where the export has no history."""
    if not isinstance(changelog, dict):
        return None
    found: list[tuple[str, str, str]] = []
    for history in as_list(changelog.get("histories") or changelog.get("values")):
        for item in as_list(as_dict(history).get("items")):
            change = as_dict(item)
            if change.get("field") == "status":
                when = iso(as_dict(history).get("created"))
                found.append((when, one_line(change.get("fromString")), one_line(change.get("toString"))))
    found.sort(key=lambda change: change[0])  # v2 returns the oldest first, v3 the newest
    return [found[0][1], *(to for _, _, to in found)] if found else []


def _people(issue: dict[str, Any], fields: dict[str, Any], mentions: list[str]) -> list[str]:
    users = [fields.get(name) for name in ("reporter", "assignee", "creator")]
    holder = fields.get("comment")
    for comment in as_list(holder.get("comments") if isinstance(holder, dict) else holder):
        users += [as_dict(comment).get("author"), as_dict(comment).get("updateAuthor")]
    users += [as_dict(item).get("author") for item in as_list(fields.get("attachment"))]
    changes = as_list(as_dict(issue.get("changelog")).get("histories"))
    users += [as_dict(item).get("author") for item in changes]
    known = [as_dict(user).get(name) for user in users for name in ("displayName", "name", "emailAddress")]
    return people(*known, *mentions)


def _browse(self_url: Any, key: str) -> str:
    """The page that people open, from the address of the REST resource."""
    base = self_url.partition("/rest/api/")[0] if isinstance(self_url, str) else ""
    return f"{base}/browse/{key}" if base.startswith(("http://", "https://")) else ""


def _web(url: Any) -> str:
    return url if isinstance(url, str) and url.startswith(("http://", "https://")) else ""
