"""What is attached to a message: every attachment is a record of its own, or a row that says why not.

| attachment | becomes |
|---|---|
| PDF, Office, HTML, Markdown, text, whatever it is called | a document, as if it had been uploaded |
| a message | an e-mail, see `email` |
| pictures inside the text, signatures, invitations, cards, reports of delivery | a filtered row |
| other pictures, archives, encrypted parts, anything else | a row in quarantine |

Keys are `<message>/<name>`; where two have one name, the second is called `name (2)`.
"""

import codecs
import mimetypes
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from email.message import EmailMessage
from pathlib import Path
from typing import Any

from alchemy.records import Draft, RawObject, Rejected
from alchemy.settings import CleanOptions
from alchemy.sources.drafts import located, one_line
from alchemy.sources.reasons import Unreadable, reject, rejected_by
from alchemy.text.decode import wide_encoding

MAX_PARTS = 500
_MESSAGE = "message/rfc822"
_NO_CONTENT = frozenset((
    "application/pgp-encrypted", "application/pgp-keys", "application/pgp-signature",
    "application/pkcs7-signature", "application/x-pkcs7-signature", "text/calendar", "text/directory",
    "text/vcard", "text/x-vcard",
))  # fmt: skip
_ENCRYPTED = ("application/pkcs7-mime", "application/x-pkcs7-mime")
_PGP = b"-----BEGIN PGP MESSAGE-----"
_DOCUMENTS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")  # Office, of now and of before 2007
_BOMS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)  # UTF-32's little-endian one begins with the first
_CONTROL = re.compile(rb"[\x00-\x06\x0e-\x1a\x1c-\x1f]")
_SNIFFED = 1 << 12
_EXTENSIONS = mimetypes.MimeTypes()  # without those that only this machine knows


@dataclass(frozen=True, slots=True)
class Attachment:
    name: str
    part: EmailMessage

    @property
    def message(self) -> EmailMessage | None:
        """The message that is attached, if it is one that the parser read as such."""
        inside = self.part.get_payload() if self.part.get_content_type() == _MESSAGE else None
        found = inside[0] if isinstance(inside, list) and inside else None
        return found if isinstance(found, EmailMessage) else None

    @property
    def data(self) -> bytes:
        return payload(self.part)


def leaves(message: EmailMessage) -> list[EmailMessage]:
    """The parts that hold content, `MAX_PARTS` and one more at most, without those of an attached message."""
    found: list[EmailMessage] = []
    stack: list[Any] = [message]
    while stack and len(found) <= MAX_PARTS:
        part = stack.pop()
        if part.is_multipart() and part.get_content_maintype() == "multipart":
            stack += reversed(part.get_payload())
        else:
            found.append(part)
    return found


def is_attachment(part: EmailMessage) -> bool:
    """Whether a part is no text of the message itself."""
    if part.get_content_type() == _MESSAGE or part.get_content_disposition() == "attachment":
        return True
    return part.get_content_maintype() != "text" or bool(_file_name(part))


def attachments(parts: list[EmailMessage]) -> list[Attachment]:
    """Those among the parts, each with a name of its own."""
    found: dict[str, Attachment] = {}
    for part in filter(is_attachment, parts):
        name = _file_name(part) or _made_up_name(part)
        stem, dot, suffix = name.rpartition(".")
        number = 1
        while name in found:
            number += 1
            name = f"{stem} ({number}).{suffix}" if dot else f"{suffix} ({number})"
        found[name] = Attachment(name, part)
    return list(found.values())


def read_attachment(
    raw: RawObject, attachment: Attachment, key: str, where: str, options: CleanOptions
) -> Iterator[Draft | Rejected]:
    """Rows of an attachment that is no message.

    Args:
        key: Of the message.
        where: The locator.
    """
    from alchemy.sources import documents

    try:
        data = attachment.data
        if problem := _problem(attachment, data):
            yield rejected_by(problem, raw, locator=where, sample=data[:400])
            return
        with tempfile.NamedTemporaryFile(prefix="alchemy-attachment-") as out:
            out.write(data)
            out.flush()
            path = Path(out.name)
            inner = replace(raw, key=f"raw/{raw.source}/{key}/{attachment.name}", size=len(data))
            if _is_archive(path, attachment.name):
                detail = "The attachment is an archive; save it from the message and upload it by itself."
                yield reject(raw, "unsupported", detail, locator=where)
                return
            if _is_binary(data):
                detail = "The attachment is neither text nor a document format known here."
                yield reject(raw, "unsupported", detail, locator=where, sample=data[:400])
                return
            yield from located(documents.read(inner, path, options), raw, where)
    except Exception as error:
        yield rejected_by(error, raw, locator=where)


def payload(part: EmailMessage) -> bytes:
    data = part.get_payload(decode=True)
    return data if isinstance(data, bytes) else b""


def _problem(attachment: Attachment, data: bytes) -> Unreadable | None:
    """Why an attachment is not even to be looked into."""
    part, kind = attachment.part, attachment.part.get_content_type()
    if kind in _NO_CONTENT or part.get_content_maintype() == "message":
        detail = f"The attachment is of the type {kind}, which accompanies a message and is no document."
        return Unreadable("unsupported", detail, "filtered")
    if part.get_content_maintype() == "image" and part.get_content_disposition() != "attachment":
        return Unreadable("unsupported", "The attachment is a picture inside the text.", "filtered")
    if kind in _ENCRYPTED or data.lstrip().startswith(_PGP):
        return Unreadable("encrypted", "The part of the message can be opened only with a key.")
    if not data.strip():
        return Unreadable("empty", "The attachment holds nothing.")
    return None


def _is_archive(path: Path, name: str) -> bool:
    from alchemy.sources.archives import archive_kind

    return bool(archive_kind(path, name))


def _is_binary(data: bytes) -> bool:
    """Whether data are sounds, programs and the like; one control character is enough."""
    if data.startswith(_BOMS) or data.startswith(_DOCUMENTS) or b"%PDF-" in data[:1024]:
        return False
    return bool(_CONTROL.search(data[:_SNIFFED])) and not wide_encoding(data)


def _file_name(part: EmailMessage) -> str:
    try:
        name = part.get_filename()
    except Exception:  # the standard library fails on some malformed headers
        name = None
    return one_line(name).replace("\\", "/").rpartition("/")[2]


def _made_up_name(part: EmailMessage) -> str:
    kind = part.get_content_type()
    extension = ".eml" if kind == _MESSAGE else _EXTENSIONS.guess_extension(kind) or ""
    return ("message" if kind == _MESSAGE else "attachment") + extension
