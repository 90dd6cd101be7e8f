from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alchemy.errors import BadInput
from alchemy.rag.metadata import cleaned
from alchemy.text.sanitize import Sanitizer

SANITIZER = Sanitizer(b"salt")
SCALARS = st.none() | st.booleans() | st.integers(-9999, 9999) | st.floats(-1e6, 1e6)
KEYS = st.text("abc", min_size=1)
JSON = st.recursive(
    SCALARS | st.text("abc \u200b", max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)


def clean(metadata: dict[str, Any], most: int = 10_000) -> dict[str, Any]:
    return cleaned(metadata, SANITIZER, most)


@settings(deadline=None)
@given(st.dictionaries(KEYS, JSON, max_size=4))
def test_cleaning_twice_is_cleaning_once(metadata: dict[str, Any]) -> None:
    try:
        once = clean(metadata)
    except BadInput as error:
        assert "levels deep" in str(error)
        return
    assert clean(once) == once


def test_what_is_secret_is_masked_wherever_it_stands_and_the_rest_stays() -> None:
    got = clean(
        {
            "author": "mail ann@corp.example",
            "password": "hunter2horse9X",
            "card": 4111111111111111,
            "list": [{"mail": "bob\u200b@corp.example"}],
            "version": 4,
            "ratio": 0.5,
            "draft": False,
            "none": None,
        }
    )
    text = str(got)
    assert "ann@" not in text and "hunter2" not in text and "4111" not in text and "bob@" not in text
    assert got["author"].startswith("mail <EMAIL_")
    assert {k: got[k] for k in ("version", "ratio", "draft", "none")} == {
        "version": 4, "ratio": 0.5, "draft": False, "none": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("metadata", "says"),
    [
        ({"text": "x"}, "text cannot be set"),
        ({"document_id": "x", "chunk_index": 1}, "chunk_index, document_id cannot be set"),
        ({"total_chunks": 1}, "total_chunks cannot be set"),
        ({"a": [[[["too deep"]]]]}, "levels deep"),
        ({"a": {"a": {"a": {"a": {"a": 1}}}}}, "levels deep"),
        ({"a": "x" * 10_000}, "bytes are over"),
        ({"a": float("nan")}, "a number"),
        ({"a": float("inf")}, "a number"),
        ({"a": 2**63}, "a number"),
        ({"a": 10**400}, "a number"),
        ({"a": {"ann@corp.example": 1}}, "looks like a secret"),
    ],
)
def test_what_cannot_be_kept_is_refused_with_a_reason(metadata: dict[str, Any], says: str) -> None:
    with pytest.raises(BadInput, match=says):
        clean(metadata)
