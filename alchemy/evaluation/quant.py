"""What the quant score contributes to the order of the passages that the searches have found.

Nothing is searched or read again: the candidates of each held-out question are ordered with other shares.
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from alchemy.evaluation.candidate import Judging
from alchemy.evaluation.finding import questions_of
from alchemy.retrieval.ablation import ablate_quant, render_ablation
from alchemy.retrieval.calibrate import Judged


def judge_quant(judging: Judging) -> dict[str, Any]:
    """The sweep over shares of the quant score; None without a held-out question."""
    searcher, judged = judging.searcher, []
    for one in questions_of(judging.held):
        evidence = searcher.found[one.question].evidence
        chunks = searcher.index.chunks(evidence.ids.tolist())
        documents = tuple(chunk.document_id for chunk in chunks)
        judged.append(Judged(evidence, documents, frozenset(one.document_ids)))
    swept = ablate_quant(judged, searcher.weights, judging.options.rerank)
    return {"quant": asdict(swept) if swept.questions else None}


def render_quant(report: Mapping[str, Any]) -> list[str]:
    if report["quant"] is None:
        return []
    return ["## The share of the quant score", "", *render_ablation(report["quant"])]
