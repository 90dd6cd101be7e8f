"""Insights: what the numbers of a document say, as sentences for prompts and as one score for ranking.

Documents are compared with those of the same source and kind only: 40 comments are many for a commit and
few for an issue. Percentiles are exact; columns are ranked a few at a time and pass through a scratch file,
so memory holds a handful of numbers per document, whatever the number of features.
"""

import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from alchemy.errors import ContractBroken
from alchemy.quant.expand import Floats, read_columns
from alchemy.quant.measure import ID_COLUMNS
from alchemy.quant.scout import scout
from alchemy.records import Insight, write_lines
from alchemy.settings import QuantOptions

MIN_GROUP = 10  # documents of one source and kind with a value, before a percentile is worth saying
MAX_FACTS = 4
MIN_EXTREMENESS = 0.6  # share of its group that a document must exceed (or fall short of) to be a fact
_PLURALS = {"feedback": "feedback records", "pull_request": "pull requests"}


# From the names of F features and their percentiles (documents, F), NaN for null, to scores in [0, 1] of the
# documents, NaN where nothing can be said. It is called for one batch of documents after another.
Scorer = Callable[[Sequence[str], NDArray[np.float32]], Floats]


def mean_percentile(names: Sequence[str], percentiles: NDArray[np.float32]) -> Floats:
    """All features count alike: the scorer of a hub without enough feedback to learn one (contract X21)."""
    present = np.isfinite(percentiles)
    count = present.sum(axis=1)
    total = np.where(present, percentiles, 0).sum(axis=1, dtype=np.float64)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def write_insights(
    features: Sequence[Path],
    metrics: Sequence[Path],
    folder: Path,
    options: QuantOptions,
    scorer: Scorer = mean_percentile,
) -> dict[str, Any]:
    """Writes `part-00000.jsonl`: one `Insight` for each document that has a value of a kept feature.

    Facts come from the base columns of `metrics`, the score from `features`; both hold the same documents
    in the same order, else ContractBroken is raised.
    """
    documents = pl.scan_parquet(list(metrics)).select(ID_COLUMNS).collect()
    same = pl.scan_parquet(list(features)).select("document_id").collect()
    if not documents["document_id"].equals(same["document_id"]):
        raise ContractBroken(f"{features[0]}: its documents are not those of {metrics[0]}; build it again")
    groups = _Groups(documents)
    facts = _Facts(documents.height)
    for name, values in read_columns(metrics, scout(metrics).numeric):
        facts.add(name, values, groups)
    names = scout(features).numeric
    written = with_facts = 0

    def insights() -> Iterator[Insight]:
        nonlocal written, with_facts
        for start, scores in _scores(features, names, groups, options, scorer):
            ids = documents["document_id"][start : start + len(scores)]
            for row, (document_id, value) in enumerate(zip(ids, scores.tolist(), strict=True), start):
                if math.isfinite(value):
                    sentences = facts.of(row, groups)
                    written += 1
                    with_facts += bool(sentences)
                    yield Insight(document_id, sentences, round(value, 6))

    write_lines(folder / "part-00000.jsonl", insights())
    return {
        "documents": documents.height,
        "insights": written,
        "with_facts": with_facts,
        "features": len(names),
    }


class _Groups:
    """Documents by source and kind: row numbers, and the words for them in a sentence."""

    def __init__(self, documents: pl.DataFrame) -> None:
        keyed = documents.with_row_index("row").group_by("source", "kind").agg("row").sort("source", "kind")
        self.rows: list[NDArray[np.intp]] = [
            np.sort(rows.to_numpy().astype(np.intp)) for rows in keyed["row"]
        ]
        self.words = [
            _group_words(source, kind)
            for source, kind in zip(keyed["source"].to_list(), keyed["kind"].to_list(), strict=True)
        ]
        self.of_row = np.zeros(documents.height, dtype=np.int32)
        for number, rows in enumerate(self.rows):
            self.of_row[rows] = number


class _Facts:
    """The most extreme standings of each document so far: `MAX_FACTS` a row, best first."""

    def __init__(self, rows: int) -> None:
        self._names: list[str] = []
        self._share = np.zeros((rows, MAX_FACTS), dtype=np.float32)  # of the group that is exceeded
        self._column = np.full((rows, MAX_FACTS), -1, dtype=np.int32)
        self._more = np.zeros((rows, MAX_FACTS), dtype=bool)
        self._value = np.zeros((rows, MAX_FACTS))

    def add(self, name: str, values: Floats, groups: _Groups) -> None:
        """Lets one column compete; on a tie the column that came first stays."""
        column = len(self._names)
        self._names.append(name)
        for rows in groups.rows:
            present = rows[np.isfinite(values[rows])]
            if present.size < MIN_GROUP:
                continue
            below, above = _standings(values[present])
            share = np.maximum(below, above).astype(np.float32)
            for rank in range(MAX_FACTS):
                # Insertion into each row's short list, all rows of the group at once.
                better = (share > self._share[present, rank]) & (share >= MIN_EXTREMENESS)
                at = present[better]
                if not at.size:
                    continue
                standings: list[tuple[NDArray[Any], Any]] = [
                    (self._share, share[better]),
                    (self._column, column),
                    (self._more, (below >= above)[better]),
                    (self._value, values[at]),
                ]
                for slots, new in standings:
                    slots[at, rank + 1 :] = slots[at, rank:-1]
                    slots[at, rank] = new
                share = np.where(better, np.float32(0), share)

    def of(self, row: int, groups: _Groups) -> tuple[str, ...]:
        """The facts of one document as text, most extreme first."""
        words = groups.words[groups.of_row[row]]
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


def _standings(values: Floats) -> tuple[Floats, Floats]:
    """For each value the share of all values that are strictly below, and strictly above."""
    order = np.argsort(values)
    ordered = values[order]
    starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))  # of runs of equals
    lengths = np.diff(np.append(starts, values.size))
    below, above = np.empty(values.size), np.empty(values.size)
    below[order] = np.repeat(starts, lengths)
    above[order] = np.repeat(values.size - starts - lengths, lengths)
    return below / values.size, above / values.size


def _scores(
    paths: Sequence[Path], names: Sequence[str], groups: _Groups, options: QuantOptions, scorer: Scorer
) -> Iterator[tuple[int, Floats]]:
    """Scores of consecutive documents as (first row, scores). A percentile counts ties by half."""
    rows = len(groups.of_row)
    if not rows or not names:
        return
    with tempfile.TemporaryFile(prefix="alchemy-percentiles-") as scratch:  # a float32 column after another
        for _, values in read_columns(paths, names):
            percentile = np.full(rows, np.nan, dtype=np.float32)
            for members in groups.rows:
                present = members[np.isfinite(values[members])]
                if present.size:
                    below, above = _standings(values[present])
                    percentile[present] = (below + 1 - above) / 2
            scratch.write(percentile.tobytes())
        size = max(1, (options.memory_mb << 17) // len(names) // 4)
        for start in range(0, rows, size):
            batch = np.empty((len(names), min(size, rows - start)), dtype=np.float32)
            for index in range(len(names)):
                scratch.seek(4 * (index * rows + start))
                batch[index] = np.frombuffer(scratch.read(4 * batch.shape[1]), np.float32)
            yield start, scorer(names, batch.T)
