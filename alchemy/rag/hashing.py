"""A text as a sparse vector by signed feature hashing, for a database that adds the inverse frequencies.

Weinberger et al. 2009, "Feature Hashing for Large Scale Multitask Learning": a term's hash is its number,
and another bit of the hash its sign, so that of terms with the same number as many weaken each other as
strengthen each other, and inner products stay right in expectation. No vocabulary has to be kept.

The terms are those of the keyword search (`alchemy.retrieval.lexical`), so identifiers and Chinese work as
they do there. How rare a term is only the collection knows: Qdrant multiplies by it (its IDF modifier).
"""

import hashlib
from collections import Counter
from dataclasses import dataclass

from alchemy.retrieval.lexical import K1, scored_tokens, units

BUCKETS = 1 << 32  # all that Qdrant can number: a sparse vector costs what it holds, not what it could
VERSION = 1  # of terms and hash: vectors of two versions do not compare


@dataclass(frozen=True, slots=True)
class SparseVector:
    """Numbers of terms, ascending, and their signed weights; never zero."""

    indices: tuple[int, ...]
    values: tuple[float, ...]


def hashed(text: str, buckets: int = BUCKETS) -> SparseVector:
    """The text's terms by number. A term that occurs n times weighs `saturated(n)`."""
    weights: dict[int, float] = {}
    for token, count in Counter(scored_tokens(units(text))).items():
        index, sign = place(token, buckets)
        weights[index] = weights.get(index, 0.0) + sign * saturated(count)
    kept = sorted((index, weight) for index, weight in weights.items() if weight)
    return SparseVector(tuple(index for index, _ in kept), tuple(weight for _, weight in kept))


def saturated(count: int) -> float:
    """BM25's n (k + 1) / (n + k): 1 for one occurrence, never over k + 1 = 2.2.

    Without its length normalization: chunks are windows of one size.
    """
    return count * (K1 + 1) / (count + K1)


def place(token: str, buckets: int = BUCKETS) -> tuple[int, int]:
    """The number of a term in [0, buckets), and its sign; the same in every process."""
    digest = hashlib.blake2b(token.encode("utf-8", "replace"), digest_size=9).digest()
    return int.from_bytes(digest[:8], "little") % buckets, 1 if digest[8] & 1 else -1
