import threading
from dataclasses import replace

import httpx
import numpy as np
import openai
import pytest

from tests.serving.conftest import Knowledge, Serve, Service, embed, eventually


def client(service: Service) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{service.url}/v1", api_key="unused", max_retries=0)


def test_the_openai_client_gets_the_searchs_own_vectors(knowledge: Knowledge, serve: Serve) -> None:
    knowledge.champion()
    texts = ["How often does the gateway retry?", "网关重试几次"]
    with serve() as service, client(service) as ai:
        many = ai.embeddings.create(model="data-alchemy-embedding", input=texts)  # asks for base64
        one = ai.embeddings.create(model="data-alchemy-embedding", input=texts[0], encoding_format="float")
        sized = ai.embeddings.create(model="data-alchemy-embedding", input=texts[0], dimensions=64)
    np.testing.assert_array_equal([row.embedding for row in many.data], embed(texts))
    np.testing.assert_allclose(one.data[0].embedding, embed(texts[:1])[0])
    assert sized.data[0].embedding == many.data[0].embedding
    assert [row.index for row in many.data] == [0, 1]
    assert many.usage.prompt_tokens == many.usage.total_tokens > one.usage.total_tokens > 0


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"input": [1, 2, 3]}, "send the texts themselves"),
        ({"input": [[1, 2], [3]]}, "send the texts themselves"),
        ({"input": []}, "from 1 to 3 texts"),
        ({"input": ["a"] * 4}, "from 1 to 3 texts"),
        ({"input": ""}, "a text of 1 to 9 characters"),
        ({"input": ["a", "0123456789"]}, "input.1: a text of 1 to 9 characters"),
        ({"input": "a", "dimensions": 8}, "dimensions must be 64"),
        ({"input": "a", "encoding_format": "int8"}, "encoding_format"),
        ({}, "input"),
    ],
)
def test_what_cannot_be_embedded_is_refused_with_a_reason(
    knowledge: Knowledge, serve: Serve, body: dict[str, object], says: str
) -> None:
    knowledge.champion()
    with serve(max_embedding_texts=3, max_embedding_characters=9) as service:
        response = service.http.post("/v1/embeddings", json=body)
        assert response.status_code == 422
        assert says in response.json()["error"]["message"]


def test_another_model_does_not_exist_and_without_a_release_nothing_is_embedded(
    knowledge: Knowledge, serve: Serve
) -> None:
    with serve(ready=False) as service, client(service) as ai:
        with pytest.raises(openai.NotFoundError, match="data-alchemy-embedding"):
            ai.embeddings.create(model="text-embedding-3-small", input="x")
        with pytest.raises(openai.InternalServerError, match="no release"):
            ai.embeddings.create(model="data-alchemy-embedding", input="x")


def test_a_slow_embedder_is_left_at_its_deadline_and_a_crowd_is_turned_away(
    knowledge: Knowledge, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.embeddings._WAITING", 0)
    load, go, busy = knowledge.load, threading.Event(), threading.Barrier(3, timeout=60)

    def slow(texts: list[str]) -> object:
        if texts != ["quick"]:
            busy.wait()
            go.wait(60)
        return embed(texts)

    knowledge.load = lambda release_id: replace(load(release_id), embed=slow)  # type: ignore
    knowledge.champion()

    def post(text: str) -> httpx.Response:
        return service.http.post("/v1/embeddings", json={"input": text})

    with serve(embed_s=3) as service:
        late: list[httpx.Response] = []
        threads = [threading.Thread(target=lambda: late.append(post("slow"))) for _ in range(2)]
        for thread in threads:
            thread.start()
        busy.wait()
        refused = post("quick")
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "2")
        for thread in threads:
            thread.join()
        assert [response.status_code for response in late] == [503, 503]
        assert "not embedded within 3 s" in late[0].json()["error"]["message"]
        go.set()
        eventually(lambda: post("quick").status_code == 200)
