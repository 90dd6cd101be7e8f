"""Pull requests, issues and commits of GitHub and GitLab in one shape, whichever API or tool printed them.

| shape | known by |
|---|---|
| GitHub REST pull request, also inside an issue list | `number`, snake_case |
| GitHub REST issue | `number` and an address with /issues/, or a `state_reason` |
| `gh pr list --json ...`, `gh issue view --json ...` | `number`, camelCase |
| GitHub GraphQL node | the same, lists as `nodes` or `edges`, counts as `totalCount` |
| GitLab REST or GraphQL merge request or issue | `iid` |
| commit of GitHub REST (`commit`), GraphQL (`oid`), GitLab (`short_id`) | no `number` and no `iid` |
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from alchemy.sources.drafts import as_dict, as_list, as_number, iso, names, optional_text, required

_HUMP = re.compile(r"(?<=[a-z0-9])([A-Z])")
_ADDRESS = re.compile(r"https?://[^/\s]+/(?:api/v3/)?(?:repos/)?([^/\s]+/[^/\s]+)/(pulls?|issues)/\d+")
_GITLAB_ADDRESS = re.compile(r"https?://[^/\s]+/([^\s]{3,300}?)/-/(merge_requests|issues|work_items)/\d+")
_PULL_FIELDS = frozenset((
    "base", "head", "merged_at", "base_ref_name", "head_ref_name", "pull_request", "changed_files",
    "review_comments", "merge_commit_sha",
))  # fmt: skip
_PULL_METRICS = (
    "additions",
    "deletions",
    "changed_files",
    "comments",
    "review_comments",
    "commits",
    "reviews",
)


@dataclass(frozen=True, slots=True)
class Discussion:
    """A pull request, merge request or issue with what was said in it."""

    kind: str  # pull_request or issue
    key: str
    title: str
    body: str
    repository: str
    state: str
    author: str
    created: str
    updated: str
    merged: str
    closed: str
    base: str
    milestone: str
    url: str
    labels: tuple[str, ...] = ()
    comments: tuple[tuple[str, str], ...] = ()  # author and Markdown
    comments_truncated: str = ""  # "12 of 40"
    metrics: dict[str, float | None] = field(default_factory=dict)
    users: tuple[Any, ...] = ()  # names to mask


def is_discussion(record: Mapping[str, Any]) -> bool:
    return "number" in record or "iid" in record


def discussion(record: dict[str, Any]) -> Discussion:
    """Raises Unreadable where the number or title is missing or of the wrong type."""
    record = {_HUMP.sub(r"_\1", name).lower(): value for name, value in record.items()}
    return _gitlab(record) if "iid" in record else _github(record)


def commit(record: dict[str, Any]) -> dict[str, Any]:
    """A commit of an API as the records of our JSON lines have it; those are returned as they are."""
    if isinstance(record.get("commit"), dict) and "subject" not in record:  # GitHub REST
        inner, author = record["commit"], as_dict(record["commit"].get("author"))
        message, stats = inner.get("message"), as_dict(record.get("stats"))
        given: dict[str, Any] = {
            "sha": record.get("sha"),
            "committer": as_dict(inner.get("committer")).get("name"),
            "author": author.get("name"),
            "email": author.get("email"),
            "date": author.get("date"),
            "parents": names(record.get("parents"), "sha"),
            "files": record.get("files"),
            "html_url": record.get("html_url"),
        }
    elif "short_id" in record and "sha" not in record:  # GitLab REST
        message, stats = record.get("message") or record.get("title"), as_dict(record.get("stats"))
        given = {
            "sha": record.get("id"),
            "committer": record.get("committer_name"),
            "author": record.get("author_name"),
            "email": record.get("author_email"),
            "date": record.get("authored_date") or record.get("created_at"),
            "parents": as_list(record.get("parent_ids")),
            "html_url": record.get("web_url"),
        }
    elif "oid" in record and "sha" not in record:  # GitHub GraphQL, gh --json commits
        author = as_dict(record.get("author")) or as_dict(next(iter(_nodes(record.get("authors"))), None))
        headline, body = record.get("messageHeadline"), record.get("messageBody")
        message = record.get("message") or f"{headline or ''}\n\n{body or ''}"
        stats = record
        given = {
            "sha": record.get("oid"),
            "author": author.get("name"),
            "email": author.get("email"),
            "date": record.get("authoredDate") or record.get("committedDate"),
            "parents": names(_nodes(record.get("parents")), "oid"),
            "repo": as_dict(record.get("repository")).get("nameWithOwner"),
            "html_url": record.get("url"),
        }
    else:
        return record
    if isinstance(message, str):
        subject, _, body = message.strip().partition("\n")
        given |= {"subject": subject.strip(), "body": body.strip("\r\n")}
    return {**given, "additions": stats.get("additions"), "deletions": stats.get("deletions")}


def _github(record: dict[str, Any]) -> Discussion:
    number, title = required(record, "number"), required(record, "title")
    address = next((record[name] for name in ("html_url", "url") if isinstance(record.get(name), str)), "")
    found = _ADDRESS.match(address)
    pull = not _PULL_FIELDS.isdisjoint(record) or not (
        "state_reason" in record
        or record.get("__typename") == "Issue"
        or (found and found.group(2) == "issues")
    )
    author = _login(record.get("user") or record.get("author"))
    merged = iso(record.get("merged_at") or as_dict(record.get("pull_request")).get("merged_at"))
    repository = _github_repository(record, found.group(1) if found else "")
    comments, truncated = _comments(record)
    users = [record.get(name) for name in ("user", "author", "merged_by")]
    for name in ("assignees", "requested_reviewers", "comments", "reviews", "latest_reviews", "participants"):
        users += [as_dict(user).get("author") or user for user in _nodes(record.get(name))]
    wanted = _PULL_METRICS if pull else ("comments",)
    metrics = {name: _count(record.get(name)) for name in wanted}
    metrics["reactions"] = _count(record.get("reactions"))
    return Discussion(
        kind="pull_request" if pull else "issue",
        key=f"{repository}#{number}",
        title=title,
        body=optional_text(record, "body"),
        repository=repository,
        state="merged" if merged else _text(record.get("state")).lower(),
        author=author,
        created=iso(record.get("created_at")),
        updated=iso(record.get("updated_at")),
        merged=merged,
        closed=iso(record.get("closed_at")),
        base=_text(as_dict(record.get("base")).get("ref") or record.get("base_ref_name")),
        milestone=_text(as_dict(record.get("milestone")).get("title")),
        url=address if "/repos/" not in address else "",
        labels=tuple(names(_nodes(record.get("labels")))),
        comments=comments,
        comments_truncated=truncated,
        metrics=metrics,
        users=tuple(as_dict(user).get(name) for user in users for name in ("login", "name")),
    )


def _github_repository(record: dict[str, Any], found: str) -> str:
    base, owner = as_dict(as_dict(record.get("base")).get("repo")), as_dict(record.get("repository"))
    api = record.get("repository_url")
    return (
        _text(base.get("full_name"))
        or _text(owner.get("nameWithOwner") or owner.get("full_name"))
        or found
        or ("/".join(api.rsplit("/", 2)[-2:]) if isinstance(api, str) else "")
    )


def _gitlab(record: dict[str, Any]) -> Discussion:
    number, title = required(record, "iid"), required(record, "title")
    address = _text(record.get("web_url"))
    found = _GITLAB_ADDRESS.match(address)
    merge = found.group(2) == "merge_requests" if found else "target_branch" in record
    reference = _text(as_dict(record.get("references")).get("full")).rstrip("0123456789").rstrip("#!")
    repository = reference or (found.group(1) if found else "")
    place = repository or _text(record.get("project_id"))
    merged = iso(record.get("merged_at"))
    comments, truncated = _comments(record)
    users = [record.get(name) for name in ("author", "assignee", "merged_by", "merge_user", "closed_by")]
    for name in ("assignees", "reviewers", "notes"):
        users += [as_dict(user).get("author") or user for user in _nodes(record.get(name))]
    changes = _text(record.get("changes_count")).rstrip("+")
    return Discussion(
        kind="pull_request" if merge else "issue",
        # Merge requests and issues of a project are numbered apart; "!" is GitLab's own mark.
        key=f"{place}{'!' if merge else '#'}{number}",
        title=title,
        body=optional_text(record, "description"),
        repository=repository,
        state="merged" if merged else _text(record.get("state")).lower(),
        author=_login(record.get("author")),
        created=iso(record.get("created_at")),
        updated=iso(record.get("updated_at")),
        merged=merged,
        closed=iso(record.get("closed_at")),
        base=_text(record.get("target_branch")),
        milestone=_text(as_dict(record.get("milestone")).get("title")),
        url=address,
        labels=tuple(names(_nodes(record.get("labels"))) or names(_nodes(record.get("labels")), "title")),
        comments=comments,
        comments_truncated=truncated,
        metrics={
            "comments": _count(record.get("user_notes_count")) or _count(record.get("notes")),
            "upvotes": as_number(record.get("upvotes")),
            "downvotes": as_number(record.get("downvotes")),
            "changed_files": float(changes) if merge and changes.isdecimal() else None,
        },
        users=tuple(as_dict(user).get(name) for user in users for name in ("username", "name")),
    )


def _comments(record: dict[str, Any]) -> tuple[tuple[tuple[str, str], ...], str]:
    """Comments and reviews that have a text, and "12 of 40" where the page does not hold all comments."""
    said = []
    for name in ("comments", "reviews", "notes"):
        for entry in _nodes(record.get(name)):
            comment = as_dict(entry)
            text = comment.get("body")
            if isinstance(text, str) and text.strip() and not comment.get("system"):
                said.append((_login(comment.get("author") or comment.get("user")), text))
    holder = record.get("comments")
    total = as_number(as_dict(holder).get("totalCount"))
    held = len(_nodes(holder))
    return tuple(said), f"{held} of {total:.0f}" if total and held < total else ""


def _nodes(value: Any) -> list[Any]:
    """The elements of a list, or of a GraphQL connection."""
    holder = as_dict(value)
    if "edges" in holder and "nodes" not in holder:
        return [as_dict(edge).get("node") for edge in as_list(holder["edges"])]
    return as_list(holder.get("nodes")) if holder else as_list(value)


def _count(value: Any) -> float | None:
    if isinstance(value, list):
        return float(len(value))
    holder = as_dict(value)
    if not holder:
        return as_number(value)
    total = as_number(holder.get("totalCount"))
    return as_number(holder.get("total_count")) if total is None else total


def _login(user: Any) -> str:
    known = as_dict(user)
    return _text(known.get("login") or known.get("username") or known.get("name"))


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else ""
