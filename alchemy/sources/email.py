"""E-mail: single messages (.eml) and mailboxes (mbox), one record per message.

The text is the plain part, else the HTML part. Attachments that are documents are read too, each as a record
of its own under `<message>/<attachment>`; the others are only named. Nothing in a message is executed or
fetched.
"""

import hashlib
import re
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from email import policy
from email.message import EmailMessage
from email.parser import BytesParser
from email.utils import getaddresses, parsedate_to_datetime
from pathlib import Path
from typing import Any

from alchemy.records import Draft, Part, RawObject, Rejected
from alchemy.settings import CleanOptions
from alchemy.sources.drafts import comma, draft, one_line, people
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
_READ = (".pdf", ".docx", ".pptx", ".xlsx", ".txt", ".md", ".html", ".htm", ".eml")
_MAX_PARTS = 500


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
        message = BytesParser(policy=policy.default).parsebytes(
            _QUOTED_FROM.sub(rb"\1", data) if locator else data
        )
        assert isinstance(message, EmailMessage)
        leaves = _leaves(message)
        attached = [(_file_name(part), part) for part in leaves if _is_attachment(part)]
        key = name
        if locator:  # stable when older messages are taken out of the mailbox
            mark = _header(message, "message-id") or locator
            key = f"{name}#{hashlib.sha256(mark.encode('utf-8', 'replace')).hexdigest()[:12]}"
        yield _draft(message, leaves, [file for file, _ in attached], key, locator)
    except Exception as error:
        yield rejected_by(error, raw, locator=locator, sample=data[:400])
        return
    for file, part in attached:
        if file.lower().endswith(_READ) and part.get_content_type() != "message/rfc822":
            where = f"{locator}: attachment {file}" if locator else f"attachment {file}"
            yield from _attachment(raw, part, file, key, where, options)


def _draft(
    message: EmailMessage, leaves: list[EmailMessage], attached: list[str], key: str, locator: str
) -> Draft:
    text = _body(leaves)
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


def _leaves(message: EmailMessage) -> list[EmailMessage]:
    """The parts of a message that hold content; the inside of an attached message is not walked."""
    found: list[EmailMessage] = []
    stack: list[Any] = [message]
    while stack and len(found) < _MAX_PARTS:
        part = stack.pop()
        if part.is_multipart() and part.get_content_maintype() == "multipart":
            stack += reversed(part.get_payload())
        else:
            found.append(part)
    return found


def _body(leaves: list[EmailMessage]) -> list[Part]:
    texts = [part for part in leaves if not _is_attachment(part)]
    for part in texts:
        if part.get_content_type() == "text/plain" and (text := _text(part)).strip():
            return [Part(unwrap(text.replace("\r\n", "\n")))]
    for part in texts:
        if part.get_content_type() == "text/html":
            parts = read_html(parse_html(_text(part))).parts
            if any(one.text.strip() for one in parts):
                return parts
    return []


def _text(part: EmailMessage) -> str:
    data = _payload(part)
    charset = part.get_content_charset() or ""
    try:
        return data.decode(charset or "utf-8")
    except (LookupError, UnicodeDecodeError, ValueError):
        try:
            return decode(data).text
        except Undecodable:
            return data.decode("utf-8", "replace")


def _payload(part: EmailMessage) -> bytes:
    data = part.get_payload(decode=True)
    return data if isinstance(data, bytes) else b""


def _is_attachment(part: EmailMessage) -> bool:
    if part.get_content_type() == "message/rfc822" or part.get_content_disposition() == "attachment":
        return True
    return part.get_content_maintype() != "text" or bool(_file_name(part, ""))


def _file_name(part: EmailMessage, default: str | None = None) -> str:
    try:
        name = part.get_filename()
    except Exception:  # the standard library fails on some malformed headers
        name = None
    name = one_line(name).replace("\\", "/").rpartition("/")[2]
    return name or (part.get_content_type() if default is None else default)


def _header(message: EmailMessage, name: str) -> str:
    try:
        return one_line(message.get(name))
    except Exception:  # the standard library fails on some malformed headers; the raw text will do
        found = [value for key, value in message.raw_items() if key.lower() == name]
        return one_line(found[0]) if found else ""


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


def _attachment(
    raw: RawObject, part: EmailMessage, file: str, key: str, where: str, options: CleanOptions
) -> Iterator[Draft | Rejected]:
    from alchemy.sources import documents

    data = _payload(part)
    if not data.strip():
        yield reject(raw, "empty", "The attachment holds nothing.", locator=where)
        return
    with tempfile.NamedTemporaryFile(prefix="alchemy-attachment-") as out:
        out.write(data)
        out.flush()
        inner = replace(raw, key=f"raw/{raw.source}/{key}/{file}", size=len(data))
        for row in documents.read(inner, Path(out.name), options):
            locator = f"{where}: {row.locator}" if row.locator else where
            if isinstance(row, Rejected):
                yield replace(row, raw_key=raw.key, locator=locator)
            else:
                yield replace(row, locator=locator)
