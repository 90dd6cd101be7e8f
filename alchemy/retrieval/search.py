"""One question against one index: gather evidence, fuse, rerank, choose, and say whether it suffices.

    query -> [dense || keywords] -> candidates -> cross-encoder on the best -> fuse -> distinct passages

`fuse` holds the formulas. Filters limit the candidates, not the results: a filtered search is never short
of passages that exist. Filters of the caller hold; those that `analysis` reads in the question are given up
where nothing answers under them, so that they never cost an answer. A `rewrite` of the question adds to the
candidates and to their order, and has no say in whether they answer.
"""

import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any

import numpy as np
import numpy.typing as npt

from alchemy.errors import ContractBroken
from alchemy.records import Chunk
from alchemy.retrieval import fuse
from alchemy.retrieval.analysis import Analysis, analyze
from alchemy.retrieval.embed import Embedding
from alchemy.retrieval.fuse import Evidence, SearchWeights
from alchemy.retrieval.index import Filters, Index
from alchemy.retrieval.lexical import LexicalQuery, best, units
from alchemy.retrieval.neighbors import joined_text, touch
from alchemy.retrieval.rerank import Reranking
from alchemy.retrieval.rewrite import Expansion, Rewrite, expand, expanded
from alchemy.settings import SearchOptions

Floats = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]

NO_FILTERS = Filters()
_NO_IDS = np.empty(0, np.int64)
_NO_SCORES = np.empty(0, np.float32)
_NO_EVIDENCE = Evidence(_NO_IDS, *(_NO_SCORES,) * 7)
MAX_PER_DOCUMENT = 3  # chunks of one document in a result, so that one long page does not fill it
NEAR_IDENTICAL = 0.85  # Jaccard of the terms over which the lower of two passages may add nothing


@dataclass(frozen=True, slots=True)
class Passage:
    """One result and why it is one. Parts are those of `fuse`; `rerank` and `quant` may be missing.

    Neighboring chunks are one passage: the best of them is `chunk`, and the scores are its.
    """

    chunk: Chunk
    score: float  # what results are ordered by
    relevance: float  # to the question, without quant
    dense: float  # cosine
    lexical: float  # share of the attainable BM25 score
    rerank: float | None  # `fuse.rerank_scores`
    quant: float | None
    neighbors: tuple[Chunk, ...] = ()  # found too, and read with it as one text

    @property
    def chunks(self) -> list[Chunk]:
        """Its chunks in reading order."""
        return sorted((self.chunk, *self.neighbors), key=lambda chunk: chunk.start)

    @property
    def text(self) -> str:
        """The document's text from the first chunk's start to the last one's end."""
        return joined_text(self.chunks)

    @property
    def start(self) -> int:
        """Where its text begins in the document."""
        return self.chunks[0].start

    def chunk_at(self, position: int) -> Chunk:
        """The chunk that holds a position of the document's text, or ends before it and nearest to it."""
        return max((c for c in self.chunks if c.start <= position), key=lambda c: c.start)


@dataclass(frozen=True, slots=True)
class SearchResult:
    """Passages, best first, and whether the question should be answered from them."""

    passages: tuple[Passage, ...]
    relevance: float  # support of the best passage, comparable between questions
    answerable: bool
    seconds: dict[str, float]  # by stage: dense, lexical, rerank, total
    filters: Filters = NO_FILTERS  # what was searched: the caller's and those that the question asked for
    dropped: Filters = NO_FILTERS  # what the question asked for but had no answer under
    evidence: Evidence = field(default=_NO_EVIDENCE, repr=False)  # of all candidates


class Searcher:
    """Searches one snapshot with one set of weights. Safe to call from threads."""

    def __init__(
        self, index: Index, embedder: Embedding, reranker: Reranking | None, weights: SearchWeights
    ) -> None:
        if index.summary["embedder"] != embedder.model_id:
            built = index.summary["embedder"]
            raise ContractBroken(
                f"{index.folder}: built with {built}, asked with {embedder.model_id}; build the index again"
            )
        self.index = index
        self.embedder = embedder
        self.reranker = reranker
        self.weights = weights
        self._threads = ThreadPoolExecutor(max_workers=4, thread_name_prefix="lexical")

    def search(
        self,
        query: str,
        options: SearchOptions,
        filters: Filters = NO_FILTERS,
        today: date | None = None,
        rewrite: Rewrite | None = None,
    ) -> SearchResult:
        """The best passages for a question. One without a content word finds nothing and is declined.

        Args:
            query: The question.
            options: How much to look at and to return.
            filters: What the search is limited to, whatever the question says.
            today: What "last week" in a question counts from; None: it is not understood.
            rewrite: The question in other words, which find more candidates.
        """
        asked = analyze(query, today) if options.infer_filters else Analysis(query, NO_FILTERS)
        within = filters.completed(asked.filters)
        found = self._search(asked.query, options, within, rewrite)
        if found.answerable or within == filters:
            return found
        wider = self._search(query, options, filters, rewrite)
        seconds = {name: found.seconds[name] + wider.seconds[name] for name in wider.seconds}
        return replace(wider, seconds=seconds, dropped=asked.filters)

    def _search(
        self, query: str, options: SearchOptions, filters: Filters, rewrite: Rewrite | None
    ) -> SearchResult:
        started = time.perf_counter()
        extra = self._expand(rewrite, options, filters) if rewrite else None
        evidence, seconds = self.gather(query, options, filters, extra.ids if extra else _NO_IDS)
        ranked = expanded(evidence, extra, self.index) if extra else evidence
        order = fuse.rerank_order(ranked, self.weights)
        reads = options.rerank if self.weights.rerank else 0  # 0: tuning found that it does not help here
        ranked, reading = self.rerank(query, ranked, order[:reads])
        passages = self._choose(ranked, options.top_k)
        support = fuse.support(replace(evidence, logit=ranked.logit), self.weights)
        relevance = float(support.max(initial=0.0))
        seconds |= {"rerank": reading, "total": time.perf_counter() - started}
        return SearchResult(
            passages=passages,
            relevance=relevance,
            answerable=relevance >= self.weights.abstain_below and bool(passages),
            seconds=seconds,
            filters=filters,
            evidence=ranked,
        )

    def _expand(self, rewrite: Rewrite, options: SearchOptions, filters: Filters) -> Expansion:
        allowed = self.index.allowed(filters)
        return expand(rewrite, self.index, self.embedder, options.candidates, allowed)

    def gather(
        self, query: str, options: SearchOptions, filters: Filters = NO_FILTERS, others: Ids = _NO_IDS
    ) -> tuple[Evidence, dict[str, float]]:
        """First-stage evidence of every candidate, before the cross-encoder, and the seconds it took.

        `others` are candidates besides those that the query finds.
        """
        allowed = self.index.allowed(filters)
        has_content = any(unit.content for unit in units(query))
        if not has_content or (allowed is not None and not len(allowed)):
            return _NO_EVIDENCE, {"dense": 0.0, "lexical": 0.0}
        waiting = self._threads.submit(self._ask_lexical, query, options.candidates, allowed)
        started = time.perf_counter()
        vector = self.embedder.embed_queries([query])[0]
        near, _ = self.index.dense.search(vector, options.candidates, allowed)
        dense_seconds = time.perf_counter() - started
        terms, scores, matching, lexical_seconds = waiting.result()
        ids = np.union1d(np.union1d(near, matching), others)
        evidence = Evidence(
            ids=ids,
            cosine=self.index.dense.cosines(vector, ids),
            bm25=fuse.attainable_share(scores[ids], terms.attainable),
            coverage=terms.coverage(ids),
            exact=terms.exact(ids),
            named=terms.named(ids),
            logit=np.full(len(ids), np.nan, np.float32),
            quant=np.asarray(self.index.quant[ids]),
            embedder_reads=self.embedder.reads(query),
            reranker_reads=self.reranker.reads(query) if self.reranker else 0.0,
        )
        return evidence, {"dense": dense_seconds, "lexical": lexical_seconds}

    def rerank(self, query: str, evidence: Evidence, places: npt.NDArray[Any]) -> tuple[Evidence, float]:
        """The evidence with the cross-encoder's logits at `places`, and the seconds it took."""
        started = time.perf_counter()
        if self.reranker is None or not len(places) or not evidence.reranker_reads:
            return evidence, 0.0
        texts = [chunk.embed_text for chunk in self.index.chunks(evidence.ids[places].tolist())]
        logit = evidence.logit.copy()
        logit[places] = self.reranker.score(query, texts)
        return replace(evidence, logit=logit), time.perf_counter() - started

    def close(self) -> None:
        """Ends the threads; the index is closed by who opened it."""
        self._threads.shutdown(wait=True)

    def _ask_lexical(
        self, query: str, k: int, allowed: Ids | None
    ) -> tuple[LexicalQuery, Floats, Ids, float]:
        started = time.perf_counter()
        terms = self.index.lexical.query(query)
        scores = terms.scores()
        matching, _ = best(scores, k, allowed)
        named = terms.identifier_holders(k)
        if allowed is not None:
            named = np.intersect1d(named, allowed, assume_unique=True)
        return terms, scores, np.union1d(matching, named), time.perf_counter() - started

    def _choose(self, evidence: Evidence, top_k: int) -> tuple[Passage, ...]:
        scores = fuse.final_scores(evidence, self.weights)
        relevances = fuse.relevance(evidence, self.weights)
        ranks = fuse.rerank_scores(evidence)
        order = fuse.descending(scores, evidence.ids)
        chosen: list[Passage] = []
        per_document: Counter[str] = Counter()
        seen: list[_Says] = []
        for start in range(0, len(order), 2 * top_k):
            places = order[start : start + 2 * top_k]
            for place, chunk in zip(places, self.index.chunks(evidence.ids[places].tolist()), strict=True):
                says = _Says.of(chunk.text)
                if per_document[chunk.document_id] >= MAX_PER_DOCUMENT or says.repeats(seen):
                    continue
                per_document[chunk.document_id] += 1
                seen.append(says)
                passage = Passage(
                    chunk=chunk,
                    score=float(scores[place]),
                    relevance=float(relevances[place]),
                    dense=float(evidence.cosine[place]),
                    lexical=float(evidence.bm25[place]),
                    rerank=_present(ranks[place]),
                    quant=_present(evidence.quant[place]),
                )
                chosen = _joined(chosen, passage)
                if len(chosen) == top_k:
                    return tuple(chosen)
        return tuple(chosen)


@dataclass(frozen=True, slots=True)
class _Says:
    """What a passage says, as far as telling repetitions goes."""

    terms: frozenset[str]
    identifiers: frozenset[str]

    @classmethod
    def of(cls, text: str) -> "_Says":
        found = units(text)
        return cls(
            frozenset(token for unit in found for token in (unit.whole, *unit.parts)),
            frozenset(unit.whole for unit in found if unit.identifier),
        )

    def repeats(self, seen: Sequence["_Says"]) -> bool:
        """Nearly the words of one of them, and its identifiers: "1.2 to 1.3" does not repeat "1.1 to 1.2"."""
        return any(
            self.identifiers == other.identifiers
            and len(self.terms & other.terms) >= NEAR_IDENTICAL * len(self.terms | other.terms)
            for other in seen
        )


def _joined(chosen: Sequence[Passage], passage: Passage) -> list[Passage]:
    """The passages with one more, which is read as one with those that it stands beside."""
    beside = [other for other in chosen if touch(passage.chunk, other.chunks)]
    if not beside:
        return [*chosen, passage]
    best, *others = beside
    added = [passage.chunk, *(chunk for other in others for chunk in other.chunks)]
    merged = replace(best, neighbors=(*best.neighbors, *added))
    return [merged if one is best else one for one in chosen if one not in others]


def _present(value: np.float32) -> float | None:
    return None if np.isnan(value) else float(value)
