"""Whatever is attached to a message is a record of its own, or a row that says why not."""

import email.policy
import gzip
from email.message import EmailMessage

import pytest

from tests.sources.conftest import Outcome, Read
from tests.sources.test_archives import NOTE, zipped
from tests.sources.test_documents import PAGE, docx, pdf, pptx, xlsx
from tests.sources.test_email import mbox, message


def faults(outcome: Outcome) -> list[tuple[str, str, str]]:
    return [(row.reason, row.outcome, row.locator) for row in outcome.rejected]


def with_file(data: bytes, kind: str, name: str | None, **more: str) -> EmailMessage:
    mail = message()
    main, _, sub = kind.partition("/")
    mail.add_attachment(data, maintype=main, subtype=sub, filename=name, **more)
    return mail


@pytest.mark.parametrize(
    ("data", "kind", "name"),
    [
        (pdf([PAGE]), "application/pdf", "scan"),
        (pdf([PAGE]), "application/octet-stream", "scan.bin"),
        (docx(), "application/octet-stream", "guide"),
        (pptx(), "application/vnd.ms-powerpoint", "slides.tmp"),
        (xlsx(), "application/octet-stream", "table.dat"),
        (b"name;city\nAurora;Bonn\n", "text/csv", "ships.csv"),
        ("Grüße aus Köln".encode("utf-16"), "application/octet-stream", "note.txt"),
        ("Grüße aus Köln".encode("cp1252"), "application/octet-stream", "old.txt"),
    ],
)
def test_documents_are_known_by_their_content_whatever_they_are_called(
    read: Read, data: bytes, kind: str, name: str
) -> None:
    outcome = read("documents", "a.eml", with_file(data, kind, name).as_bytes())
    assert (outcome.keys, outcome.reasons) == (["a.eml", f"a.eml/{name}"], [])
    assert outcome.drafts[1].kind == "file"
    assert outcome.drafts[1].locator == f"attachment {name}"


def test_attachments_without_a_name_or_with_the_same_one_have_keys_of_their_own(read: Read) -> None:
    mail = message()
    for name in (None, None, "notes.txt", "notes.txt", "notes"):
        mail.add_attachment(NOTE, maintype="text", subtype="plain", filename=name, disposition="attachment")
    outcome = read("documents", "a.eml", mail.as_bytes())
    names = ["attachment.txt", "attachment (2).txt", "notes.txt", "notes (2).txt", "notes"]
    assert outcome.keys == ["a.eml", *(f"a.eml/{name}" for name in names)]
    assert outcome.drafts[0].fields["attachments"] == ", ".join(names)


def test_a_message_without_text_still_gives_its_attachments(read: Read) -> None:
    mail = EmailMessage()
    mail["From"] = "scanner@aurora.example"
    mail.set_content("")
    mail.add_attachment(pdf([PAGE]), maintype="application", subtype="pdf", filename="scan.pdf")
    outcome = read("documents", "a.eml", mail.as_bytes())
    assert (outcome.keys, faults(outcome)) == (["a.eml/scan.pdf"], [("empty", "quarantined", "")])


def test_a_message_that_is_nothing_but_a_document_gives_both(read: Read) -> None:
    mail = EmailMessage()
    mail["From"], mail["Subject"] = "scanner@aurora.example", "Scan"
    mail.set_content(pdf([PAGE]), maintype="application", subtype="pdf", filename="scan.pdf")
    assert read("documents", "a.eml", mail.as_bytes()).keys == ["a.eml", "a.eml/scan.pdf"]


def test_forwarded_messages_are_messages_with_their_own_attachments(read: Read) -> None:
    inner = message("The first report", "It began at six.")
    inner.add_attachment(docx(), maintype="application", subtype="octet-stream", filename="guide.docx")
    outer = message("Fwd: The first report", "See below.")
    outer.add_attachment(inner)
    outer.add_attachment(
        message("A saved one").as_bytes(), maintype="application", subtype="octet-stream", filename="old.eml"
    )
    outcome = read("documents", "all.mbox", mbox(outer))
    key = outcome.keys[0]
    assert outcome.keys == [
        key, f"{key}/message.eml", f"{key}/message.eml/guide.docx", f"{key}/old.eml",
    ]  # fmt: skip
    assert [draft.title for draft in outcome.drafts[:2]] == ["Fwd: The first report", "The first report"]
    assert outcome.drafts[2].locator == "message 1: attachment message.eml: attachment guide.docx"
    assert outcome.reasons == []


def test_what_only_accompanies_a_message_is_filtered_and_has_a_row(read: Read) -> None:
    mail = message()
    mail.add_attachment(
        b"\x89PNG logo", maintype="image", subtype="png", filename="logo.png", disposition="inline"
    )
    mail.add_attachment(b"-----BEGIN PGP SIGNATURE-----", maintype="application", subtype="pgp-signature")
    mail.add_attachment("BEGIN:VCALENDAR", subtype="calendar", filename="invite.ics")
    outcome = read("documents", "a.eml", mail.as_bytes())
    assert outcome.keys == ["a.eml"]
    assert [(reason, kind) for reason, kind, _ in faults(outcome)] == [("unsupported", "filtered")] * 3


@pytest.mark.parametrize(
    ("data", "kind", "name", "reason"),
    [
        (zipped({"note.txt": NOTE}), "application/zip", "all.zip", "unsupported"),
        (b"\x89PNG plan", "image/png", "plan.png", "unsupported"),
        (b"\x78\x9f\x3e\x22" + bytes(range(256)) * 4, "application/ms-tnef", "winmail.dat", "unsupported"),
        (b"ID3\x03\x00" + b"sound " * 400, "audio/mpeg", "memo.mp3", "unsupported"),
        (gzip.compress(NOTE), "application/gzip", "note.gz", "unsupported"),
        (b"\n-----BEGIN PGP MESSAGE-----\n\nhQEMA\n", "application/octet-stream", "a.asc", "encrypted"),
        (b"\x30\x80\x06", "application/pkcs7-mime", "smime.p7m", "encrypted"),
        (b" \n", "application/pdf", "blank.pdf", "empty"),
        (b"%PDF-1.4 cut", "application/pdf", None, "broken"),
        (docx()[:400], "application/octet-stream", "cut.docx", "broken"),
    ],
)
def test_what_cannot_be_read_is_quarantined_with_its_reason(
    read: Read, data: bytes, kind: str, name: str | None, reason: str
) -> None:
    outcome = read("documents", "a.eml", with_file(data, kind, name).as_bytes())
    where = f"attachment {name or 'attachment.pdf'}"
    assert (outcome.keys, faults(outcome)) == (["a.eml"], [(reason, "quarantined", where)])


def test_an_attachment_over_the_limit_is_a_row_and_the_message_stays(read: Read) -> None:
    mail = with_file(b"word " * 3000, "text/plain", "long.txt")
    outcome = read("documents", "a.mbox", mbox(mail), max_document_bytes=30_000)
    assert len(outcome.keys) == 2
    small = read("documents", "a.mbox", mbox(mail), max_document_bytes=10_000)
    assert (small.keys, small.reasons) == ([], ["too_large"])


def test_parts_beyond_the_limit_are_one_row(read: Read) -> None:
    mail = message()
    for number in range(510):
        mail.add_attachment(f"Note {number} of the carrier", filename=f"{number}.txt")
    outcome = read("documents", "a.eml", mail.as_bytes(policy=email.policy.default))
    assert len(outcome.keys) == 500
    assert outcome.reasons == ["too_many_members"]
