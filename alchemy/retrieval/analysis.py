"""What a question says about the documents it wants: their kind, their source, and when they last changed.

"Which PRs touched the rollup since March?" asks for `touched the rollup?` among pull requests since March.
Not for identifiers: `lexical.units` finds those and `fuse` gives them their weight.

A word limits the search only where it is about documents: "PRs in May" are documents, "the outage in May" is
not, and "is a commit reviewed?" asks for a rule. What is not certain is left alone, because a wrong filter
loses the answer; what is understood stays a guess that the search gives up where nothing answers under it.
"""

import itertools
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from alchemy.retrieval.index import Filters
from alchemy.retrieval.lexical import MONTHS, units

# Words for documents, what they mean, and whether they name nothing else: "issues" are often just problems.
_NOUNS = (
    (
        r"(?i:(?:pull|merge) requests?)|PRs?|prs|MRs?|(?:合并|拉取)请求",
        Filters(kinds=("pull_request",)),
        True,
    ),
    (r"(?i:commits?)|提交", Filters(kinds=("commit",)), True),
    (r"(?i:jira ?(?:issues?|tickets?|工单|问题))", Filters(("jira",)), True),
    (r"(?i:tickets?)|工单", Filters(kinds=("issue",)), True),
    (r"(?i:(?:confluence|wiki) ?(?:pages?|页面))", Filters(("confluence",)), True),
    (r"PDFs", Filters(("documents",)), True),
    (r"(?i:issues?)", Filters(kinds=("issue",)), False),
    (r"(?i:pages?)|页面", Filters(kinds=("page",)), False),
)
_NOUN = "|".join(rf"(?<![A-Za-z0-9_-])(?:{pattern})(?![a-z-])" for pattern, _, _ in _NOUNS)
_NOUN_LIST = re.compile(rf"(?:{_NOUN})(?:\s?(?:,|、|and|or|和|或|及)\s?(?:{_NOUN}))*")
_ONE_NOUN = re.compile(_NOUN)
_NEAR = 80  # characters around a noun that are looked at: a long text costs no more than a short one

_ADJECTIVES = r"(?:(?:of|the|our|all|any|open|closed|merged|recent|latest|new)\s)*\Z"
_ORDER = re.compile(
    rf"\b(?:list|show(?: me)?|find|search(?: for)?)\s{_ADJECTIVES}|(?:列出|查找|搜索)(?:所有|全部)?的?\Z",
    re.IGNORECASE,
)
_QUESTION = re.compile(
    rf"\b(?:which|what|are there any)\s{_ADJECTIVES}|(?:哪些|哪个|哪几个)\Z", re.IGNORECASE
)
# What follows documents that are asked for; "which PR template", "what commit style" ask for something else.
_GOES_ON = re.compile(
    r"\s*(?:[?.!,:]|\Z|[\u4e00-\u9fff])|\s(?:that|which|who|about|on|in|for|by|from|since|after|before|with|"
    r"without|are|is|was|were|did|do|does|has|have|had|says?|broke|made|led|set|touch\w*|mention\w*|\w+ed)\b"
)

_MONTH = rf"(?:{'|'.join(sorted(MONTHS, key=len, reverse=True))})\b\.?"
_DAY = r"\d{1,2}(?:st|nd|rd|th)?(?!\d)"
_WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_RELATIVE = (
    r"yesterday|today|(?:this|last) (?:week|month|quarter|year)"
    r"|(?:the )?(?:last|past) \d{1,3} (?:day|week|month|year)s?"
    r"|昨天|今天|[本这上]周|本月|这个月|上个?月|[今去]年|(?:最近|过去) ?\d{1,3} ?(?:天|周|个月|年)"
)
_POINT = (
    rf"(?:\d{{4}}-\d{{2}}(?:-\d{{2}})?|{_DAY} (?:of )?{_MONTH}(?:,? \d{{4}})?|{_MONTH} {_DAY}(?:,? \d{{4}})?"
    rf"|{_MONTH}(?: \d{{4}})?|(?:19|20)\d{{2}} ?年(?: ?\d{{1,2}} ?月(?: ?\d{{1,2}} ?[日号])?)?"
    rf"|\d{{1,2}} ?月(?: ?\d{{1,2}} ?[日号])?|(?:19|20)\d{{2}}|{'|'.join(_WEEKDAYS)}|{_RELATIVE})"
    r"(?![.\-]?\d)(?![A-Za-z])"
)
_DATED = (
    rf"(?:between (?P<first>{_POINT}) and (?P<last>{_POINT})"
    rf"|from (?P<from>{_POINT}) (?:to|until) (?P<to>{_POINT})"
    rf"|(?P<relation>since|after|before|until|from|in|during|of|on)(?: the)? (?P<point>{_POINT})"
    rf"(?P<onwards> on(?:wards)?\b)?|(?P<bare>{_RELATIVE}))"
)
_DONE = (
    r"(?P<done>(?:that |which )?(?:(?:was|were|(?:has|have) been|we) )?(?:last )?(?:updated|created|changed"
    r"|modified|edited|written|merged|opened|closed|resolved|filed|reported|pushed|made) )?"
)
_AFTER = re.compile(rf"\s{_DONE}{_DATED}", re.IGNORECASE)
_AT_END = re.compile(
    rf"\s(?:(?P<relation>since) (?P<point>{_POINT})|(?P<bare>{_RELATIVE}))[\s?.!]*\Z", re.IGNORECASE
)
_BEFORE = re.compile(
    rf"(?:(?P<bare>{_RELATIVE})['’]s\s|(?:在|自|从)?(?P<point>{_POINT}) ?"
    r"(?P<relation>以来|之后|以后|起|之前|以前|前)?(?:提交|更新|修改|创建|合并|关闭)?的 ?)\Z",
    re.IGNORECASE,
)
_SOURCE = re.compile(
    r"\A\s*in (?P<lead>jira|confluence|git)[,:]\s*|\baccording to (?P<said>jira|confluence)\b,?\s*"
    r"|\bsearch (?P<searched>jira|confluence) for\s",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Analysis:
    """What a question limits itself to, and what is left of it to look for."""

    query: str  # without the words that became filters; the whole question where no other content is left
    filters: Filters


def analyze(query: str, today: date | None = None) -> Analysis:
    """The filters that a question's words ask for.

    Args:
        query: The question, in English or Chinese.
        today: What "last week" and "since March" count from; None: these are not understood.
    """
    text = unicodedata.normalize("NFKC", query)
    filters, rest = Filters(), list(text)
    for start, end, found in (*_sources(text), *_documents(text, today)):
        filters = filters.completed(found)
        rest[start:end] = " " * (end - start)
    if not filters:
        return Analysis(query, filters)
    left = " ".join("".join(rest).split()).lstrip(",:; ")
    return Analysis(left if any(unit.content for unit in units(left)) else query, filters)


def _sources(text: str) -> Iterator[tuple[int, int, Filters]]:
    if match := _SOURCE.search(text):
        yield (*match.span(), Filters((match[match.lastgroup or 0].lower(),)))


def _documents(text: str, today: date | None) -> Iterator[tuple[int, int, Filters]]:
    """The first documents that are asked for, and their dates: spans of the text and what they mean."""
    for nouns in _NOUN_LIST.finditer(text):
        if spans := _request(text, nouns, today):
            yield from spans
            return


def _request(text: str, nouns: re.Match[str], today: date | None) -> list[tuple[int, int, Filters]]:
    """Whether words for documents limit the question: they are dated, or asked for."""
    first, end = nouns.span()
    start, tail = max(0, first - _NEAR), max(end, len(text) - _NEAR)
    before, after = text[start:first], text[end : end + _NEAR]
    meanings = [_meaning(match[0]) for match in _ONE_NOUN.finditer(nouns[0])]
    plain = all(plain for _, plain in meanings)
    order, question = _ORDER.search(before), _QUESTION.search(before)
    asked = bool((order or (plain and question)) and _GOES_ON.match(after))
    beside = _AFTER.match(after)
    if beside and not (plain or order or question or beside["done"] or not before.strip()):
        beside = None  # "were there issues in March" asks for what happened, and when
    places = (
        (_BEFORE.search(before), start),
        (beside, end),
        (_AT_END.search(text[tail:]) if asked else None, tail),
    )
    dates = [
        (at + match.start(), at + match.end(), days)
        for match, at in places
        if match and (days := _days(match, today))
    ]
    if not (dates or asked):
        return []
    head = order or question
    begin = start + head.start() if head else first
    return [(begin, end, _either([meaning for meaning, _ in meanings])), *dates[:1]]


def _meaning(noun: str) -> tuple[Filters, bool]:
    return next((means, plain) for pattern, means, plain in _NOUNS if re.fullmatch(pattern, noun))


def _either(meanings: Sequence[Filters]) -> Filters:
    """What any of them lets through, or more: a field limits only where all of them limit it."""
    return Filters(
        sources=_union([meaning.sources for meaning in meanings]),
        kinds=_union([meaning.kinds for meaning in meanings]),
    )


def _union(values: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(itertools.chain(*values))) if all(values) else ()


def _days(match: re.Match[str], today: date | None) -> Filters | None:
    """The days of a dated phrase; None where a point in it needs a `today` that is not known."""
    found = {name: text for name, text in match.groupdict().items() if text}
    first = found.get("first") or found.get("from") or found.get("point") or found.get("bare") or ""
    last = found.get("last") or found.get("to") or first
    begin, end = _period(first, today), _period(last, today)
    if begin is None or end is None:
        return None
    since, until = begin[0].isoformat(), end[1].isoformat()
    match found.get("relation", "").lower():
        case "since" | "以来" | "之后" | "以后" | "起":
            return Filters(since=since)
        case "after":
            return Filters(since=until)
        case "before" | "之前" | "以前" | "前":
            return Filters(until=since)
        case "until":
            return Filters(until=until)
    return Filters(since=since) if "onwards" in found else Filters(since=since, until=until)


# --------------------------------------------------------------------------------------- points in time


def _period(point: str, today: date | None) -> tuple[date, date] | None:
    """First day of a point in time and the first day after it; None without the `today` it needs."""
    lowered = point.lower().replace(" ", "") if not point.isascii() else point.lower()
    try:
        return _calendar(lowered, today) or (_relative(lowered, today) if today else None)
    except ValueError:  # 31 February
        return None


def _calendar(point: str, today: date | None) -> tuple[date, date] | None:
    """A year, month or day that is named; of a month without a year, the last that began before today."""
    numbers = [int(number) for number in re.findall(r"\d+", point)]
    word = re.search(rf"\b{_MONTH}", point)
    if re.fullmatch(r"\d{4}(?:-\d{2}){0,2}|\d{4}年.*", point):
        year, month, day = (*numbers, 0, 0)[:3]
    elif word or re.fullmatch(r"\d{1,2}月.*", point):
        year = next((number for number in numbers if number > 31), 0)
        small = [number for number in numbers if number <= 31]
        month, day = (MONTHS[word[0].rstrip(".")], *small, 0)[:2] if word else (*small, 0)[:2]
        if not year:
            if today is None:
                return None
            year = today.year - (date(today.year, month, day or 1) > today)
    else:
        return None
    if not month:
        return date(year, 1, 1), date(year + 1, 1, 1)
    start = date(year, month, day or 1)
    return start, start + timedelta(1) if day else _months_later(start, 1)


def _relative(point: str, today: date) -> tuple[date, date]:
    tomorrow = today + timedelta(1)
    if count := re.search(r"\d+", point):
        number = int(count[0])
        if re.search(r"month|月", point):
            return _months_later(today, -number), tomorrow
        if re.search(r"year|年", point):
            return _months_later(today, -12 * number), tomorrow
        return today - timedelta(number * (7 if re.search(r"week|周", point) else 1)), tomorrow
    if point in _WEEKDAYS:
        day = today - timedelta((today.weekday() - _WEEKDAYS.index(point)) % 7)
        return day, day + timedelta(1)
    back = 1 if re.match(r"last|yesterday|[上去昨]", point) else 0
    if re.search(r"week|周", point):
        monday = today - timedelta(today.weekday() + 7 * back)
        return monday, monday + timedelta(7)
    for pattern, months in ((r"month|月", 1), ("quarter", 3), (r"year|年", 12)):
        if re.search(pattern, point):
            month = (today.month - 1) // months * months + 1
            start = _months_later(date(today.year, month, 1), -months * back)
            return start, _months_later(start, months)
    return today - timedelta(back), tomorrow - timedelta(back)


def _months_later(day: date, months: int) -> date:
    """The same day of another month, or its last day where it has fewer."""
    index = day.year * 12 + day.month - 1 + months
    first = date(index // 12, index % 12 + 1, 1)
    following = date((index + 1) // 12, (index + 1) % 12 + 1, 1)
    return min(first + timedelta(day.day - 1), following - timedelta(1))
