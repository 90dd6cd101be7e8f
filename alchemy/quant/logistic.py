"""Logistic regression and isotonic calibration, and how good a score is: the arithmetic of `learned`.

A few labels need no library: sklearn is the oracle of the tests alone, as scipy is for `significance`.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from alchemy.quant.expand import Floats

_STEPS = 50
_CLOSE = 1e-8


@dataclass(frozen=True, slots=True)
class Calibration:
    """A rising, piecewise linear curve from scores to probabilities, level beyond its ends."""

    scores: Floats
    probabilities: Floats

    def __call__(self, scores: Floats) -> Floats:
        return np.interp(scores, self.scores, self.probabilities)

    def rounded(self, digits: int) -> "Calibration":
        """As it is published."""
        return Calibration(np.round(self.scores, digits), np.round(self.probabilities, digits))


def fit_logistic(x: Floats, y: Floats, penalty: float) -> tuple[Floats, float]:
    """Weights and intercept of the least sum of log losses + penalty / 2 * |weights|^2.

    Newton's method with halved steps (Hastie et al. 2009, "The Elements of Statistical Learning", 4.4.1).
    The intercept is free.

    Args:
        x: (labels, features).
        y: (labels,), 1 or 0.
    """
    ones = np.column_stack([x, np.ones(len(x))])
    ridge = np.full(ones.shape[1], penalty)
    ridge[-1] = 0.0
    weights = np.zeros(ones.shape[1])

    def loss(candidate: Floats) -> float:
        logits = ones @ candidate
        return float(np.logaddexp(0, logits).sum() - y @ logits + ridge @ candidate**2 / 2)

    current = loss(weights)
    for _ in range(_STEPS):
        p = sigmoid(ones @ weights)
        gradient = ones.T @ (p - y) + ridge * weights
        curvature = (ones * (p * (1 - p))[:, None]).T @ ones + np.diag(ridge)
        step = np.linalg.solve(curvature, gradient)
        size = 1.0
        while (after := loss(weights - size * step)) > current and size > _CLOSE:
            size /= 2
        done = current - after < _CLOSE * (1 + abs(current))
        if after < current:
            weights, current = weights - size * step, after
        if done:
            break
    return weights[:-1], float(weights[-1])


def sigmoid(logits: Floats) -> Floats:
    """1 / (1 + exp(-x)) without overflow."""
    return np.asarray(0.5 * (1 + np.tanh(0.5 * logits)), np.float64)


def fit_isotonic(scores: Floats, y: Floats) -> Calibration:
    """The rising curve with the least squared error, by pooling adjacent violators (Ayer et al. 1955).

    Probabilities stay as far from 0 and 1 as one more label of the other kind would bring them.
    """
    points, group = np.unique(scores, return_inverse=True)
    counts = np.bincount(group).astype(np.float64)
    means = np.bincount(group, weights=y) / counts
    blocks: list[tuple[float, float, int]] = []  # mean, labels, points
    for mean, count in zip(means.tolist(), counts.tolist(), strict=True):
        block = (mean, count, 1)
        while blocks and blocks[-1][0] >= block[0]:
            value, number, width = blocks.pop()
            total = number + block[1]
            block = ((value * number + block[0] * block[1]) / total, total, width + block[2])
        blocks.append(block)
    widths = np.array([width for *_, width in blocks])
    values = np.clip([mean for mean, *_ in blocks], 1 / (len(y) + 2), 1 - 1 / (len(y) + 2))
    last = np.cumsum(widths) - 1
    ends = np.unique(np.concatenate([last - widths + 1, last]))  # of every level, its first and last point
    return Calibration(points[ends], np.repeat(values, widths)[ends])


def log_loss(probabilities: Floats, y: Floats) -> float:
    """Mean negative log likelihood, in nats."""
    p = np.clip(probabilities, 1e-6, 1 - 1e-6)
    return float(-np.mean(np.where(y > 0, np.log(p), np.log1p(-p))))


def auc(scores: Floats, y: Floats, weights: NDArray[np.float64] | None = None) -> float:
    """The chance that a positive scores over a negative, ties by half (Mann, Whitney 1947).

    0.5 where there is none of one kind.
    """
    _, place = np.unique(scores, return_inverse=True)
    weights = np.ones(len(y)) if weights is None else weights
    positive = np.bincount(place, weights=weights * y)
    negative = np.bincount(place, weights=weights * (1 - y))
    below = np.cumsum(negative) - negative / 2
    pairs = positive.sum() * negative.sum()
    return float(positive @ below / pairs) if pairs else 0.5
