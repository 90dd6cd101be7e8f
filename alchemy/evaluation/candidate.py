"""What is judged, and what every section of the report judges by."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alchemy.catalog import BaseModelEntry
from alchemy.records import SftPair, fingerprint
from alchemy.retrieval.embed import Embedding
from alchemy.retrieval.fuse import SearchWeights
from alchemy.retrieval.index import Index
from alchemy.retrieval.rerank import Reranking
from alchemy.retrieval.search import Searcher, SearchResult
from alchemy.settings import SearchOptions

MOST_QUESTIONS = 100  # of each kind: an interval of about +-0.08 at a recall of 0.8
UNANSWERABLE = "unanswerable"


@dataclass(frozen=True, slots=True)
class Candidate:
    """An index snapshot, the adapters, and the models they are used with."""

    index: Path
    adapters: Mapping[str, Path]  # name -> folder
    versions: Mapping[str, str]  # asset -> version of everything that is judged or judged by
    embedder: Embedding
    reranker: Reranking | None
    base: BaseModelEntry
    models: Path


class Listener(Searcher):
    """A searcher that remembers what it found: each question is searched once, whoever asks about it."""

    def __init__(
        self, index: Index, embedder: Embedding, reranker: Reranking | None, weights: SearchWeights
    ) -> None:
        super().__init__(index, embedder, reranker, weights)
        self.found: dict[str, SearchResult] = {}

    def search(self, query: str, options: SearchOptions, *others: Any) -> SearchResult:
        result = self.found[query] = super().search(query, options, *others)
        return result


@dataclass(frozen=True, slots=True)
class Judging:
    """What a section gets. All of it is read only, except that the searcher listens."""

    candidate: Candidate
    searcher: Listener  # over the candidate's index, with the weights that were tuned
    held: Sequence[SftPair]  # pairs that neither weights nor adapters have seen
    options: SearchOptions
    count_leaks: Callable[[str], int]
    progress: Callable[[int, int], None]


def asked(pairs: Iterable[SftPair]) -> list[SftPair]:
    """At most `MOST_QUESTIONS` answerable pairs and then as many unanswerable ones, the same every time."""
    answerable: list[SftPair] = []
    unanswerable: list[SftPair] = []
    for pair in pairs:
        (unanswerable if pair.kind == UNANSWERABLE else answerable).append(pair)
    return [*sample(answerable, MOST_QUESTIONS), *sample(unanswerable, MOST_QUESTIONS)]


def sample(pairs: Iterable[SftPair], most: int) -> list[SftPair]:
    """A sample that does not depend on the order, spread by a hash of the ids."""
    return sorted(pairs, key=lambda pair: fingerprint(pair.id))[:most]
