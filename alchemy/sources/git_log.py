"""Commits from what git itself prints, as the records that our JSON lines have.

| shape | known by |
|---|---|
| `git log` in its default, `fuller` or `raw` form, not `--graph` | `commit <sha>` |
| the same with `--numstat`, `--stat`, `--name-status`, `--name-only`, `--raw`, `-p` | its lines |
| the same separated by NULs (`-z`), or in UTF-16 (a PowerShell redirect) | the same |
| patches of `git format-patch`, one or a mailbox of them | `From <sha> Mon Sep 17 00:00:00 2001` |

Files are streamed commit by commit, each decoded on its own, so one old encoding does not spoil the others.
"""

import re
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime
from email import message_from_bytes, policy
from email.errors import MessageError
from email.utils import parseaddr, parsedate_to_datetime
from pathlib import Path
from typing import Any

from alchemy.records import RawObject, Rejected
from alchemy.sources.json_records import Found, open_utf8
from alchemy.sources.reasons import reject
from alchemy.text.decode import Undecodable, decode

_LOG = re.compile(r"commit [0-9a-f]{7,64}(?:$|[ \r\n])", re.M)
_MAIL = re.compile(r"From [0-9a-f]{40,64} Mon Sep 17 00:00:00 2001[ \t]*$", re.M)
_LOG_START = re.compile(rb"commit [0-9a-f]{7,64}(?:[ \r\n]|\Z)")
_MAIL_START = re.compile(rb"From [0-9a-f]{40,64} Mon Sep 17 00:00:00 2001[ \t\r\n]*\Z")
_NUMSTAT = re.compile(r"(\d{1,10}|-)\t(\d{1,10}|-)\t(.*)\Z")
_NAME_STATUS = re.compile(r"[ACDMRTUXB]\d{0,3}\t(.+)\Z")
_RAW_DIFF = re.compile(r":{1,9}\d{6} .*?\t(.+)\Z")
_STAT = re.compile(r" (.{1,500}?) +\| +(?:Bin\b.*|\d+(?: [+-]*)?)\Z")
_SUMMARY = re.compile(r" \d+ files? changed")
_INSERTIONS = re.compile(r"(\d+) insertions?\(\+\)")
_DELETIONS = re.compile(r"(\d+) deletions?\(-\)")
_DIFF = re.compile(r'diff --(?:git "?a/.*? "?b/|cc |combined )(.+?)"?\Z')
_BRACED = re.compile(r"\{[^{}]{0,500}? => ([^{}]{0,500}?)\}")
_HEADER = re.compile(r"(\w[\w-]*):?[ \t]+(.*)\Z")
_IDENTITY = re.compile(r"(.*?)[ \t]*<([^<>]*)>")
_RAW_DATE = re.compile(r"> (\d{1,12}) [+-]\d{4}\Z")
_PATCH_MARK = re.compile(r"\A\[[^\]]{0,40}\bPATCH\b[^\]]{0,40}\]\s*", re.I)
_DATES = ("%a %b %d %H:%M:%S %Y %z", "%Y-%m-%d %H:%M:%S %z")


def is_log(head: str) -> bool:
    return bool(_LOG.match(head))


def is_mailbox(head: str) -> bool:
    return bool(_MAIL.match(head))


def log_commits(raw: RawObject, path: Path, limit: int) -> Iterator[Found | Rejected]:
    """Commits of a plain log in file order."""
    yield from _records(raw, path, limit, _LOG_START, _log_commit)


def mailed_commits(raw: RawObject, path: Path, limit: int) -> Iterator[Found | Rejected]:
    """Commits of patches in the form of mails, in file order."""
    yield from _records(raw, path, limit, _MAIL_START, _mailed_commit)


def _records(
    raw: RawObject, path: Path, limit: int, start: re.Pattern[bytes], parse: Any
) -> Iterator[Found | Rejected]:
    for number, lines, size in _blocks(path, limit, start):
        locator = f"line {number}"
        data = b"".join(lines)
        if size > limit:
            detail = f"The commit is longer than {limit} bytes."
            yield reject(raw, "too_large", detail, locator=locator, sample=data[:400])
            continue
        try:
            yield Found(parse(data), locator)
        except Undecodable:
            detail = "The commit is not text in a known encoding."
            yield reject(raw, "undecodable", detail, locator=locator, sample=data[:400])
        except (ValueError, LookupError, MessageError) as error:
            detail = f"The commit could not be parsed: {type(error).__name__}."
            yield reject(raw, "wrong_shape", detail, locator=locator, sample=data[:400])


def _blocks(path: Path, limit: int, start: re.Pattern[bytes]) -> Iterator[tuple[int, list[bytes], int]]:
    """Line number, lines and size of each commit; of one over the limit only the beginning is held."""
    lines: list[bytes] = []
    number, first, size = 0, 1, 0
    with closing(open_utf8(path)) as file:
        while chunk := file.readline(limit + 1):
            number += 1
            for line in chunk.replace(b"\0", b"\n").splitlines(keepends=True) if b"\0" in chunk else (chunk,):
                if start.match(line):
                    if any(held.strip() for held in lines):
                        yield first, lines, size
                    lines, first, size = [], number, 0
                size += len(line)
                if size <= limit:
                    lines.append(line)
    if any(held.strip() for held in lines):
        yield first, lines, size


def _log_commit(data: bytes) -> dict[str, Any]:
    lines = decode(data).text.replace("\r\n", "\n").split("\n")
    words = lines[0].split()
    record: dict[str, Any] = {"sha": words[1] if len(words) > 1 else None}
    position = 1
    while position < len(lines) and (header := _HEADER.match(lines[position])):
        _header(record, header.group(1).lower(), header.group(2).strip())
        position += 1
    message: list[str] = []
    while position < len(lines) and (not lines[position].strip() or lines[position].startswith("    ")):
        message.append(lines[position][4:].rstrip())
        position += 1
    if position < len(lines) and lines[position].startswith("Notes"):
        position += 1
        while position < len(lines) and (not lines[position] or lines[position].startswith("    ")):
            position += 1
    _message(record, "\n".join(message).strip("\n"))
    _changes(record, lines[position:])
    return record


def _header(record: dict[str, Any], name: str, value: str) -> None:
    if name in ("author", "committer", "commit"):
        identity = _IDENTITY.match(value)
        person = identity.group(1) if identity else value
        if name == "author":
            record["author"], record["email"] = person, identity.group(2) if identity else None
        else:
            record["committer"] = person
        if name == "author" and (seconds := _RAW_DATE.search(value)):  # --pretty=raw
            record["date"] = datetime.fromtimestamp(int(seconds.group(1)), _zone(value)).isoformat()
    elif name in ("date", "authordate"):
        record["date"] = _date(value)
    elif name == "merge":
        record["parents"] = value.split()
    elif name == "parent":
        record.setdefault("parents", []).append(value)


def _zone(value: str) -> Any:
    return datetime.strptime(value[-5:], "%z").tzinfo


def _message(record: dict[str, Any], message: str) -> None:
    """The subject is the first paragraph, as git has it."""
    subject, _, body = message.partition("\n\n")
    record["subject"], record["body"] = " ".join(subject.split()), body.strip("\n")


def _changes(record: dict[str, Any], lines: list[str]) -> None:
    """What the lines after the message say about files, whatever options they were printed with."""
    exact: dict[str, None] = {}  # of --numstat, --name-status, --raw and -p
    short: dict[str, None] = {}  # of --stat, which cuts long paths
    counted = added = deleted = plus = minus = 0
    totals: tuple[int, int] | None = None
    hunk = False
    position = 0
    while position < len(lines):
        line = lines[position]
        position += 1
        if found := _DIFF.match(line):
            hunk = False
            exact[found.group(1)] = None
        elif line.startswith("@@"):
            hunk = True
        elif hunk and line[:1] in ("+", "-", " ", "\\"):
            plus, minus = plus + line.startswith("+"), minus + line.startswith("-")
        elif found := _NUMSTAT.match(line):
            name = found.group(3)
            if not name and position + 1 < len(lines):  # a rename with -z: the old and the new name follow
                name, position = lines[position + 1], position + 2
            exact[_renamed(name)] = None
            counted += 1
            added += int(found.group(1).replace("-", "0"))
            deleted += int(found.group(2).replace("-", "0"))
        elif found := _NAME_STATUS.match(line) or _RAW_DIFF.match(line):
            exact[found.group(1).rpartition("\t")[2]] = None
        elif _SUMMARY.match(line):
            inserted, removed = _INSERTIONS.search(line), _DELETIONS.search(line)
            totals = (int(inserted.group(1)) if inserted else 0, int(removed.group(1)) if removed else 0)
        elif found := _STAT.match(line):
            short[_renamed(found.group(1).strip())] = None
        elif line and line != "---" and not line[0].isspace() and not hunk and not _is_diff_header(line):
            exact[line] = None  # --name-only
    if exact or short:
        record["files"] = list(exact or short)
    if counted:
        record["additions"], record["deletions"] = added, deleted
    elif totals:
        record["additions"], record["deletions"] = totals
    elif plus or minus:
        record["additions"], record["deletions"] = plus, minus


def _is_diff_header(line: str) -> bool:
    return line.startswith((
        "index ", "--- ", "+++ ", "new file", "deleted file", "old mode", "new mode", "similarity ",
        "dissimilarity ", "rename ", "copy ", "Binary files", "GIT binary", "literal ", "delta ", "-- ",
        "mode ",
    ))  # fmt: skip


def _renamed(name: str) -> str:
    """The new name of "old => new" and "a/{old => new}/b"."""
    if " => " not in name:
        return name
    braced = _BRACED.sub(r"\1", name).replace("//", "/")
    return braced if braced != name else name.rpartition(" => ")[2]


def _mailed_commit(data: bytes) -> dict[str, Any]:
    envelope, _, mail = data.partition(b"\n")
    message = message_from_bytes(mail.replace(b"\r\n", b"\n"), policy=policy.default)
    author, email = parseaddr(str(message.get("From", "")))
    payload = message.get_payload(decode=True)
    text = decode(payload if isinstance(payload, bytes) else b"").text
    body, _, changes = text.partition("\n---\n")
    if not changes and text.startswith("---\n"):
        body, changes = "", text[4:]
    in_body = re.match(r"From: (.*?) <([^<>\n]*)>\n\n", body)  # a patch that someone else sent
    if in_body:
        author, email, body = in_body.group(1), in_body.group(2), body[in_body.end() :]
    record: dict[str, Any] = {
        "sha": envelope.split()[1].decode("ascii"),
        "author": author,
        "email": email,
        "date": _date(str(message.get("Date", ""))),
        "subject": _PATCH_MARK.sub("", " ".join(str(message.get("Subject", "")).split())),
        "body": body.strip("\n"),
    }
    _changes(record, changes.split("\n-- \n")[0].split("\n"))
    return record


def _date(text: str) -> str:
    for form in _DATES:
        try:
            return datetime.strptime(text, form).isoformat()
        except ValueError:
            continue
    try:
        return datetime.fromisoformat(text).isoformat()
    except ValueError:
        pass
    try:
        return parsedate_to_datetime(text).isoformat()
    except (TypeError, ValueError, IndexError):
        return ""
