import threading
from typing import Any

import httpx
import openai
import pytest

from serving.usage import estimate_tokens
from tests.serving.conftest import QUOTE, QUOTED, Knowledge, Serve, Service, eventually

QUESTION = "How often does the gateway retry?"


def client(service: Service, key: str = "none") -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{service.url}/v1", api_key=key, max_retries=0)


def test_the_openai_client_gets_an_answer_with_citations(knowledge: Knowledge, serve: Serve) -> None:
    champion = knowledge.champion("ALPHA")
    with serve() as service, client(service) as ai:
        reply = ai.chat.completions.create(
            model="data-alchemy",
            messages=[
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "Who lives on the moon?"},
                {"role": "assistant", "content": "I do not know."},
                {"role": "user", "content": [{"type": "text", "text": QUESTION}]},
            ],
            temperature=0.9,
        )
    message = reply.choices[0].message
    assert message.content == QUOTED
    assert message.model_extra is not None
    assert reply.system_fingerprint == message.model_extra["release"] == champion
    assert message.model_extra["citations"][0]["quote"] == QUOTE
    assert reply.id == message.model_extra["answer_id"]
    assert reply.choices[0].finish_reason == "stop"
    assert reply.usage is not None
    assert reply.usage.completion_tokens == estimate_tokens(message.content)
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens
    assert reply.usage.model_extra == {"counted_by": "estimate"}


def test_the_openai_client_streams_with_citations_on_the_last_chunk(
    knowledge: Knowledge, serve: Serve
) -> None:
    champion = knowledge.champion("ALPHA")
    with serve() as service, client(service) as ai:
        chunks = list(
            ai.chat.completions.create(
                model="data-alchemy",
                messages=[{"role": "user", "content": QUESTION}],
                stream=True,
                stream_options={"include_usage": True},
            )
        )
    *content, final, counts = chunks
    text = "".join(chunk.choices[0].delta.content or "" for chunk in content)
    assert text == QUOTED
    assert content[0].choices[0].delta.role == "assistant"
    assert final.choices[0].finish_reason == "stop"
    assert final.model_extra is not None
    assert final.model_extra["citations"][0]["number"] == 1
    assert {chunk.id for chunk in chunks} == {final.model_extra["answer_id"]}
    assert {chunk.system_fingerprint for chunk in chunks} == {champion}
    assert counts.choices == []
    assert counts.usage is not None and counts.usage.completion_tokens > 0


def test_models_are_the_expert_and_its_adapters(knowledge: Knowledge, serve: Serve) -> None:
    with serve(ready=False) as service, client(service) as ai:
        assert [model.id for model in ai.models.list()] == ["data-alchemy", "data-alchemy-embedding"]
        service.wait_for(knowledge.champion())
        assert "data-alchemy/lora_adapter" in [model.id for model in ai.models.list()]
        reply = ai.chat.completions.create(
            model="data-alchemy/lora_adapter", messages=[{"role": "user", "content": QUESTION}]
        )
        assert reply.choices[0].message.model_extra is not None
        assert reply.choices[0].message.model_extra["intuition"]["adapter"] == "lora_adapter"


def test_errors_come_in_openais_form(knowledge: Knowledge, serve: Serve) -> None:
    knowledge.champion()
    with serve() as service, client(service) as ai:
        with pytest.raises(openai.NotFoundError) as unknown:
            ai.chat.completions.create(model="gpt-9", messages=[{"role": "user", "content": QUESTION}])
        assert unknown.value.code == "model_not_found"
        assert unknown.value.param == "model"
        with pytest.raises(openai.UnprocessableEntityError) as empty:
            ai.chat.completions.create(model="data-alchemy", messages=[{"role": "system", "content": "x"}])
        assert "no question" in str(empty.value)
        with pytest.raises(openai.UnprocessableEntityError) as many:
            ai.chat.completions.create(
                model="data-alchemy", messages=[{"role": "user", "content": QUESTION}] * 65
            )
        assert "more than 64 messages" in str(many.value)


@pytest.mark.parametrize("content", ['"\\ud800"', '[{"type": "text", "text": "\\ud800"}]'])
def test_half_a_character_is_refused(knowledge: Knowledge, serve: Serve, content: str) -> None:
    earlier = f'{{"role": "user", "content": {content}}}, {{"role": "user", "content": "And why?"}}'
    with serve(ready=False) as service:
        for path, body in (
            ("/v1/chat/completions", f'{{"messages": [{{"role": "user", "content": {content}}}]}}'),
            ("/v1/chat/completions", f'{{"messages": [{earlier}]}}'),
            ("/v1/embeddings", '{"input": "\\ud800"}'),
        ):
            response = service.http.post(path, content=body, headers={"Content-Type": "application/json"})
            assert response.status_code == 422


def test_a_stream_that_is_left_cancels_its_work(knowledge: Knowledge, serve: Serve) -> None:
    knowledge.champion()
    knowledge.behavior.speak = lambda stop: stop.wait(120)
    started = threading.Event()
    knowledge.behavior.search = lambda _: started.set()
    with serve(intuition_grace_s=120) as service, client(service) as ai:
        with pytest.raises(httpx.ReadTimeout):
            list(
                ai.chat.completions.create(
                    model="data-alchemy",
                    messages=[{"role": "user", "content": QUESTION}],
                    stream=True,
                    timeout=2,
                )
            )
        assert started.is_set()
        assert knowledge.behavior.stopped.wait(60)
        eventually(lambda: "questions_in_flight 0.0" in service.metrics())


def test_tokens_are_estimated_by_the_stated_rule() -> None:
    assert estimate_tokens("") == 0
    assert estimate_tokens("abcd") == 1
    assert estimate_tokens("abcde") == 2
    assert estimate_tokens("网关abcd") == 3
    assert estimate_tokens("é" * 4) == 2


def test_a_follow_up_is_searched_with_what_the_conversation_is_about(
    knowledge: Knowledge, serve: Serve
) -> None:
    knowledge.champion()
    searched: list[str] = []
    knowledge.behavior.search = searched.append
    messages: Any = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Who fixed HAUL-12?"},
        {"role": "assistant", "content": "Ann did."},
        {"role": "user", "content": "And when was that?"},
    ]
    with serve() as service, openai.OpenAI(base_url=f"{service.url}/v1", api_key="none") as ai:
        message = ai.chat.completions.create(model="data-alchemy", messages=messages).choices[0].message
        alone = ai.chat.completions.create(model="data-alchemy", messages=messages[1:2]).choices[0].message
    assert searched == ["And when was that (HAUL-12)?", "Who fixed HAUL-12?"]
    assert message.standalone == "And when was that (HAUL-12)?"  # type: ignore[attr-defined]
    assert alone.standalone is None  # type: ignore[attr-defined]
