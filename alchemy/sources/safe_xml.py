"""XML from strangers: streamed records of a large file, without entities, network or unbounded memory.

A file that declares entities of its own is refused as a whole: nothing that these exports hold needs them,
and they are how a kilobyte becomes a gigabyte (or a local file). The parser recovers from the small damage
that real exports have (control characters, undefined entities); what it cannot read becomes one row.
"""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from lxml import etree

from alchemy.records import RawObject, Rejected
from alchemy.sources.json_records import open_utf8
from alchemy.sources.reasons import reject

MAX_DEPTH = 250  # libxml2 itself stops at 256
_READ_BYTES = 1 << 16
_LOGGED_FAULTS = 100  # libxml2 reports no more
# What the parser mends without losing an element. Every other fault may have hidden a record.
_HARMLESS = frozenset((
    "ERR_INVALID_ENCODING", "ERR_INVALID_CHAR", "ERR_UNDECLARED_ENTITY", "WAR_UNDECLARED_ENTITY",
    "ERR_NAME_REQUIRED", "ERR_ENTITYREF_SEMICOL_MISSING", "ERR_ENTITYREF_NO_NAME",
    "NS_ERR_UNDEFINED_NAMESPACE", "ERR_MISPLACED_CDATA_END", "ERR_INVALID_HEX_CHARREF",
    "ERR_INVALID_DEC_CHARREF", "ERR_INVALID_CHARREF",
))  # fmt: skip
_CONTROLS = bytes(code for code in range(32) if code not in b"\t\r\n")


@dataclass(frozen=True, slots=True)
class FoundElement:
    """One record element, valid until the next one is asked for, and where it stood."""

    element: etree._Element
    locator: str


def find_elements(
    raw: RawObject, path: Path, depth: int, limit: int, tags: frozenset[str]
) -> Iterator[FoundElement | Rejected]:
    """The elements named in `tags` at nesting `depth` (the root has 1), in order; others are dropped.

    Args:
        limit: Bytes of one record beyond which the rest of the file is not read.
    """
    events = ("start", "end")
    with closing(open_utf8(path)) as file:
        parser = etree.XMLPullParser(
            events,
            resolve_entities=False,
            no_network=True,
            load_dtd=False,
            recover=True,
            huge_tree=False,
            remove_comments=True,
            remove_pis=True,
            encoding=_encoding(file.read(_READ_BYTES)),
        )
        file.seek(0)
        level = count = pending = 0
        root: etree._Element | None = None
        while block := file.read(_READ_BYTES):
            parser.feed(block.translate(None, _CONTROLS))
            pending += len(block)
            for event, element in parser.read_events():
                if event == "start":
                    level += 1
                    if root is None:
                        root = element
                        if _declares_entities(element):
                            yield reject(raw, "unsafe_xml", "The file declares XML entities.", sample=block)
                            return
                    if level >= MAX_DEPTH:
                        detail = f"The XML nests {MAX_DEPTH} levels deep; the rest was not read."
                        yield reject(raw, "too_deep", detail, locator=_after(count))
                        return
                    continue
                if level == depth:
                    pending = 0
                    if element.tag in tags:
                        count += 1
                        yield FoundElement(element, f"{element.tag}[{count - 1}]")
                    _forget(element)
                level -= 1
            if pending > limit:
                detail = f"The record is larger than {limit} bytes; the rest of the file was not read."
                yield reject(raw, "too_large", detail, locator=_after(count))
                return
        if root is None:
            yield reject(raw, "broken", "The file is not XML.")
        elif fault := _fault(parser):
            yield reject(raw, *fault, locator=_after(count))
        elif level:
            yield reject(raw, "truncated", "The XML stops in the middle of a record.", locator=_after(count))


def child_text(element: etree._Element, path: str) -> str:
    """All text of the first element at `path`, "" if there is none."""
    found = element.find(path)
    return "" if found is None else whole_text(found)


def whole_text(element: etree._Element) -> str:
    """All text below an element, without what entities would have said."""
    return "".join(text for text in element.itertext() if isinstance(text, str))


def _encoding(head: bytes) -> str | None:
    """UTF-16 was turned into UTF-8 on opening, so what the declaration says about it is no longer true."""
    declaration = head[:200].lower()
    return "utf-8" if b"utf-16" in declaration else None


def _declares_entities(root: etree._Element) -> bool:
    dtd = root.getroottree().docinfo.internalDTD
    return dtd is not None and next(iter(dtd.iterentities()), None) is not None


def _fault(parser: etree.XMLPullParser) -> tuple[str, str] | None:
    """Reason and sentence for the first fault that may have cost a record."""
    log = parser.feed_error_log
    for entry in log:
        if entry.type_name == "ERR_RESOURCE_LIMIT":
            return "too_large", f"A text in line {entry.line} is too long; the rest was not read."
        if entry.type_name not in _HARMLESS:
            return "broken", f"The XML is damaged in line {entry.line}; records from there on may be missing."
    if len(log) >= _LOGGED_FAULTS:
        return "broken", f"The XML has {_LOGGED_FAULTS} faults or more; records may be missing."
    return None


def _forget(element: etree._Element) -> None:
    """Frees an element and those before it."""
    element.clear(keep_tail=False)
    parent = element.getparent()
    while parent is not None and element.getprevious() is not None:
        del parent[0]


def _after(count: int) -> str:
    return f"after record {count}" if count else ""
