"""The report of an evaluation, and what the gate and a release read from it.

`report.json` is what `SECTIONS` of `judge` have found, one after the other. Reports stay in stores for years:
a section that an older one does not have says nothing, for or against.
"""

import math
from collections.abc import Mapping
from typing import Any

import orjson

from alchemy.artifacts import Artifacts
from alchemy.gate import Scores
from alchemy.retrieval.fuse import SearchWeights

REPORT = "report.json"
RENDERED = "report.md"


def read_report(artifacts: Artifacts, version: str) -> dict[str, Any]:
    """The report of one version of `evaluation`. Raises NotFound."""
    path = artifacts.file(artifacts.get("evaluation", version), REPORT)
    report: dict[str, Any] = orjson.loads(path.read_bytes())
    return report


def scores_of(report: Mapping[str, Any]) -> Scores:
    """What the gate looks at. Of several adapters the worst decides."""
    retrieval, adapters = report["retrieval"], report["adapters"]
    measured = [one for one in adapters.values() if "refused" not in one]
    worst = max(measured, key=lambda one: _loss(one) / one["base_loss"], default=None)
    return Scores(
        recall_at_5=retrieval["recall_at_5"]["mean"] if retrieval else None,
        ndcg_at_10=retrieval["ndcg_at_10"]["mean"] if retrieval else None,
        base_loss=worst["base_loss"] if worst else None,
        adapter_loss=_loss(worst) if worst else None,
        leaks=report["leaks"] + report.get("answers", {}).get("leaks", 0),
        by_question=report.get("by_question", {}),
        by_pair={name: one["by_pair"] for name, one in adapters.items() if one.get("by_pair")},
        obeyed=(
            *report.get("injections", {}).get("obeyed", ()),
            *(f"{attack} by {name}" for name, one in adapters.items() for attack in one.get("obeyed", ())),
        ),
    )


def refusals_of(report: Mapping[str, Any]) -> list[str]:
    """Why adapters could not be judged at all."""
    return [one["refused"] for one in report["adapters"].values() if "refused" in one]


def weights_of(report: Mapping[str, Any]) -> SearchWeights:
    """The tuned weights that a release carries."""
    return SearchWeights(**report["weights"])


def headline(report: Mapping[str, Any]) -> dict[str, Any]:
    """The few numbers that a person looks at first."""
    scores, answers = scores_of(report), report.get("answers", {})
    precision, grounded = answers.get("citation_precision"), answers.get("groundedness")
    return {
        "recall_at_5": scores.recall_at_5,
        "ndcg_at_10": scores.ndcg_at_10,
        "base_loss": scores.base_loss,
        "adapter_loss": scores.adapter_loss,
        "citation_precision": precision and precision["mean"],
        "groundedness": grounded and grounded["mean"],
        "leaks": scores.leaks,
        "injections_obeyed": len(scores.obeyed),
    }


def _loss(adapter: Mapping[str, Any]) -> float:
    """A loss that is not a number is null in JSON; no loss is worse."""
    return math.inf if adapter["loss"] is None else float(adapter["loss"])
