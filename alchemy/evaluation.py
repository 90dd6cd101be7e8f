"""Judges a candidate before it may be released: retrieval, adapters, leaks.

Search weights are tuned on questions of the `eval` split and reported on those of the `holdout` split;
adapters are judged by their loss on holdout pairs, which no training has seen. Everything in the report is
reproducible; times are measurements and returned apart.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson

from alchemy.catalog import BaseModelEntry
from alchemy.errors import BadInput
from alchemy.gate import Scores
from alchemy.records import Chunk, SftPair, fingerprint
from alchemy.retrieval.calibrate import tune_weights
from alchemy.retrieval.embed import Embedding
from alchemy.retrieval.evaluate import Question, evaluate, ndcg, recall
from alchemy.retrieval.fuse import SearchWeights
from alchemy.retrieval.index import Index
from alchemy.retrieval.rerank import Reranking
from alchemy.retrieval.search import Searcher, SearchResult
from alchemy.settings import SearchOptions
from alchemy.training.base import load_base
from alchemy.training.evaluate import held_out_loss

REPORT = "report.json"
RENDERED = "report.md"
MOST_QUESTIONS = 100  # of each kind: an interval of about +-0.08 at a recall of 0.8
MOST_PAIRS = 60

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Candidate:
    """What is judged: an index snapshot, the adapters, and the models they are used with."""

    index: Path
    adapters: Mapping[str, Path]  # name -> folder
    versions: Mapping[str, str]  # asset -> version of everything that is judged or judged by
    embedder: Embedding
    reranker: Reranking | None
    base: BaseModelEntry
    models: Path


def judge_candidate(
    candidate: Candidate,
    tuning: Iterable[SftPair],
    holdout: Iterable[SftPair],
    *,
    options: SearchOptions,
    count_leaks: Callable[[str], int],
    folder: Path,
    progress: Progress,
) -> dict[str, Any]:
    """Writes `report.json` and `report.md` into `folder`; returns the headline numbers and the times."""
    held = list(holdout)
    questions = questions_of(held)
    defaults = SearchWeights(quant=options.quant_weight)
    with closing(Index.open(candidate.index)) as index:

        def searching(weights: SearchWeights) -> closing["_Listener"]:
            return closing(_Listener(index, candidate.embedder, candidate.reranker, weights))

        with searching(defaults) as searcher:
            tuned = tune_weights(searcher, questions_of(tuning), options, progress)
        with searching(tuned) as searcher:
            retrieval = asdict(evaluate(searcher, questions, options, progress))
            by_question = searcher.by_question(questions)
        leaks = sum(count_leaks(chunk.text) for chunk in _chunks(index))
    times = {name: retrieval.pop(name) for name in ("seconds_p50", "seconds_p95")}
    report = {
        # Two candidates may score the same; without their names they would share one evaluation.
        "judged": dict(candidate.versions),
        "retrieval": retrieval if questions else None,
        "by_question": by_question,
        "weights": asdict(tuned),
        "adapters": _adapter_losses(candidate, _some(held, MOST_PAIRS)),
        "leaks": leaks,
    }
    (folder / REPORT).write_bytes(orjson.dumps(report, option=orjson.OPT_INDENT_2))
    (folder / RENDERED).write_text(render(report), encoding="utf-8")
    headline = asdict(scores_of(report))
    del headline["by_question"]
    return {"rows": len(questions), **headline, **times}


def questions_of(pairs: Iterable[SftPair]) -> list[Question]:
    """At most `MOST_QUESTIONS` answerable questions and as many unanswerable ones, the same every time."""
    answerable: list[SftPair] = []
    unanswerable: list[SftPair] = []
    for pair in pairs:
        (unanswerable if pair.kind == "unanswerable" else answerable).append(pair)
    return [Question(pair.instruction, (pair.document_id,)) for pair in _some(answerable, MOST_QUESTIONS)] + [
        Question(pair.instruction, ()) for pair in _some(unanswerable, MOST_QUESTIONS)
    ]


def scores_of(report: Mapping[str, Any]) -> Scores:
    """What the gate looks at. Of several adapters the worst decides."""
    retrieval = report["retrieval"]
    measured = [one for one in report["adapters"].values() if "refused" not in one]
    worst = max(measured, key=lambda one: _loss(one) / one["base_loss"], default=None)
    return Scores(
        recall_at_5=retrieval["recall_at_5"]["mean"] if retrieval else None,
        ndcg_at_10=retrieval["ndcg_at_10"]["mean"] if retrieval else None,
        base_loss=worst["base_loss"] if worst else None,
        adapter_loss=_loss(worst) if worst else None,
        leaks=report["leaks"],
        by_question=report.get("by_question", {}),  # older reports have only the means
    )


def refusals_of(report: Mapping[str, Any]) -> list[str]:
    """Why adapters could not be judged at all."""
    return [one["refused"] for one in report["adapters"].values() if "refused" in one]


def weights_of(report: Mapping[str, Any]) -> SearchWeights:
    """The tuned weights that a release carries."""
    return SearchWeights(**report["weights"])


def render(report: Mapping[str, Any]) -> str:
    """The report as Markdown, for the Dagster UI and for people."""
    lines = ["## Retrieval on held-out questions", ""]
    retrieval = report["retrieval"]
    if retrieval is None:
        lines.append("There are no held-out questions.")
    else:
        lines += ["| measure | mean | 95 % interval |", "|---|---|---|"]
        for name in ("ndcg_at_10", "recall_at_5", "recall_at_20", "mrr_at_10"):
            value = retrieval[name]
            lines.append(f"| {name} | {value['mean']:.3f} | {value['low']:.3f} to {value['high']:.3f} |")
        for name in ("answered", "declined"):
            if retrieval[name] is not None:
                lines.append(f"| {name} | {retrieval[name]:.3f} | |")
    lines += ["", "## Search weights", "", "| weight | value |", "|---|---|"]
    lines += [f"| {name} | {value:.3f} |" for name, value in report["weights"].items()]
    lines += ["", "## Adapters: loss on held-out pairs", ""]
    lines += ["| adapter | base | adapter | change |", "|---|---|---|---|"]
    for name, one in report["adapters"].items():
        if "refused" in one:
            lines.append(f"| {name} | {one['base_loss']:.3f} | refused | |")
            continue
        change = _loss(one) / one["base_loss"] - 1
        lines.append(f"| {name} | {one['base_loss']:.3f} | {_loss(one):.3f} | {change:+.1%} |")
    lines += ["", f"Leaks found in what would be served: {report['leaks']}", ""]
    return "\n".join(lines)


def _chunks(index: Index, block: int = 512) -> Iterator[Chunk]:
    for start in range(0, index.count, block):
        yield from index.chunks(range(start, min(start + block, index.count)))


class _Listener(Searcher):
    """A searcher that remembers which documents it found, so that two releases can be compared in pairs."""

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        self._found: dict[str, list[str]] = {}

    def search(self, query: str, options: SearchOptions, *others: Any) -> SearchResult:
        result = super().search(query, options, *others)
        self._found[query] = list(dict.fromkeys(one.chunk.document_id for one in result.passages))
        return result

    def by_question(self, questions: Iterable[Question]) -> dict[str, dict[str, float]]:
        """What the gate compares, by question and the documents that answer it."""
        values = {}
        for one in questions:
            if one.document_ids:
                found = self._found[one.question]
                values[fingerprint(one.question, one.document_ids)] = {
                    "recall_at_5": recall(found, one.document_ids, 5),
                    "ndcg_at_10": ndcg(found, one.document_ids),
                }
        return values


def _loss(adapter: Mapping[str, Any]) -> float:
    """A loss that is not a number is null in JSON; no loss is worse."""
    return math.inf if adapter["loss"] is None else float(adapter["loss"])


def _adapter_losses(candidate: Candidate, pairs: Sequence[SftPair]) -> dict[str, dict[str, Any]]:
    """Nats per response token with and without every adapter; empty where there is nothing to judge by.

    An adapter that must not be loaded, or does not fit, is `refused` with the reason: the gate tells it.
    """
    if not pairs:
        return {}
    base = load_base(candidate.base.model_id, candidate.base.device, candidate.models)
    plain = held_out_loss(base, None, pairs)
    losses: dict[str, dict[str, Any]] = {}
    for name, folder in candidate.adapters.items():
        try:
            adapted = held_out_loss(base, folder, pairs)
        except BadInput as error:
            reason = str(error).replace(str(folder), name)  # a report knows nothing of this machine
            losses[name] = {"base_loss": plain.loss, "refused": reason}
            continue
        finite = math.isfinite(adapted.loss)
        losses[name] = {
            "base_loss": plain.loss,
            "loss": adapted.loss if finite else None,
            "perplexity": adapted.perplexity if finite else None,
            "pairs": adapted.pairs,
        }
    return losses


def _some(pairs: Sequence[SftPair], most: int) -> list[SftPair]:
    """A sample that does not depend on the order, spread by a hash of the ids."""
    return sorted(pairs, key=lambda pair: fingerprint(pair.id))[:most]
