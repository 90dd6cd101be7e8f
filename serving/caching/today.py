"""Whether a question counts from the moment it is asked: last week, since March, within 30 days, 昨天.

Its answer is another one tomorrow. To flag one that does not count from today costs a hit on the next day, to
miss one gives yesterday's answer; so a month without its year is flagged, and so is "within 30 days" where it
stands in a contract. What merely is so at present ("is X still supported") changes with the release.
"""

import re
import unicodedata

from alchemy.retrieval.lexical import MONTHS

_UNIT = (
    "(?:second|minute|min|hour|day|night|weekday|week|weekend|fortnight|month|quarter|year|decade|sprint)s?"
)
_PART = "(?:morning|afternoon|evening|season|spring|summer|autumn|fall|winter|semester|term|shift)s?"
_FEAST = "(?:christmas|xmas|easter|thanksgiving|halloween|new year)"
_COUNT = (
    r"(?:\d[\d.]*|an?|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|several|some|few|couple)"
)
_WEEKDAY = "(?:mon|tues|wednes|thurs|fri|satur|sun)days?"
_SHORT = [name for name in MONTHS if len(name) == 3] + ["sept"]
_ENGLISH = "|".join(
    (
        "today|yesterday|tomorrow|tonight|now|nowadays|ago|recent|recently|lately|upcoming|currently|so far",
        "to date|at the moment|at present|these days|this time|the other day|ytd|mtd|eo[dwmqy]|the weekend",
        # the last 24 hours, last couple of weeks, past 2 or 3 weeks, this Christmas, the current sprint
        "(?:last|this|these|next|past|coming|previous|current) "
        rf"(?:[\w.-]+ ){{0,4}}?(?:{_UNIT}|{_PART}|{_FEAST})",
        # in 3 days, within about two working weeks, in half an hour, over a couple of days
        rf"(?:in|within|over|since) (?:(?:about|another|the|half|a) ){{0,2}}{_COUNT}"
        rf"(?: (?:or|to|of) ?{_COUNT}?)?[ -]?(?:(?:more|full|working|business|calendar) )?{_UNIT}",
        rf"(?:start|beginning|middle|end|rest) of (?:the )?{_UNIT}",
        "(?:first|second|third|fourth) (?:quarter|half)|since (?:noon|midnight|then)",
        r"(?:on|by|since|until|till|before|after) the \d{1,2}(?:st|nd|rd|th)",
        f"{_FEAST}|{_WEEKDAY}|{'|'.join(name for name in MONTHS if len(name) > 4)}|june|july",
        # May and Jan, but "may" and "mar" only behind what leads a date
        f"(?-i:{'|'.join(map(str.title, _SHORT))}|Mon|Tue|Wed|Thu|Fri|Sat|Sun)",
        f"(?:in|since|until|till|by|before|after|from) (?:{'|'.join(_SHORT)})",
        r"(?<!\d )(?<!\d[-/])q[1-4](?![ /-]*\d{4})",
    )
)
_N = r"[\d一二两三四五六七八九十百半几数]{1,8}\s?个?半?"
_SPAN = "(?:秒|分钟|小时|钟头|天|日|晚|夜|周|星期|礼拜|月|季度|季|年|工作日)"
_WEEK = "(?:周|星期|礼拜)"
_CHINESE = "|".join(
    (
        f"[今昨明前后当次][天晚]|[今昨明当次本][日早晨]|[今昨]夜|[今去明前后]年|今后|[上下本这]个?(?:{_WEEK}|月|季|年|学期)",
        "[上下]半[年月天]|[年月季][初中底末]|周末|最近|近[期来日况]|刚[才刚]|目前|现在|当前|如今|眼下|此刻|至今|迄今",
        f"过去|未来|即将|马上|这[几两些]个?{_SPAN}|[近前后上下头]{_N}{_SPAN}|{_N}{_SPAN}[之以]?[前后内来]|{_WEEK}[一二三四五六日末天]",
        r"(?<!年)(?<!年 )(?:\d{1,2}|[一二三四五六七八九十]{1,2})月|国庆|春节|元旦|中秋|端午|清明节|圣诞",
    )
)
_RELATIVE = re.compile(rf"(?i)\b(?:{_ENGLISH})\b|{_CHINESE}")


def depends_on_today(question: str) -> bool:
    """Whether the question counts from the day it is asked."""
    return bool(_RELATIVE.search(" ".join(unicodedata.normalize("NFKC", question).split())))
