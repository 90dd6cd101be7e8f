import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alchemy.synthesis import questions
from alchemy.synthesis.questions import Questions, jaccard, telling_words

THRESHOLD = 0.85


def are_alike(one: str, other: str) -> bool:
    known = Questions(THRESHOLD)
    known.add(one, "known")
    return known.origins_of_alike(other) == {"known"}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What is the status of HAUL-97?", "what's the status of haul-97"),
        ("What is the unit price of New Rhumba?", "Can you tell me the unit price of New Rhumba?"),
        (
            'Can you explain Batching ("Operator guide")?',
            'What does "Operator guide" explain about batching?',
        ),
        ("How many retries does the gateway make?", "How many retries does a gateway make?"),
        ("温度标签每年校准几次？", "请问温度标签每年校准几次呢？"),
        ("网关离线后怎么办？", "网关离线了后怎么办"),
        ("What is it?", "what is it"),
    ],
)
def test_the_same_in_nearly_the_same_words_is_alike(one: str, other: str) -> None:
    assert are_alike(one, other)
    assert are_alike(other, one)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What is the status of HAUL-97?", "What is the status of HAUL-98?"),
        ("What is the status of HAUL-97?", "What is the priority of HAUL-97?"),
        ("When was HAUL-97 resolved?", "Who resolved HAUL-97?"),
        ("Does Haulmark 4.2 run on Debian?", "Does Haulmark 4.3 run on Debian?"),
        (
            'What does the commit "Answer oversized payloads instead of closing the socket" change?',
            'Which files does the commit "Answer oversized payloads instead of closing the socket" have?',
        ),
        ("Where is max_batch set?", "Where is max_topics set?"),
        ("温度标签每年校准几次？", "湿度标签每月更换几次？"),
        ("What is it?", "What is that?"),
    ],
)
def test_questions_about_other_things_are_not(one: str, other: str) -> None:
    assert not are_alike(one, other)


def test_every_origin_of_an_alike_question_is_told() -> None:
    known = Questions(THRESHOLD)
    for origin in ("eval", "holdout"):
        known.add("Which compression do exports use?", origin)
    assert known.origins_of_alike("Which compression do the exports use?") == {"eval", "holdout"}
    assert known.origins_of_alike("Which encryption do the exports use?") == set()


NAMES = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta"]
WORDS = st.lists(st.sampled_from(NAMES), min_size=1)


@given(st.lists(WORDS, max_size=12), WORDS, st.sampled_from([0.5, 0.7, 0.85, 1.0]))
def test_what_is_found_is_what_comparing_all_pairs_finds(
    before: list[list[str]], words: list[str], threshold: float
) -> None:
    known = Questions(threshold)
    for number, one in enumerate(before):
        known.add(" ".join(one), str(number))
    expected = {
        str(number)
        for number, one in enumerate(before)
        if jaccard(telling_words(" ".join(one)), telling_words(" ".join(words))) >= threshold
    }
    assert known.origins_of_alike(" ".join(words)) == expected


@given(st.text())
def test_any_text_is_alike_to_itself(text: str) -> None:
    assert are_alike(text, text)


def test_few_questions_are_compared_however_many_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = 0

    def counted(one: frozenset[str], other: frozenset[str]) -> float:
        nonlocal compared
        compared += 1
        return jaccard(one, other)

    monkeypatch.setattr(questions, "jaccard", counted)
    chance = random.Random(5)  # noqa: S311 - no secret
    vocabulary = ["".join(chance.choices("abcdefghij", k=chance.randrange(3, 12))) for _ in range(2000)]
    known = Questions(THRESHOLD)
    for _ in range(4000):
        question = f"What is the {' '.join(chance.choices(vocabulary, k=6))} of the gateway?"
        known.origins_of_alike(question)
        known.add(question, "train")
    assert compared < 4000 * 20  # of 8 million pairs
