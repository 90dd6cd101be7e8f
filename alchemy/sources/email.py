"""E-mail: one record per message, and one per attachment.

| shape | known by |
|---|---|
| one message | the name `.eml`, or three mail headers with a sender |
| a mailbox (mbox) | "From " and a header |
| a message attached to another | its type, or the name `.eml`; up to four in all |

The text is the plain part, else the HTML part. What else is attached, `email_attachments` reads. Nothing in a
message is executed or fetched.
"""

import hashlib
import re
from collections.abc import Iterator
from email import policy
from email.message import EmailMessage
from email.parser import BytesParser
from email.utils import getaddresses, parsedate_to_datetime
from pathlib import Path

from alchemy.records import Draft, Part, RawObject, Rejected
from alchemy.settings import CleanOptions
from alchemy.sources.drafts import comma, draft, one_line, people
from alchemy.sources.email_attachments import (
    MAX_PARTS,
    Attachment,
    attachments,
    is_attachment,
    leaves,
    payload,
    read_attachment,
)
from alchemy.sources.paragraphs import unwrap
from alchemy.sources.reasons import Unreadable, reject, rejected_by
from alchemy.text.decode import Undecodable, decode
from alchemy.text.html import parse_html, read_html

_HEADER = (
    rb"(?:return-path|received|delivered-to|message-id|date|from|to|cc|subject|mime-version|reply-to|sender"
    rb"|dkim-signature|content-type|content-transfer-encoding|user-agent|in-reply-to|references"
    rb"|authentication-results|(?:x|arc|list|thread)-[\w-]+)"
)
_MAIL = re.compile(rb"\A(?:\xef\xbb\xbf)?(?:" + _HEADER + rb":[^\n]*\n(?:[ \t][^\n]*\n)*){3}", re.I)
_SENDER = re.compile(rb"^(?:from|sender):", re.I | re.M)
_MBOX = re.compile(rb"\AFrom [^\n]{1,200}\r?\n(?:>From [^\n]*\n)?[\w-]+:", re.I)
_FROM = re.compile(rb"From \S.*\d\d:\d\d")
_QUOTED_FROM = re.compile(rb"^>(>*From )", re.M)
_MAX_DEPTH = 4  # messages in messages, the outer one counted


def is_mail(head: bytes, name: str) -> bool:
    """Whether a file is one message: by its name, or by three mail headers with a sender at its beginning."""
    if name.lower().endswith(".eml"):
        return b":" in head
    found = _MAIL.match(head)
    return bool(found and _SENDER.search(head.partition(b"\n\n")[0]))


def is_mbox(head: bytes) -> bool:
    return bool(_MBOX.match(head))


def read_mail(raw: RawObject, path: Path, options: CleanOptions) -> Iterator[Draft | Rejected]:
    """The message of a file, and its attachments."""
    name = raw.key.removeprefix(f"raw/{raw.source}/")
    yield from _message(raw, path.read_bytes(), name, "", options)


def read_mbox(raw: RawObject, path: Path, options: CleanOptions) -> Iterator[Draft | Rejected]:
    """The messages of a mailbox one after the other; each may have as many bytes as a document."""
    name = raw.key.removeprefix(f"raw/{raw.source}/")
    for number, data in enumerate(_split(path, options.max_document_bytes), 1):
        locator = f"message {number}"
        if data is None:
            detail = f"The message is larger than {options.max_document_bytes} bytes."
            yield reject(raw, "too_large", detail, locator=locator)
        else:
            yield from _message(raw, data, name, locator, options)


def _split(path: Path, limit: int) -> Iterator[bytes | None]:
    """Messages without their "From " line, None for one over the limit."""
    lines: list[bytes] = []
    size, blank, begun = 0, True, False
    with path.open("rb") as file:
        while line := file.readline(1 << 20):
            if (blank and _FROM.match(line)) or not begun:
                if begun:
                    yield b"".join(lines) if size <= limit else None
                lines, size, begun, blank = [], 0, True, False
                continue
            size += len(line)
            if size <= limit:
                lines.append(line)
            else:
                lines = []
            blank = not line.strip(b"\r\n")
    if begun:
        yield b"".join(lines) if size <= limit else None


def _message(
    raw: RawObject, data: bytes, name: str, locator: str, options: CleanOptions
) -> Iterator[Draft | Rejected]:
    try:
        message = _parsed(_QUOTED_FROM.sub(rb"\1", data) if locator else data)
        key = name
        if locator:  # stable when older messages are taken out of the mailbox
            mark = _header(message, "message-id") or locator
            key = f"{name}#{hashlib.sha256(mark.encode('utf-8', 'replace')).hexdigest()[:12]}"
    except Exception as error:
        yield rejected_by(error, raw, locator=locator, sample=data[:400])
        return
    yield from _records(raw, message, key, locator, options, 1)


def _records(
    raw: RawObject, message: EmailMessage, key: str, locator: str, options: CleanOptions, depth: int
) -> Iterator[Draft | Rejected]:
    """The message, or why it is none, and what is attached to it in either case."""
    parts: list[EmailMessage] = []
    attached: list[Attachment] = []
    try:
        parts = leaves(message)
        attached = attachments(parts[:MAX_PARTS])
        yield _draft(message, parts, [attachment.name for attachment in attached], key, locator)
    except Exception as error:
        yield rejected_by(error, raw, locator=locator, sample=_headers(message))
    for attachment in attached:
        where = ": ".join(part for part in (locator, f"attachment {attachment.name}") if part)
        inner = _attached_message(attachment)
        if inner is None:
            yield from read_attachment(raw, attachment, key, where, options)
        elif depth == _MAX_DEPTH:
            detail = f"The message lies more than {_MAX_DEPTH} messages deep."
            yield reject(raw, "too_deep", detail, locator=where)
        else:
            yield from _records(raw, inner, f"{key}/{attachment.name}", where, options, depth + 1)
    if len(parts) > MAX_PARTS:
        detail = f"The message has more than {MAX_PARTS} parts; the rest was not read."
        yield reject(raw, "too_many_members", detail, locator=locator)


def _attached_message(attachment: Attachment) -> EmailMessage | None:
    if attachment.message or not attachment.name.lower().endswith(".eml"):
        return attachment.message
    data = attachment.data
    return _parsed(data) if is_mail(data[:4096], attachment.name) else None


def _parsed(data: bytes) -> EmailMessage:
    message = BytesParser(policy=policy.default).parsebytes(data)
    assert isinstance(message, EmailMessage)
    return message


def _draft(
    message: EmailMessage, parts: list[EmailMessage], attached: list[str], key: str, locator: str
) -> Draft:
    text = _body(parts)
    senders = _people(message, "from", "sender", "reply-to")
    receivers = _people(message, "to", "cc", "bcc")
    if not (senders or _header(message, "subject") or _header(message, "date")):
        raise Unreadable("missing_field", "The message has no sender, subject or date.")
    subject = _header(message, "subject")
    if not any(part.text.strip() for part in text) and not subject:
        raise Unreadable("empty", "The message has no subject and no text.")
    return draft(
        "email",
        key,
        subject or "(no subject)",
        text,
        locator,
        fields={
            "sender": comma(_shown(person) for person in _people(message, "from")),
            "recipients": comma(_shown(person) for person in receivers),
            "attachments": comma(attached),
            "date": _date(message),
        },
        metrics={"attachments": len(attached), "recipients": len(receivers)},
        people=people(*(value for person in [*senders, *receivers] for value in person)),
        updated=_date(message),
    )


def _body(parts: list[EmailMessage]) -> list[Part]:
    texts = [part for part in parts if not is_attachment(part)]
    for part in texts:
        if part.get_content_type() == "text/plain" and (text := _text(part)).strip():
            return [Part(unwrap(text.replace("\r\n", "\n")))]
    for part in texts:
        if part.get_content_type() == "text/html":
            read = read_html(parse_html(_text(part))).parts
            if any(one.text.strip() for one in read):
                return read
    return []


def _text(part: EmailMessage) -> str:
    data = payload(part)
    charset = part.get_content_charset() or ""
    try:
        return data.decode(charset or "utf-8")
    except (LookupError, UnicodeDecodeError, ValueError):
        try:
            return decode(data).text
        except Undecodable:
            return data.decode("utf-8", "replace")


def _header(message: EmailMessage, name: str) -> str:
    try:
        return one_line(message.get(name))
    except Exception:  # the standard library fails on some malformed headers; the raw text will do
        found = [value for key, value in message.raw_items() if key.lower() == name]
        return one_line(found[0]) if found else ""


def _headers(message: EmailMessage) -> str:
    return "\n".join(f"{name}: {value}" for name, value in message.raw_items())[:400]


def _people(message: EmailMessage, *headers: str) -> list[tuple[str, str]]:
    """(name, address) of everybody in the headers."""
    found = getaddresses([_header(message, name) for name in headers])
    return list(dict.fromkeys((name.strip(), address) for name, address in found if name or address))


def _shown(person: tuple[str, str]) -> str:
    name, address = person
    return (name or address).replace(",", " ")


def _date(message: EmailMessage) -> str:
    try:
        return parsedate_to_datetime(_header(message, "date")).isoformat()
    except (ValueError, TypeError, IndexError, OverflowError):
        return ""
