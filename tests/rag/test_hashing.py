import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alchemy.rag.hashing import BUCKETS, SparseVector, hashed, place, saturated
from alchemy.retrieval.lexical import scored_tokens, units

WORDS = [f"word{n}" for n in range(400)]


def dot(one: SparseVector, other: SparseVector) -> float:
    weights = dict(zip(other.indices, other.values, strict=True))
    return sum(value * weights.get(index, 0.0) for index, value in zip(one.indices, one.values, strict=True))


def exact(one: list[str], other: list[str]) -> float:
    """The inner product without hashing."""
    tokens = [scored_tokens(units(" ".join(words))) for words in (one, other)]
    return sum(saturated(tokens[0].count(t)) * saturated(tokens[1].count(t)) for t in set(tokens[0]))


@settings(deadline=None)
@given(st.text(max_size=200))
def test_a_vector_is_sorted_distinct_and_holds_no_zero(text: str) -> None:
    vector = hashed(text)
    assert list(vector.indices) == sorted(set(vector.indices))
    assert all(0 <= index < BUCKETS for index in vector.indices)
    assert all(vector.values)


@settings(deadline=None)
@given(st.lists(st.sampled_from(WORDS), max_size=60), st.lists(st.sampled_from(WORDS), max_size=60))
def test_where_no_two_terms_meet_the_inner_product_is_that_of_the_terms(
    one: list[str], other: list[str]
) -> None:
    assert dot(hashed(" ".join(one)), hashed(" ".join(other))) == pytest.approx(exact(one, other))


def test_terms_that_meet_cancel_on_average_because_of_their_signs() -> None:
    """In 32 buckets all meet; without signs every product would be far too large."""
    random = np.random.default_rng(7)
    errors = []
    for _ in range(400):
        one, other = (list(random.choice(WORDS, 20, replace=False)) for _ in range(2))
        errors.append(dot(hashed(" ".join(one), 32), hashed(" ".join(other), 32)) - exact(one, other))
    unsigned = 20 * 20 / 32  # the expected excess of plain hashing
    assert abs(np.mean(errors)) < unsigned / 5
    assert np.std(errors) > 1


def test_signs_and_numbers_are_those_of_every_process() -> None:
    say = "from alchemy.rag.hashing import place; print(*place('gateway'))"
    told = subprocess.run([sys.executable, "-c", say], capture_output=True, text=True, check=True).stdout
    assert tuple(map(int, told.split())) == place("gateway")
    signs = [place(word)[1] for word in WORDS]
    assert 150 < signs.count(1) < 250


def test_a_repeated_term_weighs_more_but_never_much_more() -> None:
    weights = [abs(hashed(" ".join(["gateway"] * n)).values[0]) for n in (1, 2, 100)]
    assert weights[0] == 1.0
    assert weights == sorted(weights) and weights[-1] < 2.2


def test_function_words_are_left_out_and_identifiers_and_chinese_are_found() -> None:
    assert hashed("and then it was with the") == SparseVector((), ())
    assert dot(hashed("NullPointerException"), hashed("a null pointer")) > 0
    assert dot(hashed("网关重试"), hashed("支付网关会重试三次")) > 0
    assert dot(hashed("HAUL-12"), hashed("HAUL-12 is open")) > dot(
        hashed("HAUL-12"), hashed("HAUL-13 is open")
    )
