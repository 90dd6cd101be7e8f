"""The judge, over the real protocol: only the model behind the server is scripted."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from alchemy.catalog import Refiner
from alchemy.settings import SynthesisOptions
from alchemy.synthesis.client import BreakerOpen, LlmClient, RetryPolicy
from alchemy.synthesis.generate import LlmProvider, Task, TemplateProvider
from alchemy.synthesis.grounding import check, numbers
from alchemy.synthesis.judge import Case, Judge
from alchemy.synthesis.kinds import KINDS
from alchemy.synthesis.pairs import write_pairs
from alchemy.synthesis.plants import OF_EACH, measure_judge, plant_errors
from alchemy.synthesis.prompts import JUDGE_SYSTEM
from alchemy.synthesis.templates import template_pairs
from tests.synthesis.conftest import (
    LlmServer,
    Reply,
    answer,
    grounded,
    is_judged,
    part,
    verdict,
    word_by_word,
)
from tests.synthesis.corpus import CHUNKS, DOCUMENTS, INSIGHTS, ISSUE, chunk, many

WAYS = ("another number", "another name", "another document's answer")
RETRY = RetryPolicy(attempts=2, base_s=0.01, breaker_failures=1000)


def tasks(number: int) -> list[Task]:
    documents, chunks, insights = many(number)
    known = {insight.document_id: insight for insight in INSIGHTS + insights}
    both = zip(DOCUMENTS + documents, CHUNKS + chunks, strict=True)
    return [Task(of, piece, known.get(of.id), KINDS) for of, piece in both]


def case() -> Case:
    pair = next(pair for pair in template_pairs(ISSUE, chunk(ISSUE)) if "2,300" in pair.response)
    return Case(pair, Task(ISSUE, chunk(ISSUE), INSIGHTS[0], KINDS))


@pytest.fixture
def client(model: Refiner, tmp_path: Path) -> Iterator[LlmClient]:
    with LlmClient(model, tmp_path / "llm.sqlite", retry=RETRY) as client:
        yield client


def test_the_judge_sees_the_source_the_facts_and_the_pair(llm: LlmServer, client: LlmClient) -> None:
    llm.reply = lambda request: verdict(True)
    assert list(Judge(client, 1).reasons([case()])) == [None]
    sent = llm.requests[0]
    assert sent["messages"][0]["content"] == JUDGE_SYSTEM
    assert sent["response_format"] == {"type": "json_object"}
    assert part(sent, "passage") == ISSUE.text
    assert "23" in part(sent, "facts")
    assert "- resolution: Fixed" in part(sent, "fields")
    assert part(sent, "question") == case().pair.instruction
    assert part(sent, "answer") == case().pair.response


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (verdict(True), None),
        (verdict(False), "judged_unsupported"),
        (verdict(True, answers=False), "judged_off_question"),
        (verdict(False, answers=False), "judged_unsupported"),
        ((200, {}, answer('{"supported": "yes", "answers": true}')), "not_judged"),
        ((200, {}, answer('{"supported": true}')), "not_judged"),
        ((200, {}, answer("[]")), "not_judged"),
        ((200, {}, answer('{"supported": tr', "length")), "not_judged"),
        ((500, {}, {"error": {"message": "down"}}), "not_judged"),
        ((400, {}, {"error": {"message": "content policy"}}), "not_judged"),
    ],
)
def test_a_verdict_is_two_decisions_and_no_verdict_is_no_acquittal(
    llm: LlmServer, client: LlmClient, reply: Reply, reason: str | None
) -> None:
    llm.reply = lambda request: reply
    assert list(Judge(client, 2).reasons([case()])) == [reason]


def test_verdicts_are_cached_like_every_answer(llm: LlmServer, client: LlmClient) -> None:
    llm.reply = lambda request: verdict(True)
    for _ in range(3):
        list(Judge(client, 4).reasons([case()]))
    assert llm.calls == 1


def test_a_model_that_fails_everybody_ends_the_run(llm: LlmServer, model: Refiner, tmp_path: Path) -> None:
    llm.reply = lambda request: (500, {}, {"error": {"message": "down"}})
    retry = RetryPolicy(attempts=2, base_s=0.001, breaker_failures=2)
    with LlmClient(model, tmp_path / "llm.sqlite", retry=retry) as client, pytest.raises(BreakerOpen):
        list(Judge(client, 1).reasons([one.wrong for one in plant_errors(tasks(20))]))


def test_planted_errors_are_wrong_in_one_way_each_and_always_the_same() -> None:
    plants = plant_errors(tasks(100))
    assert [one.way for one in plants] == [way for way in WAYS for _ in range(OF_EACH)]
    assert plants == plant_errors(tasks(100))
    for one in plants:
        right, wrong = one.right.pair, one.wrong.pair
        task = one.right.task
        assert check(right, task.chunk, task.insight, task.document.fields) is None
        assert wrong.response != right.response
        assert replace(wrong, response=right.response) == right
        if one.way == "another number":
            assert len(numbers(wrong.response) - numbers(right.response)) == 1
            assert check(wrong, task.chunk, task.insight, task.document.fields) == "ungrounded_number"
    for way in WAYS:
        documents = [one.right.pair.document_id for one in plants if one.way == way]
        assert len(set(documents)) == len(documents) == OF_EACH


def test_a_judge_that_reads_catches_every_plant_and_refuses_nothing_right(
    llm: LlmServer, client: LlmClient
) -> None:
    llm.reply = word_by_word
    found = measure_judge(Judge(client, 8), tasks(100))
    assert (found["planted"], found["catch_rate"]) == (3 * OF_EACH, 1.0)
    assert found["caught_by_way"] == dict.fromkeys(WAYS, f"{OF_EACH} of {OF_EACH}")
    assert (found["false_alarms"], found["false_alarm_rate"]) == (0, 0.0)
    assert OF_EACH <= found["right"] <= 3 * OF_EACH


def test_a_judge_that_always_agrees_catches_nothing(llm: LlmServer, client: LlmClient) -> None:
    llm.reply = lambda request: verdict(True)
    found = measure_judge(Judge(client, 8), tasks(100))
    assert (found["caught"], found["catch_rate"], found["false_alarms"]) == (0, 0.0, 0)


def test_a_judge_that_always_objects_raises_false_alarms_only(llm: LlmServer, client: LlmClient) -> None:
    llm.reply = lambda request: verdict(False)
    found = measure_judge(Judge(client, 8), tasks(100))
    assert (found["catch_rate"], found["false_alarm_rate"]) == (1.0, 1.0)


def test_a_judge_that_says_nothing_catches_nothing(llm: LlmServer, client: LlmClient) -> None:
    llm.reply = lambda request: (200, {}, answer("Well ..."))
    found = measure_judge(Judge(client, 8), tasks(100))
    assert (found["caught"], found["false_alarms"]) == (0, 0)
    assert found["not_judged"] == found["planted"] + found["right"]


def test_without_anything_to_plant_there_is_no_rate(llm: LlmServer, client: LlmClient) -> None:
    found = measure_judge(Judge(client, 8), [])
    assert (found["planted"], found["catch_rate"], found["false_alarm_rate"]) == (0, None, None)
    assert llm.calls == 0


def judged_run(client: LlmClient, folder: Path, provider: object, **options: object) -> dict:
    documents, chunks, insights = many(60)
    folder.mkdir()
    chosen = SynthesisOptions(judge=True, **options)
    return write_pairs(
        folder, lambda: documents, chunks, insights, provider, chosen, judge=Judge(client, 8)
    )  # fmt: skip


def test_a_run_with_a_judge_rejects_what_it_refuses_and_tells_what_the_judge_is_worth(
    llm: LlmServer, client: LlmClient, tmp_path: Path
) -> None:
    def wise(request: dict) -> Reply:
        if not is_judged(request):
            return grounded(request)
        return verdict(False) if "part 7?" in part(request, "question") else word_by_word(request)

    llm.reply = wise
    metrics = judged_run(client, tmp_path / "out", LlmProvider(client, 8), pairs_per_chunk=2)
    assert metrics["rejected"]["judged_unsupported"] == 1
    assert metrics["rejected"]["ungrounded_number"] == 60  # the judge was not asked about these
    assert metrics["written"] == metrics["kept"] + sum(metrics["rejected"].values())
    assert metrics["judge"]["catch_rate"] == 1.0
    asked = [part(request, "question") for request in llm.requests if is_judged(request)]
    assert sum(question.startswith("What happened to ") for question in asked) == 60


def test_templates_can_be_judged_too(llm: LlmServer, client: LlmClient, tmp_path: Path) -> None:
    llm.reply = word_by_word
    metrics = judged_run(client, tmp_path / "out", TemplateProvider())
    assert metrics["provider"] == "template"
    assert metrics["kept"] > 60


def test_a_run_ends_with_what_was_judged_when_the_budget_does(
    llm: LlmServer, model: Refiner, tmp_path: Path
) -> None:
    llm.reply = lambda request: verdict(True)
    with LlmClient(model, tmp_path / "llm.sqlite", budget_usd=0.006, retry=RETRY) as client:
        metrics = judged_run(client, tmp_path / "out", TemplateProvider())
        assert client.usage.budget_spent
        assert client.usage.cost_usd <= 0.006
    assert metrics["kept"] > 0
    assert metrics["rejected"]["budget_spent"] > 0
    assert metrics["written"] == metrics["kept"] + sum(metrics["rejected"].values())
