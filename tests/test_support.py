import pytest

from alchemy.support import unsupported
from tests.serving.conftest import make_passage

GATEWAY = make_passage(
    "The gateway retries three times. It then raises GW-503 to the caller.", title="Gateway"
)
EXPORTS = make_passage("The nightly customer exports are compressed with zstd and kept for 30 days.")
CHINESE = make_passage("网关最多重试三次，然后返回错误码 GW-503。")
PASSAGES = (GATEWAY, EXPORTS, CHINESE)


def doubts(text: str) -> list[str]:
    return [text[span.start : span.end] for span in unsupported(text, PASSAGES)]


@pytest.mark.parametrize(
    "text",
    [
        "The gateway retries three times [1].",
        "The gateway retries three times. [1] It then raises GW-503 to its caller. [1]",
        "Exports are compressed with zstd [2] and kept for 30 days [2].",
        "The gateway raises GW-503 and exports are kept for 30 days [1, 2].",
        "网关最多重试三次，然后返回 GW-503 [3]。",
        "Yes. Sure.",
        "These are the steps:\n- the gateway retries three times [1]",
        "",
    ],
)
def test_what_its_passages_say_is_supported(text: str) -> None:
    assert doubts(text) == []


@pytest.mark.parametrize(
    "doubtful",
    [
        "The gateway retries three times.",
        "The gateway retries 5 times and raises GW-503 [1].",
        "It raises GW-504 to the caller [1].",
        "The gateway retries three times [2].",
        "Employees get generous vacation every summer [1].",
        "The gateway retries three times [9].",
        "网关最多重试 9 次，然后返回 GW-503 [3]。",
    ],
)
def test_what_no_cited_passage_says_is_marked_alone(doubtful: str) -> None:
    assert doubts(doubtful) == [doubtful]
    good = "Exports are compressed with zstd [2]."
    assert doubts(f"{good} {doubtful}\n\n{good}") == [doubtful]
