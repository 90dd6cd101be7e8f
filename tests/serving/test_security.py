from collections.abc import Iterator

import openai
import pytest

from tests.serving.conftest import Knowledge, Serve

ASK = {"question": "How often does the gateway retry?"}


def test_every_route_but_the_probes_wants_the_key(knowledge: Knowledge, serve: Serve) -> None:
    knowledge.champion()
    with serve(api_key="s3cret") as service:
        nobody = {"Authorization": ""}
        for path in ("/healthz", "/readyz", "/metrics"):
            assert service.http.get(path, headers=nobody).status_code == 200
        for path in ("/v1/models", "/v1/answers/x/lineage", "/docs", "/openapi.json", "/nowhere"):
            assert service.http.get(path, headers=nobody).status_code == 401
        assert service.http.post("/api/chat", json=ASK, headers=nobody).status_code == 401
        assert service.http.post("/api/models/reload", headers=nobody).status_code == 401
        assert service.ask()["answerable"]


@pytest.mark.parametrize("header", ["Bearer wrong", "Bearer", "Basic s3cret", "s3cret", "Bearer s3cret2"])
def test_a_wrong_key_is_refused(knowledge: Knowledge, serve: Serve, header: str) -> None:
    with serve(api_key="s3cret", ready=False) as service:
        response = service.http.post("/api/chat", json=ASK, headers={"Authorization": header})
        assert response.status_code == 401
        assert response.headers["www-authenticate"] == "Bearer"
        assert response.json()["error"]["code"] == "invalid_api_key"


def test_the_openai_client_sends_its_key(knowledge: Knowledge, serve: Serve) -> None:
    knowledge.champion()
    with serve(api_key="s3cret") as service:
        with openai.OpenAI(base_url=f"{service.url}/v1", api_key="s3cret", max_retries=0) as ai:
            assert list(ai.models.list())
        with (
            openai.OpenAI(base_url=f"{service.url}/v1", api_key="wrong", max_retries=0) as ai,
            pytest.raises(openai.AuthenticationError),
        ):
            ai.models.list()


def test_an_oversized_body_is_refused_declared_or_not(knowledge: Knowledge, serve: Serve) -> None:
    def pieces() -> Iterator[bytes]:
        yield b'{"question": "'
        for _ in range(100):
            yield b"x" * 1000
        yield b'"}'

    with serve(max_body_bytes=10_000, ready=False) as service:
        declared = service.http.post("/api/chat", json={"question": "x" * 20_000})
        assert declared.status_code == 413
        chunked = service.http.post(
            "/api/chat", content=pieces(), headers={"Content-Type": "application/json"}
        )
        assert chunked.status_code == 413
        assert chunked.json()["error"]["code"] == "request_too_large"
        assert service.ask()["answerable"] is False
