"""Retrieval quality against judged questions (qrels), with bootstrap intervals.

Documents are judged, not chunks: a document's rank is that of its best passage. Formulas are trec_eval's
with binary gains.
"""

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np

from alchemy.retrieval.search import Searcher
from alchemy.settings import SearchOptions

SEED = 20240229
RESAMPLES = 1000


@dataclass(frozen=True, slots=True)
class Question:
    """A question and the documents that answer it; no document: it should be declined."""

    question: str
    document_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean, or a change, and its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class RetrievalReport:
    """How well an index finds what questions need. Abstention rates are None without such questions."""

    questions: int
    ndcg_at_10: Interval
    recall_at_5: Interval
    recall_at_20: Interval
    mrr_at_10: Interval
    answered: float | None  # share of the answerable questions that were not declined
    declined: float | None  # share of the unanswerable questions that were declined
    seconds_p50: float
    seconds_p95: float


def ndcg(ranking: Sequence[str], relevant: Collection[str], k: int = 10) -> float:
    """DCG / ideal DCG with DCG = sum over relevant ranks r <= k of 1 / log2(r + 1)."""
    gains = sum(1 / math.log2(rank + 1) for rank, d in enumerate(ranking[:k], 1) if d in relevant)
    ideal = sum(1 / math.log2(rank + 1) for rank in range(1, min(len(relevant), k) + 1))
    return gains / ideal if ideal else 0.0


def recall(ranking: Sequence[str], relevant: Collection[str], k: int) -> float:
    """Share of the relevant documents among the first k."""
    return len(set(ranking[:k]) & set(relevant)) / len(relevant) if relevant else 0.0


def reciprocal_rank(ranking: Sequence[str], relevant: Collection[str], k: int = 10) -> float:
    """1 / rank of the first relevant document, 0 when it is not among the first k."""
    return next((1 / rank for rank, d in enumerate(ranking[:k], 1) if d in relevant), 0.0)


def interval(values: Sequence[float]) -> Interval:
    """Mean and percentile bootstrap (Efron 1979) over questions; the same values give the same interval."""
    if not len(values):
        return Interval(0.0, 0.0, 0.0)
    sample = np.asarray(values, np.float64)
    draws = np.random.default_rng(SEED).integers(0, len(sample), (RESAMPLES, len(sample)))
    low, high = np.percentile(sample[draws].mean(axis=1), [2.5, 97.5])
    return Interval(float(sample.mean()), float(low), float(high))


def relative_change(ours: Sequence[float], theirs: Sequence[float]) -> Interval:
    """sum(ours) / sum(theirs) - 1 with its paired percentile bootstrap; both are of the same things in order.

    Of a loss in nats per pair that is the change of the loss per token. Nothing measured is no change.
    """
    if not len(ours):
        return Interval(0.0, 0.0, 0.0)
    mine, other = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    draws = np.random.default_rng(SEED).integers(0, len(mine), (RESAMPLES, len(mine)))
    low, high = np.percentile(mine[draws].sum(axis=1) / other[draws].sum(axis=1) - 1, [2.5, 97.5])
    return Interval(float(mine.sum() / other.sum() - 1), float(low), float(high))


def evaluate(
    searcher: Searcher,
    questions: Sequence[Question],
    options: SearchOptions,
    progress: Callable[[int, int], None] | None = None,
) -> RetrievalReport:
    """Asks every question once. Ranking metrics are over the questions that have documents."""
    wide = options.model_copy(update={"top_k": 50})  # 20 documents need more than 20 passages
    rankings, answered, declined, seconds = [], [], [], []
    for done, question in enumerate(questions, 1):
        result = searcher.search(question.question, wide)
        seconds.append(result.seconds["total"])
        if question.document_ids:
            documents = list(dict.fromkeys(p.chunk.document_id for p in result.passages))
            rankings.append((documents, frozenset(question.document_ids)))
            answered.append(result.answerable)
        else:
            declined.append(not result.answerable)
        if progress:
            progress(done, len(questions))
    return RetrievalReport(
        questions=len(questions),
        ndcg_at_10=interval([ndcg(found, relevant) for found, relevant in rankings]),
        recall_at_5=interval([recall(found, relevant, 5) for found, relevant in rankings]),
        recall_at_20=interval([recall(found, relevant, 20) for found, relevant in rankings]),
        mrr_at_10=interval([reciprocal_rank(found, relevant) for found, relevant in rankings]),
        answered=float(np.mean(answered)) if answered else None,
        declined=float(np.mean(declined)) if declined else None,
        seconds_p50=float(np.percentile(seconds, 50)) if seconds else 0.0,
        seconds_p95=float(np.percentile(seconds, 95)) if seconds else 0.0,
    )
