"""What a Chinese question asks, as one sequence that is equal where the questions are: see `equivalence`.

Chinese is not cut into words: every character and every mark counts in its order, so that nothing depends on
a segmenter or on an embedder that does not read the script. Only whole phrases of a reviewed table are
brought into one form, and only "whether" loses its place (能不能删除, 能删除吗), where nothing else is asked
and nothing could take it as what is known, said or looked up. 的 stays: 张三的领导是谁 is not 张三领导谁.
"""

import re
from functools import cache

from serving.caching.clause import Clause
from serving.caching.rewording import rewordings

_DIGITS = {character: digit for digit, character in enumerate("零一二三四五六七八九")} | {"〇": 0, "两": 2}
_SCALES = {"十": 10, "百": 100, "千": 1000, "万": 10000}
_NUMERAL = re.compile("(?<![A-Za-z0-9.])[零〇一二两三四五六七八九十百千万]+(?![A-Za-z0-9])")
_WHETHER = "?是否"
_EMBEDS = re.compile("[知道定认问说想看查讲论虑断解白楚证心疑得为商测试验评告通记的谁什哪几多怎何]")
_AGENT = re.compile(r"\A(?P<what>[^\W_?]+)由(?P<who>谁)(?P<does>[\u4e00-\u9fff]{1,3})\Z")
_ENDS = " ，。；：？！、,;:?!"
_PIECE = re.compile(r"[A-Za-z0-9]+(?:[-._/:@][A-Za-z0-9]+)*|\S")


def sequence(text: str) -> tuple[Clause, ...]:
    """One clause of a Chinese (or mixed) question in NFKC; () where nothing is asked about."""
    text = wording(text)
    asks, before, after = "", *text.partition(_WHETHER)[::2]
    if len(text) > len(before) and not _EMBEDS.search(text) and not re.search(r"[^\w]", before + after):
        asks, text = _WHETHER, before + after
    if agent := _AGENT.match(text):  # X由谁负责 asks what 谁负责X asks
        text = f"{agent['who']}{agent['does']}{agent['what']}"
    words = tuple(_PIECE.findall(_NUMERAL.sub(lambda match: _number(match[0]), text)))
    return (Clause(asks=asks, words=words),) if words else ()


def wording(text: str) -> str:
    """The question without politeness and with the phrases of the tables in one form."""
    rows = rewordings()["chinese"]
    frames, asides, phrases = _patterns()
    text = text.strip(_ENDS)
    while (rest := frames.sub("", text).strip(_ENDS)) != text:
        text = rest
    # Between letters and digits a blank parts words; beside a Chinese character it means nothing.
    text = re.sub(r"\s*(?<=[^\x00-\x7f])\s+|\s+(?=[^\x00-\x7f])", "", asides.sub(" ", text)).strip(_ENDS)
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


def _number(numeral: str) -> str:
    """The numeral in digits: 二十一 is 21. What is not said in full (一万二, 两三百) stays as it is."""
    if not any(character in _SCALES for character in numeral):
        # 三四天 is three or four days.
        read = len(numeral) == 1 or len(numeral) > 3 or {*numeral} & {"零", "〇"}
        return "".join(str(_DIGITS[character]) for character in numeral) if read else numeral
    total, section, digit = 0, 0, 0
    for character in numeral:
        if character == "万":
            total, section, digit = (total + section + digit) * 10000, 0, 0
        elif character in _SCALES:
            section, digit = section + (digit or 1) * _SCALES[character], 0
        else:
            digit = _DIGITS[character]
    number = total + section + digit
    plain = numeral.replace("两", "二").replace("〇", "零")
    said = _said(number) if number < 10**8 else ""
    return str(number) if plain in {said, re.sub("^一十", "十", said)} else numeral


def _said(number: int) -> str:
    """The one way to say a number in full, below a hundred million."""
    if number >= 10000:
        rest = number % 10000
        return (
            f"{_said(number // 10000)}万" + ("零" if 0 < rest < 1000 else "") + (_said(rest) if rest else "")
        )
    said, digits = "", "零一二三四五六七八九"
    for scale, name in ((1000, "千"), (100, "百"), (10, "十"), (1, "")):
        digit = number // scale % 10
        if digit:
            gap = said and not number // (scale * 10) % 10
            said += ("零" if gap else "") + digits[digit] + name
    return said
