import gzip
from email.message import EmailMessage

from alchemy.records import Document, RawObject
from alchemy.settings import CleanOptions
from alchemy.text.document import to_document
from alchemy.text.sanitize import Sanitizer
from tests.sources.conftest import Read
from tests.sources.test_documents import docx


def message(
    subject: str = "Gateway outage in Bonn", text: str = "The gateway is down since six."
) -> EmailMessage:
    mail = EmailMessage()
    mail["From"] = "Lucie Marchand <lucie.marchand@aurora.example>"
    mail["To"] = "Otto Brandt <otto@aurora.example>, support@aurora.example"
    mail["Subject"] = subject
    mail["Date"] = "Tue, 01 Sep 2026 09:00:00 +0200"
    mail["Message-ID"] = f"<{abs(hash(subject))}@aurora.example>"
    mail.set_content(text)
    return mail


def mbox(*mails: EmailMessage) -> bytes:
    line = b"From lucie@aurora.example Tue Sep  1 09:00:00 2026\n"
    return b"".join(line + mail.as_bytes() + b"\n" for mail in mails)


def test_a_message_reads_with_its_subject_date_and_people(read: Read) -> None:
    draft = read("documents", "mail/outage.eml", message().as_bytes()).draft
    assert (draft.kind, draft.key, draft.title) == ("email", "mail/outage.eml", "Gateway outage in Bonn")
    assert draft.parts[0].text == "The gateway is down since six."
    assert draft.updated == "2026-09-01T09:00:00+02:00"
    assert draft.fields["recipients"] == "Otto Brandt, support@aurora.example"
    assert {"Lucie Marchand", "lucie.marchand", "Otto Brandt"} <= set(draft.people)


def test_no_name_or_address_of_a_message_is_published(read: Read) -> None:
    mail = message(text="Please ask Otto Brandt (otto@aurora.example) about it. Yours, Lucie Marchand")
    draft = read("documents", "a.eml", mail.as_bytes()).draft
    raw = RawObject("documents", "raw/documents/a.eml", 1, "0" * 64)
    document = to_document(draft, raw, Sanitizer(b"salt" * 8), CleanOptions())
    assert isinstance(document, Document)
    published = f"{document.text} {document.fields} {document.title} {document.key}"
    assert not [word for word in ("Otto", "Lucie", "aurora.example") if word in published], published


def test_an_html_message_reads_as_text_and_a_plain_part_is_preferred(read: Read) -> None:
    html = EmailMessage()
    html["From"], html["Subject"] = "a@b.example", "Report"
    html.set_content("<p>All <b>well</b>.</p><script>x()</script>", subtype="html")
    assert read("documents", "a.eml", html.as_bytes()).draft.parts[0].text == "All well."
    both = message()
    both.add_alternative("<p>Not this.</p>", subtype="html")
    assert "Not this" not in read("documents", "a.eml", both.as_bytes()).text


def test_attachments_are_named_and_documents_among_them_are_read(read: Read) -> None:
    mail = message()
    mail.add_attachment(docx(), maintype="application", subtype="octet-stream", filename="../guide.docx")
    mail.add_attachment(b"\x89PNG", maintype="image", subtype="png", filename="plan.png")
    mail.add_attachment(b"%PDF-1.4 cut", maintype="application", subtype="pdf", filename="cut.pdf")
    outcome = read("documents", "a.eml", mail.as_bytes())
    assert outcome.keys == ["a.eml", "a.eml/guide.docx"]
    assert outcome.drafts[0].fields["attachments"] == "guide.docx, plan.png, cut.pdf"
    assert outcome.drafts[1].locator == "attachment guide.docx"
    assert [(row.reason, row.locator, row.raw_key) for row in outcome.rejected] == [
        ("unsupported", "attachment plan.png", "raw/documents/a.eml"),
        ("broken", "attachment cut.pdf", "raw/documents/a.eml"),
    ]


def test_a_mailbox_is_one_record_per_message_with_keys_that_stay(read: Read) -> None:
    first, second = message("First"), message("Second", "One line.\n\n>From here on it is quoted.")
    both = read("documents", "a.mbox", mbox(first, second))
    assert [draft.title for draft in both.drafts] == ["First", "Second"]
    assert "From here on" in both.drafts[1].parts[0].text
    assert both.drafts[1].locator == "message 2"
    assert read("documents", "a.mbox", mbox(second)).keys == both.keys[1:]
    assert len(read("documents", "a.mbox.gz", gzip.compress(mbox(first, second))).drafts) == 2


def test_a_message_over_the_limit_costs_only_itself(read: Read) -> None:
    data = mbox(message("Large", "word " * 5000), message("Small"))
    outcome = read("documents", "a.mbox", data, max_document_bytes=10_000)
    assert ([draft.title for draft in outcome.drafts], outcome.reasons) == (["Small"], ["too_large"])


def test_messages_in_old_and_wrong_encodings_are_read(read: Read) -> None:
    head = b"From: a@b.example\nTo: c@d.example\nSubject: =?iso-8859-1?q?Gr=FC=DFe?=\n"
    wrong = head + b"Content-Type: text/plain; charset=nonsense\n\nSch\xf6ne Gr\xfc\xdfe aus K\xf6ln\n"
    draft = read("documents", "note", wrong).draft
    assert (draft.title, draft.parts[0].text) == ("Grüße", "Schöne Grüße aus Köln")


def test_what_is_no_message_says_so(read: Read) -> None:
    assert read("documents", "a.eml", b"X: y\n\nhello").reasons == ["missing_field"]
    assert read("documents", "a.eml", b"From: a@b.example\n\n").reasons == ["empty"]
    assert read("documents", "notes.txt", b"From: here\nto there\n\nText of it.").draft.kind == "file"


def test_headers_without_end_and_nested_messages_cost_nothing_else(read: Read) -> None:
    mail = message()
    for _ in range(30):
        outer = message()
        outer.add_attachment(mail)
        mail = outer
    outcome = read("documents", "a.eml", mail.as_bytes())
    assert outcome.keys == ["a.eml" + "/message.eml" * depth for depth in range(4)]
    assert outcome.reasons == ["too_deep"]
    deep = b"From: a@b.example\nSubject: x\n" + b"".join(
        b"Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n" % (n, n) for n in range(2000)
    )
    assert len(read("documents", "a.eml", deep).rows) == 1
