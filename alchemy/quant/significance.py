"""Tail probabilities and the correction for many columns; scipy is their oracle in the tests alone."""

import math
from collections.abc import Sequence

_ROUNDING = 1e-15
_STEPS = 10_000
_NOTHING = 1e-300  # half of it still has a logarithm


def chi_square_tail(statistic: float, freedom: int) -> float:
    """P(X >= statistic) for X chi-square with `freedom` degrees; 1 where there are none.

    The regularized incomplete gamma function, by its series below the bulk and by Lentz's continued
    fraction above it (Press et al., Numerical Recipes, 6.2).
    """
    if freedom <= 0 or statistic <= _NOTHING:
        return 1.0
    a, x = freedom / 2, statistic / 2
    scale = math.exp(-x + a * math.log(x) - math.lgamma(a))
    if x < a + 1:
        term = total = 1 / a
        for step in range(1, _STEPS):
            term *= x / (a + step)
            total += term
            if term < total * _ROUNDING:
                break
        return max(0.0, 1 - total * scale)
    b = x + 1 - a
    c, d = math.inf, 1 / b
    fraction = d
    for step in range(1, _STEPS):
        factor = -step * (step - a)
        b += 2
        d = 1 / (factor * d + b)
        c = b + factor / c
        fraction *= c * d
        if abs(c * d - 1) < _ROUNDING:
            break
    return scale * fraction


def kolmogorov_tail(distance: float, left: int, right: int) -> float:
    """P(D >= distance) of the two-sample test, in Stephens' approximation (1970); ties only raise it."""
    if not left or not right:
        return 1.0
    root = math.sqrt(left * right / (left + right))
    scaled = (root + 0.12 + 0.11 / root) * distance
    if scaled < 0.2:  # the series alternates too slowly there, and is 1
        return 1.0
    total = sum((-1) ** (k - 1) * math.exp(-2 * (k * scaled) ** 2) for k in range(1, 101))
    return min(1.0, max(0.0, 2 * total))


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values in the given order: those at or under q are a set with false discovery rate q.

    Benjamini, Hochberg (1995).
    """
    order = sorted(range(len(p_values)), key=lambda index: p_values[index], reverse=True)
    adjusted = [1.0] * len(p_values)
    smallest = 1.0
    for rank, index in zip(range(len(p_values), 0, -1), order, strict=True):
        smallest = min(smallest, p_values[index] * len(p_values) / rank)
        adjusted[index] = smallest
    return adjusted
