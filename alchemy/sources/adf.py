"""Atlassian Document Format (the JSON trees of Jira's v3 and Confluence's v2 API) to parts.

| node | becomes |
|---|---|
| heading, paragraph, blockquote, rule | a heading, prose, "> " prose, nothing |
| bulletList, orderedList, taskList, decisionList | "- ", "1. ", "- [x] ", "- " lines, nested by indent |
| codeBlock | code, untouched |
| table | rows as "a \\| b" |
| panel, expand, layout, bodied extension | their label ("Warning:", the title), then their content |
| media, mediaInline | the alternative text in brackets |
| mention, emoji, date, status, cards | the name, the sign, an ISO date, the text, the address |

Trees come from `json_records.parse`, which bounds their nesting, so recursion is safe here.
"""

from datetime import UTC, datetime
from typing import Any

from alchemy.records import Part
from alchemy.sources.drafts import as_dict, as_list, as_number, one_line
from alchemy.sources.wiki import WikiText
from alchemy.text.html import heading_part

_INLINE = frozenset((
    "text", "hardBreak", "mention", "emoji", "date", "status", "inlineCard", "mediaInline", "placeholder",
    "inlineExtension",
))  # fmt: skip
_LISTS = frozenset(("bulletList", "orderedList", "taskList", "decisionList"))
_VAGUE = frozenset(("here", "link", "this", "click", "source", "docs", "doc"))


def is_document(value: Any) -> bool:
    """Whether a JSON value is a document tree."""
    return isinstance(value, dict) and isinstance(value.get("content"), list)


def adf_parts(root: dict[str, Any]) -> WikiText:
    """Parts of a document tree in reading order."""
    walker = _Walker()
    walker.blocks(as_list(root.get("content")), "", "")
    walker.flush()
    return walker.result


class _Walker:
    def __init__(self) -> None:
        self.result = WikiText()
        self.lines: list[str] = []

    def flush(self) -> None:
        self.result.parts.append(Part("\n".join(self.lines)))
        self.lines.clear()

    def blocks(self, nodes: list[Any], first: str, indent: str) -> None:
        """Blocks below one another; the first line begins with `first`, the others with `indent`."""
        inline: list[Any] = []
        for node in nodes:
            if isinstance(node, dict) and node.get("type") in _INLINE:
                inline.append(node)  # task items, and list items of old editors, hold text directly
                continue
            if inline:
                first = self.prose(inline, first, indent)
                inline = []
            if isinstance(node, dict):
                first = self.block(node, first, indent)
        if inline:
            self.prose(inline, first, indent)

    def block(self, node: dict[str, Any], first: str, indent: str) -> str:
        """One block; returns what the next line begins with."""
        kind, attributes, content = node.get("type"), as_dict(node.get("attrs")), as_list(node.get("content"))
        if kind == "paragraph":
            return self.prose(content, first, indent)
        if kind == "heading":
            self.flush()
            level = int(as_number(attributes.get("level")) or 1)
            self.result.parts.append(heading_part(self.text(content), level))
        elif kind == "codeBlock":
            self.flush()
            self.result.code_blocks += 1
            self.result.parts.append(Part(self.text(content), "code"))
        elif kind == "table":
            self.flush()
            self.result.parts.append(Part("\n".join(map(self.row, content)), "table"))
        elif kind in _LISTS:
            self.items(kind, content, indent, as_number(attributes.get("order")))
        elif kind == "blockquote":
            self.blocks(content, f"{indent}> ", f"{indent}> ")
            self.lines.append("")
        elif kind in ("media", "mediaInline", "blockCard", "embedCard"):
            return self.prose([node], first, indent)
        elif kind == "panel":
            label = one_line(attributes.get("panelType")).capitalize()
            self.blocks(content, f"{first}{label}: " if label and label != "Custom" else first, indent)
        else:  # expand, layouts, media groups, extensions, and what is yet to be invented
            if title := one_line(attributes.get("title")):
                self.lines += [f"{first}{title}", ""]
                first = indent
            self.blocks(content, first, indent)
        return indent

    def items(self, kind: str, items: list[Any], indent: str, order: float | None) -> None:
        number = int(order) if order is not None else 1
        for item in items:
            if not isinstance(item, dict):
                continue
            if item.get("type") in _LISTS:  # a nested task list stands beside its items
                self.block(item, "", f"{indent}  ")
                continue
            mark = "- "
            if kind == "orderedList":
                mark, number = f"{number}. ", number + 1
            elif item.get("type") in ("taskItem", "blockTaskItem"):
                mark = "- [x] " if as_dict(item.get("attrs")).get("state") == "DONE" else "- [ ] "
            before = len(self.lines)
            self.blocks(as_list(item.get("content")), f"{indent}{mark}", f"{indent}  ")
            # Paragraphs of an item stay with it; the empty lines that end them would part the list.
            self.lines[before:] = [line for line in self.lines[before:] if line]
        if not indent:
            self.lines.append("")

    def prose(self, content: list[Any], first: str, indent: str) -> str:
        text = self.text(content).strip()
        if not text:
            return first
        self.lines += [(indent if number else first) + line for number, line in enumerate(text.split("\n"))]
        self.lines.append("")
        return indent

    def row(self, node: Any) -> str:
        cells = as_list(as_dict(node).get("content"))
        texts = (one_line(self.text(as_list(as_dict(cell).get("content")), " ")) for cell in cells)
        return " | ".join(text.replace(" | ", " / ") for text in texts)

    def text(self, nodes: list[Any], gap: str = "") -> str:
        """Everything that can be read below `nodes`, blocks parted by `gap`."""
        pieces = []
        for node in nodes:
            if not isinstance(node, dict):
                continue
            content = node.get("content")
            if isinstance(content, list):
                pieces.append(gap + self.text(content, gap) + gap)
            else:
                pieces.append(self.inline(node))
        return "".join(pieces)

    def inline(self, node: dict[str, Any]) -> str:
        kind, attributes = node.get("type"), as_dict(node.get("attrs"))
        if kind == "text":
            return self.linked(str(node.get("text") or ""), as_list(node.get("marks")))
        if kind == "hardBreak":
            return "\n"
        if kind == "mention":
            name = one_line(attributes.get("text")).lstrip("@")
            if name:
                self.result.mentions.append(name)
            return f"@{name}" if name else ""
        if kind == "emoji":
            return one_line(attributes.get("text") or attributes.get("shortName"))
        if kind == "date":
            return _date(attributes.get("timestamp"))
        if kind == "status":
            return one_line(attributes.get("text"))
        if kind in ("inlineCard", "blockCard", "embedCard"):
            self.result.links += 1
            return one_line(attributes.get("url") or as_dict(attributes.get("data")).get("url"))
        if kind in ("media", "mediaInline"):
            alt = one_line(attributes.get("alt"))
            return f"[{alt}]" if alt else ""
        return ""

    def linked(self, text: str, marks: list[Any]) -> str:
        for mark in marks:
            if as_dict(mark).get("type") == "link":
                self.result.links += 1
                target = one_line(as_dict(as_dict(mark).get("attrs")).get("href"))
                if text.strip().lower() in _VAGUE and "://" in target:
                    return f"{text} ({target})"
        return text


def _date(milliseconds: Any) -> str:
    try:
        return datetime.fromtimestamp(int(milliseconds) / 1000, UTC).date().isoformat()
    except (TypeError, ValueError, OverflowError, OSError):
        return ""
