"""How well the index finds what held-out questions need, with intervals, over all and per source."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from alchemy.evaluation.candidate import UNANSWERABLE, Judging, asked
from alchemy.evaluation.tables import markdown_table, spread
from alchemy.records import SftPair, fingerprint
from alchemy.retrieval.evaluate import Question, evaluate, interval, ndcg, recall, reciprocal_rank

MEASURES = {
    "ndcg_at_10": ndcg,
    "recall_at_5": lambda found, relevant: recall(found, relevant, 5),
    "recall_at_20": lambda found, relevant: recall(found, relevant, 20),
    "mrr_at_10": reciprocal_rank,
}


def questions_of(pairs: Iterable[SftPair]) -> list[Question]:
    """The questions of `asked` pairs; an unanswerable one has no document."""
    return [
        Question(pair.instruction, () if pair.kind == UNANSWERABLE else (pair.document_id,))
        for pair in asked(pairs)
    ]


def judge_retrieval(judging: Judging) -> dict[str, Any]:
    """Asks every question; `by_question` is what the gate compares two releases by, in pairs."""
    questions = questions_of(judging.held)
    report = asdict(evaluate(judging.searcher, questions, judging.options, judging.progress))
    del report["seconds_p50"], report["seconds_p95"]  # a report holds nothing that another run would not
    by_question: dict[str, dict[str, float]] = {}
    by_source: dict[str, list[dict[str, float]]] = defaultdict(list)
    for one in questions:
        if one.document_ids:
            passages = judging.searcher.found[one.question].passages
            found = list(dict.fromkeys(passage.chunk.document_id for passage in passages))
            values = {name: measure(found, one.document_ids) for name, measure in MEASURES.items()}
            by_question[fingerprint(one.question, one.document_ids)] = values
            by_source[one.document_ids[0].partition(":")[0]].append(values)
    report["by_source"] = {
        source: {
            "questions": len(rows),
            **{name: asdict(interval([row[name] for row in rows])) for name in MEASURES},
        }
        for source, rows in sorted(by_source.items())
    }
    return {"retrieval": report if questions else None, "by_question": by_question}


def render_retrieval(report: Mapping[str, Any]) -> list[str]:
    retrieval = report["retrieval"]
    lines = ["## Retrieval on held-out questions", ""]
    if retrieval is None:
        return [*lines, "There are no held-out questions."]
    rows = [[name, spread(retrieval[name])] for name in MEASURES]
    lines += [*markdown_table(["measure", "mean (95 % interval)"], rows), ""]
    by_source = [
        [source, str(one["questions"]), *(spread(one[name]) for name in MEASURES)]
        for source, one in retrieval["by_source"].items()
    ]
    lines += [*markdown_table(["source", "questions", *MEASURES], by_source), ""]
    weights = [[name, f"{value:.3f}"] for name, value in report["weights"].items()]
    return [*lines, *markdown_table(["search weight", "value"], weights)]
