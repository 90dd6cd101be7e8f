"""How the scores of one candidate become one number. Pure functions over arrays, one entry per candidate.

first     = (1 - lexical) * cosine + lexical * bm25
relevance = (1 - rerank) * first + rerank * sigmoid(logit / SOFTNESS)
final     = (1 - quant) * relevance + quant * insight        a document without metrics is neutral
score     = (1 - exact) * final + exact * identifiers        only where the query names known identifiers

Every part is on an absolute scale in [0, 1], so numbers of different questions can be compared, which
abstention needs: the cosine is cut at 0; BM25 is divided by the most that the query's terms could score,
not by the best passage's score (which would make the best of a bad lot look perfect).

The shares of models are scaled by how much of the query they can read (`reading`): what a model cannot
read, keywords carry.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]

# A temperature (Guo et al. 2017, "On Calibration of Modern Neural Networks"): logits go from -11 to 11, and
# a plain sigmoid makes one of all good passages. SciFact, 200 questions, tuned: nDCG@10 .755, without .744.
SOFTNESS = 3.0


@dataclass(frozen=True, slots=True)
class SearchWeights:
    """The tuned numbers that a release carries; all in [0, 1]."""

    lexical: float = 0.3  # share of BM25 in the first stage (convex combination)
    rerank: float = 0.7  # share of the cross-encoder in the relevance
    quant: float = 0.3  # share of the quant insight score (contract line 66)
    exact: float = 0.5  # share of the identifiers; at a half, a passage with all is never below one with none
    abstain_below: float = 0.55  # a question whose best passage has less support is declined


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of the candidates of one query; arrays of one length, and two numbers of the query."""

    ids: Ids  # of the passages in the index
    cosine: Floats  # in [-1, 1]
    bm25: Floats  # share of the attainable BM25 score, [0, 1]
    coverage: Floats  # idf-weighted share of the query's terms that the passage holds, [0, 1]
    exact: Floats  # idf-weighted share of the query's known identifiers it holds, [0, 1]
    named: Floats  # share of the query's numbered identifiers it holds, known or not; 1 without any
    logit: Floats  # of the cross-encoder; NaN where it did not look
    quant: Floats  # insight score of the document; NaN where it has no metrics
    embedder_reads: float = 1.0  # share of the query that the embedder reads
    reranker_reads: float = 1.0


def sigmoid(logits: Floats) -> Floats:
    """1 / (1 + exp(-x)) without overflow; NaN stays NaN."""
    return (0.5 * (1 + np.tanh(0.5 * logits))).astype(np.float32)


def attainable_share(scores: Floats, attainable: float) -> Floats:
    """BM25 scores as shares of the sum of the query terms' idf, which Lucene's form never exceeds."""
    return np.clip(scores / attainable, 0, 1) if attainable > 0 else np.zeros_like(scores)


def first_stage(evidence: Evidence, lexical: float) -> Floats:
    """Convex combination of dense and keyword evidence (Bruch et al. 2023, "An Analysis of Fusion Functions
    for Hybrid Retrieval": better than rank fusion when its one weight is tuned, even on few questions)."""
    dense = evidence.embedder_reads * (1 - lexical)
    return dense * np.clip(evidence.cosine, 0, 1) + (1 - dense) * evidence.bm25


def rerank_scores(evidence: Evidence) -> Floats:
    """The contract's `Rerank_Score`, in [0, 1]; NaN where the cross-encoder did not look."""
    return sigmoid(evidence.logit / SOFTNESS)


def relevance(evidence: Evidence, weights: SearchWeights) -> Floats:
    """First stage and cross-encoder; a passage the cross-encoder did not look at gets nothing from it."""
    share = weights.rerank * evidence.reranker_reads if np.isfinite(evidence.logit).any() else 0.0
    first = first_stage(evidence, weights.lexical)
    return (1 - share) * first + share * np.nan_to_num(rerank_scores(evidence))


def support(evidence: Evidence, weights: SearchWeights) -> Floats:
    """How well a passage supports an answer, in [0, 1]: what abstention looks at.

    support = (m * model + (1 - m) * coverage) * (1 + named) / 2,   m = reading / 2
    model   = mean of cosine and sigmoid(logit)

    Half of it is what models think and half is what stands there: a cross-encoder is as sure of a near
    miss (the leave policy, when asked about parental leave) as of an answer, but cannot be when the rarest
    words of the question are missing. A numbered identifier that the passage lacks halves it.
    """
    model: Floats = np.clip(evidence.cosine, 0, 1)
    reads = evidence.embedder_reads
    if np.isfinite(evidence.logit).any():
        model = np.asarray((model + np.nan_to_num(sigmoid(evidence.logit))) / 2, np.float32)
        reads = (reads + evidence.reranker_reads) / 2
    share = reads / 2
    held = share * model + (1 - share) * evidence.coverage
    return np.asarray(held * (1 + evidence.named) / 2, np.float32)


def with_quant(relevances: Floats, quant: Floats, share: float) -> Floats:
    """Contract line 66, X21: a document without metrics keeps its relevance."""
    blended = (1 - share) * relevances + share * np.nan_to_num(quant)
    return np.where(np.isnan(quant), relevances, blended).astype(np.float32)


def final_scores(evidence: Evidence, weights: SearchWeights) -> Floats:
    """What passages are ordered by, in [0, 1]."""
    final = with_quant(relevance(evidence, weights), evidence.quant, weights.quant)
    return _with_identifiers(final, evidence, weights)


def rerank_order(evidence: Evidence, weights: SearchWeights) -> npt.NDArray[np.intp]:
    """In which order the cross-encoder looks."""
    first = first_stage(evidence, weights.lexical)
    return descending(_with_identifiers(first, evidence, weights), evidence.ids)


def _with_identifiers(scores: Floats, evidence: Evidence, weights: SearchWeights) -> Floats:
    if not evidence.exact.any():
        return scores
    return np.asarray((1 - weights.exact) * scores + weights.exact * evidence.exact, np.float32)


def descending(scores: Floats, ids: Ids) -> npt.NDArray[np.intp]:
    """The order of best first; ties by id, so that equal input gives equal output."""
    return np.lexsort((ids, -scores))


def reciprocal_rank_fusion(rankings: Sequence[Ids], k: int = 60) -> dict[int, float]:
    """Cormack et al. 2009: score(d) = sum over rankings of 1 / (k + rank(d)), rank from 1.

    For combining rankings whose scores are unknown; the convex combination is better where they are.
    """
    scores: dict[int, float] = {}
    for ranking in rankings:
        for rank, number in enumerate(ranking, start=1):
            scores[int(number)] = scores.get(int(number), 0.0) + 1 / (k + rank)
    return scores
