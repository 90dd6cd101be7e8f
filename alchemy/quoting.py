"""Exact quotes: finding the sentences that answer, and checking what a model claims to cite.

Every citation is a span: the document's text from `start` to `end` is `quote`, whoever wrote the answer.
Passages are numbered from 1 in the order in which the finalist gets them. Pure; no model, no network.

What a document says to the model (`instructions`) is never quoted, and no document can end its own quote:
in the answer's text its double quotation marks are single ones, as quotes in quotes are written.
"""

import math
import re
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass

from alchemy.records import Chunk
from alchemy.retrieval.search import Passage
from alchemy.text.instructions import is_active, is_for_the_model
from alchemy.text.language import is_chinese
from alchemy.text.sentences import split_sentences
from alchemy.text.terms import terms

# [1], and [1, 2] as some models write it.
_MARK = re.compile(r"\s?\[(\d{1,3}(?:\s*[,;，、]\s*\d{1,3})*)\]")
MARKS = re.compile(rf"(?:{_MARK.pattern})+")
_QUOTED = re.compile(r"“[^”]*”")
_OPEN_MARK = re.compile(r"\s?\[[\d\s,;，、]{0,20}\Z|\s\Z")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])|\n")
_STATEMENT = re.compile(r"[.!?。！？][\"'”’」』)）\]]*\s*\Z| \| ")
_DIGIT = re.compile(r"\d")
_HAS_NUMBER = re.compile(r"\d|[一二三四五六七八九十百]")
_ASKS_NUMBER = re.compile(r"(?i)\bhow (?!does|do|is|are|can)\w+|\bwhen\b|\bcost|\bprice|[多几]")
_LEADS = ("The knowledge base says:", "知识库中的相关内容：")
_NESTED = str.maketrans("“”", "‘’")
_MOST_QUOTES = 3
_READABLE = 320  # characters of a quote that grows by the sentence after it
_TABLE = " | "
_IDENTIFIER = 2.0  # weight of a word with a digit: P-17, GW-503, 4.2.0
_ABOVE = 0.3  # weight of a word of the question that stands in the passage's title or section
_HEADING = 0.4  # factor of what does not end like a sentence
_NUMBER = 1.4  # factor of a sentence with a number where one is asked for
_FLOOR = 0.6  # a further sentence must score at least this share of the best one


@dataclass(frozen=True, slots=True)
class Citation:
    """An exact quote: the document's text from `start` to `end` is `quote`."""

    number: int  # the [n] in the answer
    document_id: str
    document_version: str
    chunk_id: str
    title: str
    source: str
    url: str
    quote: str
    start: int
    end: int
    raw_key: str
    raw_sha256: str
    locator: str
    score: float


@dataclass(frozen=True, slots=True)
class Draft:
    """An answer's text and what it rests on."""

    text: str
    citations: tuple[Citation, ...]


def extract(question: str, passages: Sequence[Passage]) -> Draft:
    """Answers with the one to three sentences of the passages that fit the question best, quoted exactly.

    A sentence's score is its passage's relevance times how much of the question it covers (words weighted
    by how rare they are among the sentences, less where the title says them already), less for a heading,
    more for a number where one is asked for. The best sentence brings the one after it along. At most one
    run of neighboring sentences is quoted per chunk. No sentence gives an empty text.

    The reranker does not choose the sentences: on the sample questions that found fewer answers than words
    do (19 of 32 against 22) and took half a second.
    """
    spans = [span for number, passage in enumerate(passages, 1) for span in _spans(number, passage)]
    if not spans:
        return Draft("", ())
    scores = _scores(question, spans)
    best = sorted(range(len(spans)), key=lambda i: (-scores[i], spans[i].number, spans[i].start))
    picked: list[int] = []
    for i in best[:12]:
        enough = scores[i] >= _FLOOR * scores[best[0]] and scores[i] > 0
        if not picked or (enough and _adds(spans[i], [spans[p] for p in picked])):
            picked.append(i)
        if len(picked) == _MOST_QUOTES:
            break
    picked += _following(spans, picked[0])[: _MOST_QUOTES - len(picked)]
    runs = _runs([spans[i] for i in sorted(set(picked))])
    citations = tuple(_citation(run) for run in runs)
    lead, between = (_LEADS[1], "") if is_chinese(question) else (_LEADS[0], " ")
    quotes = "\n".join(f"{_quoted(citation.quote)}{between}[{citation.number}]" for citation in citations)
    return Draft(f"{lead}\n{quotes}", citations)


def cite(text: str, passages: Sequence[Passage]) -> tuple[Citation, ...]:
    """The citations of a written answer: for each [n] in it, the sentence of passage n nearest to the claim.

    A mark whose passage shares no word or number with the claims it stands behind supports nothing and
    gives no citation. Numbers without a passage are ignored. In order of number.
    """
    claims: dict[int, str] = {}
    begin = 0
    for match in MARKS.finditer(text):
        claim = _SENTENCE_END.split(text[begin : match.start()].rstrip(" .!?。！？\n"))[-1]
        for number in mark_numbers(match.group()):
            claims[number] = f"{claims.get(number, '')} {claim}"
        begin = match.end()
    found = []
    for number in sorted(number for number in claims if 1 <= number <= len(passages)):
        claimed, passage = terms(claims[number]), passages[number - 1]
        spans = _spans(number, passage)
        overlap = [len(claimed & terms(span.text)) for span in spans]
        if overlap and max(overlap) > 0:
            found.append(_citation(spans[overlap.index(max(overlap))]))
    return tuple(found)


def outside_quotes(text: str) -> str:
    """What an answer says itself, as a reader sees it: not between “ and ”, nor a mark, nor the lead."""
    for lead in _LEADS:
        text = text.removeprefix(lead)
    return MARKS.sub(" ", _QUOTED.sub(" ", text)).strip()


async def checked(tokens: AsyncIterator[str], passages: int) -> AsyncIterator[str]:
    """The stream without marks that name no passage; text is held back only while a mark is open."""
    pending = ""
    async for token in tokens:
        pending += token
        open_mark = _OPEN_MARK.search(pending)
        cut = open_mark.start() if open_mark else len(pending)
        done, pending = pending[:cut], pending[cut:]
        if done := without_strangers(done, passages):
            yield done
    if pending := without_strangers(pending, passages):
        yield pending


def without_strangers(text: str, passages: int) -> str:
    """The text without the numbers, in marks, that name no passage."""

    def mark(match: re.Match[str]) -> str:
        known = [str(number) for number in mark_numbers(match.group()) if 1 <= number <= passages]
        space = match.group()[0] if match.group()[0].isspace() else ""
        return f"{space}[{', '.join(known)}]" if known else ""

    return _MARK.sub(mark, text)


@dataclass(frozen=True, slots=True)
class _Span:
    """A run of sentences of passage `number`; positions are those in its text."""

    number: int
    passage: Passage
    start: int
    end: int

    @property
    def text(self) -> str:
        return self.passage.text[self.start : self.end]

    @property
    def chunk(self) -> Chunk:
        return self.passage.chunk_at(self.passage.start + self.start)


def _spans(number: int, passage: Passage) -> list[_Span]:
    """What may be quoted of a passage: its sentences and rows of tables, without the headings above them."""
    found = _sentences(number, passage)
    return [span for span in found if not is_for_the_model(span.text) and not is_active(span.text)]


def _sentences(number: int, passage: Passage) -> list[_Span]:
    text, spans = passage.text, []
    above = [part for chunk in passage.chunks for part in (chunk.title, *chunk.section.split(" > "))]
    headings = {part.strip() for part in above}
    for start, end in split_sentences(text):
        lines = _lines(text, start, end)
        if len(lines) > 1 and all(_TABLE in text[first:last] for first, last in lines):
            spans += [_Span(number, passage, first, last) for first, last in lines]
            continue
        while len(lines) > 1 and text[slice(*lines[0])].strip(" #") in headings:
            lines = lines[1:]
        if lines:
            spans.append(_Span(number, passage, lines[0][0], end))
    return spans


def _lines(text: str, start: int, end: int) -> list[tuple[int, int]]:
    return [
        (start + m.start(), start + m.end())
        for m in re.finditer(r"[^\n]+", text[start:end])
        if m.group().strip()
    ]


def _scores(question: str, spans: Sequence[_Span]) -> list[float]:
    asked = terms(question)
    said = [terms(span.text) for span in spans]
    # Smoothed inverse document frequency over the sentences at hand (Robertson's form, never negative).
    seen = {term: sum(term in found for found in said) for term in asked}
    weight = {
        term: math.log(1 + (len(spans) + 1) / (1 + count)) * (_IDENTIFIER if _DIGIT.search(term) else 1.0)
        for term, count in seen.items()
    }
    above = {chunk: terms(f"{chunk.title} {chunk.section}") for chunk in {span.chunk for span in spans}}
    fits = [_fit(asked, found, above[span.chunk], weight) for span, found in zip(spans, said, strict=True)]
    wants_number = bool(_ASKS_NUMBER.search(question))
    return [
        (0.3 + span.passage.relevance)
        * fit
        * (1.0 if _STATEMENT.search(span.text) else _HEADING)
        * (_NUMBER if wants_number and _HAS_NUMBER.search(span.text) else 1.0)
        for span, fit in zip(spans, fits, strict=True)
    ]


def _fit(asked: set[str], found: set[str], above: set[str], weight: dict[str, float]) -> float:
    """Share of the question that the sentence covers. What stands above it, it need not repeat."""
    weigh = {term: weight[term] * (_ABOVE if term in above else 1.0) for term in asked}
    return sum(weigh[term] for term in asked & found) / (sum(weigh.values()) or 1.0)


def _adds(span: _Span, picked: Sequence[_Span]) -> bool:
    """Whether the sentence is new, and from another chunk or beside what is quoted from this one."""
    if any(terms(span.text) <= terms(other.text) for other in picked):
        return False
    same = [other for other in picked if (other.number, other.chunk) == (span.number, span.chunk)]
    return not same or any(_touch(other, span) or _touch(span, other) for other in same)


def _following(spans: Sequence[_Span], best: int) -> list[int]:
    """The sentence after the best one, where the two read on: after a heading, or in one paragraph."""
    after = best + 1
    if after == len(spans) or spans[after].number != spans[best].number:
        return []
    text = spans[best].passage.text
    short = spans[after].end - spans[best].start <= _READABLE
    reads_on = "\n\n" not in text[spans[best].end : spans[after].start] and _TABLE not in spans[best].text
    return [after] if short and (reads_on or not _STATEMENT.search(spans[best].text)) else []


def _touch(first: _Span, second: _Span) -> bool:
    between = first.passage.text[first.end : second.start]
    return first.end <= second.start and not between.strip()


def _runs(spans: Iterable[_Span]) -> list[_Span]:
    """Joins neighbors of one passage into one span."""
    joined: list[_Span] = []
    for span in spans:
        last = joined[-1] if joined else None
        if last and last.number == span.number and _touch(last, span):
            joined[-1] = _Span(span.number, span.passage, last.start, span.end)
        else:
            joined.append(span)
    return joined


def _citation(span: _Span) -> Citation:
    chunk = span.chunk
    start = span.start + len(span.text) - len(span.text.lstrip())
    end = span.end - (len(span.text) - len(span.text.rstrip()))
    return Citation(
        number=span.number,
        document_id=chunk.document_id,
        document_version=chunk.document_version,
        chunk_id=chunk.id,
        title=chunk.title,
        source=chunk.source,
        url=chunk.url,
        quote=span.passage.text[start:end],
        start=span.passage.start + start,
        end=span.passage.start + end,
        raw_key=chunk.raw_key,
        raw_sha256=chunk.raw_sha256,
        locator=chunk.locator,
        score=round(float(span.passage.score), 4),
    )


def _quoted(quote: str) -> str:
    return f"“{quote.translate(_NESTED)}”"


def mark_numbers(marks: str) -> list[int]:
    """The passage numbers in a mark such as `[1, 3]`."""
    return [int(number) for number in re.findall(r"\d+", marks)]
