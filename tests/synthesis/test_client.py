import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

from alchemy.catalog import Refiner
from alchemy.errors import BadConfig, BadInput, Unavailable
from alchemy.synthesis.client import BudgetSpent, LlmClient, RetryPolicy
from tests.synthesis.conftest import LlmServer, answer

QUICK = RetryPolicy(attempts=4, base_s=0.01, breaker_failures=100)
ERROR = {"error": {"message": "no", "type": "server_error"}}


def ask(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "llm.sqlite"


def test_an_answer_has_text_tokens_and_cost(llm: LlmServer, model: Refiner, cache: Path) -> None:
    with LlmClient(model, cache) as client:
        completion = client.complete(ask("hi"), as_json=True, max_tokens=77)
    assert (completion.text, completion.prompt_tokens, completion.completion_tokens) == ("hello", 100, 50)
    assert completion.cost_usd == pytest.approx(100 * 2.8e-7 + 50 * 4.2e-7)
    sent = llm.requests[0]
    assert sent["model"] == "deepseek-chat"
    assert sent["messages"] == ask("hi")
    assert sent["temperature"] == 0.3
    assert sent["max_tokens"] == 77
    assert sent["response_format"] == {"type": "json_object"}
    assert llm.keys == ["Bearer sk-very-secret"]


def test_a_second_client_on_the_same_cache_makes_no_call(llm: LlmServer, model: Refiner, cache: Path) -> None:
    with LlmClient(model, cache) as client:
        first = client.complete(ask("hi"))
    with LlmClient(model, cache) as client:
        again = client.complete(ask("hi"))
        usage = client.usage
    assert llm.calls == 1
    assert (again.text, again.cached, again.cost_usd) == (first.text, True, 0.0)
    assert (usage.calls, usage.cached, usage.cost_usd) == (0, 1, 0.0)


@pytest.mark.parametrize("change", ["prompt", "temperature", "model", "json", "max_tokens"])
def test_whatever_shapes_an_answer_is_part_of_its_key(
    llm: LlmServer, model: Refiner, cache: Path, change: str
) -> None:
    with LlmClient(model, cache) as client:
        client.complete(ask("hi"))
    other = {
        "temperature": model.model_copy(update={"temperature": 0.9}),
        "model": model.model_copy(update={"model_id": "openai/other"}),
    }.get(change, model)
    with LlmClient(other, cache) as client:
        client.complete(
            ask("hello" if change == "prompt" else "hi"),
            as_json=change == "json",
            max_tokens=9 if change == "max_tokens" else 1024,
        )
    assert llm.calls == 2


def test_equal_questions_at_the_same_time_are_asked_once(llm: LlmServer, model: Refiner, cache: Path) -> None:
    llm.delay_s = 0.2
    with LlmClient(model, cache) as client, ThreadPoolExecutor(8) as pool:
        texts = [done.text for done in pool.map(lambda _: client.complete(ask("hi")), range(8))]
    assert texts == ["hello"] * 8
    assert llm.calls == 1


@pytest.mark.parametrize("status", [500, 502, 503, 429, 408])
def test_transient_failures_are_tried_again(llm: LlmServer, model: Refiner, cache: Path, status: int) -> None:
    llm.script.extend([(status, {}, ERROR)] * 2)
    with LlmClient(model, cache, retry=QUICK) as client:
        assert client.complete(ask("hi")).text == "hello"
        assert client.usage.failures == 2
    assert llm.calls == 3


def test_no_try_is_made_before_retry_after(llm: LlmServer, model: Refiner, cache: Path) -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    llm.script.extend([(429, {"Retry-After": "7"}, ERROR), (503, {"Retry-After": later}, ERROR)])
    waits: list[float] = []
    with LlmClient(model, cache, retry=QUICK, sleep=waits.append) as client:
        client.complete(ask("hi"))
    assert 7 <= waits[0] <= 7.1
    assert 25 < waits[1] <= 31


def test_retry_after_is_waited_for_in_real_time(llm: LlmServer, model: Refiner, cache: Path) -> None:
    llm.script.append((429, {"Retry-After": "1"}, ERROR))
    with LlmClient(model, cache, retry=QUICK) as client:
        client.complete(ask("hi"))
    assert llm.times[1] - llm.times[0] >= 1


def test_retries_end(llm: LlmServer, model: Refiner, cache: Path) -> None:
    llm.reply = lambda request: (500, {}, ERROR)
    with (
        LlmClient(model, cache, retry=QUICK) as client,
        pytest.raises(Unavailable, match="4 attempts"),
    ):
        client.complete(ask("hi"))
    assert llm.calls == 4


def test_a_slow_answer_times_out_and_is_tried_again(llm: LlmServer, model: Refiner, cache: Path) -> None:
    llm.delay_s = 1.0
    impatient = model.model_copy(update={"timeout_s": 0.2})
    with (
        LlmClient(impatient, cache, retry=RetryPolicy(attempts=2, base_s=0.01)) as client,
        pytest.raises(Unavailable),
    ):
        client.complete(ask("hi"))
    assert llm.calls == 2


def test_nobody_listening_is_unavailable(llm: LlmServer, model: Refiner, cache: Path) -> None:
    nowhere = model.model_copy(update={"base_url": "http://127.0.0.1:9/v1"})
    with LlmClient(nowhere, cache, retry=QUICK) as client, pytest.raises(Unavailable):
        client.complete(ask("hi"))


@pytest.mark.parametrize(("status", "error"), [(400, BadInput), (401, BadConfig), (404, BadConfig)])
def test_permanent_failures_are_not_tried_again_and_hide_the_key(
    llm: LlmServer, model: Refiner, cache: Path, status: int, error: type[Exception], caplog
) -> None:
    llm.reply = lambda request: (status, {}, {"error": {"message": "Incorrect API key: sk-very-secret"}})
    caplog.set_level(logging.DEBUG, logger="alchemy")
    with LlmClient(model, cache, retry=QUICK) as client, pytest.raises(error) as raised:
        client.complete(ask("hi"))
    assert llm.calls == 1
    assert "sk-very-secret" not in str(raised.value) + caplog.text
    assert b"sk-very-secret" not in b"".join(path.read_bytes() for path in cache.parent.iterdir())


def test_the_breaker_stops_everybody_after_failures_in_a_row_and_lets_one_try_later(
    llm: LlmServer, model: Refiner, cache: Path
) -> None:
    llm.reply = lambda request: (500, {}, ERROR)
    retry = RetryPolicy(attempts=2, base_s=0.001, breaker_failures=4, breaker_reset_s=0.3)
    with LlmClient(model, cache, retry=retry) as client:
        for number in range(5):
            with pytest.raises(Unavailable):
                client.complete(ask(f"question {number}"))
        assert llm.calls == 4
        llm.reply = lambda request: (200, {}, answer("back"))
        time.sleep(0.35)
        assert client.complete(ask("again")).text == "back"
        assert client.complete(ask("and again")).text == "back"


def test_the_budget_is_reserved_before_the_call_by_all_threads_together(
    llm: LlmServer, model: Refiner, cache: Path
) -> None:
    llm.delay_s = 0.1
    most = 10 * 2.8e-7 + 1000 * 4.2e-7  # of one call with 1,000 answer tokens
    spent = threading.Semaphore(0)

    def one(number: int) -> None:
        try:
            client.complete(ask(f"q {number}"), max_tokens=1000)
        except BudgetSpent:
            spent.release()

    with LlmClient(model, cache, budget_usd=most * 2.5) as client, ThreadPoolExecutor(8) as pool:
        list(pool.map(one, range(8)))
        assert client.usage.cost_usd <= most * 2.5
    assert llm.calls < 8
    assert spent.acquire(timeout=1)


def test_the_budget_stops_after_what_was_really_spent(llm: LlmServer, model: Refiner, cache: Path) -> None:
    cost = 100 * 2.8e-7 + 50 * 4.2e-7
    with LlmClient(model, cache, budget_usd=cost * 3.5) as client:
        with pytest.raises(BudgetSpent, match="ALCHEMY_SYNTHESIS__BUDGET_USD"):
            for number in range(9):
                client.complete(ask(f"q {number}"), max_tokens=60)
        assert llm.calls == 3
        assert client.complete(ask("q 0"), max_tokens=60).cached  # what is known stays free


def test_a_model_without_a_known_price_costs_nothing_and_says_so(
    llm: LlmServer, model: Refiner, cache: Path, caplog
) -> None:
    unknown = model.model_copy(update={"model_id": "openai/our-own", "api_key": None})
    with LlmClient(unknown, cache, budget_usd=0) as client:
        assert client.complete(ask("hi")).cost_usd == 0
        assert not client.usage.priced
    assert caplog.text.count("no known price") == 1
