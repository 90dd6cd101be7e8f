"""Pages as Confluence's REST API returns them, in version 1 and 2, with any of its body formats.

| body | as |
|---|---|
| `storage` | storage format; preferred, because it keeps code blocks |
| `atlas_doc_format` | a document tree as JSON text |
| `view`, `export_view`, `styled_view`, `editor` | rendered HTML |
| `wiki` | wiki markup |

Drafts, deleted pages and old versions are rows (`not_current`), and so are attachments and other types.
"""

from typing import Any

from alchemy.records import Draft, Part
from alchemy.sources.adf import is_document
from alchemy.sources.drafts import as_dict, as_list, as_number, comma, draft, iso, names, people, required
from alchemy.sources.json_records import Found, parse
from alchemy.sources.page_content import (
    document_body,
    html_body,
    page_metrics,
    storage_body,
    wiki_body,
    without_title,
)
from alchemy.sources.reasons import Unreadable
from alchemy.text.html import HtmlText, heading_part

_HTML_BODIES = ("view", "export_view", "styled_view", "editor", "editor2", "anonymous_export_view")
_TYPES = frozenset(("page", "blogpost", "folder", "whiteboard"))


def rest_page(found: Found) -> Draft:
    """One page; raises Unreadable for what is none."""
    page = as_dict(found.value.get("content")) or found.value  # the search API wraps its hits
    if isinstance(page.get("type"), str) and page["type"] not in _TYPES:
        raise Unreadable("unsupported", f"The record is of the type {page['type'][:40]!r}, not a page.")
    identity, title = required(page, "id"), required(page, "title")
    status = page.get("status")
    if isinstance(status, str) and status != "current":
        raise Unreadable("not_current", f"The page's status is {status[:40]!r}.", "filtered")
    content = _content(page.get("body"))
    if content is None:
        raise Unreadable("missing_field", "The page has no body in a format that is known here.")
    space = as_dict(page.get("space"))
    place = space.get("key") or page.get("spaceKey") or page.get("spaceId") or ""
    version, history = as_dict(page.get("version")), as_dict(page.get("history"))
    users = [version.get("by"), history.get("createdBy"), as_dict(history.get("lastUpdated")).get("by")]
    parts = without_title(content.parts, title)
    metrics: dict[str, Any] = page_metrics(parts, content)
    for author, comment in _comments(page):
        parts = [*parts, heading_part(f"Comment by {author}" if author else "Comment", 2), *comment]
        metrics["comments"] = metrics.get("comments", 0) + 1
        users.append({"displayName": author})
    labels = as_dict(as_dict(page.get("metadata")).get("labels")) or as_dict(page.get("labels"))
    created = iso(history.get("createdDate") or page.get("createdAt"))
    return draft(
        "page",
        f"{place}/{identity}" if place else identity,
        title,
        parts,
        found.locator,
        project=space.get("name") or str(place),
        fields={
            "space": space.get("key") or page.get("spaceKey"),
            "path": " > ".join(names(page.get("ancestors"), "title")),
            "author": as_dict(history.get("createdBy")).get("displayName")
            or as_dict(version.get("by")).get("displayName"),
            "labels": comma(names(labels.get("results"))),
            "created": created,
        },
        metrics={**metrics, "versions": as_number(version.get("number"))},
        people=people(
            *(as_dict(user).get(name) for user in users for name in ("displayName", "username", "publicName"))
        ),
        url=_url(page),
        updated=iso(version.get("when") or version.get("createdAt")) or created,
    )


def _content(body: Any) -> HtmlText | None:
    """The best body that the record holds, None if it holds none."""
    forms = as_dict(body)
    if isinstance(forms.get("value"), str) and isinstance(forms.get("representation"), str):
        forms = {forms["representation"]: forms}
    values = {name: as_dict(form).get("value") for name, form in forms.items()}
    if isinstance(text := values.get("storage"), str):
        return storage_body(text)
    tree = values.get("atlas_doc_format")
    if isinstance(tree, str):
        tree = parse(tree.encode("utf-8", "replace"))
    if isinstance(tree, dict) and is_document(tree):
        return document_body(tree)
    for name in _HTML_BODIES:
        if isinstance(text := values.get(name), str):
            return html_body(text)
    if isinstance(text := values.get("wiki"), str):
        return wiki_body(text)
    return None


def _comments(page: dict[str, Any]) -> list[tuple[str, list[Part]]]:
    """Author and text of the comments that were expanded with the page."""
    found = []
    for entry in as_list(as_dict(as_dict(page.get("children")).get("comment")).get("results")):
        comment = as_dict(entry)
        content = _content(comment.get("body"))
        if content and any(part.text.strip() for part in content.parts):
            by = as_dict(as_dict(comment.get("version")).get("by")) or as_dict(
                as_dict(comment.get("history")).get("createdBy")
            )
            name = by.get("displayName")
            found.append((name if isinstance(name, str) else "", content.parts))
    return found


def _url(page: dict[str, Any]) -> str:
    links = as_dict(page.get("_links"))
    base, path = links.get("base"), links.get("webui")
    if not isinstance(base, str) and isinstance(links.get("self"), str):
        base = links["self"].partition("/rest/api/")[0]
    if isinstance(base, str) and isinstance(path, str) and base.startswith(("http://", "https://")):
        return base + path
    return ""
