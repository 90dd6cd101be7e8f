from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alchemy.errors import BadInput
from alchemy.rag.windows import windows

SENTENCES = st.lists(st.text("ab网", min_size=1, max_size=9), max_size=30).map(" ".join)
TEXTS = (
    SENTENCES | st.text(st.sampled_from("ab,. \n\t\u3000网关。，é9-"), max_size=200) | st.text(max_size=200)
)


@st.composite
def sizes(draw: st.DrawFn) -> tuple[int, int]:
    size = draw(st.integers(1, 40))
    return size, draw(st.integers(0, size - 1))


def cut(text: str, size: int, overlap: int) -> list[str]:
    return [text[start:end] for start, end in windows(text, size, overlap)]


def words(text: str) -> set[str]:
    return set(text.split())


@settings(deadline=None)
@given(TEXTS, sizes())
def test_windows_are_bounded_and_go_on_strictly(text: str, sized: tuple[int, int]) -> None:
    size, overlap = sized
    spans = list(windows(text, size, overlap))
    for start, end in spans:
        assert 0 < end - start <= size
        assert text[start:end] == text[start:end].strip()
    for (start, end), (after, later) in pairwise(spans):
        assert start < after and end < later
        assert end - after <= overlap


@settings(deadline=None)
@given(TEXTS, sizes())
def test_together_they_hold_everything_but_white_space(text: str, sized: tuple[int, int]) -> None:
    held = {place for start, end in windows(text, *sized) for place in range(start, end)}
    assert "".join(text[place] for place in range(len(text)) if place not in held).strip() == ""


@settings(deadline=None)
@given(st.lists(st.text("abcd", min_size=1, max_size=10), max_size=40), sizes())
def test_words_that_fit_are_never_cut(parts: list[str], sized: tuple[int, int]) -> None:
    text = " ".join(parts)
    long = max(map(len, parts), default=0) > sized[0]
    for chunk in cut(text, *sized):
        assert long or words(chunk) <= words(text)


def test_neighbors_share_whole_words_within_the_overlap() -> None:
    text = "The gateway retries three times and then it raises an error to the caller."
    assert cut(text, 30, 12) == [
        "The gateway retries three",
        "three times and then it raises",
        "it raises an error to the",
        "error to the caller.",
    ]
    assert cut(text, 30, 0) == [
        "The gateway retries three",
        "times and then it raises an",
        "error to the caller.",
    ]


def test_no_window_is_only_overlap() -> None:
    assert cut("aaaa bb cccccccc dd", 10, 5) == ["aaaa bb", "cccccccc", "dd"]


def test_chinese_is_cut_between_any_two_characters() -> None:
    text = "网关会重试三次，然后向调用方报错。"
    assert cut(text, 8, 2) == ["网关会重试三次，", "次，然后向调用方", "用方报错。"]


def test_what_has_no_boundary_is_cut_anywhere_and_keeps_its_overlap() -> None:
    assert cut("x" * 25, 10, 3) == ["x" * 10, "x" * 10, "x" * 10, "x" * 4]
    assert cut("see " + "x" * 12 + " there", 10, 2) == ["see", "x" * 10, "xxxx there"]


@pytest.mark.parametrize("text", ["", " ", "\n\t \u3000"])
def test_nothing_gives_no_window(text: str) -> None:
    assert cut(text, 10, 3) == []


@pytest.mark.parametrize(("size", "overlap"), [(10, 10), (10, 11), (1, 1), (10, -1), (0, 0)])
def test_an_overlap_that_would_never_end_is_refused_at_once(size: int, overlap: int) -> None:
    with pytest.raises(BadInput, match="must be smaller"):
        windows("some text", size, overlap)
