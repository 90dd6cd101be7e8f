"""The insight score learned from feedback: how probable it is that a document helps, from its percentiles.

A ridge logistic regression on the percentiles of the features, calibrated by isotonic regression. It is
used only where it is shown to order documents better than the mean percentile does, on labels of documents
that it has not seen: the interval of the gain in AUC lies above zero. Otherwise the mean percentile stays,
and the trial says why. Nested cross-validation: strength and calibration are chosen inside of each fold. All
labels of a document are in one fold, which a hash of its id names, so that a trial can be repeated.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alchemy.quant.expand import Floats
from alchemy.quant.labels import Label
from alchemy.quant.logistic import Calibration, auc, fit_isotonic, fit_logistic, log_loss, sigmoid
from alchemy.quant.percentiles import Percentiles, mean_percentile
from alchemy.records import fingerprint

MIN_LABELS = 200  # contract X21
MIN_DOCUMENTS = 20  # with labels of either kind: fewer say nothing about other documents
MOST_LABELS = 5000  # seconds of one core; more would hardly change the weights
FOLDS = 5
PENALTIES = (100.0, 30.0, 10.0, 3.0, 1.0, 0.3)
SEED = 20240229
RESAMPLES = 1000

_COMPONENTS = 256
_BYTES = 24  # of working memory for a feature of a document
_DIGITS = 6  # of what is published, so that the last bits of a machine's arithmetic make no new version


@dataclass(frozen=True, slots=True)
class LearnedScore:
    """A `Scorer`: P(helps) = calibration(intercept + coefficients * (percentiles - 1/2))."""

    names: tuple[str, ...]
    coefficients: Floats
    intercept: float
    calibration: Calibration

    def __call__(self, names: Sequence[str], percentiles: NDArray[np.float32]) -> Floats:
        """Scores of documents, NaN where no feature is known; an unknown one counts as the middle."""
        logits = _centered(percentiles) @ self.coefficients + self.intercept
        return np.where(np.isfinite(percentiles).any(axis=1), self.calibration(logits), np.nan)

    def as_json(self) -> dict[str, Any]:
        """Coefficients by feature, those that decide most first, and the table of the calibration."""
        order = np.argsort(-np.abs(self.coefficients), kind="stable")
        return {
            "intercept": self.intercept,
            "coefficients": {self.names[index]: float(self.coefficients[index]) for index in order},
            "calibration": {
                "logit": self.calibration.scores.tolist(),
                "probability": self.calibration.probabilities.tolist(),
            },
        }


@dataclass(frozen=True, slots=True)
class Comparison:
    """The learned score and the mean percentile on the same labels, of documents not learned from."""

    auc_learned: float
    auc_percentile: float
    auc_gain: float
    auc_gain_low: float  # of its 95 % interval: paired bootstrap over documents
    auc_gain_high: float
    log_loss_learned: float
    log_loss_percentile: float


@dataclass(frozen=True, slots=True)
class Trial:
    """What the labels showed. `score` is what documents are scored with; None: the mean percentile stays."""

    reason: str
    labels: int  # of documents that are known
    helped: int
    documents: int  # that the labels are of
    penalty: float | None = None
    comparison: Comparison | None = None
    score: LearnedScore | None = field(default=None, repr=False)

    @property
    def summary(self) -> dict[str, Any]:
        """The trial in flat JSON values."""
        compared = asdict(self.comparison) if self.comparison else {}
        return {
            "score": "learned" if self.score else "mean percentile",
            "score_reason": self.reason,
            "labels": self.labels,
            "labels_helped": self.helped,
            "labeled_documents": self.documents,
            **{name: round(value, _DIGITS) for name, value in compared.items()},
        }

    def as_json(self) -> dict[str, Any]:
        """The file that is published beside the insights."""
        learned = {"penalty": self.penalty, **self.score.as_json()} if self.score else None
        return {**self.summary, "learned": learned}


def try_learning(
    document_ids: Iterable[str], table: Percentiles, labels: Iterable[Label], memory_mb: int
) -> Trial:
    """Learns a score from labels and compares it with the mean percentile.

    Reads the rows of labeled documents only, and of these as many as fit into the memory.

    Args:
        document_ids: Of the rows of `table`.
        labels: Those of documents that are not in the table do not count.
    """
    most = min(MOST_LABELS, (memory_mb << 20) // (_BYTES * max(1, len(table.names))))
    known = _known(document_ids, labels, most)
    y, place = known.helped, known.place
    judged = partial(Trial, labels=len(y), helped=int(y.sum()), documents=len(known.ids))
    if len(y) < MIN_LABELS:
        return judged(f"{len(y)} labels of known documents, {MIN_LABELS} are needed")
    least = min(len(np.unique(place[y == kind])) for kind in (0, 1))
    if least < MIN_DOCUMENTS:
        return judged(f"labels of one kind are of {least} documents, {MIN_DOCUMENTS} are needed")
    percentiles = table.rows(known.rows)
    x = _centered(percentiles)
    # A ridge regression is the same in any rotation of its features; of thousands of correlated ones the
    # first components are all that a few labels can tell apart.
    components = np.linalg.svd(x, full_matrices=False)[2][:_COMPONENTS].T
    z = (x @ components)[place]
    folds = np.array([int(fingerprint(document_id), 16) % FOLDS for document_id in known.ids])[place]
    unseen = np.empty(len(y))
    for test in (folds == fold for fold in np.unique(folds)):
        unseen[test] = _fit(z[~test], y[~test], folds[~test]).score(z[test])
    means = np.nan_to_num(mean_percentile(table.names, percentiles), nan=0.5)
    comparison = _compare(unseen, means[place], y, place)
    if comparison.auc_gain_low <= 0:
        return judged("the gain over the mean percentile is not certain", comparison=comparison)
    fit = _fit(z, y, folds)
    score = LearnedScore(
        names=tuple(table.names),
        coefficients=np.round(components @ fit.weights, _DIGITS),
        intercept=round(fit.intercept, _DIGITS),
        calibration=fit.calibration.rounded(_DIGITS),
    )
    return judged(
        "better on documents not learned from", comparison=comparison, penalty=fit.penalty, score=score
    )


@dataclass(frozen=True, slots=True)
class _Known:
    """The labeled documents that are in the table, and their labels."""

    ids: tuple[str, ...]
    rows: NDArray[np.intp]  # of the documents
    place: NDArray[np.intp]  # of each label's document in `ids`
    helped: Floats  # of each label, 1 or 0


def _known(document_ids: Iterable[str], labels: Iterable[Label], most: int) -> _Known:
    """At most `most` labels: beyond, a hash leaves out documents with all of theirs."""
    kinds: dict[str, list[bool]] = {}
    for label in labels:
        kinds.setdefault(label.document_id, []).append(label.helped)
    row_of = {document_id: row for row, document_id in enumerate(document_ids) if document_id in kinds}
    ids: list[str] = []
    place: list[int] = []
    helped: list[bool] = []
    for document_id in sorted(row_of, key=fingerprint):
        if len(helped) + len(kinds[document_id]) <= most:
            place += [len(ids)] * len(kinds[document_id])
            helped += sorted(kinds[document_id])  # in whatever order people said it
            ids.append(document_id)
    rows = np.array([row_of[document_id] for document_id in ids], np.intp)
    return _Known(tuple(ids), rows, np.array(place, np.intp), np.array(helped, np.float64))


def _centered(percentiles: NDArray[np.float32]) -> Floats:
    return np.nan_to_num(percentiles.astype(np.float64), nan=0.5) - 0.5


@dataclass(frozen=True, slots=True)
class _Fit:
    penalty: float
    weights: Floats
    intercept: float
    calibration: Calibration

    def score(self, z: Floats) -> Floats:
        return self.calibration(z @ self.weights + self.intercept)


def _fit(z: Floats, y: Floats, folds: NDArray[np.int_]) -> _Fit:
    """A regression with the penalty of the least held-out log loss, calibrated on held-out logits."""
    held_out: dict[float, Floats] = {}
    for penalty in PENALTIES:
        logits = held_out[penalty] = np.empty(len(y))
        for test in (folds == fold for fold in np.unique(folds)):
            weights, intercept = fit_logistic(z[~test], y[~test], penalty)
            logits[test] = z[test] @ weights + intercept
    best = min(PENALTIES, key=lambda penalty: log_loss(sigmoid(held_out[penalty]), y))
    return _Fit(best, *fit_logistic(z, y, best), fit_isotonic(held_out[best], y))


def _compare(learned: Floats, percentile: Floats, y: Floats, place: NDArray[np.intp]) -> Comparison:
    """Labels of one document are drawn together: they are no independent witnesses."""
    documents = int(place.max()) + 1
    draws = np.random.default_rng(SEED).multinomial(documents, [1 / documents] * documents, RESAMPLES)
    gains = [auc(learned, y, draw[place]) - auc(percentile, y, draw[place]) for draw in draws]
    low, high = np.percentile(gains, [2.5, 97.5])
    before, after = auc(percentile, y), auc(learned, y)
    return Comparison(
        auc_learned=after,
        auc_percentile=before,
        auc_gain=after - before,
        auc_gain_low=float(low),
        auc_gain_high=float(high),
        log_loss_learned=log_loss(learned, y),
        log_loss_percentile=log_loss(percentile, y),
    )
