"""Questions whose supporting passages are known, asked of the champion, and the report that it was released
with: what `alchemy eval` prints.

A question file is JSON lines: `{"id", "question", "answerable", "supporting": [{"document_id", "quote"}]}`.
A passage supports a question when it is of a supporting document and holds its quote, white space apart.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from alchemy.artifacts import Artifacts
from alchemy.catalog import Catalog
from alchemy.errors import BadInput, NotFound
from alchemy.evaluation.report import RENDERED, read_report
from alchemy.release import Release, read_release, resolve_release
from alchemy.settings import SearchOptions, Settings

if TYPE_CHECKING:
    from alchemy.retrieval.search import Passage, SearchResult

STORED = "eval/questions.jsonl"
TOP = 3


@dataclass(frozen=True, slots=True)
class Support:
    document_id: str
    quote: str


@dataclass(frozen=True, slots=True)
class KnownQuestion:
    """A question and where its answer stands; no support: the data does not hold an answer."""

    id: str
    question: str
    supporting: tuple[Support, ...]


@dataclass(frozen=True, slots=True)
class Asked:
    """How one question went. `rank` counts from 1 and is None where no passage in the top 3 supports it."""

    id: str
    question: str
    answerable: bool
    answered: bool
    rank: int | None
    relevance: float

    @property
    def correct(self) -> bool:
        return self.answered and self.rank is not None if self.answerable else not self.answered


@dataclass(frozen=True, slots=True)
class Answers:
    """The table of `alchemy eval`. `supported` counts answered questions with a supporting top passage."""

    release: str
    answerable: int
    supported: int
    unanswerable: int
    declined: int
    rows: tuple[Asked, ...]


def load_questions(artifacts: Artifacts, path: Path | None) -> list[KnownQuestion]:
    """Reads a question file, or the one in the store. Raises BadInput or NotFound."""
    try:
        data = path.read_bytes() if path else artifacts.store.get(STORED)
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}") from None
    except NotFound:
        raise NotFound(f"the store has no {STORED}; give a question file") from None
    return [_question(line, number, path or STORED) for number, line in enumerate(data.splitlines(), 1)]


def ask_questions(
    artifacts: Artifacts, catalog: Catalog, settings: Settings, questions: Sequence[KnownQuestion]
) -> Answers:
    """Searches the champion with every question. Raises NotFound where nothing was released."""
    champion = resolve_release(artifacts, "champion")
    search = open_search(artifacts, read_release(artifacts, champion), catalog, settings)
    rows = tuple(_ask(search, settings.search, question) for question in questions)
    return Answers(
        release=champion,
        answerable=sum(row.answerable for row in rows),
        supported=sum(row.correct for row in rows if row.answerable),
        unanswerable=sum(not row.answerable for row in rows),
        declined=sum(row.correct for row in rows if not row.answerable),
        rows=rows,
    )


def champion_report(artifacts: Artifacts) -> tuple[dict[str, Any], str]:
    """The evaluation of the champion as JSON and as Markdown. Raises NotFound where nothing was released."""
    release = read_release(artifacts, resolve_release(artifacts, "champion"))
    evaluation = artifacts.get("evaluation", release.evaluation)
    rendered = artifacts.file(evaluation, RENDERED).read_text(encoding="utf-8")
    return read_report(artifacts, evaluation.version), rendered


def open_search(
    artifacts: Artifacts, release: Release, catalog: Catalog, settings: Settings
) -> "Callable[[str, SearchOptions], SearchResult]":
    """The search of a release, with the models that it names."""
    from alchemy.retrieval.embed import Embedder
    from alchemy.retrieval.index import Index
    from alchemy.retrieval.rerank import Reranker
    from alchemy.retrieval.search import Searcher

    index = Index.open(artifacts.fetch(artifacts.get("faiss_index", release.index)), settings.vectors)
    embedder = Embedder(catalog.model_b.model_copy(update={"model_id": release.embedder}), settings.models)
    reranker = Reranker(catalog.reranker.model_copy(update={"model_id": release.reranker}), settings.models)
    return Searcher(index, embedder, reranker, release.weights).search


def _ask(
    search: "Callable[[str, SearchOptions], SearchResult]", options: SearchOptions, question: KnownQuestion
) -> Asked:
    result = search(question.question, options)
    ranks = [
        rank
        for rank, passage in enumerate(result.passages[:TOP], 1)
        if any(_holds(passage, support) for support in question.supporting)
    ]
    return Asked(
        id=question.id,
        question=question.question,
        answerable=bool(question.supporting),
        answered=result.answerable,
        rank=ranks[0] if ranks else None,
        relevance=result.relevance,
    )


def _holds(passage: "Passage", support: Support) -> bool:
    same = passage.chunk.document_id == support.document_id
    return same and _plain(support.quote) in _plain(passage.text)


def _plain(text: str) -> str:
    return "".join(text.split()).casefold()


def _question(line: bytes, number: int, path: Path | str) -> KnownQuestion:
    try:
        row: dict[str, Any] = orjson.loads(line)
        supporting = tuple(Support(one["document_id"], one["quote"]) for one in row["supporting"])
        return KnownQuestion(row["id"], row["question"], supporting if row["answerable"] else ())
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise BadInput(f"{path} line {number}: not a question ({type(error).__name__}: {error})") from None
