"""Hard-wrapped lines to paragraphs: commit messages, text files, the lines of a PDF page.

A line continues on the next one if it is nearly as long as the text is wide and the next line is not the
start of a list item, an indented line or a quote. Lines that stay short (headings, labels, addresses, verse)
keep their line ends.
"""

import re

_KEEPS_ITS_LINE = re.compile(r"\s|[-*+•▪◦‣–—>|#=]|\(?[0-9A-Za-z]{1,3}[.)]\s|\[\d+\]|[\w-]{1,24}:\s")
_LIST_MARK = re.compile(r"\s*(?:[-*+•▪◦‣–]|\(?[0-9A-Za-z]{1,3}[.)]|\[\d+\])\s")
_ENDS = (".", "!", "?", ":", ";", "。", "！", "？", "：")
_NARROW = 40  # texts narrower than this are not wrapped prose


def unwrap(text: str) -> str:
    """Joins the wrapped lines of `text`; blank lines, lists and short lines stay as they are."""
    lines = [line.rstrip() for line in text.split("\n")]
    width = _width(lines)
    if width < _NARROW:
        return text
    done: list[str] = []
    fits = False  # whether the line before was full and so may continue
    for line in lines:
        if fits and line.strip() and not _KEEPS_ITS_LINE.match(line):
            done[-1] = _join(done[-1], line.strip())
        else:
            done.append(line)
        fits = bool(line.strip()) and _is_full(line, width)
    return "\n".join(done)


def unwrap_page(lines: list[str]) -> list[str]:
    """Paragraphs of a page's lines, where a paragraph's end shows only as a short line or a full stop."""
    lines = [line.strip() for line in lines]
    width = _width(lines)
    done: list[str] = []
    fits = False
    for line in lines:
        if not line:
            fits = False
            continue
        if fits and not _LIST_MARK.match(line):
            done[-1] = _join(done[-1], line)
        else:
            done.append(line)
        full = len(line) >= 0.85 * width
        fits = width >= _NARROW and (full or (len(line) >= 0.6 * width and not line.endswith(_ENDS)))
    return done


def _width(lines: list[str]) -> int:
    """The width that most full lines reach: the 80th percentile of the lengths."""
    lengths = sorted(len(line) for line in lines if line.strip())
    return min(lengths[len(lengths) * 4 // 5], 200) if lengths else 0


def _is_full(line: str, width: int) -> bool:
    return len(line) >= 0.8 * width or (len(line) >= 0.6 * width and not line.endswith(_ENDS))


def _join(left: str, right: str) -> str:
    if left.endswith("-") and len(left) > 1 and left[-2].islower() and right[:1].islower():
        return left[:-1] + right  # a word divided at the line end
    wide = left[-1:] > "\u2e80" and right[:1] > "\u2e80"  # Chinese and Japanese have no blank there
    return f"{left}{'' if wide else ' '}{right}"
