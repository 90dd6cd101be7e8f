"""Hostile inputs in one table: a reader ends with good records and rows that say why, and never raises."""

import gzip
import io
import sqlite3
import struct
import tarfile
import tempfile
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pytest

from alchemy import sources
from alchemy.assembly import unbalanced
from alchemy.records import Document, Draft, RawObject, Rejected
from alchemy.settings import CleanOptions
from alchemy.sources.reasons import REASONS
from alchemy.store import Store
from alchemy.text.document import mask_rejected, to_document
from alchemy.text.sanitize import Sanitizer
from tests.sources.pg_dumps import contents, folder
from tests.sources.test_documents import PAGE, docx, locked, pdf, pptx, xlsx
from tests.test_corpus import washed

MASKED = 40  # rows of a case that go through masking too; all of them would take minutes


def commit(number: int, **more: Any) -> bytes:
    record = {"sha": f"{number:040x}", "subject": f"Change number {number} of the gateway", **more}
    return orjson.dumps(record)


def issue(number: int) -> dict[str, Any]:
    fields = {
        "summary": f"The gateway number {number} fails",
        "description": "It stops at six in the evening.",
    }
    return {"key": f"GATE-{number}", "fields": fields}


def issues(count: int) -> bytes:
    return orjson.dumps({"issues": [issue(number) for number in range(1, count + 1)]})


def page(body: str) -> bytes:
    head = "<html><head><title>Gateway</title></head><body><p>How to mount it well.</p>"
    return f"{head}{body}</body></html>".encode()


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return out.getvalue()


def tarred(*infos: tarfile.TarInfo) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for info in infos:
            archive.addfile(info, io.BytesIO(NOTE) if info.isreg() else None)
    return out.getvalue()


def entry(name: str, kind: bytes = tarfile.REGTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, "/etc/passwd"
    info.size = len(NOTE) if kind == tarfile.REGTYPE else 0
    return info


def nested(depth: int) -> bytes:
    data = zipped({"note.txt": NOTE})
    for level in range(depth):
        data = zipped({f"{level}.zip": data})
    return data


def encrypted_zip() -> bytes:
    data = bytearray(zipped({"locked.txt": NOTE}))
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    return bytes(data)


def zip_symlink() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        link = zipfile.ZipInfo("link")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
        archive.writestr("note.txt", NOTE)
    return out.getvalue()


def flate_bomb() -> bytes:
    squeezed = zlib.compress(zlib.compress(b" " * (100 << 20), 9), 9)
    return pdf([[]], content=b"X").replace(
        b"<< /Length 1 >>\nstream\nX",
        b"<< /Length %d /Filter [/FlateDecode /FlateDecode] >>\nstream\n%s" % (len(squeezed), squeezed),
    )


def sqlite(*statements: str) -> bytes:
    with (
        tempfile.NamedTemporaryFile(suffix=".sqlite") as file,
        closing(sqlite3.connect(file.name)) as database,
    ):
        for statement in statements:
            database.execute(statement)
        database.commit()
        return Path(file.name).read_bytes()


def tables() -> bytes:
    rows = ", ".join(f"({n}, '{'word ' * 60}{n}')" for n in range(300))
    return sqlite("CREATE TABLE t (id INTEGER PRIMARY KEY, text TEXT)", f"INSERT INTO t VALUES {rows}")  # noqa: S608


NOTE = b"Call the carrier\n\nRoaming starts at six in the evening."
CELL = b"name,text\nfirst,short\nsecond," + b"word " * (2 << 20) + b"\nthird,short\n"
COPY = (
    b"CREATE TABLE public.t (id integer, name text);\nCOPY public.t (id, name) FROM stdin;\n"
    b"1\tthe first\\tship\n2\t\\N\n3\tthe \\\\ third\n"
)
INSERT = b"CREATE TABLE t (id int, name text);\nINSERT INTO t VALUES (1,'the first'),(2,'"
BOMB = b'<!DOCTYPE x [<!ENTITY a "lol">' + b"".join(
    b'<!ENTITY %c "%s">' % (98 + n, b"&%c;" % (97 + n) * 10) for n in range(8)
)
FILE_ENTITY = b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]>'


@dataclass(frozen=True)
class Case:
    """What a reader gets, and what it has to make of it; None where more than one outcome will do."""

    name: str
    source: str
    file: str
    build: Callable[[], bytes]
    drafts: int | None
    reasons: list[str] | None
    options: dict[str, Any] = field(default_factory=dict)
    not_in_text: str = ""


CASES = [
    # Text and JSON
    Case("an empty file", "jira", "a.json", lambda: b"", 0, ["empty"]),
    Case("whitespace only", "git", "a.jsonl", lambda: b" \n\t\r\n" * 1000, 0, ["empty"]),
    Case("NUL bytes only", "documents", "a.txt", lambda: bytes(5000), 0, ["empty"]),
    Case("a truncated array", "jira", "a.json", lambda: issues(5)[:-30], 4, ["truncated"]),
    Case("concatenated pages", "jira", "a.json", lambda: issues(2) + issues(3), 5, []),
    Case("concatenated arrays", "git", "a.json", lambda: b"[%s][%s]" % (commit(1), commit(2)), 2, []),
    Case(
        "NaN and Infinity", "git", "a.jsonl", lambda: commit(1)[:-1] + b',"n_files":NaN,"x":Infinity}', 1, []
    ),
    Case("a UTF-8 BOM", "git", "a.jsonl", lambda: b"\xef\xbb\xbf" + commit(1), 1, []),
    Case("UTF-16 LE with a BOM", "jira", "a.json", lambda: issues(2).decode().encode("utf-16"), 2, []),
    Case("UTF-16 LE without a BOM", "jira", "a.json", lambda: issues(2).decode().encode("utf-16-le"), 2, []),
    Case("UTF-16 BE without a BOM", "jira", "a.json", lambda: issues(2).decode().encode("utf-16-be"), 2, []),
    Case(
        "GB18030",
        "documents",
        "a.txt",
        lambda: ("阈值是二十五度。青岛仓库安装笔记。" * 20).encode("gb18030"),
        1,
        [],
    ),
    Case(
        "cp1252",
        "documents",
        "a.txt",
        lambda: "Schöne Grüße aus Köln – bis bald, André".encode("cp1252"),
        1,
        [],
    ),
    Case("mixed encodings", "database", "a.csv", lambda: b"name,x\nGr\xc3\xbcn,y\nGr\xfcn,z\n", 2, []),
    Case("NUL bytes inside", "git", "a.jsonl", lambda: commit(1) + b"\0\n\0" + commit(2) + b"\n", None, None),
    Case("lone surrogates", "git", "a.jsonl", lambda: commit(1)[:-1] + b',"body":"a\\ud800b"}', 1, []),
    Case(
        "a line of 100 MB",
        "git",
        "a.jsonl",
        lambda: commit(1) + b'\n{"sha":"' + b"x" * (100 << 20) + b'"}\n' + commit(2) + b"\n",
        2,
        ["too_large"],
    ),
    Case(
        "one bad line in 10,000",
        "git",
        "a.jsonl",
        lambda: b"\n".join(commit(n) if n != 5000 else b'{"sha": oops' for n in range(10_000)),
        9999,
        None,
    ),
    Case(
        "duplicate keys", "git", "a.jsonl", lambda: commit(1)[:-1] + b',"subject":"The last one wins"}', 1, []
    ),
    Case(
        "numbers beyond 64 bit",
        "git",
        "a.jsonl",
        lambda: commit(1)[:-1] + b',"n_files":1%s}' % (b"0" * 400),
        1,
        [],
    ),
    Case(
        "a number of 100,000 digits",
        "git",
        "a.jsonl",
        lambda: commit(1)[:-1] + b',"x":%s}' % (b"9" * 100_000),
        None,
        None,
    ),
    Case("200,000 nested brackets", "jira", "a.json", lambda: b"[" * 200_000, 0, None),
    Case("200,000 nested objects", "feedback", "a.jsonl", lambda: b'{"a":' * 200_000, 0, None),
    Case(
        "a scalar for an object",
        "jira",
        "a.json",
        lambda: b'{"issues":[1,"x",null,%s]}' % orjson.dumps(issue(1)),
        1,
        None,
    ),
    Case(
        "a field of the wrong type",
        "jira",
        "a.json",
        lambda: b'{"issues":[{"key":"A-1","fields":[]}]}',
        0,
        ["wrong_shape"],
    ),
    Case(
        "a missing field",
        "jira",
        "a.json",
        lambda: b'{"issues":[{"key":"A-1","fields":{}}]}',
        0,
        ["missing_field"],
    ),
    # HTML and XML
    Case("unclosed tags", "confluence", "a.html", lambda: page("<div><p><table><tr><td>cell" * 200), 1, []),
    Case("50,000 nested tags", "confluence", "a.html", lambda: page("<div>" * 50_000 + "deep"), 1, []),
    Case(
        "50,000 nested tags in a document",
        "documents",
        "a.html",
        lambda: page("<b>" * 50_000 + "deep"),
        1,
        [],
    ),
    Case(
        "scripts and styles",
        "confluence",
        "a.html",
        lambda: page("<script>steal()</script><style>p{}</style>"),
        1,
        [],
        {},
        "steal",
    ),
    Case(
        "an entity bomb",
        "confluence",
        "a.html",
        lambda: BOMB + b"]>" + page("<p>&i;</p>"),
        None,
        None,
        {},
        "lollol",
    ),
    Case(
        "an external entity",
        "documents",
        "a.html",
        lambda: FILE_ENTITY + page("<p>&e;</p>"),
        None,
        None,
        {},
        "root:",
    ),
    Case(
        "a processing instruction",
        "documents",
        "a.html",
        lambda: page("<?php system('x') ?><p>Text.</p>"),
        1,
        [],
    ),
    Case(
        "zero-width and control characters",
        "documents",
        "a.html",
        lambda: page("<p>se\u200bcr\u2060et \x01\x02\x0b word</p>"),
        1,
        [],
        {},
        "\u200b",
    ),
    # Containers
    Case(
        "a zip bomb",
        "documents",
        "a.zip",
        lambda: zipped({"a.txt": bytes(80 << 20), "b.txt": NOTE}),
        1,
        ["bomb"],
    ),
    Case("a gzip bomb", "database", "a.csv.gz", lambda: gzip.compress(b"a,b\n" * (20 << 20)), 0, ["bomb"]),
    Case("zips 20 deep", "documents", "a.zip", lambda: nested(20), 0, ["too_deep"]),
    Case(
        "a member that leads out",
        "documents",
        "a.zip",
        lambda: zipped({"../../x": NOTE, "b.txt": NOTE}),
        1,
        ["unsafe_member"],
    ),
    Case(
        "an absolute member",
        "documents",
        "a.zip",
        lambda: zipped({"/etc/x": NOTE, "b.txt": NOTE}),
        1,
        ["unsafe_member"],
    ),
    Case("a symbolic link in a zip", "documents", "a.zip", zip_symlink, 1, ["unsafe_member"], {}, "root:"),
    Case(
        "a symbolic link in a tar",
        "documents",
        "a.tar",
        lambda: tarred(entry("l", tarfile.SYMTYPE), entry("b.txt")),
        1,
        ["unsafe_member"],
    ),
    Case(
        "a hard link in a tar",
        "documents",
        "a.tar",
        lambda: tarred(entry("l", tarfile.LNKTYPE), entry("b.txt")),
        1,
        ["unsafe_member"],
    ),
    Case(
        "a device in a tar",
        "documents",
        "a.tar",
        lambda: tarred(entry("d", tarfile.BLKTYPE), entry("b.txt")),
        1,
        ["unsafe_member"],
    ),
    Case("an encrypted zip", "database", "a.zip", encrypted_zip, 0, ["encrypted"]),
    Case("a truncated gzip", "documents", "a.txt.gz", lambda: gzip.compress(NOTE)[:-9], None, ["truncated"]),
    Case(
        "a gzip with garbage behind it",
        "documents",
        "a.txt.gz",
        lambda: gzip.compress(NOTE) + b"garbage",
        None,
        ["broken"],
    ),
    Case(
        "a truncated zip",
        "documents",
        "a.zip",
        lambda: zipped({"a.txt": NOTE})[:60],
        1,
        ["truncated", "truncated"],
    ),
    Case(
        "a zip without its directory",
        "documents",
        "a.zip",
        lambda: zipped({"a.txt": NOTE}).partition(b"PK\x01\x02")[0],
        1,
        ["truncated"],
    ),
    Case(
        "a zip bomb packed by bzip2",
        "documents",
        "a.zip",
        lambda: zipped({"zeros": bytes(80 << 20), "a.txt": NOTE}, zipfile.ZIP_BZIP2),
        1,
        ["bomb"],
    ),
    Case(
        "a zip with headers in headers",
        "documents",
        "a.zip",
        lambda: (b"PK\x03\x04" + b"\x14\0\x08\0\x08\0" + bytes(16) + b"\1\0\0\0a") * 5_000,
        None,
        None,
    ),
    Case(
        "a Jira backup with an entity bomb",
        "jira",
        "entities.xml",
        lambda: (
            b'<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><entity-engine-xml>'
            b'<Issue id="1" key="A-1" summary="&b;"/></entity-engine-xml>'
        ),
        0,
        ["unsafe_xml"],
    ),
    Case(
        "a Jira backup whose parts point at nothing",
        "jira",
        "entities.xml",
        lambda: (
            b'<entity-engine-xml><Issue/><Action type="comment" issue="9" body="lost"/>'
            b'<IssueLink source="1"/><Issue id="1" key="A-1" summary="The gateway fails" status="7"/>'
            b"</entity-engine-xml>"
        ),
        1,
        ["missing_field", "missing_field"],
    ),
    Case(
        "a dump folder whose contents are cut",
        "database",
        "a.zip",
        lambda: zipped({**folder(), "toc.dat": contents()[:700]}),
        0,
        ["broken"],
    ),
    Case(
        "an archive inside a DOCX",
        "documents",
        "a.docx",
        lambda: zipped({"[Content_Types].xml": b"<a/>", "word/x.zip": nested(3)}),
        0,
        ["broken"],
    ),
    # Documents
    Case(
        "a PDF with a user password", "documents", "a.pdf", lambda: locked("user", "owner"), 0, ["encrypted"]
    ),
    Case("a PDF with an owner password", "documents", "a.pdf", lambda: locked("", "owner"), 1, []),
    Case("a truncated PDF", "documents", "a.pdf", lambda: pdf([PAGE] * 3)[:200], 0, ["broken"]),
    Case(
        "a PDF of pictures",
        "documents",
        "a.pdf",
        lambda: pdf([[]], content=b"50 50 200 200 re f"),
        0,
        ["no_text_layer"],
    ),
    Case("a PDF without pages", "documents", "a.pdf", lambda: pdf([]), 0, ["empty"]),
    Case(
        "a PDF with a cyclic page tree",
        "documents",
        "a.pdf",
        lambda: pdf([PAGE]).replace(b"/Kids [4 0 R]", b"/Kids [2 0 R]"),
        None,
        None,
        {"extract_seconds": 20},
    ),
    Case(
        "a flate bomb",
        "documents",
        "a.pdf",
        flate_bomb,
        0,
        None,
        {"extract_seconds": 20, "extract_memory_mb": 512},
    ),
    Case("a truncated DOCX", "documents", "a.docx", lambda: docx()[:900], 0, ["broken"]),
    Case("a DOCX that is a PDF", "documents", "a.docx", lambda: pdf([PAGE]), 1, []),
    Case(
        "a DOCX bomb",
        "documents",
        "a.docx",
        lambda: zipped({"[Content_Types].xml": b"<a/>", "word/document.xml": bytes(64 << 20)}),
        0,
        ["bomb"],
    ),
    Case("a wrong extension", "documents", "a.txt", docx, 1, []),
    Case("a truncated PPTX", "documents", "a.pptx", lambda: pptx()[:-40], 0, ["broken"]),
    Case("a truncated XLSX", "documents", "a.xlsx", lambda: xlsx()[:-40], 0, ["broken"]),
    Case(
        "an e-mail whose parts never end",
        "documents",
        "a.eml",
        lambda: (
            b"From: a@b.example\nSubject: Outage\nContent-Type: multipart/mixed; boundary=b\n\n--b\n" * 300
        ),
        None,
        None,
    ),
    # Databases
    Case("a truncated SQLite file", "database", "a.sqlite", lambda: tables()[:20_000], None, ["truncated"]),
    Case(
        "a text column with bytes",
        "database",
        "a.sqlite",
        lambda: sqlite("CREATE TABLE t (a TEXT)", "INSERT INTO t VALUES (CAST(x'776f7264ff00fe' AS TEXT))"),
        1,
        [],
    ),
    Case("ragged CSV rows", "database", "a.csv", lambda: b"a,b\nx,y\nz\nu,v,w\ns,t\n", 2, ["ragged_row"] * 2),
    Case("a CSV cell of 10 MB", "database", "a.csv", lambda: CELL, 3, []),
    Case(
        "a CSV whose quote never closes",
        "database",
        "a.csv",
        lambda: b'a,b\nx,y\nz,"' + b"w\n" * 100_000,
        None,
        None,
    ),
    Case("COPY without its end", "database", "a.sql", lambda: COPY, 2, ["no_text", "truncated"]),
    Case("COPY with escapes", "database", "a.sql", lambda: COPY + b"\\.\n", 2, ["no_text"]),
    Case("an INSERT that stops", "database", "a.sql", lambda: INSERT + b"the se", 1, ["truncated"]),
    Case(
        "an INSERT of 50 MB",
        "database",
        "a.sql",
        lambda: INSERT + b"x" * (25 << 20) + b"'),(3,'" + b"y" * (25 << 20) + b"');\n",
        3,
        [],
    ),
    Case(
        "a Parquet file without a footer",
        "database",
        "a.parquet",
        lambda: b"PAR1" + bytes(range(256)) * 9,
        0,
        ["truncated"],
    ),
    Case(
        "a Parquet footer that lies",
        "database",
        "a.parquet",
        lambda: b"PAR1" + b"\xff" * 500 + struct.pack("<I", 400) + b"PAR1",
        0,
        ["truncated"],
    ),
    Case(
        "a damaged pg_dump archive",
        "database",
        "a.dump",
        lambda: b"PGDMP\x01\x0e\x00\x04\x08\x01" + b"\xff" * 3000,
        0,
        None,
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.timeout(120)
def test_it_ends_in_records_and_rows_that_say_why(case: Case, tmp_path: Path) -> None:
    path = tmp_path / "object"
    path.write_bytes(case.build())
    raw = RawObject(case.source, f"raw/{case.source}/{case.file}", path.stat().st_size, "0" * 64)
    options = CleanOptions(**case.options)
    rows = list(sources.read(raw, path, options))
    drafts = [row for row in rows if isinstance(row, Draft)]
    reasons = [row.reason for row in rows if isinstance(row, Rejected)]
    assert rows, "something must come of every object"
    assert set(reasons) <= set(REASONS)
    assert len(drafts) + len(reasons) == len(rows)
    assert case.drafts is None or len(drafts) == case.drafts, reasons
    assert case.reasons is None or reasons == case.reasons
    assert all(row.raw_key == raw.key for row in rows if isinstance(row, Rejected))
    text = "".join(part.text for draft in drafts for part in draft.parts)
    assert not case.not_in_text or case.not_in_text not in text
    sanitizer = Sanitizer(b"salt" * 8)
    for row in rows[:MASKED]:
        if isinstance(row, Rejected):
            assert len(mask_rejected(row, sanitizer).sample.encode()) <= 200
        elif sum(len(part.text) for part in row.parts) < 100_000:
            assert isinstance(to_document(row, raw, sanitizer, options), Document | Rejected)


@pytest.mark.timeout(300)
def test_nothing_is_lost_between_the_raw_objects_and_the_quarantine(folder_store: Store) -> None:
    objects = 0
    for number, case in enumerate(case for case in CASES if not case.options):
        data = case.build()
        if len(data) < 200_000:
            folder_store.put(f"raw/{case.source}/{number}/{case.file}", data)
            objects += 1
    found = washed(folder_store)
    assert found.new == objects
    assert unbalanced(found.made.conservation) == {}
    read = {one.raw_key for one in [*found.documents(), *found.rejected()]}
    assert len(read) == objects
    assert set(found.made.reasons) <= set(REASONS)


@pytest.mark.timeout(300)
def test_100_000_tiny_members_are_read_up_to_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "object"
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(100_000):
            archive.writestr(zipfile.ZipInfo(f"{number}.txt"), b"x")
    raw = RawObject("documents", "raw/documents/a.zip", path.stat().st_size, "0" * 64)
    rows = list(sources.read(raw, path, CleanOptions()))
    assert len(rows) == 10_001
    last = rows[-1]
    assert isinstance(last, Rejected)
    assert last.reason == "too_many_members"


def test_many_worthless_records_take_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "object"
    path.write_bytes(b'{"a":1}\n' * 50_000)
    raw = RawObject("git", "raw/git/a.jsonl", path.stat().st_size, "0" * 64)
    tracemalloc.start()
    try:
        count = sum(1 for _ in sources.read(raw, path, CleanOptions()))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == 50_000
    assert peak < 20_000_000


@pytest.mark.parametrize("source", ["git", "jira", "confluence", "documents", "database", "feedback"])
def test_a_file_that_is_gone_or_cannot_be_opened_is_one_row(source: str, tmp_path: Path) -> None:
    raw = RawObject(source, f"raw/{source}/a", 1, "0" * 64)
    for path in (tmp_path / "gone", tmp_path):
        (row,) = sources.read(raw, path, CleanOptions())
        assert isinstance(row, Rejected)
        assert row.reason == "unreadable_file"
