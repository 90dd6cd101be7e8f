"""Questions made from structured facts, whose documents are known: what `questions.py` asks.

| kind | made from | asks for | found when |
|---|---|---|---|
| commits | an issue key that one commit mentions | the change, by what the issue was about | that commit |
| sections | a heading of a wiki page | what stands under it, naming the page's subject | that page |
| rows | values that only one row has together | another column | that row |
| identifiers | a key, a sha, a class name, a version | itself, in a few words | all that hold it |

A question has words of its own: the verb of a commit's subject gives way to what a person would ask, every
third word of the rest is forgotten, notes about who contributed it are cut. It is left out where it would be
no fair question: too few words, a masked value, a heading that stands twice, the page of a version, or an
identifier that only its own document holds and which therefore names it (identifiers are asked for apart).
The same corpus gives the same questions: a hash chooses.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import TypeVar

from alchemy.records import Document, fingerprint
from alchemy.retrieval.lexical import units

T = TypeVar("T")

MIN_CONTENT = 4  # words of content in what is left of a commit's subject: "reopened" asks for nothing
MIN_SECTION = 200  # characters under a heading; less is a list of links
MOST_KEYS = 3  # values that a person would give to find a row
MOST_HOLDERS = 3  # documents that hold an identifier: of more the first five cannot be expected to be all

_ISSUE_KEY = re.compile(r"\b[A-Z][A-Z0-9]+-\d+\b")
_CLASS = re.compile(r"\b(?:[A-Z][a-z0-9]+){2,6}\b")
_VERSION = re.compile(r"(?<![\w.-])\d+\.\d+\.\d+(?:\.\d+)?(?![\w.-])")
_NOTE = re.compile(
    r"\(#\d+\)|\bthis closes #\d+|\b(?:contributed|submitted|reported|patch) (?:by|from)\b.*|\bvia [A-Z<].*"
    r"|\bthanks to\b.*|\[PATCH\]|…$",
    re.I,
)
_CLAUSE_END = re.compile(r"(?:[.;]|,| --?) .*")
_BROKEN = re.compile(r"[<>\ufffd|{}]")
_NUMBERED = re.compile(r"\d\.\d")
_PRODUCT = re.compile(r"^(?:Apache )?CXF\b(?: --?)?|\((?:Apache )?CXF\)")
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|_")
_MIDNIGHT = " 00:00:00"  # how dumps end a date
_WORD = re.compile(r"\w+")

# How people ask for a change whose subject begins with one of these words, whatever its ending.
_VERBS = {
    "add allow support implement include enable creat expose extract": (
        "Since which commit is there {}?",
        "Which change gave us {}?",
        "When did we get {}?",
    ),
    "fix prevent avoid handl correct ignor skip catch": (
        "Which commit took care of the problem with {}?",
        "Has {} been dealt with, and by which change?",
        "We had trouble with {}. What solved it?",
    ),
    "upgrad updat bump migrat": (
        "Which commit brought a newer {}?",
        "When did the build go over to {}?",
    ),
    "remov drop delet exclud rm": (
        "When was {} thrown out?",
        "Which change got rid of {}?",
    ),
    "improv refactor clean simplif mov renam chang us mak replac turn switch appl": (
        "Which commit was about {}?",
        "Where in the history was work done on {}?",
    ),
}
_FORMS = {verb: forms for verbs, forms in _VERBS.items() for verb in verbs.split()}
_ENDINGS = ("", "s", "e", "es", "ed", "d", "ing", "y", "ied")
_SECTION_FORMS = (
    "What do I need to know about {heading} when working with {title}?",
    "I am reading up on {title}: where is {heading} explained?",
    "{title}, in particular {heading}: how does that work?",
    "Is there anything in the wiki on {heading} for {title}?",
)
_ROW_FORMS = (
    "What is the {target} in the {table} table for {keys}?",
    "I am looking for the {table} row with {keys}. Which {target} does it have?",
    "{keys}: tell me the {target} from {table}.",
)
_IDENTIFIER_FORMS = (
    "{}",
    "What is {} about?",
    "Where does {} come up?",
    "Please show me {}",
    "who worked on {}?",
)
_SHA_LENGTHS = (7, 8, 10, 12, 40)  # as git, forges and people cut them


@dataclass(frozen=True, slots=True)
class Structured:
    """A question and the documents that answer it; of `sections` also the heading's path."""

    kind: str
    text: str
    document_ids: tuple[str, ...]
    section: str = ""


Made = Iterator[tuple[Structured, str]]  # a question, and why it is left out ("" where it is not)
Holders = Mapping[str, Collection[str]]  # ids of the documents that hold an identifier


def structured_questions(
    documents: Sequence[Document], tuned: Set[str], each: int
) -> tuple[list[Structured], Counter[str]]:
    """At most `each` questions of every kind, and how many were left out for which reason.

    Args:
        documents: The cleaned corpus.
        tuned: Ids of documents that weights were tuned on; they are not asked about.
        each: How many; of identifiers, how many of each form. A document is asked about once in a kind.
    """
    holders = _holders(documents)
    asked: list[Structured] = []
    left_out: Counter[str] = Counter()
    for make in (_commits, _sections, _rows):
        fair: list[Structured] = []
        for question, reason in make(documents):
            if fault := reason or _fault(question, tuned, holders):
                left_out[f"{question.kind}: {fault}"] += 1
            else:
                fair.append(question)
        asked += _some(fair, each)
    for identifiers in _identifiers(documents, holders):
        asked += _some([one for one in identifiers if tuned.isdisjoint(one.document_ids)], each // 3)
    return asked, left_out


def _commits(documents: Sequence[Document]) -> Made:
    for key, found in _by_issue(document for document in documents if document.kind == "commit").items():
        document = found[0]
        forms, matter = _forms(_subject(document.title))
        text = _choose(forms, document.id).format(_remembered(matter)) if forms else ""
        question = Structured("commits", text, (document.id,))
        if len(found) > 1 or document.fields["issues"] != key:
            yield question, "several commits of one issue, or issues of one commit"
        elif not forms:
            yield question, "its subject begins with no verb that we can ask with"
        else:
            yield question, "" if _content(matter) >= MIN_CONTENT else "too few words"


def _by_issue(commits: Iterable[Document]) -> dict[str, list[Document]]:
    of_key: defaultdict[str, list[Document]] = defaultdict(list)
    for commit in commits:
        for key in filter(None, commit.fields.get("issues", "").split(", ")):
            of_key[key].append(commit)
    return of_key


def _subject(title: str) -> str:
    """What a commit's subject says, without keys, numbers and notes."""
    text = " ".join(_ISSUE_KEY.sub("", _NOTE.sub("", title)).split())
    text = re.sub(r"[][()]", "", text).strip("-:;., ")
    return _CLAUSE_END.sub("", re.sub(r"^(?:fix(?:es|ed)? )?for[ :]+", "", text, flags=re.I))


def _forms(subject: str) -> tuple[tuple[str, ...], str]:
    """Ways to ask for what the subject's verb says, and the rest of the subject."""
    verb, _, matter = subject.partition(" ")
    stems = (verb.lower().removesuffix(ending) for ending in _ENDINGS)
    matter = re.sub(r"^(?:for|to|ability to|support for|support) ", "", matter)
    return next((_FORMS[stem] for stem in stems if stem in _FORMS), ()), matter


def _remembered(matter: str) -> str:
    """Without every third word of content: nobody knows a subject by heart. At least `MIN_CONTENT` stay."""
    words = matter.split()
    places = [place for place, word in enumerate(words) if _content(word)]
    forgotten = set(places[2::3][: max(0, len(places) - MIN_CONTENT)])
    return " ".join(word for place, word in enumerate(words) if place not in forgotten)


def _content(text: str) -> int:
    return len({unit.whole for unit in units(text) if unit.content})


def _sections(documents: Sequence[Document]) -> Made:
    sizes: Counter[tuple[str, str, str]] = Counter()
    for document in documents:
        if document.kind == "page":
            for block in document.blocks:
                if block.section and block.kind != "heading":
                    sizes[document.id, document.title, block.section] += block.end - block.start
    names = Counter((title, _heading(section)) for _, title, section in sizes)
    for (page, title, section), size in sizes.items():
        heading = _heading(section)
        subject = _PRODUCT.sub("", title).strip() or title
        text = _choose(_SECTION_FORMS, page, section).format(heading=heading, title=subject)
        question = Structured("sections", text, (page,), section)
        if _NUMBERED.search(title):
            yield question, "a page of one version, which its number names"
        elif size < MIN_SECTION:
            yield question, "a section of a few words"
        elif names[title, heading] > 1:
            yield question, "two sections of one name"
        else:
            yield question, "the heading is the title" if heading.lower() in title.lower() else ""


def _heading(section: str) -> str:
    return section.rpartition(" > ")[2]


def _rows(documents: Sequence[Document]) -> Made:
    tables: defaultdict[tuple[str, str], list[Document]] = defaultdict(list)
    for document in documents:
        if document.kind == "row":
            tables[document.raw_key, document.project].append(document)
    for (_, table), rows in tables.items():
        holding: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
        for row in rows:
            for cell in row.fields.items():
                holding[cell].add(row.id)
        for row in rows:
            cells = [cell for cell in row.fields.items() if not cell[0].lower().endswith(("id", "language"))]
            cells.sort(key=lambda cell: fingerprint(row.id, cell[0]))
            known = [cell for cell in cells if _is_known(cell[1])]
            sizes = range(2, min(MOST_KEYS, len(known)) + 1)
            size = next((n for n in sizes if _same(known[:n], holding) == {row.id}), 0)
            given = dict(known[:size])
            target = next((name for name, _ in cells if name not in given), "")
            keys = " and ".join(
                f"{_words(name)} {value.removesuffix(_MIDNIGHT)}" for name, value in given.items()
            )
            form = _choose(_ROW_FORMS, row.id)
            text = form.format(target=_words(target), table=_words(table), keys=keys)
            question = Structured("rows", text, (row.id,))
            yield question, "" if given and target else "no two or three values tell it from other rows"


def _is_known(value: str) -> bool:
    """Whether a person would know the value: a name, a place, a date, but no measure and no code letter."""
    return 3 <= len(value) <= 60 and (value.endswith(_MIDNIGHT) or any(c.isalpha() for c in value))


def _same(cells: Iterable[tuple[str, str]], holding: Mapping[tuple[str, str], set[str]]) -> set[str]:
    return set.intersection(*(holding[cell] for cell in cells))


def _words(column: str) -> str:
    """BillingCity and name_wiki as people say them."""
    return " ".join(_HUMP.sub(" ", column).split()).lower()


def _fault(question: Structured, tuned: Set[str], holders: Holders) -> str:
    if not tuned.isdisjoint(question.document_ids):
        return "its document was used for tuning"
    if _BROKEN.search(question.text):
        return "a masked or broken value"
    named = (name for pattern in (_ISSUE_KEY, _CLASS, _VERSION) for name in pattern.findall(question.text))
    if any(len(holders[name.lower()]) == 1 for name in named):
        return "it names its document by an identifier"
    return ""


def _holders(documents: Sequence[Document]) -> defaultdict[str, set[str]]:
    """By lower-case word, key or version, because a search does not tell the two cases apart."""
    holders: defaultdict[str, set[str]] = defaultdict(set)
    for document in documents:
        for pattern in (_WORD, _ISSUE_KEY, _VERSION):
            for word in pattern.findall(f"{document.key} {document.text}"):
                holders[word.lower()].add(document.id)
    return holders


def _identifiers(documents: Sequence[Document], holders: Holders) -> Iterator[list[Structured]]:
    """Of each form of identifier those with few holders; an issue's key asks for the issue itself."""
    issues = [document for document in documents if document.kind == "issue"]
    commits = [document for document in documents if document.kind == "commit"]
    yield [_identifier(issue.key, [issue.id]) for issue in issues]
    yield [_identifier(key, [one.id for one in found]) for key, found in _by_issue(commits).items()]
    yield [_identifier(one.key[: _choose(_SHA_LENGTHS, one.key)], [one.id]) for one in commits]
    for pattern in (_CLASS, _VERSION):
        written: defaultdict[str, set[str]] = defaultdict(set)
        for document in documents:
            if document.kind in ("commit", "issue", "page"):
                for name in pattern.findall(document.text):
                    written[name].add(document.id)
        few = ((name, ids) for name, ids in written.items() if len(holders[name.lower()]) <= MOST_HOLDERS)
        yield [_identifier(name, ids) for name, ids in few]


def _identifier(name: str, document_ids: Collection[str]) -> Structured:
    text = _choose(_IDENTIFIER_FORMS, name).format(name)
    return Structured("identifiers", text, tuple(sorted(document_ids)))


def _some(questions: Iterable[Structured], most: int) -> list[Structured]:
    """Spread by a hash; no document twice."""
    chosen: dict[tuple[str, ...], Structured] = {}
    for question in sorted(questions, key=lambda one: fingerprint(one.text)):
        if len(question.document_ids) <= MOST_HOLDERS:
            chosen.setdefault(question.document_ids, question)
    return list(chosen.values())[:most]


def _choose(forms: Sequence[T], *parts: str) -> T:
    return forms[int(fingerprint(*parts), 16) % len(forms)]
