"""Training pairs without a model: questions about what the structure of a record shows.

Answers only quote: whole sentences of the chunk, the value of a field with a sentence around it, or the facts
of an insight. So each has its evidence, and none says more than the record does. An issue gives its problem
and its status, a commit what it changed and for which issue, a page section its content, a row its facts.
"""

import re
from collections.abc import Iterator
from functools import cached_property
from itertools import pairwise

from alchemy.records import Chunk, Document, Insight, fingerprint
from alchemy.synthesis.grounding import Candidate, length_in_words, normalize_question
from alchemy.synthesis.phrases import (
    ABSENT_FIELDS,
    CHINESE_ABSENT,
    CHINESE_DECLINES,
    DATES,
    DECLINES,
    SECTIONS,
    ask,
    choose,
    record_name,
)
from alchemy.synthesis.split import about_issue
from alchemy.text.sentences import cjk_share, split_sentences

TEMPLATE = "template"
_LEAD_WORDS = 60
_ENOUGH_WORDS = 12
_FEWEST_WORDS = 4
_LONGEST_FIELD = 120  # characters
_FACTS = 2
_CONDITION = re.compile(
    r"\A(If|When|After|Before|Once|While) ([^,\n]{10,100}), (?!and |or )\S.{15,}\Z", re.DOTALL
)
_DEFINITION = re.compile(
    r"\A([A-Z][\w./-]*(?: [\w./-]+){0,3}) (?:is|are) (?:an?|the|our|one|where|how) \S.{15,}\Z", re.DOTALL
)
_NO_SUBJECT = re.compile(
    r"(?i)\A(?:this|that|these|those|it|there|here|he|she|they|we|you|what|which|one|so|and|but|the|an?|all|each"
    r"|not|if|when|as|my|our|your|their|its)\b"
)
_MASKED = re.compile(r"<[A-Z][A-Z_]+_[0-9a-f]{4,}>")
_DATE = re.compile(r"\A\d{4}-\d\d-\d\d")
_MACHINE = re.compile(r"\A(?:[0-9a-f]{10,}|https?://\S+)(?:,|\Z)")
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
_PAST = re.compile(r"(?i)\b(?:was|were|had|did|came|went|got|made|took|\w{2,}ed)\b")
_PAGE = re.compile(r"(?i)\Apage (\d+)\Z")
_KEY_PREFIX = re.compile(r'"[\[(]?[A-Z][A-Z0-9]+-\d+[\])]?[\s:-]*')
_FILES = "Files changed:"
# Asked in a better way elsewhere, or of no use to anybody who asks.
_NO_QUESTION = frozenset(
    (
        "status",
        "state",
        "resolution",
        "parents",
        "issues",
        "release",
        "path",
        "space",
        "format",
        "id",
        "language",
        "comments_truncated",
        "status_history",
        "closed_at",
    )
)


def template_pairs(document: Document, chunk: Chunk, insight: Insight | None = None) -> list[Candidate]:
    """All pairs about one chunk: what it says comes first, then others, spread by hash."""
    writer = _Writer(document, chunk, insight)
    content = list(writer.content())
    others = content[1:]
    if writer.evidence:
        others += [*writer.structures(), *writer.fields(), *writer.numeric(), *writer.unanswerable()]
    others.sort(key=lambda pair: fingerprint(pair.chunk_id, pair.kind, pair.instruction))
    return content[:1] + others


class _Writer:
    """The pairs that one chunk has in it."""

    def __init__(self, document: Document, chunk: Chunk, insight: Insight | None) -> None:
        self._document = document
        self._chunk = chunk
        self._insight = insight
        self._name = record_name(document)
        self._chinese = cjk_share(chunk.text) > 0.2
        self._first = chunk.chunk_index == 0

    def content(self) -> Iterator[Candidate]:
        """What the chunk says, asked by its place in the record."""
        lead = self._lead
        said = normalize_question(lead)
        if length_in_words(lead) < _FEWEST_WORDS or said in normalize_question(self._document.title):
            return
        answer = _flat(lead)
        for template, words in self._content_questions():
            kind = (
                "how"
                if template in ("tested", "why") or words.get("section", "").lower().startswith("how")
                else "fact"
            )
            yield self._pair(kind, self._ask(template, **words), answer, lead)
        if template == "issue" and not self._chinese:
            question = self._ask("issue_by_title")
            yield self._pair("fact", question, f"Yes, {self._document.key}: {answer}", lead)

    def structures(self) -> Iterator[Candidate]:
        """Sentences and lines whose form says which question they answer."""
        for sentence in self._sentences:
            text = _flat(sentence)
            if length_in_words(text) > _LEAD_WORDS:
                continue
            match = _CONDITION.match(text)
            if match and not _PAST.search(match[2]):
                condition = f"{match[1].lower()} {match[2]}"
                yield self._pair("how", self._ask("condition", condition=condition), text, sentence)
            elif (match := _DEFINITION.match(text)) and not _NO_SUBJECT.match(match[1]):
                yield self._pair("fact", self._ask("definition", subject=match[1]), text, sentence)
        yield from self._table()
        if self._document.kind in ("commit", "pull_request"):
            yield from self._change()

    def fields(self) -> Iterator[Candidate]:
        """Values of structured fields; asked once for a document, at its first chunk."""
        document = self._document
        if not self._first:
            return
        status = document.fields.get("status") or document.fields.get("state")
        if status and document.kind in ("issue", "pull_request"):
            resolution = document.fields.get("resolution")
            also = f", and its resolution is {resolution}" if resolution else ""
            template = "status" if document.kind == "issue" else "state"
            answer = f"The {template} of {self._name} is {status}{also}."
            if document.kind == "issue" and document.title:
                answer += f" It is about: {document.title.rstrip('.')}."
            yield self._pair("fact", self._ask(template), answer, self.evidence)
        for name, value in document.fields.items():
            if name in _NO_QUESTION or name.endswith(("_id", "Id")) or value in self._name:
                continue
            if len(value) > _LONGEST_FIELD or _MASKED.search(value) or _MACHINE.match(value):
                continue
            yield self._field(name, value)

    def numeric(self) -> Iterator[Candidate]:
        """How the record's numbers stand among its kind, out of the insight."""
        facts = self._insight.facts[:_FACTS] if self._insight else ()
        if facts and self._first:
            answer = f"{self._capital} has {' and '.join(facts)}."
            yield self._pair("numeric", self._ask("numeric"), answer, self.evidence)

    def unanswerable(self) -> Iterator[Candidate]:
        """A question about what the record does not have, and an answer that says so."""
        if self._chunk.total_chunks > 1:  # another chunk may have it
            return
        fields, declines = (CHINESE_ABSENT, CHINESE_DECLINES) if self._chinese else (ABSENT_FIELDS, DECLINES)
        known = f"{self._chunk.text} {' '.join(self._document.fields)}".casefold()
        absent = [name for name in fields if not any(word in known for word in name.split())]
        if absent:
            name = choose(absent, "field", self._document.id)
            words = {"field": name, "name": self._name, "name_capital": self._capital}
            answer = choose(declines, "declines", self._document.id).format(**words)
            yield self._pair("unanswerable", self._ask("unanswerable", field=name), answer, self.evidence)

    @cached_property
    def evidence(self) -> str:
        """What to quote for a field: the title where it stands in the text, else what the chunk says."""
        title = self._document.title
        return title if title and title in self._chunk.text else self._lead

    @cached_property
    def _sentences(self) -> list[str]:
        """Exact sentences of the chunk that say something: no headings, code, tables or file lists."""
        headings = {self._document.title, *self._chunk.section.split(" > ")}
        texts = [self._chunk.text[start:end] for start, end in split_sentences(self._chunk.text)]
        says = _is_statement if self._document.kind == "row" else _is_prose
        return [text for text in texts if text not in headings and says(text)]

    @cached_property
    def _lead(self) -> str:
        """What the chunk says first: whole neighboring sentences as one exact span, or "".

        A passage often begins with a line like "Owner: platform team"; a run of sentences that says more is
        preferred.
        """
        text = self._chunk.text
        runs: list[tuple[int, int]] = []
        end = 0
        for sentence in self._sentences:
            at = text.find(sentence, end)
            gap, end = text[end:at].strip(), at + len(sentence)
            start = runs[-1][0] if runs else at
            if runs and not gap and length_in_words(text[start:end]) <= _LEAD_WORDS:
                runs[-1] = (start, end)
            elif length_in_words(sentence) <= _LEAD_WORDS:
                runs.append((at, end))
        spans = [text[start:end] for start, end in runs]
        return next(
            (span for span in spans if length_in_words(span) >= _ENOUGH_WORDS),
            max(spans, key=length_in_words, default=""),
        )

    @property
    def _capital(self) -> str:
        return self._name[:1].upper() + self._name[1:]

    def _content_questions(self) -> Iterator[tuple[str, dict[str, str]]]:
        document, section = self._document, self._section
        kind = document.kind
        if (
            section
            and section.lower() in SECTIONS
            and kind in ("issue", "pull_request", "page")
            and not self._chinese
        ):
            yield SECTIONS[section.lower()], {}
        elif kind == "issue" and (section.lower().startswith("comment") or not self._first):
            is_comment = section.lower().startswith("comment") or not section
            yield ("discussion", {}) if is_comment else ("section", {"section": section})
        elif kind in ("issue", "commit", "pull_request", "row", "feedback"):
            yield kind, {}
        elif match := _PAGE.match(section):
            yield "page_number", {"number": match[1]}
        elif section:
            yield "section", {"section": section}
        else:
            yield "page", {}

    @cached_property
    def _section(self) -> str:
        """The heading right above the chunk, where it is not the record's title."""
        leaf = self._chunk.section.rpartition(" > ")[2].strip().rstrip(":")
        return "" if leaf == self._document.title.strip() or len(leaf) > 100 else leaf

    def _table(self) -> Iterator[Candidate]:
        """Rows of a table, and one comparison of two that stand one below the other."""
        rows: list[tuple[str, str, int]] = []  # what it is about, what it says, its line
        lines = self._chunk.text.splitlines(keepends=True)
        for number, line in enumerate(lines):
            cells = [cell.strip() for cell in line.strip(" |\n").split(" | ")]
            if len(cells) > 1 and all(cells) and re.search(r"\w", cells[0]) and len(cells[0]) <= 60:
                answer = f"{cells[0]}: {'; '.join(cells[1:])}"
                rows.append((cells[0], answer, number))
                yield self._pair("fact", self._ask("table_row", subject=cells[0]), answer, line.strip())
        # The first row may be the names of the columns: it is compared with nothing.
        neighbors = [(one, other) for one, other in pairwise(rows[1:]) if other[2] == one[2] + 1]
        if neighbors:
            one, other = choose(neighbors, "compared", self._chunk.id)
            question = self._ask("comparison", subject=one[0], other=other[0])
            quote = "".join(lines[one[2] : other[2] + 1]).strip()
            yield self._pair("comparison", question, f"{one[1].rstrip('.')}. {other[1].rstrip('.')}.", quote)

    def _change(self) -> Iterator[Candidate]:
        text = self._chunk.text
        for line in text.splitlines():
            if line.startswith(_FILES) and length_in_words(line) <= _LEAD_WORDS:
                yield self._pair("fact", self._ask("files"), line.removeprefix(_FILES).strip(), line)
        key = about_issue(self._document)
        line = next((line for line in text.splitlines() if re.search(rf"\b{re.escape(key)}\b", line)), "")
        name = _KEY_PREFIX.sub('"', self._name)
        if key and line and key not in name:
            # Without the key in the title, or the question would answer itself.
            question = self._ask("issue_of_change", name=name)
            yield self._pair("fact", question, f"It belongs to {key}.", line.strip())

    def _field(self, name: str, value: str) -> Candidate:
        words = _CAMEL.sub(" ", name).replace("_", " ").lower()
        quote = next((text for text in self._sentences if value in text), self.evidence)
        if name in DATES and _DATE.match(value):
            answer = f"{self._capital} was {DATES[name]} on {value[:10]}."
            return self._pair("fact", self._ask("date", name, verb=DATES[name]), answer, quote)
        plural = words.endswith("s") and not words.endswith("ss")
        if plural and ", " in value:
            answer = f"The {words} of {self._name} are {value}."
            return self._pair("fact", self._ask("fields", name, field=words), answer, quote)
        words = words[:-1] if plural and self._document.kind != "row" else words
        answer = f"The {words} of {self._name} is {value}."
        return self._pair("fact", self._ask("field", name, field=words), answer, quote)

    def _ask(self, template: str, *key: str, **words: str) -> str:
        return ask(template, self._document, self._chunk.id, *key, chinese=self._chinese, **words)

    def _pair(self, kind: str, question: str, answer: str, quote: str) -> Candidate:
        return Candidate(
            instruction=_flat(question),
            response=answer.strip(),
            evidence_quote=quote,
            chunk_id=self._chunk.id,
            document_id=self._document.id,
            kind=kind,
            provider=TEMPLATE,
        )


def _flat(text: str) -> str:
    return " ".join(text.split())


def _is_statement(text: str) -> bool:
    return ":" in text or _is_prose(text)


def _is_prose(text: str) -> bool:
    if text.startswith(_FILES) or " | " in text or length_in_words(text) < 3:
        return False
    return sum(character.isalpha() or character == " " for character in text) >= 0.7 * len(text)
