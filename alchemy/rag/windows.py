"""Sliding windows of characters over a text, cut between words: the chunks of the RAG API.

Not for the corpus, whose chunker counts tokens and keeps sentences, headings and tables whole
(`alchemy.text.chunking`). Every window is an exact span: `text[start:end]`.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence

from alchemy.errors import BadInput

# Scripts without spaces may be cut between any two characters; their punctuation counts as theirs.
_UNSPACED = (
    ("\u0e00", "\u0eff"),  # Thai, Lao
    ("\u1000", "\u109f"),  # Burmese
    ("\u1780", "\u17ff"),  # Khmer
    ("\u3000", "\u30ff"),  # Chinese and Japanese punctuation, kana
    ("\u3400", "\u4dbf"),
    ("\u4e00", "\u9fff"),
    ("\uf900", "\ufaff"),
    ("\uff00", "\uffef"),
    ("\U00020000", "\U0003ffff"),
)


def windows(text: str, size: int, overlap: int) -> Iterator[tuple[int, int]]:
    """Spans of at most `size` characters, each beginning at most `overlap` before the end of the last.

    Both ends of a span are at words, and white space around it is left out. Only what has no word boundary
    within `size` characters (a long URL) is cut anywhere. Starts and ends increase strictly, and together
    the spans hold every character that is not white space.

    Raises:
        BadInput: `overlap` is not smaller than `size`, which would never end.
    """
    if not 0 <= overlap < size:
        raise BadInput(
            f"a chunk overlap of {overlap} does not fit a chunk size of {size}: it must be smaller"
        )
    return _windows(text, size, overlap)


def _windows(text: str, size: int, overlap: int) -> Iterator[tuple[int, int]]:
    cuts = [place for place in range(1, len(text) + 1) if _is_boundary(text, place)]
    start, last = _after_space(text, 0), 0
    while start < len(text):
        end = _end(text, start, size, cuts)
        if end <= last:  # nothing but overlap fits before the next word, which is as long as a window
            start = _after_space(text, last)
            continue
        yield start, end
        last = end
        if _after_space(text, end) == len(text):
            return
        start = _after_space(text, _next(start, end, overlap, cuts))


def _end(text: str, start: int, size: int, cuts: Sequence[int]) -> int:
    """Of the longest window from `start`, which is not white space; `cuts` are the boundaries of the text."""
    most = min(start + size, len(text))
    at = bisect_right(cuts, most) - 1
    end = cuts[at] if at >= 0 and cuts[at] > start else most
    while text[end - 1].isspace():
        end -= 1
    return end


def _next(start: int, end: int, overlap: int, cuts: Sequence[int]) -> int:
    """Where the next window begins: the first word that lies in the overlap, else at the end."""
    first = max(end - overlap, start + 1)
    at = bisect_left(cuts, first)
    if at < len(cuts) and cuts[at] <= end:
        return cuts[at]
    return first  # the window ends within a word


def _after_space(text: str, place: int) -> int:
    while place < len(text) and text[place].isspace():
        place += 1
    return place


def _is_boundary(text: str, place: int) -> bool:
    """Whether a text may be cut before the character at `place`."""
    if place == len(text):
        return True
    before, after = text[place - 1], text[place]
    return before.isspace() or after.isspace() or _is_unspaced(before) or _is_unspaced(after)


def _is_unspaced(character: str) -> bool:
    return character >= "\u0e00" and any(first <= character <= last for first, last in _UNSPACED)
