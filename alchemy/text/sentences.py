"""Sentences of English and Chinese text as exact spans, in linear time whatever the text.

`sentencex` finds the boundaries; a regex adds those after Chinese and Japanese terminators (also inside
quotes, where sentencex keeps a quotation whole). sentencex takes time quadratic in the number of quotation
marks, and machine output has "sentences" of megabytes: therefore it only ever sees `LONGEST` characters,
and a sentence that does not end within them is cut at a line end, a space, a Chinese clause or anywhere.
"""

import re
from collections.abc import Iterator

import sentencex

LONGEST = 2000  # characters of one sentence
CJK_SHARE = 0.2  # of the letters; from here on a text is segmented as Chinese

Span = tuple[int, int]

CJK = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"  # ranges of Chinese and Japanese characters
_CJK = re.compile(f"[{CJK}]")
_GAPS = " \t，；：、"  # where a text without spaces may still be cut: after its clauses
_PLAIN_BLANKS = dict.fromkeys(
    [0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F, 0x3000], " "
)
_CJK_END = re.compile(r"[。！？｡]+[!?…]*[”’」』）】》〉\"')\]]*")
_ENDS_WITH_CJK = re.compile(_CJK_END.pattern + r"\Z")
# A blank line, or a line that begins with the mark of a list item.
_BREAK = re.compile(
    r"\n[ \t]*\n\s*|\n(?=[ \t]*(?:(?:[-*+•‣▪·–]|\d{1,3}[.)])[ \t]|\d{1,2}、|[一二三四五六七八九十]{1,3}、))"
)
# A period after these does not end a sentence, whatever follows. "etc." may end one, so it is not here.
_ABBREVIATION = re.compile(
    r"(?i)(?:\b(?:e\.g|i\.e|vs|cf|approx|incl|esp|resp|mr|mrs|ms|dr|prof|st|jr|viz|ca|al|a\.k\.a|w\.r\.t|b\.c)\.)\Z"
)
_ABBREVIATION_OF_NUMBERS = re.compile(
    r"(?i)\b(?:no|nos|nr|fig|figs|sec|ch|p|pp|v|ver|vers|vol|eq|ref|art|rev)\.\Z"
)
_ITEM_NUMBER = re.compile(r"\s*(?:\d{1,3}|[A-Za-z])[.)]\s*")


def split_sentences(text: str) -> list[Span]:
    """Sentences as half-open spans in order, without overlaps, each without white space at its ends.

    Together they hold every character of `text` that is no white space. URLs, versions, decimals and the
    usual abbreviations are not split. None is longer than `LONGEST` characters.
    """
    language = _language(text)
    return [
        span
        for start, end in _paragraphs(text)
        for first, last in _sentences(text, start, end, language)
        if (span := _trim(text, first, last))
    ]


def cjk_share(text: str) -> float:
    """Share of Chinese and Japanese characters among the letters and digits of `text`."""
    found = len(_CJK.findall(text))
    return found / sum(map(str.isalnum, text)) if found else 0.0


def cut_position(text: str, limit: int) -> int:
    """Where to cut so that at most `limit` (> 0) characters come before: line end, gap or anywhere."""
    if len(text) <= limit:
        return len(text)
    newline = text.rfind("\n", 1, limit)
    if newline > 0:
        return newline + 1
    gap = max(text.rfind(mark, 1, limit) for mark in _GAPS)
    return gap + 1 if gap > 0 else limit


def _language(text: str) -> str:
    if text.isascii():
        return "en"
    return "zh" if cjk_share(text) >= CJK_SHARE else "en"


def _paragraphs(text: str) -> Iterator[Span]:
    start = 0
    for gap in _BREAK.finditer(text):
        yield start, gap.start()
        start = gap.end()
    yield start, len(text)


def _sentences(text: str, start: int, end: int, language: str) -> Iterator[Span]:
    while start < end:
        window = text[start : min(end, start + LONGEST)]
        ends = _ends(window, language)
        if start + len(window) < end:
            ends.pop()  # this one may go on after the window; the next window begins with it
            ends = ends or [cut_position(text[start : start + LONGEST + 1], LONGEST)]
        position = 0
        for boundary in ends:
            yield start + position, start + boundary
            position = boundary
        start += position


def _ends(text: str, language: str) -> list[int]:
    """Where the sentences of a short text end; the last is always `len(text)`."""
    ends, position = [], 0
    for sentence in _segments(text, language):
        position += len(sentence)
        ends.append(position)
    ends += [match.end() for match in _CJK_END.finditer(text)]
    kept: list[int] = []
    for boundary in sorted(set(ends)):
        if boundary == len(text) or _is_boundary(text, kept[-1] if kept else 0, boundary):
            kept.append(boundary)
    return kept or [len(text)]


def _segments(text: str, language: str) -> list[str]:
    """What sentencex makes of the text; pieces that joined are as long as the text."""
    try:
        # Version 1.0.32 counts a wide blank after an abbreviation as one byte and panics: it gets plain ones.
        pieces: list[str] = sentencex.segment(language, text.translate(_PLAIN_BLANKS))
    except BaseException as error:  # a panic of its Rust code is no Exception
        if type(error).__name__ != "PanicException":
            raise
        return [text]
    return pieces if sum(map(len, pieces)) == len(text) else [text]


def _is_boundary(text: str, start: int, boundary: int) -> bool:
    """Whether a sentence that began at `start` really ends at `boundary`, inside the text."""
    before = text[max(start, boundary - 24) : boundary]
    if not (before[-1].isspace() or text[boundary].isspace()):
        return bool(_ENDS_WITH_CJK.search(before))
    before = before.rstrip()
    if _ABBREVIATION.search(before):
        return False
    following = text[boundary : boundary + 8].lstrip()[:1]
    if following.isdigit() and _ABBREVIATION_OF_NUMBERS.search(before):
        return False
    return boundary - start > 12 or not _ITEM_NUMBER.fullmatch(text[start:boundary])


def _trim(text: str, start: int, end: int) -> Span | None:
    piece = text[start:end]
    left = len(piece) - len(piece.lstrip())
    right = len(piece.rstrip())
    return (start + left, start + right) if left < right else None
