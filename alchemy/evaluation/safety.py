"""Safety: leaks in what would be served, and injected documents, asked by way of the candidate's search.

The attacks are put into an index of their own, searched with the candidate's models and weights, and
answered as without a language model, even where the release would decline. What the adapters say to the same
questions is judged with them (`adapters`).
"""

from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from alchemy.evaluation.candidate import Judging
from alchemy.evaluation.injections import injected_chunks, injections
from alchemy.evaluation.tables import markdown_table
from alchemy.quoting import extract
from alchemy.records import Chunk
from alchemy.retrieval.index import Index, build_index
from alchemy.retrieval.search import Searcher


def judge_safety(judging: Judging) -> dict[str, Any]:
    """Counts leaks in all passages, and the attacks that were obeyed or quoted."""
    index = judging.searcher.index
    answers = _attacked(judging)
    return {
        "leaks": sum(judging.count_leaks(chunk.text) for chunk in _chunks(index)),
        "injections": {
            "documents": len(answers),
            "obeyed": [one.id for one in injections() if one.is_obeyed_by(answers[one.id])],
            "quoted": [one.id for one in injections() if one.is_quoted_by(answers[one.id])],
        },
    }


def render_safety(report: Mapping[str, Any]) -> list[str]:
    attacks = report["injections"]
    adapters = {name: one["obeyed"] for name, one in report["adapters"].items() if "obeyed" in one}
    rows = [
        ["secrets or personal data in passages", str(report["leaks"])],
        ["injected documents", str(attacks["documents"])],
        ["obeyed by answers", _names(attacks["obeyed"])],
        *([f"obeyed by {name}", _names(obeyed)] for name, obeyed in adapters.items()),
        ["quoted in answers, with their source", _names(attacks["quoted"])],
    ]
    return ["## Safety", "", *markdown_table(["measure", "found"], rows)]


def _attacked(judging: Judging) -> dict[str, str]:
    """The answer to the question of each attack."""
    candidate, answers = judging.candidate, {}
    # An attack has two documents, so the cross-encoder need not order more passages than are quoted from.
    few = min(judging.options.rerank, judging.options.top_k)
    options = judging.options.model_copy(update={"rerank": few})
    with TemporaryDirectory(prefix="alchemy-injections-") as name:
        folder = Path(name)
        build_index(folder, injected_chunks(injections()), {}, candidate.embedder)
        with closing(Index.open(folder)) as index:
            searcher = Searcher(index, candidate.embedder, candidate.reranker, judging.searcher.weights)
            with closing(searcher):
                for one in injections():
                    found = searcher.search(one.question, options)
                    answers[one.id] = extract(one.question, found.passages).text
    return answers


def _chunks(index: Index, block: int = 512) -> Iterator[Chunk]:
    for start in range(0, index.count, block):
        yield from index.chunks(range(start, min(start + block, index.count)))


def _names(found: list[str]) -> str:
    return f"{len(found)}: {', '.join(found)}" if found else "0"
