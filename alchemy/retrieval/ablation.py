"""What the quant score contributes: the same candidates ordered with more and more of it.

Every share is compared with none of it on the same questions, so the interval is of the paired difference:
that is what tells a gain from chance. Nothing is searched again; `calibrate.judge` has scored all candidates.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from alchemy.retrieval.calibrate import Judged, ranking
from alchemy.retrieval.evaluate import Interval, interval, ndcg, recall
from alchemy.retrieval.fuse import SearchWeights

SHARES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5)


@dataclass(frozen=True, slots=True)
class Ablation:
    """Retrieval with one share of the quant score, and its gain over none of it on the same questions."""

    share: float
    ndcg_at_10: Interval
    recall_at_5: Interval
    ndcg_gain: Interval
    recall_gain: Interval


@dataclass(frozen=True, slots=True)
class QuantAblation:
    """The sweep. Only questions with a candidate that has a quant score can show a difference."""

    questions: int
    with_quant: int
    rows: tuple[Ablation, ...]


def ablate_quant(
    judged: Sequence[Judged], weights: SearchWeights, rerank: int, shares: Sequence[float] = SHARES
) -> QuantAblation:
    """Sweeps the share of the quant score with all other weights as they are.

    Args:
        judged: Questions that the weights were not tuned on; those without right documents do not count.
        weights: Those of the release.
        rerank: Candidates that the cross-encoder looks at (`SearchOptions.rerank`).
        shares: In [0, 1].
    """
    asked = [question for question in judged if question.relevant]

    def measure(share: float) -> tuple[list[float], list[float]]:
        found = [(ranking(one, replace(weights, quant=share), rerank), one.relevant) for one in asked]
        ndcgs = [ndcg(documents, relevant) for documents, relevant in found]
        return ndcgs, [recall(documents, relevant, 5) for documents, relevant in found]

    plain_ndcgs, plain_recalls = measure(0.0)
    rows = []
    for share in shares:
        ndcgs, recalls = measure(share)
        rows.append(
            Ablation(
                share=share,
                ndcg_at_10=interval(ndcgs),
                recall_at_5=interval(recalls),
                ndcg_gain=interval(_differences(ndcgs, plain_ndcgs)),
                recall_gain=interval(_differences(recalls, plain_recalls)),
            )
        )
    with_quant = sum(bool(np.isfinite(question.evidence.quant).any()) for question in asked)
    return QuantAblation(len(asked), with_quant, tuple(rows))


def render_ablation(ablation: Mapping[str, Any]) -> list[str]:
    """The sweep, as `dataclasses.asdict` gives it, as lines of a Markdown table; a certain gain is bold."""
    lines = [
        f"{ablation['questions']} questions; {ablation['with_quant']} have candidates with a quant score.",
        "",
        "| share of quant | nDCG@10 | recall@5 | gain in nDCG@10 | gain in recall@5 |",
        "|---|---|---|---|---|",
    ]
    for row in ablation["rows"]:
        means = " | ".join(
            f"{one['mean']:.3f} ({one['low']:.3f} to {one['high']:.3f})"
            for one in (row["ndcg_at_10"], row["recall_at_5"])
        )
        gains = " | ".join(_gain(**row[name]) for name in ("ndcg_gain", "recall_gain"))
        lines.append(f"| {row['share']:g} | {means} | {gains} |")
    return lines


def _differences(values: Sequence[float], others: Sequence[float]) -> list[float]:
    return [value - other for value, other in zip(values, others, strict=True)]


def _gain(mean: float, low: float, high: float) -> str:
    text = f"{mean:+.3f} ({low:+.3f} to {high:+.3f})"
    return f"**{text}**" if low > 0 or high < 0 else text
