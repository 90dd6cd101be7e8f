"""Jira's wiki markup to parts: code blocks as code, headings, tables, and prose that reads as text.

Code is cut out first, so nothing inside it is touched. Every pattern is bounded, because issue texts hold
log output of any shape.
"""

import re
from dataclasses import dataclass, field

from alchemy.records import Part
from alchemy.text.html import heading_part

_CODE = re.compile(r"\{(code|noformat)(?::[^{}\n]{0,200})?\}|```")
_QUOTE = re.compile(r"\{quote\}")
_HEADING = re.compile(r"[ \t]*h([1-6])\.[ \t]*(.*)")
_LIST = re.compile(r"[ \t]*([*#]{1,8}|-{1,2})[ \t]+(.*)")
_EMPTY_ITEM = re.compile(r"[ \t]*[*#-]{1,8}[ \t]*$")
_TABLE = re.compile(r"[ \t]*\|.*\|?[ \t]*$")
_MACRO = re.compile(
    r"\{(?:color|panel|info|note|tip|warning|expand|section|column|anchor|toc|div|span|html|latex)"
    r"(?::[^{}\n]{0,300})?\}"
)
_ESCAPED_STYLE = re.compile(r"\{([*_+^~-])\}")
_URL = r"(?:https?|ftp|file)://[^\]\s|]{1,2000}|mailto:[^\]\s|]{1,300}|www\.[^\]\s|]{1,2000}|#[^\]\s|]{1,300}"
_LINK = re.compile(rf"\[([^\[\]|\n]{{1,300}})\|[ \t]*({_URL})(?:\|[^\]\n]{{0,100}})?\]")
_BARE_LINK = re.compile(rf"\[({_URL})\]")
_MENTION = re.compile(r"\[~([^\]\n]{1,80})\]")
_ATTACHMENT = re.compile(r"\[\^([^\]\n]{1,200})\]")
_IMAGE = re.compile(r"!([^!\s|][^!\n|]{0,200}\.(?:png|jpe?g|gif|svg|bmp|webp))(?:\|[^!\n]{0,200})?!", re.I)
_VERBATIM = re.compile(r"\{\{(.{1,200}?)\}\}|https?://\S{1,2000}")
_BOLD = re.compile(r"(?<![\w*])\*(?=[^\s*])([^*\n]{1,300}?)(?<=\S)\*(?![\w*])")
_ITALIC = re.compile(r"(?<![\w_])_(?=[^\s_])([^_\n]{1,300}?)(?<=\S)_(?![\w_])")
_ESCAPE = re.compile(r"\\([{}\[\]*_|!#+~^-])")
_BREAK = re.compile(r"\\\\(?=\s|$)")
_VAGUE = frozenset(["here", "link", "this", "click", "source", "pr"])
_INLINE_CODE_CHARACTERS = 120


@dataclass
class WikiText:
    parts: list[Part] = field(default_factory=list)
    mentions: list[str] = field(default_factory=list)  # user names of [~user]
    links: int = 0
    code_blocks: int = 0


def wiki_parts(text: str) -> WikiText:
    """Parts of wiki markup in reading order."""
    result = WikiText()
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    prose: list[str] = []
    position = 0
    while opening := _CODE.search(text, position):
        prose.append(text[position : opening.start()])
        closing = f"{{{opening.group(1)}}}" if opening.group(1) else "```"
        end = text.find(closing, opening.end())
        code = text[opening.end() : end if end >= 0 else len(text)]
        position = end + len(closing) if end >= 0 else len(text)
        if _is_inline(text, opening.start(), code, position):
            prose.append(f"{{{{{code.strip()}}}}}" if code.strip() else "")
            continue
        _prose(result, "".join(prose))
        prose = []
        if not opening.group(1):
            code = re.sub(r"\A[\w+#-]{1,20}\n", "", code)  # the language after a Markdown fence
        result.code_blocks += 1
        result.parts.append(Part(code, "code"))
    _prose(result, "".join(prose) + text[position:])
    return result


def _is_inline(text: str, start: int, code: str, end: int) -> bool:
    """Whether a code macro stands within a line of prose, and is better read there."""
    if "\n" in code or len(code) > _INLINE_CODE_CHARACTERS:
        return False
    before = text[text.rfind("\n", 0, start) + 1 : start].strip()
    after = text[end : end + 200].partition("\n")[0].strip()
    return bool(before.strip("*#- ") or after)


def _prose(result: WikiText, text: str) -> None:
    for number, piece in enumerate(_QUOTE.split(text)):
        _lines(result, piece, "> " if number % 2 else "")


def _lines(result: WikiText, text: str, quote: str) -> None:
    lines: list[str] = []
    rows: list[str] = []
    counters: list[int] = []

    def flush() -> None:
        result.parts.append(Part("\n".join(lines)))
        lines.clear()

    def flush_rows() -> None:
        if rows:
            flush()
            result.parts.append(Part("\n".join(rows), "table"))
            rows.clear()

    for line in text.split("\n"):
        if _TABLE.match(line) and line.count("|") > 1 and not quote:
            rows.append(_row(result, line))
            continue
        flush_rows()
        if found := _HEADING.match(line):
            flush()
            title = _inline(result, found.group(2))
            result.parts.append(heading_part(title, int(found.group(1))))
        elif _EMPTY_ITEM.match(line):
            lines.append("")  # a rule, or an item that held only the code block that was cut out
        elif found := _LIST.match(line):
            lines.append(quote + _item(counters, found.group(1)) + _inline(result, found.group(2)))
            continue
        elif line.startswith("bq. "):
            lines.append("> " + _inline(result, line[4:]))
        else:
            shown = _inline(result, line.strip())
            lines.append(quote + shown if shown else "")
        if line.strip():
            counters.clear()
    flush_rows()
    flush()


def _item(counters: list[int], mark: str) -> str:
    """What a list item begins with; `counters` holds the last number of each depth."""
    depth = len(mark) if mark[0] != "-" else 1
    del counters[depth:]
    counters += [0] * (depth - len(counters))
    counters[-1] = counters[-1] + 1 if mark[-1] == "#" else 0
    return "  " * (depth - 1) + (f"{counters[-1]}. " if mark[-1] == "#" else "- ")


def _row(result: WikiText, line: str) -> str:
    cells = _inline(result, line.strip()).replace("||", "|").strip("|").split("|")
    return " | ".join(cell.strip() for cell in cells)


def _inline(result: WikiText, line: str) -> str:
    if not line.isalnum():
        line = _ESCAPED_STYLE.sub("", _MACRO.sub("", line))
        if "[" in line:
            result.mentions += [name for name in _MENTION.findall(line) if not name.startswith("accountid:")]
            result.links += len(_LINK.findall(line)) + len(_BARE_LINK.findall(line))
            line = _MENTION.sub(lambda found: f"@{found.group(1)}", line)
            line = _LINK.sub(_link, _ATTACHMENT.sub(r"\1", line))
            line = _BARE_LINK.sub(r"\1", _LINK.sub(_link, line) if "|" in line else line)  # a link in a link
        line = _IMAGE.sub("", line)
        line = _styles(line)
    return line


def _link(match: re.Match[str]) -> str:
    label, target = match.group(1).strip(), match.group(2)
    if label.startswith(("http://", "https://")):
        return label
    return f"{label} ({target})" if label.lower() in _VAGUE else label


def _styles(line: str) -> str:
    """Without bold, italics and escapes, but never inside {{monospace}} or an address."""
    done, position = [], 0
    for match in _VERBATIM.finditer(line):
        done += [_unstyle(line[position : match.start()]), match.group(1) or match.group()]
        position = match.end()
    return "".join([*done, _unstyle(line[position:])])


def _unstyle(text: str) -> str:
    text = _ITALIC.sub(r"\1", _BOLD.sub(r"\1", text))
    return _ESCAPE.sub(r"\1", _BREAK.sub(" ", text)) if "\\" in text else text
