import io
import os
import signal
import threading
import time
import zipfile
import zlib
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest

from alchemy.records import RawObject
from alchemy.settings import CleanOptions
from alchemy.sources import extract
from alchemy.sources.extract import Extractor
from alchemy.sources.paragraphs import unwrap, unwrap_page
from alchemy.sources.reasons import Unreadable
from tests.sources.conftest import Read

PAGE = [
    "Field Handbook",
    "Mount the gateway on the front bulkhead, between 1.8 and 2.2 me-",
    "tres above the floor of it.",
]


def pdf(pages: list[list[str]], content: bytes | None = None, info: str = "") -> bytes:
    """A small PDF with one line of text below the other; `content` replaces the pages' content."""
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"",
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    kids = []
    for lines in pages:
        shown = "".join(f"({line}) Tj 0 -14 Td " for line in lines)
        stream = content if content is not None else f"BT /F1 11 Tf 50 740 Td {shown} ET".encode()
        kids.append(len(objects) + 1)
        objects.append(
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents %d 0 R "
            b"/Resources << /Font << /F1 3 0 R >> >> >>" % (len(objects) + 2)
        )
        objects.append(b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream))
    listed = " ".join(f"{kid} 0 R" for kid in kids)
    objects[1] = f"<< /Type /Pages /Kids [{listed}] /Count {len(kids)} >>".encode()
    objects.append(f"<< {info} >>".encode())
    out, places = io.BytesIO(), []
    out.write(b"%PDF-1.4\n")
    for number, body in enumerate(objects, 1):
        places.append(out.tell())
        out.write(b"%d 0 obj\n%s\nendobj\n" % (number, body))
    start = out.tell()
    out.write(b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1))
    out.writelines(b"%010d 00000 n \n" % place for place in places)
    trailer = b"trailer\n<< /Size %d /Root 1 0 R /Info %d 0 R >>\nstartxref\n%d\n%%%%EOF\n"
    out.write(trailer % (len(objects) + 1, len(objects), start))
    return out.getvalue()


def locked(user: str, owner: str) -> bytes:
    from pypdf import PdfReader, PdfWriter

    writer = PdfWriter(PdfReader(io.BytesIO(pdf([PAGE]))))
    writer.encrypt(user, owner, algorithm="RC4-128")
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


def docx() -> bytes:
    import docx as python_docx

    document = python_docx.Document()
    document.core_properties.title = "Guide"
    document.core_properties.author = "Lucie Marchand"
    document.add_heading("First week", 1)
    document.add_paragraph("Monday: laptop.", style="List Bullet")
    document.add_paragraph("Tuesday: course.", style="List Bullet")
    document.add_paragraph("Then you are ready.")
    table = document.add_table(2, 2)
    for row, values in zip(table.rows, (("System", "Who"), ("Mail", "IT desk")), strict=True):
        for cell, value in zip(row.cells, values, strict=True):
            cell.text = value
    document.add_heading("Access", 2)
    document.add_paragraph("Ask.")
    out = io.BytesIO()
    document.save(out)
    return out.getvalue()


def zipped(**members: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name.replace("__", "/").replace("Types", "[Content_Types].xml"), data)
    return out.getvalue()


def test_a_pdf_reads_in_paragraphs_with_words_put_together(read: Read) -> None:
    draft = read(
        "documents",
        "guides/field.pdf",
        pdf([PAGE], info="/Title (Field Handbook 7) /CreationDate (D:20260901090000Z)"),
    ).draft
    assert (draft.kind, draft.key, draft.title) == ("file", "guides/field.pdf", "Field Handbook 7")
    assert draft.parts[0].text == (
        "Field Handbook\n"
        "Mount the gateway on the front bulkhead, between 1.8 and 2.2 metres above the floor of it."
    )
    assert draft.updated == "2026-09-01T09:00:00"
    assert (draft.metrics["pages"], draft.metrics["words"]) == (1, 21)


def test_pages_are_sections_and_page_numbers_and_running_headers_are_dropped(read: Read) -> None:
    pages = [
        ["Handbook of things", f"Text of part {word} stands here.", f"Page {n}"]
        for n, word in enumerate("abcde", 1)
    ]
    parts = read("documents", "a.pdf", pdf(pages)).draft.parts
    assert [part.text for part in parts[:4]] == [
        "# Page 1",
        "Text of part a stands here.",
        "# Page 2",
        "Text of part b stands here.",
    ]


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("user.pdf", lambda: locked("secret", "owner"), "encrypted"),
        ("none.pdf", lambda: pdf([]), "empty"),
        ("blank.pdf", lambda: pdf([[]], content=b""), "empty"),
        ("scan.pdf", lambda: pdf([[]], content=b"50 50 200 200 re f"), "no_text_layer"),
        ("cut.pdf", lambda: b"%PDF-1.4\n1 0 obj\n<< /Type /Cat", "broken"),
        ("page.pdf", lambda: b"<html><body>404 Not Found</body></html>", "broken"),
        ("bytes.pdf", lambda: bytes(range(1, 32)) * 20, "broken"),
        ("cut.docx", lambda: docx()[:700], "broken"),
        ("zeros.docx", lambda: zipped(Types=b"<a/>", word__document=b"\0" * (64 << 20)), "bomb"),
        ("big.docx", lambda: zipped(Types=b"<a/>", word__document=os.urandom(1 << 17) * 8), "bomb"),
        ("xml.docx", lambda: zipped(Types=b"<a", word__document=b"x"), "broken"),
        ("sheet.xlsx", lambda: zipped(Types=b"<a/>", xl__book=b"x"), "broken"),
        ("deck.pptx", lambda: zipped(Types=b"<a/>", ppt__x=b"x"), "broken"),
        ("drawing.vsdx", lambda: zipped(Types=b"<a/>", visio__x=b"x"), "unsupported"),
        ("old.doc", lambda: b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "unsupported"),
        (
            "locked.docx",
            lambda: b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + "EncryptedPackage".encode("utf-16-le"),
            "encrypted",
        ),
        ("a.rtf", lambda: b"{\\rtf1 text}", "unsupported"),
        ("a.png", lambda: b"\x89PNG\r\n\x1a\n" + bytes(100), "unsupported"),
        ("a.bin", lambda: bytes(range(1, 32)) * 20, "unsupported"),
    ],
)
def test_a_document_that_cannot_be_read_says_why(
    read: Read, name: str, data: Callable[[], bytes], reason: str
) -> None:
    outcome = read("documents", name, data(), max_document_bytes=130_000 if name == "big.docx" else 64 << 20)
    if name == "big.docx":
        assert outcome.reasons in (["bomb"], ["too_large"])
    else:
        assert (outcome.drafts, outcome.reasons) == ([], [reason])


def test_pdfs_with_only_an_owner_password_or_an_empty_one_open(read: Read) -> None:
    assert "Field Handbook" in read("documents", "a.pdf", locked("", "owner")).text


def test_a_pdf_with_a_cyclic_page_tree_ends(read: Read) -> None:
    data = pdf([PAGE]).replace(b"/Kids [4 0 R]", b"/Kids [2 0 R]")
    assert len(read("documents", "a.pdf", data, extract_seconds=20).rows) == 1


def test_a_flate_bomb_ends_within_the_limits(read: Read) -> None:
    squeezed = zlib.compress(zlib.compress(b" " * (400 << 20), 9), 9)
    data = pdf([[]], content=b"X").replace(
        b"<< /Length 1 >>\nstream\nX",
        b"<< /Length %d /Filter [/FlateDecode /FlateDecode] >>\nstream\n%s" % (len(squeezed), squeezed),
    )
    outcome = read("documents", "a.pdf", data, extract_seconds=20, extract_memory_mb=512)
    assert outcome.drafts == []
    assert outcome.reasons[0] in (
        "memory_limit",
        "timeout",
        "extractor_crashed",
        "empty",
        "no_text_layer",
        "broken",
    )
    assert read("documents", "b.pdf", pdf([PAGE])).drafts, "the next file is read by a new child"


def test_a_docx_reads_in_document_order(read: Read) -> None:
    draft = read("documents", "guide.docx", docx()).draft
    assert (draft.title, draft.people) == ("Guide", ("Lucie Marchand",))
    assert [(part.kind, part.text) for part in draft.parts] == [
        ("heading", "# First week"),
        ("prose", "- Monday: laptop.\n- Tuesday: course.\n\nThen you are ready."),
        ("table", "System | Who\nMail | IT desk"),
        ("heading", "## Access"),
        ("prose", "Ask."),
    ]
    assert (draft.metrics["tables"], draft.metrics["headings"]) == (1, 2)


def pptx() -> bytes:
    import pptx as python_pptx

    deck = python_pptx.Presentation()
    deck.core_properties.title = "Roadmap"
    deck.core_properties.author = "Lucie Marchand"
    slide = deck.slides.add_slide(deck.slide_layouts[1])
    slide.shapes.title.text = "Where we go"
    slide.placeholders[1].text = "Gateways first\nSensors second"
    slide.notes_slide.notes_text_frame.text = "Say why."
    slide = deck.slides.add_slide(deck.slide_layouts[6])
    table = slide.shapes.add_table(2, 2, 0, 0, 3000, 3000).table
    for row, values in enumerate((("Quarter", "Ships"), ("Q1", "12"))):
        for column, value in enumerate(values):
            table.cell(row, column).text = value
    out = io.BytesIO()
    deck.save(out)
    return out.getvalue()


def xlsx(rows: int = 1) -> bytes:
    import openpyxl

    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.title = "Prices"
    sheet.append(["Plan", "Price", None, "Since"])
    for number in range(rows):
        sheet.append([f"Plan {number}", 2.5, None, datetime(2026, 9, 1)])
    book.create_sheet("Empty")
    book.create_sheet("Terms").append(["Notice: 30 days"])
    out = io.BytesIO()
    book.save(out)
    return out.getvalue()


def test_a_presentation_reads_slide_by_slide_with_tables_and_notes(read: Read) -> None:
    draft = read("documents", "roadmap.pptx", pptx()).draft
    assert (draft.title, draft.people) == ("Roadmap", ("Lucie Marchand",))
    assert [(part.kind, part.text) for part in draft.parts] == [
        ("heading", "# Where we go"),
        ("prose", "- Gateways first\n- Sensors second\n\nNotes: Say why."),
        ("heading", "# Slide 2"),
        ("table", "Quarter | Ships\nQ1 | 12"),
    ]


def test_a_workbook_reads_sheet_by_sheet_and_long_sheets_repeat_their_header(read: Read) -> None:
    parts = read("documents", "prices.xlsx", xlsx()).draft.parts
    assert [(part.kind, part.text) for part in parts] == [
        ("heading", "# Prices"),
        ("table", "Plan | Price |  | Since\nPlan 0 | 2.5 |  | 2026-09-01"),
        ("heading", "# Terms"),
        ("table", "Notice: 30 days"),
    ]
    tables = [
        part.text for part in read("documents", "a.xlsx", xlsx(120)).draft.parts if part.kind == "table"
    ]
    assert [text.count("\n") for text in tables] == [50, 50, 20, 0]
    assert all(text.startswith("Plan | Price") for text in tables[:3])


def test_cut_presentations_and_workbooks_are_broken(read: Read) -> None:
    assert read("documents", "a.pptx", pptx()[:900]).reasons == ["broken"]
    assert read("documents", "a.xlsx", xlsx()[:900]).reasons == ["broken"]


def test_entities_inside_a_docx_are_not_expanded(read: Read) -> None:
    source = zipfile.ZipFile(io.BytesIO(docx()))
    bomb = (
        b'<!DOCTYPE x [<!ENTITY a "'
        + b"lol" * 1000
        + b'">'
        + b"".join(b'<!ENTITY %c "%s">' % (98 + n, b"&%c;" % (97 + n) * 50) for n in range(6))
        + b"]>"
    )
    members = {}
    for name in source.namelist():
        data = source.read(name)
        if name == "word/document.xml":
            head, _, body = data.partition(b"?>")
            data = head + b"?>" + bomb + body.replace(b"Ask.", b"Ask&g;.")
        members[name] = data
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    outcome = read("documents", "a.docx", out.getvalue(), extract_seconds=20)
    assert len(outcome.text) < 2000


def test_the_content_decides_when_the_name_is_wrong(read: Read) -> None:
    assert read("documents", "really-a.docx", pdf([PAGE])).draft.metrics["pages"] == 1
    assert read("documents", "really-a.pdf", docx()).draft.title == "Guide"


def test_markdown_keeps_headings_code_tables_and_lists(read: Read) -> None:
    text = (
        "---\nowner: x\n---\n# Quickstart\n\nGet a **key** from [the console](https://x.example).\n\n"
        "```python\n# no heading\nx = 1\n```\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n"
        "Setext\n------\n\n- one\n- two\n"
    )
    draft = read("documents", "a.md", text).draft
    assert draft.title == "Quickstart"
    assert [(part.kind, part.text) for part in draft.parts] == [
        ("heading", "# Quickstart"),
        ("prose", "Get a key from the console."),
        ("code", "# no heading\nx = 1"),
        ("table", "a | b\n1 | 2"),
        ("heading", "## Setext"),
        ("prose", "- one\n- two"),
    ]


def test_plain_text_and_html_files_are_read(read: Read) -> None:
    assert (
        read("documents", "notes.txt", "Call with the carrier\n\nRoaming starts.").draft.title
        == "Call with the carrier"
    )
    assert (
        read("documents", "a.html", "<html><title>T one</title><h1>H</h1><p>x</p></html>").draft.title
        == "T one"
    )
    assert (
        read("documents", "noname", "青岛仓库安装笔记\n\n阈值是二十五度。".encode("gb18030")).draft.title
        == "青岛仓库安装笔记"
    )


def test_a_document_over_the_limit_is_too_large(read: Read) -> None:
    assert read("documents", "a.pdf", pdf([PAGE]), max_document_bytes=100).reasons == ["too_large"]


def test_one_child_serves_many_files(read: Read) -> None:
    read("documents", "a.pdf", pdf([PAGE]))
    first = extract.EXTRACTOR.pid
    read("documents", "b.docx", docx())
    read("documents", "c.pdf", b"%PDF-1.4 broken")
    assert extract.EXTRACTOR.pid == first


def test_an_extraction_that_takes_too_long_is_stopped_and_the_next_file_is_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")  # opening it blocks for ever
    (tmp_path / "a.pdf").write_bytes(pdf([PAGE]))
    extractor = Extractor()
    try:
        with pytest.raises(Unreadable) as caught:
            extractor.extract(tmp_path / "pipe", "docx", CleanOptions(extract_seconds=0.5))
        assert caught.value.reason == "timeout"
        assert extractor.extract(tmp_path / "a.pdf", "pdf", CleanOptions())["pages"]
    finally:
        extractor.close()


@pytest.mark.parametrize(
    ("deadly", "reason"), [(signal.SIGSEGV, "extractor_crashed"), (signal.SIGKILL, "memory_limit")]
)
def test_a_child_that_dies_is_a_reason_and_is_replaced(
    tmp_path: Path, deadly: signal.Signals, reason: str
) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "a.pdf").write_bytes(pdf([PAGE]))
    extractor = Extractor()

    def kill() -> None:
        while not extractor.pid:
            time.sleep(0.01)
        time.sleep(1)
        os.kill(extractor.pid, deadly)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        with pytest.raises(Unreadable) as caught:
            extractor.extract(tmp_path / "pipe", "docx", CleanOptions(extract_seconds=30))
        assert caught.value.reason == reason
        assert extractor.extract(tmp_path / "a.pdf", "pdf", CleanOptions())["pages"]
    finally:
        thread.join()
        extractor.close()


def test_a_document_that_needs_too_much_memory_hits_the_limit(tmp_path: Path) -> None:
    source = zipfile.ZipFile(io.BytesIO(docx()))
    path = tmp_path / "a.docx"
    filler = b"".join(b"<w:p><w:r><w:t>%d</w:t></w:r></w:p>" % n for n in range(700_000))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in source.namelist():
            data = source.read(name)
            if name == "word/document.xml":
                data = data.replace(b"<w:body>", b"<w:body>" + filler)
            archive.writestr(name, data)
    raw = RawObject("documents", "raw/documents/a.docx", path.stat().st_size, "0")
    from alchemy import sources

    (row,) = sources.read(raw, path, CleanOptions(extract_memory_mb=256))
    assert getattr(row, "reason", row) == "memory_limit"


def test_wrapped_text_is_joined_and_short_lines_and_lists_are_not() -> None:
    text = (
        "This is a paragraph that somebody wrapped at about\nsixty characters, as people used to do it.\n\n"
        "- an item\n- another\nName:\nshort"
    )
    assert unwrap(text) == text.replace("about\nsixty", "about sixty")
    lines = [
        "A heading",
        "A line that is long enough to be followed by the rest of",
        "its paragraph here.",
        "1. An item",
    ]
    assert unwrap_page(lines) == [lines[0], f"{lines[1]} {lines[2]}", lines[3]]
