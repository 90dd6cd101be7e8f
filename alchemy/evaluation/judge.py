"""Judges a candidate before it may be released, section by section.

Search weights are tuned on questions of the `eval` split and reported on those of the `holdout` split, which
neither the adapters nor the weights have seen. Everything in the report is reproducible, so that equal
candidates have equal reports; times are measurements and returned apart.
"""

from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from alchemy.evaluation.adapters import judge_adapters, render_adapters
from alchemy.evaluation.answers import judge_answers, render_answers
from alchemy.evaluation.candidate import Candidate, Judging, Listener
from alchemy.evaluation.finding import judge_retrieval, questions_of, render_retrieval
from alchemy.evaluation.quant import judge_quant, render_quant
from alchemy.evaluation.report import RENDERED, REPORT, headline
from alchemy.evaluation.safety import judge_safety, render_safety
from alchemy.records import SftPair
from alchemy.retrieval.calibrate import tune_weights
from alchemy.retrieval.fuse import SearchWeights
from alchemy.retrieval.index import Index
from alchemy.retrieval.search import Searcher
from alchemy.settings import SearchOptions

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the report: the entries that it adds to `report.json`, and how they read as Markdown."""

    judge: Callable[[Judging], dict[str, Any]]
    render: Callable[[Mapping[str, Any]], list[str]]


# In the order of the report. Retrieval comes first: the others use what its searches have found.
SECTIONS = (
    Section(judge_retrieval, render_retrieval),
    Section(judge_quant, render_quant),
    Section(judge_answers, render_answers),
    Section(judge_adapters, render_adapters),
    Section(judge_safety, render_safety),
)


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
    with closing(Index.open(candidate.index)) as index:
        parts = (index, candidate.embedder, candidate.reranker)
        with closing(Searcher(*parts, SearchWeights(quant=options.quant_weight))) as searcher:
            weights = tune_weights(searcher, questions_of(tuning), options, progress)
        with closing(Listener(*parts, weights)) as listener:
            judging = Judging(candidate, listener, list(holdout), options, count_leaks, progress)
            # Two candidates may score the same; without their names they would share one evaluation.
            report: dict[str, Any] = {"judged": dict(candidate.versions), "weights": asdict(weights)}
            for section in SECTIONS:
                report |= section.judge(judging)
            seconds = [result.seconds["total"] for result in listener.found.values()]
    (folder / REPORT).write_bytes(orjson.dumps(report, option=orjson.OPT_INDENT_2))
    (folder / RENDERED).write_text(render(report), encoding="utf-8")
    return {"rows": len(seconds), **headline(report), **_times(seconds)}


def render(report: Mapping[str, Any]) -> str:
    """The report as Markdown, for the Dagster UI and for people."""
    return "\n".join(line for section in SECTIONS for line in [*section.render(report), ""])


def _times(seconds: list[float]) -> dict[str, float]:
    if not seconds:
        return {}
    return {f"search_seconds_p{rank}": float(np.percentile(seconds, rank)) for rank in (50, 95, 99)}
