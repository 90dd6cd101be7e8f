"""Git history: commits, and the pull requests and issues of GitHub and GitLab.

| shape | read by |
|---|---|
| commits as JSON lines (`sha`, `subject`, `body`, `files` ...) | this module |
| what `git log` and `git format-patch` print | `git_log` |
| what the APIs of GitHub and GitLab and the `gh` tool return, in pages of any outer form | `forge` |

A JSON record is a commit unless it has a `number` or `iid`; all kinds may stand in one file.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from alchemy.records import Draft, Part, RawObject, Rejected
from alchemy.settings import CleanOptions
from alchemy.sources.drafts import (
    as_list,
    as_number,
    comma,
    draft,
    iso,
    issue_keys,
    names,
    optional_text,
    people,
    required,
)
from alchemy.sources.forge import Discussion, commit, discussion, is_discussion
from alchemy.sources.git_log import is_log, is_mailbox, log_commits, mailed_commits
from alchemy.sources.json_records import Found, build_all, head_text, read_records
from alchemy.sources.markdown import markdown_parts, plain_inline
from alchemy.sources.paragraphs import unwrap
from alchemy.sources.reasons import Unreadable
from alchemy.text.html import heading_part

_SHOWN_FILES = 12
_SHOWN_CHARACTERS = 900
_TRAILER = re.compile(
    r"^[ \t]*(?:git-svn-id|change-id|(?:signed-off|co-authored|reviewed|tested|acked|reported|authored)-by)"
    r":[^\n]*$\n?",
    re.I | re.M,
)
_LINK_ITEM = re.compile(r"^[-*] \[[^\]\n]{1,80}\]\([^()\n]{1,500}\)[ \t]*$\n?", re.M)  # "- [Changelog](...)"
_BY = re.compile(r"-by:[ \t]*([^<>\n]{2,60}?)[ \t]*<([^<>\s@]{1,64})@", re.I)
_UPDATED_DEPENDENCIES = re.compile(r"^---\nupdated-dependencies:", re.M)


def read(raw: RawObject, path: Path, options: CleanOptions) -> Iterator[Draft | Rejected]:
    limit = options.max_document_bytes
    head = head_text(path)
    if is_log(head):
        yield from build_all(raw, log_commits(raw, path, limit), _build)
    elif is_mailbox(head):
        yield from build_all(raw, mailed_commits(raw, path, limit), _build)
    else:
        yield from read_records(raw, path, _build, ("items", "commits", "pull_requests"), limit)


def _build(found: Found) -> Draft:
    if is_discussion(found.value):
        return _discussion(discussion(found.value), found.locator)
    record = commit(found.value)
    if "sha" in record:
        return _commit(record, found.locator)
    raise Unreadable(
        "missing_field", "The record has neither a commit's 'sha' nor a pull request's 'number'."
    )


def _commit(record: dict[str, Any], locator: str) -> Draft:
    sha = required(record, "sha")
    subject, body = optional_text(record, "subject"), optional_text(record, "body")
    if not subject:
        raise Unreadable("missing_field", "The commit has no 'subject'.")
    files = record.get("files") or []
    if not isinstance(files, list):
        raise Unreadable("wrong_shape", "The field 'files' is not a list.")
    paths = [name for name in files if isinstance(name, str)] + names(
        [item for item in files if isinstance(item, dict)], "filename"
    )
    count = as_number(record.get("n_files"))
    if count is None and "files" in record:
        count = len(paths)
    parents = as_list(record.get("parents"))
    author, email = record.get("author"), record.get("email")
    date = iso(record.get("date"))
    return draft(
        "commit",
        sha,
        subject,
        [Part(_commit_body(body)), Part(_changed_files(paths, int(count or 0)))],
        locator,
        project=record.get("repo") or record.get("repository") or "",
        fields={
            "author": author,
            "date": date,
            "issues": issue_keys(f"{subject}\n{body}"),
            "parents": comma(parent[:12] for parent in parents if isinstance(parent, str)),
        },
        metrics={
            "files_changed": count,
            "additions": record.get("additions"),
            "deletions": record.get("deletions"),
            "message_length": len(subject) + len(body),
            "parents": len(parents) if isinstance(record.get("parents"), list) else None,
        },
        people=people(author, email, record.get("committer"), *_signers(body)),
        url=record.get("html_url") or record.get("url") or "",
        updated=date,
    )


def _commit_body(body: str) -> str:
    if not body:
        return ""
    body = body.replace("\r\n", "\n")
    generated = _UPDATED_DEPENDENCIES.search(body)  # Dependabot's machine-readable end
    if generated:
        body = body[: generated.start()]
    return unwrap(plain_inline(_LINK_ITEM.sub("", _TRAILER.sub("", body))))


def _changed_files(paths: list[str], count: int) -> str:
    """One readable line; a commit that moves a thousand files would drown what it says."""
    shown: list[str] = []
    length = 0
    for path in paths[:_SHOWN_FILES]:
        length += len(path) + 2
        if shown and length > _SHOWN_CHARACTERS:
            break
        shown.append(path)
    if not shown:
        return ""
    more = count - len(shown)
    return f"Files changed: {', '.join(shown)}{f' and {more} more' if more > 0 else ''}."


def _signers(body: str) -> list[str]:
    return [name for match in _BY.finditer(body) for name in match.groups()] if "-by:" in body.lower() else []


def _discussion(found: Discussion, locator: str) -> Draft:
    markdown = markdown_parts(found.body)
    parts = list(markdown.parts)
    for author, text in found.comments:
        parts += [
            heading_part(f"Comment by {author}" if author else "Comment", 2),
            *markdown_parts(text).parts,
        ]
    held, _, total = found.comments_truncated.partition(" of ")
    return draft(
        found.kind,
        found.key,
        found.title,
        parts,
        locator,
        project=found.repository,
        fields={
            "state": found.state,
            "author": found.author,
            "created_at": found.created,
            "merged_at": found.merged,
            "closed_at": "" if found.merged else found.closed,
            "base": found.base,
            "labels": comma(found.labels),
            "milestone": found.milestone,
            "issues": issue_keys(f"{found.title}\n{found.body}"),
            "comments_truncated": found.comments_truncated,
        },
        metrics={**found.metrics, "comments_missing": int(total) - int(held) if total else None},
        people=people(*found.users, *_signers(found.body)),
        url=found.url,
        updated=found.updated or found.merged or found.created,
    )
