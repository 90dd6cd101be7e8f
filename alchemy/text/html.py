"""HTML to parts: headings, prose, lists, tables and code in reading order, without the page around them.

The content is found by the container ids that wikis use, else it is the body without its navigation. The
tree is walked with an explicit stack, and what nests deeper than `MAX_DEPTH` counts as plain text, so a
hostile page costs time in proportion to its length and no recursion.
"""

import html as html_escapes
import re
from dataclasses import dataclass, field

from selectolax.lexbor import LexborHTMLParser, LexborNode

from alchemy.records import Part

MAX_DEPTH = 200
_PARSED_DEPTH = 2_000  # the parser's time grows with the square of the nesting
_CONTAINERS = ("#main-content", "#ConfluenceContent", ".wiki-content", "main", "article", "[role=main]")
_DROPPED_TAGS = frozenset((
    "script", "style", "noscript", "template", "svg", "form", "button", "input", "select", "textarea",
    "iframe", "object", "nav", "head", "map", "colgroup", "link", "meta",
))  # fmt: skip
_DROPPED_IN_BODY = frozenset(["header", "footer", "aside"])
_DROPPED_CLASSES = frozenset((
    "toc-macro", "toc-indentation", "aui-icon", "confluence-information-macro-icon",
    "refresh-module-id", "refresh-issues-bottom", "aui-message", "jim-error-message",
    "gliffy-container", "comment-container", "plugin_pagetree", "page-metadata", "breadcrumb",
    "breadcrumbs",
))  # fmt: skip
_DROPPED_IDS = frozenset((
    "navigation", "banner", "breadcrumbs", "breadcrumb-section", "quicklinks", "top-menu", "menu-page",
    "site-footer", "footer", "header", "sidebar", "comments-section", "likes-and-labels-container",
))  # fmt: skip
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_BLOCKS = frozenset((
    "address", "article", "aside", "blockquote", "body", "caption", "center", "dd", "details", "div",
    "dl", "dt", "fieldset", "figcaption", "figure", "footer", "header", "hr", "main", "ol", "p",
    "section", "summary", "table", "tbody", "td", "tfoot", "th", "thead", "tr", "ul",
))  # fmt: skip
_LAYOUT_MARKS = frozenset(("pre", "table", "h1", "h2", "h3", "h4", "h5", "h6"))
_NESTING = re.compile(
    r"<(/?)(?:div|span|section|article|main|blockquote|ul|ol|dl|table|center|font|b|i|em|strong|a|form|fieldset)"
    r"\b[^<>]*>",
    re.I,
)
_CDATA = re.compile(r"\A\s*<!\[CDATA\[|\]\]>\s*\Z")


@dataclass
class HtmlText:
    """The content of a page; the counts are of what stands in the content, not around it."""

    parts: list[Part] = field(default_factory=list)
    title: str = ""  # of the <title> element, as it stands
    heading: str = ""  # the first heading of the content
    links: int = 0
    images: int = 0
    tables: int = 0
    headings: int = 0
    code_blocks: int = 0


def html_parts(text: str) -> list[Part]:
    """Parts of an HTML page or fragment in reading order."""
    return read_html(parse_html(text)).parts


def parse_html(text: str) -> LexborHTMLParser:
    """The tree of a page. Tags that nest absurdly deep are left out before parsing, their text stays."""
    if text.count("<") > _PARSED_DEPTH:
        text = _flattened(text)
    return LexborHTMLParser(text)


def read_html(page: LexborHTMLParser) -> HtmlText:
    """The content of a parsed page."""
    result = HtmlText(title=node_text(page.css_first("title")))
    root = next((node for selector in _CONTAINERS if (node := page.css_first(selector))), None)
    body = root is None
    root = root or page.body
    if root is not None:
        _Walker(result, body).walk(root)
    return result


def heading_part(text: str, level: int) -> Part:
    """A heading as every reader writes it: the level stays visible as Markdown's number signs."""
    text = " ".join(text.split())
    return Part(f"{'#' * min(max(level, 1), 6)} {text}" if text else "", "heading")


def node_text(node: LexborNode | None) -> str:
    """The text of an element on one line; "" for None."""
    return " ".join(_raw_text(node).split()) if node is not None else ""


class _Walker:
    """Gathers lines of prose until something that is not prose comes."""

    def __init__(self, result: HtmlText, in_body: bool) -> None:
        self.result = result
        self.in_body = in_body
        self.inline: list[str] = []
        self.lines: list[tuple[str, bool]] = []  # a line, and whether it belongs to the list above it
        self.lists: list[int] = []  # the last number of each open list; -1: not numbered
        self.mark = ""  # of a list item that has no text yet
        self.quotes = 0

    def walk(self, root: LexborNode) -> None:
        stack: list[tuple[LexborNode, int, bool]] = [(root, 0, False)]
        while stack:
            node, depth, leaving = stack.pop()
            if leaving:
                self.leave(node.tag or "")
                continue
            if node.is_text_node:
                self.inline.append(node.text_content or "")
                continue
            if not node.is_element_node or (depth and self.is_dropped(node)):
                continue
            if self.enter(node, depth):
                stack.append((node, depth, True))
                stack += [(child, depth + 1, False) for child in reversed(_children(node))]
        self.flush()

    def enter(self, node: LexborNode, depth: int) -> bool:
        """Handles an element; says whether its children are to be walked."""
        tag = node.tag or ""
        if depth > MAX_DEPTH:
            self.inline.append(_raw_text(node))
            return False
        if tag in _HEADINGS:
            self.heading(node_text(node), _HEADINGS[tag])
            return False
        if tag in ("pre", "script"):
            self.code(node)
            return False
        if tag == "table" and not _is_layout(node):
            self.table(node)
            return False
        if tag == "br":
            self.end_line()
        elif tag == "img":
            self.result.images += 1
        elif tag == "a" and node.attributes.get("href"):
            self.result.links += 1
        elif tag in ("ul", "ol"):
            self.end_line()
            self.lists.append(0 if tag == "ol" else -1)
        elif tag == "li":
            self.begin_item()
        elif tag in _BLOCKS:
            self.end_line()
            self.quotes += tag == "blockquote"
            self.result.tables += tag == "table"
        return tag not in ("br", "img")

    def leave(self, tag: str) -> None:
        if tag in ("ul", "ol"):
            self.end_line()
            self.lists.pop()
            if not self.lists:
                self.paragraph()
        elif tag == "li":
            self.end_line()
            self.mark = ""
        elif tag in _BLOCKS:
            self.end_line()
            self.quotes -= tag == "blockquote"
            if not self.lists:
                self.paragraph()

    def is_dropped(self, node: LexborNode) -> bool:
        tag = node.tag or ""
        attributes = node.attributes
        if tag == "script":  # Confluence's code macro in exported sites
            return attributes.get("type") != "syntaxhighlighter"
        if tag in _DROPPED_TAGS or (self.in_body and tag in _DROPPED_IN_BODY):
            return True
        if self.in_body and attributes.get("role") in ("navigation", "banner", "contentinfo", "search"):
            return True
        classes = attributes.get("class")
        if classes and not _DROPPED_CLASSES.isdisjoint(classes.split()):
            return True
        return attributes.get("id") in _DROPPED_IDS

    def begin_item(self) -> None:
        self.end_line()
        depth = max(len(self.lists), 1)
        if self.lists and self.lists[-1] >= 0:
            self.lists[-1] += 1
            self.mark = f"{'  ' * (depth - 1)}{self.lists[-1]}. "
        else:
            self.mark = f"{'  ' * (depth - 1)}- "

    def end_line(self) -> None:
        """What was gathered becomes a line; inside lists it stays with its item."""
        text = " ".join("".join(self.inline).split())
        self.inline.clear()
        if not text:
            return
        prefix = self.mark or "  " * len(self.lists) + ("> " if self.quotes else "")
        self.mark = ""
        self.lines.append((prefix + text, bool(self.lists)))

    def paragraph(self) -> None:
        if self.lines and self.lines[-1][0]:
            self.lines.append(("", False))

    def flush(self) -> None:
        self.end_line()
        text = "\n".join(line for line, _ in self.lines)
        self.lines.clear()
        if text.strip():
            self.result.parts.append(Part(text.strip("\n")))

    def heading(self, text: str, level: int) -> None:
        if not text:
            return
        self.flush()
        self.result.headings += 1
        self.result.heading = self.result.heading or text
        self.result.parts.append(heading_part(text, level))

    def code(self, node: LexborNode) -> None:
        text = _raw_text(node)
        if node.tag == "script":
            text = html_escapes.unescape(_CDATA.sub("", text))
        if not text.strip():
            return
        self.flush()
        self.result.code_blocks += 1
        self.result.parts.append(Part(text, "code"))

    def table(self, node: LexborNode) -> None:
        rows = []
        for row in node.css("tr"):
            cells = [self.cell(cell) for cell in _children(row) if cell.tag in ("td", "th")]
            if any(cells):
                rows.append(" | ".join(cells))
        self.flush()
        self.result.tables += 1
        self.result.parts.append(Part("\n".join(rows), "table"))

    def cell(self, cell: LexborNode) -> str:
        self.result.links += len(cell.css("a[href]"))
        self.result.images += len(cell.css("img"))
        return " ".join(_raw_text(cell, self).split()).replace(" | ", " / ")


def _flattened(text: str) -> str:
    pieces: list[str] = []
    depth = excess = position = 0
    for tag in _NESTING.finditer(text):
        if tag.group(1):
            drop = excess > 0
            excess, depth = (excess - 1, depth) if drop else (0, max(depth - 1, 0))
        else:
            drop = depth >= _PARSED_DEPTH
            excess, depth = (excess + 1, depth) if drop else (excess, depth + 1)
        if drop:
            pieces.append(text[position : tag.start()])
            position = tag.end()
    return "".join([*pieces, text[position:]]) if pieces else text


def _is_layout(table: LexborNode) -> bool:
    """Whether a table arranges the page rather than data: it holds code, headings or other tables."""
    return any(node.tag in _LAYOUT_MARKS for node in table.traverse() if node.mem_id != table.mem_id)


def _children(node: LexborNode) -> list[LexborNode]:
    found = []
    child = node.first_child
    while child is not None:
        found.append(child)
        child = child.next
    return found


def _raw_text(root: LexborNode, walker: _Walker | None = None) -> str:
    """All text below a node with its line ends; <br> and block elements break the line."""
    pieces: list[str] = []
    stack: list[LexborNode | str] = [root]
    while stack:
        node = stack.pop()
        if isinstance(node, str):
            pieces.append(node)
        elif node.is_text_node:
            pieces.append(node.text_content or "")
        elif node.tag == "br":
            pieces.append("\n")
        elif node.is_element_node and not (walker and node.mem_id != root.mem_id and walker.is_dropped(node)):
            block = node.tag in _BLOCKS or node.tag == "li"
            if block:
                stack.append("\n")
            stack += reversed(_children(node))
            if block:
                pieces.append("\n")
    return "".join(pieces)
