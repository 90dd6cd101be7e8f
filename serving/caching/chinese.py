"""What a Chinese question asks, as one sequence that is equal where the questions are: see `equivalence`.

Chinese is not cut into words: every character counts in its order, so that nothing depends on a segmenter or
on an embedder that does not read the script. Only whole phrases of a reviewed table are brought into one
form, and only adverbs of asking (when, why, how, where, whether) lose their place: 谁, 多少 and 什么 are
arguments, and where they stand says who does what to whom.
"""

import re
from functools import cache

from serving.caching.clause import Clause
from serving.caching.rewording import rewordings

_DIGITS = {character: digit for digit, character in enumerate("零一二三四五六七八九")} | {"〇": 0, "两": 2}
_SCALES = {"十": 10, "百": 100, "千": 1000, "万": 10000}
_NUMERAL = re.compile("[零〇一二两三四五六七八九十百千万]+")
_LONGEST = 12  # characters of a numeral
_ADVERB = re.compile(r"\?(何时|为何|如何|何处|是否)")
_AGENT = re.compile(r"\A(?P<what>.+)由(?P<who>谁)(?P<does>[\u4e00-\u9fff]{1,3})\Z")
_PUNCTUATION = re.compile(r"[\s，。；：？！、,;:?!]+")
_PIECE = re.compile(r"[A-Za-z0-9]+(?:[-._/:@][A-Za-z0-9]+)*|\S")


def sequence(text: str) -> tuple[Clause, ...]:
    """One clause of a Chinese (or mixed) question in NFKC; () where nothing is asked about."""
    text = wording(text)
    asks = "".join(sorted(set(_ADVERB.findall(text))))
    text = _ADVERB.sub("", text)
    if agent := _AGENT.match(text):  # X由谁负责 asks what 谁负责X asks
        text = f"{agent['who']}{agent['does']}{agent['what']}"
    words = tuple(piece.lower() if _plain(piece) else piece for piece in _PIECE.findall(_arabic(text)))
    return (Clause(asks=asks, words=words),) if words else ()


def wording(text: str) -> str:
    """The question without politeness and with the phrases of the tables in one form."""
    rows = rewordings()["chinese"]
    frames, asides, phrases = _patterns()
    text = _PUNCTUATION.sub(" ", text).strip()
    while (rest := frames.sub("", text).strip()) != text:
        text = rest
    # Between letters and digits a blank parts words; beside a Chinese character it means nothing.
    text = re.sub(r"(?<=[^\x00-\x7f]) | (?=[^\x00-\x7f])", "", asides.sub("", text))
    return phrases.sub(lambda match: rows["phrases"][match[0]], text)


@cache
def _patterns() -> tuple[re.Pattern[str], re.Pattern[str], re.Pattern[str]]:
    """Politeness at the start, what is taken away anywhere, and phrases: the longest first."""
    rows = rewordings()["chinese"]
    frames, asides, phrases = (
        "|".join(sorted(map(re.escape, rows[name]), key=len, reverse=True))
        for name in ("frames", "asides", "phrases")
    )
    return re.compile(rf"\A(?:{frames})"), re.compile(asides), re.compile(phrases)


def _arabic(text: str) -> str:
    """Numerals in digits: 二十一 is 21. What is no number, or too long for one, stays as it is."""
    return _NUMERAL.sub(lambda match: _number(match[0]) if len(match[0]) <= _LONGEST else match[0], text)


def _number(numeral: str) -> str:
    if not any(character in _SCALES for character in numeral):
        return "".join(str(_DIGITS[character]) for character in numeral)
    total, section, digit = 0, 0, 0
    for character in numeral:
        if character == "万":
            total, section, digit = (total + section + digit or 1) * 10000, 0, 0
        elif character in _SCALES:
            section, digit = section + (digit or 1) * _SCALES[character], 0
        else:
            digit = _DIGITS[character]
    return str(total + section + digit)


def _plain(piece: str) -> bool:
    """Whether capitals say nothing: an acronym or a key, not a path or a name in camel case."""
    return piece.isupper() or piece.istitle()
