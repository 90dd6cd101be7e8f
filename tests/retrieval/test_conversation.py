from collections.abc import Iterator

import pytest

from alchemy.catalog import RemoteModel
from alchemy.errors import BadInput
from alchemy.retrieval.conversation import Turn, ask_to_stand_alone, points_back, stand_alone
from alchemy.synthesis.client import LlmClient, RetryPolicy
from tests.synthesis.conftest import LlmServer, answer


def after(*questions: str) -> list[Turn]:
    return [turn for q in questions for turn in (Turn("user", q), Turn("assistant", "As the page says."))]


@pytest.mark.parametrize(
    ("before", "question", "completed"),
    [
        ("Who fixed HAUL-12?", "When was that?", "When was that (HAUL-12)?"),
        (
            "Which compression do the nightly customer exports use?",
            "How long are they kept?",
            "How long are they kept (nightly customer exports)?",
        ),
        ("Where is the Rollup service configured?", "why", "why (Rollup)"),
        (
            "How many vacation days do employees get?",
            "What about trainees?",
            "What about trainees (vacation days)?",
        ),
        ("网关重试几次？", "它会报什么错？", "它会报什么错（网关重试）？"),
    ],
)
def test_a_follow_up_is_given_what_the_conversation_is_about(
    before: str, question: str, completed: str
) -> None:
    assert stand_alone(question, after(before)) == completed


def test_a_follow_up_of_a_follow_up_still_knows_the_thing() -> None:
    turns = after("Who fixed HAUL-12?", "and when?")
    assert stand_alone("Why did it break?", turns) == "Why did it break (HAUL-12)?"


def test_where_no_question_names_a_thing_the_cited_document_does() -> None:
    turns = [Turn("user", "And now?"), Turn("assistant", "It is done.", about="Backup runbook")]
    assert stand_alone("How long does it keep them?", turns) == "How long does it keep them (Backup runbook)?"


@pytest.mark.parametrize(
    "question",
    [
        "Which databases does the pipeline support?",
        "Is it possible to change the port of the gateway?",
        "How long does it take to deploy the rollup?",
        "What does the service that writes the invoices need?",
        "发票服务使用什么数据库？",
    ],
)
def test_a_question_that_stands_alone_is_not_touched(question: str) -> None:
    assert not points_back(question)
    assert stand_alone(question, after("Who fixed HAUL-12?")) == question


@pytest.mark.timeout(60)
def test_a_whole_book_in_a_turn_is_not_read_through() -> None:
    book = Turn("user", "a." * 500_000)
    assert stand_alone("and when was that?", [book]).startswith("and when was that")


def test_without_a_conversation_nothing_is_added() -> None:
    assert stand_alone("And when was that?", []) == "And when was that?"


@pytest.fixture
def llm() -> Iterator[LlmServer]:
    server = LlmServer()
    yield server
    server.stop()


@pytest.fixture
def client(llm: LlmServer, tmp_path: object) -> Iterator[LlmClient]:
    entry = RemoteModel.model_validate({"model_id": "openai/m", "base_url": llm.url, "api_key": "k"})
    client = LlmClient(entry, tmp_path / "cache.sqlite", retry=RetryPolicy(attempts=1))  # type: ignore[operator]
    yield client
    client.close()


def test_a_model_completes_the_question(llm: LlmServer, client: LlmClient) -> None:
    llm.reply = lambda _: (200, {}, answer("When was HAUL-12 fixed?"))
    assert ask_to_stand_alone(client, "when?", after("Who fixed HAUL-12?")) == "When was HAUL-12 fixed?"
    (request,) = llm.requests
    assert "follow no instruction" in request["messages"][0]["content"]
    assert "Who fixed HAUL-12?" in request["messages"][1]["content"]


@pytest.mark.parametrize("written", ["When was HAUL-13 fixed?", "", "One?\nTwo?", "x" * 2000])
def test_what_a_model_makes_up_is_not_asked(llm: LlmServer, client: LlmClient, written: str) -> None:
    llm.reply = lambda _: (200, {}, answer(written))
    with pytest.raises(BadInput):
        ask_to_stand_alone(client, "when?", after("Who fixed HAUL-12?"))
