"""The text of a DOCX file in document order; runs inside the extractor's child process only.

`office` has checked the zip directory. The body is walked as XML, because python-docx's own iteration leaves
out content controls and is quadratic on large tables.
"""

import re
import zipfile
from typing import Any

from alchemy.sources.refused import Refused

_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_NOTE_SKIPPED = {"separator", "continuationSeparator", "continuationNotice"}
_HEADING = re.compile(r"heading\s*([1-6])|(title)\Z", re.I)
_MAX_DEPTH = 50


def extract_docx(path: str, _limit: int) -> dict[str, Any]:
    """`parts` (kind, text, level), `title`, `author`, `created`, `images`.

    Raises:
        Refused: `broken` or `empty`.
    """
    import docx
    from docx.opc.exceptions import OpcError
    from lxml.etree import XMLSyntaxError

    try:
        document = docx.Document(path)
        reader = _Reader(document)
        reader.blocks(document.element.body, 0)
        reader.notes()
        core = document.core_properties
        created = core.modified or core.created
        found = {
            "parts": reader.parts,
            "title": core.title or "",
            "author": core.author or "",
            "created": created.isoformat() if created else "",
            "images": sum(1 for _ in document.element.body.iter(f"{_W}drawing")),
        }
    except XMLSyntaxError as error:
        if "memory" in str(error).lower():
            raise MemoryError from error
        raise Refused("broken", "The XML inside the DOCX file is damaged.") from error
    except (OpcError, KeyError, ValueError, zipfile.BadZipFile, OSError) as error:
        raise Refused("broken", f"The DOCX file is damaged ({type(error).__name__}).") from error
    if not any(text.strip() for _, text, _ in reader.parts):
        raise Refused("empty", "The document holds no text.")
    return found


class _Reader:
    """Parts of a body: (kind, text, heading level)."""

    def __init__(self, document: Any) -> None:
        self.document = document
        self.parts: list[tuple[str, str, int]] = []
        self.styles: dict[str | None, tuple[int, bool]] = {}
        self.numbers: dict[tuple[str, int], int] = {}

    def blocks(self, parent: Any, depth: int) -> None:
        for child in parent.iterchildren():
            if child.tag == f"{_W}p":
                self.paragraph(child)
            elif child.tag == f"{_W}tbl":
                self.table(child, depth)
            elif (
                child.tag in (f"{_W}sdt", f"{_W}sdtContent", f"{_W}ins", f"{_W}customXml")
                and depth < _MAX_DEPTH
            ):
                self.blocks(child, depth + 1)

    def paragraph(self, element: Any) -> None:
        text = _text(element).strip()
        if not text:
            return
        level, listed = self.style(_style_id(element))
        properties = element.find(f"{_W}pPr")
        listed = listed or (properties is not None and properties.find(f"{_W}numPr") is not None)
        if level:
            self.parts.append(("heading", text, level))
        else:
            self.parts.append(("item" if listed else "prose", text, 0))

    def table(self, element: Any, depth: int) -> None:
        rows = []
        for row in element.iterchildren(f"{_W}tr"):
            cells = [_cell(cell) for cell in row.iter(f"{_W}tc") if _owner(cell, element)]
            if any(cells):
                rows.append(" | ".join(cells))
        if rows:
            self.parts.append(("table", "\n".join(rows), 0))

    def notes(self) -> None:
        """Foot- and endnotes, after the body."""
        from lxml import etree

        for relation in self.document.part.rels.values():
            if relation.is_external or relation.reltype.rpartition("/")[2] not in ("footnotes", "endnotes"):
                continue
            root = etree.fromstring(relation.target_part.blob, _safe_parser())
            for note in root.iterchildren(f"{_W}footnote", f"{_W}endnote"):
                if note.get(f"{_W}type") in _NOTE_SKIPPED:
                    continue
                text = " ".join(filter(None, (_text(p).strip() for p in note.iter(f"{_W}p"))))
                if text:
                    self.parts.append(("prose", f"Note: {text}", 0))

    def style(self, style_id: str | None) -> tuple[int, bool]:
        """Heading level (0: none) of a paragraph style, and whether it is a list style."""
        if style_id not in self.styles:
            name = style_id or ""
            for style in self.document.styles.element.iterchildren(f"{_W}style"):
                if style.get(f"{_W}styleId") == style_id:
                    label = style.find(f"{_W}name")
                    name = label.get(f"{_W}val") or name if label is not None else name
                    break
            match = _HEADING.match(name)
            level = (int(match.group(1)) if match.group(1) else 1) if match else 0
            self.styles[style_id] = level, name.lower().startswith("list ")
        return self.styles[style_id]


def _style_id(paragraph: Any) -> str | None:
    properties = paragraph.find(f"{_W}pPr")
    style = properties.find(f"{_W}pStyle") if properties is not None else None
    return style.get(f"{_W}val") if style is not None else None


def _text(paragraph: Any) -> str:
    """Runs, links, tabs and breaks of a paragraph; deleted text, field codes and text boxes are left out."""
    pieces = []
    skipped = (f"{_W}txbxContent", f"{_W}pPr", f"{_W}del", f"{_W}moveFrom")
    stack = [paragraph]
    while stack:
        node = stack.pop()
        if node is not paragraph and node.tag in skipped:
            continue
        if node.tag == f"{_W}t":
            pieces.append(node.text or "")
        elif node.tag == f"{_W}tab":
            pieces.append("\t")
        elif node.tag in (f"{_W}br", f"{_W}cr"):
            pieces.append("\n" if node.get(f"{_W}type") in (None, "textWrapping") else "")
        elif node.tag == f"{_W}noBreakHyphen":
            pieces.append("-")
        else:
            stack += reversed(node)
    return "".join(pieces)


def _cell(cell: Any) -> str:
    paragraphs = (" ".join(_text(paragraph).split()) for paragraph in cell.iter(f"{_W}p"))
    return " ".join(text for text in paragraphs if text)


def _owner(cell: Any, table: Any) -> bool:
    """Whether a cell belongs to this table and not to one inside it."""
    return next(cell.iterancestors(f"{_W}tbl"), None) is table


def _safe_parser() -> Any:
    from lxml import etree

    return etree.XMLParser(resolve_entities=False, no_network=True, huge_tree=False)
