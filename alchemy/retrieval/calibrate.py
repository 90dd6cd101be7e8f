"""Tuning the numbers that a release carries, on questions whose documents are known.

Every candidate is scored once (`judge`); a grid of weights then only re-fuses arrays. With few questions
the result leans on the defaults: a weight has to earn its distance from them, and the threshold is a mean
of what was measured and the default.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from alchemy.retrieval import fuse
from alchemy.retrieval.evaluate import Question, ndcg
from alchemy.retrieval.fuse import Evidence, SearchWeights
from alchemy.retrieval.search import Searcher
from alchemy.settings import SearchOptions

LEXICAL_GRID = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 1.0)
RERANK_GRID = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
QUANT_GRID = (0.0, 0.05, 0.1, 0.2, 0.3)
EXACT_GRID = (0.0, 0.05, 0.1, 0.2, 0.35, 0.5)
TUNED = ("lexical", "rerank", "quant", "exact")
PRIOR = 30  # questions that the default threshold is worth
RIDGE = 10 / 3  # nDCG that a weight must earn, times the questions, for its squared distance from the default
WRONGLY_DECLINED = 0.1  # most of the answerable questions that the threshold may decline
WRONGLY_ANSWERED = 0.2  # most of the unanswerable ones it may let through


@dataclass(frozen=True, slots=True)
class Judged:
    """One question's candidates with all their scores, and which of them are of the right documents."""

    evidence: Evidence
    documents: tuple[str, ...]  # of each candidate
    relevant: frozenset[str]

    @property
    def gold(self) -> npt.NDArray[np.bool_]:
        return np.array([document in self.relevant for document in self.documents], bool)


def tune_weights(
    searcher: Searcher,
    questions: Sequence[Question],
    options: SearchOptions,
    progress: Callable[[int, int], None] | None = None,
) -> SearchWeights:
    """Weights and abstention threshold for these questions, starting from the searcher's own weights.

    The negatives of the threshold are the same questions with their right documents taken away: what the
    search then finds looks as good as a wrong answer can.
    """
    judged = [question for question in judge(searcher, questions, options, progress) if question.relevant]
    if not judged:
        return searcher.weights
    weights = best_weights(judged, searcher.weights, options.rerank)
    if not weights.rerank:
        judged = without_logits(judged)  # as a search with these weights will see them
    positives, negatives = support_with_and_without_gold(judged, weights)
    return replace(
        weights,
        abstain_below=calibrate_abstention(positives, negatives, default=searcher.weights.abstain_below),
    )


def judge(
    searcher: Searcher,
    questions: Sequence[Question],
    options: SearchOptions,
    progress: Callable[[int, int], None] | None = None,
) -> list[Judged]:
    """Gathers every question's candidates; the cross-encoder sees all that any weight could show it."""
    judged = []
    for done, question in enumerate(questions, 1):
        evidence, _ = searcher.gather(question.question, options)
        ends = [replace(searcher.weights, lexical=share) for share in (0.0, 0.3, 0.6, 1.0)]
        tops = [fuse.rerank_order(evidence, weights)[: options.rerank] for weights in ends]
        places = np.unique(np.concatenate(tops))
        evidence, _ = searcher.rerank(question.question, evidence, places)
        chunks = searcher.index.chunks(evidence.ids.tolist())
        documents = tuple(chunk.document_id for chunk in chunks)
        judged.append(Judged(evidence, documents, frozenset(question.document_ids)))
        if progress:
            progress(done, len(questions))
    return judged


def best_weights(judged: Sequence[Judged], defaults: SearchWeights, rerank: int) -> SearchWeights:
    """The weights with the best mean nDCG@10 less a ridge penalty for their distance from the defaults.

    Maximizes mean nDCG - RIDGE * |w - defaults|^2 / n, the posterior mode under a normal prior: with ten
    questions a weight moves by 0.3 only for 0.03 of nDCG, with a thousand for next to nothing. The weights of
    the two stages depend on each other and are searched together, the others one after the other, until
    none moves. A weight of what no question has (quant scores, logits, identifiers) stays as it is.
    """
    moves = _moves(judged, defaults)

    def value(weights: SearchWeights) -> float:
        distance = sum((getattr(weights, name) - getattr(defaults, name)) ** 2 for name in TUNED)
        return mean_ndcg(judged, weights, rerank) - RIDGE * distance / len(judged)

    best, best_value = defaults, value(defaults)
    while True:
        before = best
        for group in moves:
            for changes in group:
                candidate = replace(best, **changes)
                if (found := value(candidate)) > best_value + 1e-12:
                    best, best_value = candidate, found
        if best == before:
            return best


def _moves(judged: Sequence[Judged], defaults: SearchWeights) -> list[list[dict[str, float]]]:
    """Groups of weights that are searched together, each with the values that are tried."""

    def grid(name: str, values: Sequence[float], of: Callable[[Evidence], Any]) -> list[float]:
        known = any(of(question.evidence) for question in judged)
        return sorted({*(values if known else ()), getattr(defaults, name)})

    rerank = grid("rerank", RERANK_GRID, lambda evidence: np.isfinite(evidence.logit).any())
    lexical = sorted({*LEXICAL_GRID, defaults.lexical})
    return [
        [{"lexical": one, "rerank": other} for one, other in itertools.product(lexical, rerank)],
        [{"exact": share} for share in grid("exact", EXACT_GRID, lambda evidence: evidence.exact.any())],
        [
            {"quant": share}
            for share in grid("quant", QUANT_GRID, lambda evidence: np.isfinite(evidence.quant).any())
        ],
    ]


def without_logits(judged: Sequence[Judged]) -> list[Judged]:
    """The questions as a search sees them that asks no cross-encoder."""
    return [
        replace(one, evidence=replace(one.evidence, logit=np.full_like(one.evidence.logit, np.nan)))
        for one in judged
    ]


def mean_ndcg(judged: Sequence[Judged], weights: SearchWeights, rerank: int, k: int = 10) -> float:
    """Mean nDCG@k over questions when the candidates are fused with these weights."""
    return float(
        np.mean([ndcg(ranking(question, weights, rerank), question.relevant, k) for question in judged])
    )


def support_with_and_without_gold(
    judged: Sequence[Judged], weights: SearchWeights
) -> tuple[list[float], list[float]]:
    """Support of the best passage of every question: as it is, and with the right documents removed.

    A question whose documents were not found at all is no positive: declining it would be right.
    """
    positives, negatives = [], []
    for question in judged:
        support, gold = fuse.support(question.evidence, weights), question.gold
        if gold.any():
            positives.append(float(support.max()))
        negatives.append(float(support[~gold].max(initial=0.0)))
    return positives, negatives


def calibrate_abstention(
    positives: Sequence[float], negatives: Sequence[float], *, default: float = 0.0
) -> float:
    """The threshold (answer at or above it) by two split-conformal bounds, leaning on the default.

    With n held-out scores and a further one that is exchangeable with them, the k-th smallest is above it
    with a probability of at most k / (n + 1) (Vovk et al. 2005, "Algorithmic Learning in a Random World";
    Angelopoulos & Bates 2021, section 1). So `highest` declines at most WRONGLY_DECLINED of the answerable
    questions, and `lowest` answers at most WRONGLY_ANSWERED of the others. Where both can be had, anything
    between them would do; where they exclude each other, answerable questions go first: in both cases that
    is the lower one. Questions made from the corpus are easier than those that people ask, so the upper end
    would decline too much: on the sample data the median support of the former is 0.84, of the latter 0.65.

    With n scores in the smaller class the result is (n * bound + PRIOR * default) / (n + PRIOR); a default
    of 0 means none.
    """
    if not len(positives) or not len(negatives):
        return default
    above, below = np.sort(np.asarray(positives, np.float64)), np.sort(np.asarray(negatives, np.float64))
    highest = above[max(1, int(WRONGLY_DECLINED * (len(above) + 1))) - 1]
    place = math.ceil((1 - WRONGLY_ANSWERED) * (len(below) + 1)) - 1
    lowest = np.nextafter(below[place], 1) if place < len(below) else highest
    measured = float(min(highest, lowest))
    if not default:
        return measured
    n = min(len(above), len(below))
    return (n * measured + PRIOR * default) / (n + PRIOR)


def ranking(question: Judged, weights: SearchWeights, rerank: int) -> list[str]:
    """Documents in the order a search with these weights would show them."""
    evidence = question.evidence
    unseen = fuse.rerank_order(evidence, weights)[rerank:]
    logit = evidence.logit.copy()
    logit[unseen] = np.nan
    scores = fuse.final_scores(replace(evidence, logit=logit), weights)
    order = fuse.descending(scores, evidence.ids)
    return list(dict.fromkeys(question.documents[place] for place in order))
