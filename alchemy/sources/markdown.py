"""Markdown to parts: pull request texts, Markdown files, and Markdown links inside commit messages.

A line reader, not a CommonMark parser: headings, fenced code, tables and lists are what chunks need, and
every rule is linear in the length of the text.
"""

import re
from dataclasses import dataclass, field

from alchemy.records import Part
from alchemy.text.html import heading_part

_HEADING = re.compile(r" {0,3}(#{1,6})[ \t]+(.*?)[ \t]*#*[ \t]*$")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_TABLE_RULE = re.compile(r"[ \t]*\|?[ \t]*:?-{2,}[ \t:|-]*$")
_RULE = re.compile(r"[ \t]*(?:-[ \t]*){3,}$|[ \t]*(?:\*[ \t]*){3,}$|[ \t]*(?:_[ \t]*){3,}$")
_UNDERLINE = re.compile(r" {0,3}(=+|-+)[ \t]*$")
_COMMENT = re.compile(r"<!--.*?(?:-->|\Z)", re.DOTALL)
_TAG = re.compile(
    r"</?(?:details|summary|p|br|b|i|em|strong|sub|sup|div|span|kbd|h[1-6]|ul|ol|li|a|img)\b[^<>]*>", re.I
)
_IMAGE = re.compile(r"!\[([^\[\]\n]{0,300})\]\([^()\s]{1,2000}(?:[ \t]+\"[^\"\n]{0,200}\")?\)")
_LINK = re.compile(
    r"\[([^\[\]\n]{1,300})\]\(<?([^()\s<>]{1,2000}(?:\([^()\s]{0,200}\))?)>?(?:[ \t]+\"[^\"\n]{0,200}\")?\)"
)
_REFERENCE = re.compile(r"^ {0,3}\[[^\]\n]{1,100}\]:[ \t]+\S+[^\n]*$", re.M)
_STRONG = re.compile(
    r"(?<![\w*])\*\*(?=\S)([^*\n]{1,300}?)(?<=\S)\*\*(?![\w*])|(?<!\w)__(?=\S)([^_\n]{1,300}?)(?<=\S)__(?!\w)"
)
_EMPHASIS = re.compile(r"(?<![\w*])\*(?=[^\s*])([^*\n]{1,300}?)(?<=\S)\*(?![\w*])")
_VAGUE = frozenset(["here", "link", "this", "click", "source", "docs", "doc", "pr"])


@dataclass
class MarkdownText:
    parts: list[Part] = field(default_factory=list)
    title: str = ""  # the first heading
    links: int = 0
    images: int = 0
    tables: int = 0
    headings: int = 0
    code_blocks: int = 0


def markdown_parts(text: str) -> MarkdownText:
    """Headings, prose, code and tables (rows as "a | b") in reading order, with what there is of each."""
    result = MarkdownText()
    text = text.replace("\r\n", "\n")
    lines = _front_matter(text).split("\n")
    prose: list[str] = []
    position = 0

    def flush() -> None:
        block = "\n".join(prose).strip("\n")
        if block:
            result.links += len(_LINK.findall(block))
            result.images += len(_IMAGE.findall(block))
            result.parts.append(Part(plain_inline(_REFERENCE.sub("", _TAG.sub("", _COMMENT.sub("", block))))))
        prose.clear()

    def begin(title: str, level: int) -> None:
        flush()
        title = plain_inline(title)
        result.headings += 1
        result.title = result.title or title
        result.parts.append(heading_part(title, level))

    while position < len(lines):
        line = lines[position]
        following = lines[position + 1] if position + 1 < len(lines) else ""
        if fence := _FENCE.match(line):
            flush()
            end = _fence_end(lines, position + 1, fence.group(1))
            result.code_blocks += 1
            result.parts.append(Part("\n".join(lines[position + 1 : end]), "code"))
            position = end + 1
        elif found := _HEADING.match(line):
            begin(found.group(2), len(found.group(1)))
            position += 1
        elif "|" in line and "|" in following and _TABLE_RULE.match(following):
            flush()
            end = position + 2
            while end < len(lines) and "|" in lines[end] and lines[end].strip():
                end += 1
            rows = [_row(lines[at]) for at in range(position, end) if at != position + 1]
            result.tables += 1
            result.parts.append(Part("\n".join(rows), "table"))
            position = end
        elif line.strip() and (not prose or not prose[-1].strip()) and _is_underlined(line, following):
            begin(line, 1 if following.lstrip().startswith("=") else 2)
            position += 2
        else:
            if not _RULE.match(line):
                prose.append(line)
            position += 1
    flush()
    return result


def plain_inline(text: str) -> str:
    """Links as their text, images as their description, without emphasis marks."""
    if "](" in text:
        text = _LINK.sub(_link, _IMAGE.sub(r"\1", text))
    if "*" in text or "__" in text:
        text = _STRONG.sub(lambda match: match.group(1) or match.group(2), text)
        text = _EMPHASIS.sub(r"\1", text)
    return text


def _link(match: re.Match[str]) -> str:
    label, target = match.groups()
    vague = label.strip().lower() in _VAGUE and "://" in target
    return f"{label} ({target})" if vague else label


def _front_matter(text: str) -> str:
    """The text without a YAML block at its beginning."""
    if text.startswith("---\n"):
        end = text.find("\n---", 4, 4000)
        if end > 0 and ":" in text[4:end]:
            return text[end + 4 :]
    return text


def _fence_end(lines: list[str], start: int, mark: str) -> int:
    for position in range(start, len(lines)):
        line = lines[position].strip()
        if line.startswith(mark) and not line.strip(mark[0]):
            return position
    return len(lines)


def _row(line: str) -> str:
    cells = line.strip().removeprefix("|").removesuffix("|").replace("\\|", "\0").split("|")
    return " | ".join(plain_inline(cell.strip()).replace("\0", "|") for cell in cells)


def _is_underlined(line: str, following: str) -> bool:
    return bool(_UNDERLINE.match(following)) and not line.startswith(("-", "*", "    ", "|", ">"))
