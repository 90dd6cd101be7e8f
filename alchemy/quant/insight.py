"""Insights: what the numbers of a document say, as sentences for prompts and as one score for ranking.

Documents are compared with those of the same source and kind only (`percentiles`). The score is learned from
feedback where there is enough of it and that is shown to be better (`learned`), else the mean percentile.
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import polars as pl
from numpy.typing import NDArray

from alchemy.errors import ContractBroken
from alchemy.quant.expand import Floats, read_columns
from alchemy.quant.labels import Label
from alchemy.quant.learned import try_learning
from alchemy.quant.measure import ID_COLUMNS
from alchemy.quant.percentiles import Groups, mean_percentile, ranked, standings
from alchemy.quant.scout import scout
from alchemy.records import Insight, write_lines
from alchemy.settings import QuantOptions

SCORE = "score.json"  # which score, and why
MIN_GROUP = 10  # documents of one source and kind with a value, before a percentile is worth saying
MAX_FACTS = 4
MIN_EXTREMENESS = 0.6  # share of its group that a document must exceed (or fall short of) to be a fact
_PLURALS = {"feedback": "feedback records", "pull_request": "pull requests"}


def write_insights(
    features: Sequence[Path],
    metrics: Sequence[Path],
    folder: Path,
    options: QuantOptions,
    labels: Sequence[Label] = (),
) -> dict[str, Any]:
    """Writes `part-00000.jsonl`: one `Insight` for each document that has a value of a kept feature.

    Facts come from the base columns of `metrics`, the score from `features`; both hold the same documents
    in the same order, else ContractBroken is raised. `score.json` tells what the labels showed and, where a
    score was learned from them, all of it.
    """
    documents = pl.scan_parquet(list(metrics)).select(ID_COLUMNS).collect()
    same = pl.scan_parquet(list(features)).select("document_id").collect()
    if not documents["document_id"].equals(same["document_id"]):
        raise ContractBroken(f"{features[0]}: its documents are not those of {metrics[0]}; build it again")
    groups = Groups(documents)
    facts = _Facts(groups)
    for name, values in read_columns(metrics, scout(metrics).numeric):
        facts.add(name, values)
    names = scout(features).numeric
    ids = documents["document_id"]
    written = with_facts = 0
    with ranked(features, names, groups) as table:
        trial = try_learning(ids, table, labels, options.memory_mb)
        scorer = trial.score or mean_percentile

        def insights() -> Iterator[Insight]:
            nonlocal written, with_facts
            for start, percentiles in table.batches(options.memory_mb):
                scores = scorer(names, percentiles).tolist()
                batch = zip(ids[start : start + len(scores)], scores, strict=True)
                for row, (document_id, value) in enumerate(batch, start):
                    if math.isfinite(value):
                        sentences = facts.of(row)
                        written += 1
                        with_facts += bool(sentences)
                        yield Insight(document_id, sentences, round(value, 6))

        write_lines(folder / "part-00000.jsonl", insights())
    (folder / SCORE).write_bytes(orjson.dumps(trial.as_json(), option=orjson.OPT_INDENT_2))
    return {
        "documents": documents.height,
        "insights": written,
        "with_facts": with_facts,
        "features": len(names),
        **trial.summary,
    }


class _Facts:
    """The most extreme standings of each document so far: `MAX_FACTS` a row, best first."""

    def __init__(self, groups: Groups) -> None:
        rows = len(groups.of_row)
        self._groups = groups
        self._words = [_group_words(source, kind) for source, kind in groups.names]
        self._names: list[str] = []
        self._share = np.zeros((rows, MAX_FACTS), dtype=np.float32)  # of the group that is exceeded
        self._column = np.full((rows, MAX_FACTS), -1, dtype=np.int32)
        self._more = np.zeros((rows, MAX_FACTS), dtype=bool)
        self._value = np.zeros((rows, MAX_FACTS))

    def add(self, name: str, values: Floats) -> None:
        """Lets one column compete; on a tie the column that came first stays."""
        column = len(self._names)
        self._names.append(name)
        for rows in self._groups.rows:
            present = rows[np.isfinite(values[rows])]
            if present.size < MIN_GROUP:
                continue
            below, above = standings(values[present])
            share = np.maximum(below, above).astype(np.float32)
            for rank in range(MAX_FACTS):
                # Insertion into each row's short list, all rows of the group at once.
                better = (share > self._share[present, rank]) & (share >= MIN_EXTREMENESS)
                at = present[better]
                if not at.size:
                    continue
                entries: list[tuple[NDArray[Any], Any]] = [
                    (self._share, share[better]),
                    (self._column, column),
                    (self._more, (below >= above)[better]),
                    (self._value, values[at]),
                ]
                for slots, new in entries:
                    slots[at, rank + 1 :] = slots[at, rank:-1]
                    slots[at, rank] = new
                share = np.where(better, np.float32(0), share)

    def of(self, row: int) -> tuple[str, ...]:
        """The facts of one document as text, most extreme first."""
        words = self._words[self._groups.of_row[row]]
        found = zip(
            self._column[row].tolist(),
            self._more[row].tolist(),
            self._share[row].tolist(),
            self._value[row].tolist(),
            strict=True,
        )
        return tuple(
            f"{_comparison(self._names[column], more, share)} of {words} ({number(value)})"
            for column, more, share, value in found
            if column >= 0
        )


def number(value: float) -> str:
    """A metric's value as people write it: 23, 0.125, 1.7e+12."""
    return str(int(value)) if value.is_integer() and abs(value) < 1e15 else f"{value:.4g}"


def _comparison(name: str, more: bool, share: float) -> str:
    noun = name.rpartition(".")[2].replace("_", " ")
    percent = math.floor(share * 100 + 1e-4)  # the share is a float32: 0.29 is a little less
    if any(word.endswith("s") for word in noun.split()):
        return f"{'more' if more else 'fewer'} {noun} than {percent} %"
    return f"a {'higher' if more else 'lower'} {noun} than {percent} %"


def _group_words(source: str, kind: str) -> str:
    plural = _PLURALS.get(kind) or f"{kind.replace('_', ' ')}s"
    return plural if source in plural else f"{source} {plural}"
