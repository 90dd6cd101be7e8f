"""Write the binary files of the sample corpus: PDF, DOCX, SQLite and two broken ones.

The text lives here, where a diff can show a change to it. The result is committed as well, so nobody
needs to run this to use the corpus; after an edit run `python examples/make_binaries.py` and commit both.
Two runs give the same bytes: no time of day gets in.
"""

from __future__ import annotations

import hashlib
import io
import sqlite3
import zipfile
from datetime import UTC, datetime
from pathlib import Path

from docx import Document

RAW = Path(__file__).parent / "raw"
WRITTEN = datetime(2026, 9, 1, 9, 0, tzinfo=UTC)

# Each page is a list of lines: "# " opens a section heading, "" leaves a gap. Lines fit the page as they are.
HANDBOOK_PAGES: list[list[str]] = [
    [
        "# Haulmark Field Installation Handbook",
        "Edition 7, September 2026. For installers of Lantern gateways and Pip sensor tags.",
        "",
        "# 1. Before you start",
        "Bring a torque wrench, isopropyl alcohol, the installer app and two spare tags.",
        "An installation in a trailer takes 50 minutes, in a cold store about 25 minutes per tag row.",
        "Never drill into the wall of a trailer. Its insulation certificate would be void.",
        "",
        "# 2. Mounting the Lantern",
        "Mount the gateway on the front bulkhead, between 1.8 and 2.2 metres above the floor.",
        "Keep at least 30 centimetres between the antenna and any metal plate.",
        "Tighten the four M5 screws to 4.5 newton metres. More will crack the housing.",
        "The arrow on the lid points up, otherwise condensed water reaches the connector.",
        "",
        "# 3. Power",
        "Lantern 2 takes 9 to 36 volts direct current and draws 210 milliampere at 24 volts.",
        "Use a 2 ampere slow fuse in the positive line, close to the battery of the trailer.",
        "The internal battery runs the gateway for 30 hours at 5 degrees Celsius.",
    ],
    [
        "# 4. Placing the tags",
        "A trailer of 13.6 metres gets at least five tags: two front, one middle, two at the door.",
        "Place a tag at the height of the upper third of the load, never on the floor.",
        "For pharmaceutical loads add one tag in the return air of the cooling unit.",
        "Clean the wall with alcohol and press the adhesive for 60 seconds at 10 degrees or more.",
        "",
        "# 5. Pairing",
        "Hold the magnet to the tag for three seconds until it blinks twice.",
        "The gateway accepts new tags for ten minutes after the installer app has opened pairing.",
        "One Lantern serves up to 64 tags. The app warns from 56 tags on.",
        "If pairing fails with code P-17, the tag belongs to another tenant and must be released first.",
        "If pairing fails with code P-22, its battery is below 2.7 volts. Use another tag.",
        "",
        "# 6. Acceptance test",
        "Every tag must show a signal of -85 dBm or better with the doors closed.",
        "Let the system run for two hours and compare each tag with a reference thermometer.",
        "A difference of more than 0.5 degrees is entered in the protocol and the tag is exchanged.",
    ],
    [
        "# 7. Cleaning and care",
        "The housing is IP67. Do not point a high pressure cleaner at the vent on the lower side.",
        "Wipe tags with water and mild soap. Chlorine attacks the membrane of the humidity sensor.",
        "",
        "# 8. Warranty and repair",
        "The warranty is 36 months for Lantern 2 and 24 months for Pip 3, from the day of delivery.",
        "It does not cover damage from lightning, forklifts or paint.",
        "Send faulty units without batteries. A repair takes 12 working days.",
        "Repairs: repairs@brinewell.example, phone +46 31 555 0188.",
        "",
        "# 9. Disposal",
        "Pip tags hold a lithium cell. Return them to us in the yellow box, at most 40 to a box.",
        "The yellow box is marked UN 3091 and must not travel by air.",
    ],
]

TABLE_OF_ACCESS = [
    ("System", "Who gives access", "When"),
    ("Mail and calendar", "IT desk", "before the first day"),
    ("Source code", "your team lead", "day 1"),
    ("Staging", "Platform team", "day 3, after the security course"),
    ("Production, read only", "Platform team", "after 30 days"),
    ("Production, full", "head of engineering", "after the first on-call week as a shadow"),
]

ITEMS = [
    (1, "Lantern 2", "gateway", 340, 120, 1, "Main stock in Gothenburg, shelf A3"),
    (2, "Lantern 1", "gateway", 26, 0, 1, "Only for exchange against broken units, no new installations"),
    (3, "Pip 3", "tag", 5150, 2000, 2, "Delivered in trays of 50"),
    (4, "Pip 3C", "tag", 410, 300, 2, "Carbon dioxide variant, shelf life of 18 months before first use"),
    (5, "Antenna LTE 4 dBi", "accessory", 95, 60, 3, "Cable of 3 metres, do not shorten"),
    (6, "Mounting plate M5", "accessory", 700, 200, 3, "Stainless steel, with four screws"),
    (
        7,
        "Reference thermometer RT-9",
        "tool",
        11,
        8,
        4,
        "Calibrated every February by the national institute",
    ),
    (8, "Yellow return box", "accessory", 220, 100, 3, "Certified for lithium cells"),
]
SUPPLIERS = [
    (1, "Tvilling Elektronik", "Sweden", 21, "Assembles all gateways; last order by the 10th of the month"),
    (
        2,
        "Coldmast BV",
        "Netherlands",
        56,
        "Contact J. Verhoeven, j.verhoeven@coldmast.example, +31 10 555 0177",
    ),
    (3, "Lindgren Metall", "Sweden", 9, "Minimum order of 250 euro"),
    (4, "Thermaflux", "Switzerland", 35, "Invoices in CHF, payment within 14 days"),
]


def main() -> None:
    """Write every binary of the corpus."""
    handbook = pdf(HANDBOOK_PAGES)
    write("documents/handbook.pdf", handbook)
    write("documents/onboarding.docx", onboarding())
    write("database/inventory.sqlite", inventory())
    # A scan whose transfer broke off: no page is complete, no cross-reference table follows.
    write("documents/broken-scan.pdf", handbook[:90] + noise("scan", 2400))
    # A header that promises pages of 4096 bytes, then nothing that is a page.
    header = bytearray(inventory()[:100])
    header[16:18] = (4096).to_bytes(2, "big")
    write("database/corrupt.sqlite", bytes(header) + noise("sqlite", 3000))


def pdf(pages: list[list[str]]) -> bytes:
    """Return a PDF 1.4 file with one text layer line for each line of `pages`."""
    objects = [b"<< /Type /Catalog /Pages 2 0 R >>", b""]
    fonts = b"<< /F1 3 0 R /F2 4 0 R >>"
    objects += [
        b"<< /Type /Font /Subtype /Type1 /BaseFont /" + name + b" /Encoding /WinAnsiEncoding >>"
        for name in (b"Helvetica", b"Helvetica-Bold")
    ]
    kids = []
    for number, lines in enumerate(pages, start=1):
        content = page_operators(lines, number)
        kids.append(f"{len(objects) + 1} 0 R")
        objects.append(
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Resources << /Font "
            + fonts
            + f" >> /Contents {len(objects) + 2} 0 R >>".encode()
        )
        objects.append(b"<< /Length %d >>\nstream\n%s\nendstream" % (len(content), content))
    objects[1] = f"<< /Type /Pages /Kids [{' '.join(kids)}] /Count {len(kids)} >>".encode()
    objects.append(
        b"<< /Title (Haulmark Field Installation Handbook) /Author (edge-team@brinewell.example) >>"
    )

    out = bytearray(b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n")
    offsets = []
    for number, body in enumerate(objects, start=1):
        offsets.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    out += b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    out += b"trailer\n<< /Size %d /Root 1 0 R /Info %d 0 R >>\n" % (len(objects) + 1, len(objects))
    return bytes(out + b"startxref\n%d\n%%%%EOF\n" % table)


def page_operators(lines: list[str], number: int) -> bytes:
    """Return the drawing operators of one page, a text object for each line."""
    operators, height = [], 780
    for line in [*lines, "", f"Page {number}"]:
        heading = line.startswith("# ")
        text = line.removeprefix("# ").replace("\\", r"\\").replace("(", r"\(").replace(")", r"\)")
        font = "/F2 14" if heading else "/F1 11"
        if text:
            operators.append(f"BT {font} Tf 56 {height} Td ({text}) Tj ET")
        height -= 26 if heading else 18
    return "\n".join(operators).encode("cp1252")


def onboarding() -> bytes:
    """Return the guide for new colleagues as DOCX: headings, paragraphs, lists and a table."""
    document = Document()
    facts = document.core_properties
    facts.title = "Welcome to Brinewell"
    facts.author = facts.last_modified_by = "Lucie Marchand"
    facts.subject = "Questions to lucie.marchand@brinewell.example"
    facts.created = facts.modified = WRITTEN.replace(tzinfo=None)
    document.add_heading("Welcome to Brinewell", level=0)
    document.add_paragraph("This guide covers your first ninety days. It is kept by the people team.")
    document.add_heading("Your first week", level=1)
    for line in (
        "Monday: laptop, badge and a lunch with your buddy, who is never from your own team.",
        "Tuesday: security course of two hours. Without it there is no access to staging.",
        "Wednesday: ride along with a customer truck from the terminal in Gothenburg.",
        "Friday: your first change goes to production, however small.",
    ):
        document.add_paragraph(line, style="List Bullet")
    document.add_heading("Access", level=1)
    table = document.add_table(rows=0, cols=3)
    table.style = "Table Grid"
    for row in TABLE_OF_ACCESS:
        for cell, text in zip(table.add_row().cells, row, strict=True):
            cell.text = text
    document.add_paragraph(
        "The IT desk answers at it-desk@brinewell.example. The printer of floor 2 is 192.0.2.53."
    )
    document.add_heading("Equipment", level=1)
    document.add_paragraph(
        "You choose your equipment with a budget of EUR 2,600 every three years. "
        "A chair for the home office is paid separately, up to EUR 400."
    )
    document.add_paragraph(
        "First login on the badge printer: user=guest password=Welcome2Tidal77, change it at once."
    )
    document.add_heading("Probation", level=1)
    document.add_paragraph(
        "Probation lasts six months. There are talks after 30, 90 and 150 days. "
        "During probation either side may leave with a notice of two weeks."
    )
    document.add_heading("Working from elsewhere", level=1)
    document.add_paragraph(
        "You may work from another country of the EU for up to 40 days a year. "
        "Tell the people team ten days ahead because of social insurance."
    )
    buffer = io.BytesIO()
    document.save(buffer)
    return same_clock(buffer.getvalue())


def same_clock(archive: bytes) -> bytes:
    """Return the zip `archive` with every member dated the same, so that two runs agree."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            member = zipfile.ZipInfo(name, date_time=WRITTEN.timetuple()[:6])
            member.compress_type = zipfile.ZIP_DEFLATED
            new.writestr(member, old.read(name))
    return out.getvalue()


def inventory() -> bytes:
    """Return the stock database: items, each with the supplier it comes from."""
    connection = sqlite3.connect(":memory:")
    connection.executescript(
        """
        CREATE TABLE suppliers (
            id INTEGER PRIMARY KEY, name TEXT NOT NULL, country TEXT, lead_time_days INTEGER, remark TEXT);
        CREATE TABLE items (
            id INTEGER PRIMARY KEY, name TEXT NOT NULL, category TEXT, in_stock INTEGER,
            reorder_below INTEGER, supplier_id INTEGER REFERENCES suppliers(id), remark TEXT);
        """
    )
    connection.executemany("INSERT INTO suppliers VALUES (?, ?, ?, ?, ?)", SUPPLIERS)
    connection.executemany("INSERT INTO items VALUES (?, ?, ?, ?, ?, ?, ?)", ITEMS)
    connection.commit()
    return connection.serialize()


def noise(name: str, size: int) -> bytes:
    """Return `size` bytes without structure that are the same on every run."""
    blocks = (hashlib.sha256(f"{name}{i}".encode()).digest() for i in range(size // 32 + 1))
    return b"".join(blocks)[:size]


def write(path: str, content: bytes) -> None:
    """Write `content` below the raw folder."""
    target = RAW / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content)


if __name__ == "__main__":
    main()
