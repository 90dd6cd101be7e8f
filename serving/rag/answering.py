"""A question to a collection: embedded -> searched -> reranked -> answered from the best chunks alone.

Each step has a deadline and a degraded form, named in `degraded`: without the database or the embedder the
answer says that retrieval failed, and has no sources; without the language model the sources are quoted.
Prompt, citations and the filter of what a model writes are those of the chat (`finalist`, `fusing`).
"""

import asyncio
import logging
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass

from alchemy.errors import Unavailable
from alchemy.rag.hashing import hashed
from alchemy.rag.scoring import overlap, reranked
from alchemy.rag.vector_store import Hit, collection_name
from alchemy.records import Chunk
from alchemy.retrieval.search import Passage
from serving.answer import no_retrieval, refusal
from serving.fusing import Finalists, Fusion
from serving.people.access import Principal
from serving.rag.rag import Rag, Stages, in_thread
from serving.rag.wire import Answered, QueryRequest, RagSource
from serving.watching.tracing import note

log = logging.getLogger(__name__)

_TITLE = 200  # characters of a caller's title that the model sees, and words are looked up in


@dataclass(frozen=True)
class _Ranked:
    """A chunk that was found, with what its words add."""

    hit: Hit
    lexical: float

    @property
    def rerank_score(self) -> float:
        return reranked(self.hit.score, self.lexical)


async def answer(rag: Rag, request: QueryRequest, question: str, asker: Principal) -> Answered:
    """Answers a question whose bounds were checked.

    Raises:
        NotFound: There is no such collection.
        Conflict: The embedder is another than that of the collection.
        Unavailable: Too many requests are in work.
    """
    stages, name = Stages(), collection_name(asker.tenant, request.collection_name)
    with rag.working():
        try:
            with rag.watched():
                hits = await _retrieved(rag, stages, name, question, request.top_k)
        except Unavailable as error:
            log.warning("retrieval failed", extra={"reason": str(error)})
            return _answered(rag, no_retrieval(question), (), stages, ["retrieval"], answered=False)
        with stages.timed("rerank"):
            ranked = _reranked(question, hits)[: request.top_n]
        with stages.timed("generate"):
            fusion = await _written(rag.finalists, question, ranked, request.collection_name)
    if fusion is None:
        return _answered(rag, refusal(question), ranked, stages, (), answered=False)
    lacking = (fusion.degraded, "fallback" if fusion.fell_back else None)
    degraded = [feature for feature in lacking if feature]
    return _answered(rag, fusion.text, ranked, stages, degraded, answered=fusion.answerable)


async def _retrieved(rag: Rag, stages: Stages, name: str, question: str, k: int) -> list[Hit]:
    try:
        async with asyncio.timeout(rag.options.search_s):
            with stages.timed("embed"):
                known = await in_thread(rag.searching, lambda: rag.store.shape(name))
                shape, dense = await rag.embedded(
                    known.strategy, known, lambda embedder: embedder.questions([question])
                )
            with stages.timed("search"):
                sparse = None if shape.strategy == "dense" else hashed(question)
                vector = None if dense is None else dense[0]
                return await in_thread(
                    rag.searching, lambda: rag.store.search(name, shape, vector, sparse, k)
                )
    except TimeoutError:
        raise Unavailable(f"nothing was found within {rag.options.search_s:g} s") from None


def _reranked(question: str, hits: Sequence[Hit]) -> list[_Ranked]:
    """Best first; ties in the order of documents and their chunks."""
    ranked = [_Ranked(hit, overlap(question, hit.text)) for hit in hits]
    return sorted(ranked, key=lambda one: (-one.rerank_score, one.hit.document_id, one.hit.chunk_index))


async def _written(
    finalists: Finalists, question: str, ranked: Sequence[_Ranked], collection: str
) -> Fusion | None:
    """The answer; None where nothing was found that one could be written from."""
    # Quotes are chosen by words: where none is shared, one would be as wrong as another.
    if not ranked or not (finalists.models or any(one.lexical for one in ranked)):
        return None
    fusion = Fusion(question, [_passage(one, collection) for one in ranked], None, finalists)
    async with aclosing(fusion.write()) as pieces:
        async for _ in pieces:
            pass
    return fusion


def _passage(one: _Ranked, collection: str) -> Passage:
    """A chunk as the finalist takes it."""
    hit = one.hit
    title, url = (str(hit.metadata.get(name) or "") for name in ("title", "url"))
    chunk = Chunk(
        id=hit.id,
        document_id=hit.document_id,
        document_version="",
        chunk_index=hit.chunk_index,
        total_chunks=hit.total_chunks,
        start=0,
        end=len(hit.text),
        text=hit.text,
        header="",
        tokens=0,
        source="documents",
        kind="file",
        project=collection,
        title=title[:_TITLE] or hit.document_id,
        section="",
        url=url,
        raw_key="",
        raw_sha256="",
        locator="",
    )
    score = one.rerank_score
    return Passage(chunk, score, max(score, 0.0), hit.score, one.lexical, None, None)


def _answered(
    rag: Rag,
    text: str,
    ranked: Sequence[_Ranked],
    stages: Stages,
    degraded: Sequence[str],
    *,
    answered: bool,
) -> Answered:
    for feature in degraded:
        note({"alchemy.degraded": feature})
        rag.metrics.degraded.labels(feature).inc()
    rag.metrics.answers.labels("answered" if answered else "declined").inc()
    sources = [_source(one) for one in ranked]
    return Answered(answer=text, sources=sources, latency_ms=stages.latency_ms, degraded=degraded)


def _source(one: _Ranked) -> RagSource:
    hit = one.hit
    place = {name: getattr(hit, name) for name in ("document_id", "chunk_index", "total_chunks")}
    return RagSource(
        text=hit.text,
        score=round(hit.score, 6),
        rerank_score=round(one.rerank_score, 6),
        metadata={**hit.metadata, **place},
    )
