"""The whole service on real parts: an index with real models, a real base model with an adapter."""

from pathlib import Path
from typing import Any

import orjson
import pytest

from alchemy.artifacts import Request
from alchemy.catalog import Catalog, load_catalog
from alchemy.release import RECORD, Release, promote, read_release_alias, release_line
from alchemy.retrieval.embed import Embedder
from alchemy.retrieval.fuse import SearchWeights
from alchemy.retrieval.index import build_index
from alchemy.settings import Settings
from serving.app import create_app
from serving.options import ServingOptions
from serving.wiring import Parts
from tests.serving.conftest import Knowledge, Service, eventually, make_chunk, running

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]

TEXTS = {
    "jira:HAUL-1": (
        "The Pip sensor sends its battery level every six hours. Below 15 percent it raises a low battery"
        " alert. The alert is closed by hand after the battery was changed."
    ),
    "jira:HAUL-2": (
        "A failed delivery is retried three times with a pause of two seconds."
        " After the third failure the gateway raises GW-503."
    ),
    "confluence:9": "Every employee has thirty days of vacation each year. Days left over end in March.",
    "confluence:10": "青岛仓库的温度阈值是八度。超过阈值时值班人员会收到短信。",
}


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return load_catalog(ROOT / "models.yaml")


def release(
    knowledge: Knowledge, catalog: Catalog, changes: dict[str, str], adapter: bool, serve: bool = True
) -> str:
    """Publishes an index of TEXTS with some changes, and an untrained adapter; the champion if `serve`."""
    models = ROOT / "data" / "models"

    def index(folder: Path) -> dict[str, Any]:
        chunks = [
            make_chunk(text, document=name, start=0, header=name, source=name.partition(":")[0])
            for name, text in (TEXTS | changes).items()
        ]
        return build_index(folder, chunks, {}, Embedder(catalog.model_b, models))

    def lora(folder: Path) -> dict[str, Any]:
        from peft import LoraConfig, get_peft_model

        from alchemy.training.base import load_base, quiet_peft

        base = load_base(catalog.model_c.model_id, "cpu", models)
        config = LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM", init_lora_weights=False)
        with quiet_peft():
            get_peft_model(base.model, config).save_pretrained(str(folder), save_embedding_layers=False)
        path = folder / "adapter_config.json"
        row = orjson.loads(path.read_bytes()) | {"base_model_name_or_path": catalog.model_c.model_id}
        path.write_bytes(orjson.dumps(row))
        (folder / "README.md").unlink(missing_ok=True)
        return {}

    make = knowledge.artifacts.materialize
    version = make(Request("faiss_index", changes, "test"), index).artifact.version
    adapters = {}
    if adapter:
        adapters["lora_adapter"] = make(Request("lora_adapter", {}, "test"), lora).artifact.version
    record = Release(
        index=version,
        adapters=adapters,
        base_model=catalog.model_c.model_id,
        embedder=catalog.model_b.model_id,
        reranker=catalog.reranker.model_id,
        weights=SearchWeights(abstain_below=0.3),
        prompts="",
        evaluation="",
    )

    def build(folder: Path) -> dict[str, Any]:
        (folder / RECORD).write_bytes(release_line(record))
        return {}

    made = make(Request("release", {"faiss_index": version}, "test"), build).artifact.version
    if serve:
        promote(knowledge.artifacts, made, expected=read_release_alias(knowledge.artifacts, "champion"))
    return made


def test_a_released_index_answers_and_a_new_release_takes_over(
    knowledge: Knowledge, catalog: Catalog, tmp_path: Path
) -> None:
    first = release(knowledge, catalog, {}, adapter=True)
    settings = Settings(
        store=str(tmp_path / "store"),
        cache=tmp_path / "cache",
        models=ROOT / "data" / "models",
        redis_url="redis://127.0.0.1:1/0",
    )
    options = ServingOptions(follow_s=0.2, intuition_tokens=6, intuition_grace_s=30, search_s=30)
    with running(create_app(settings, catalog, Parts(knowledge.artifacts, options=options))) as service:
        eventually(lambda: service.http.get("/readyz").status_code == 200, 120)
        assert service.http.get("/readyz").json()["problems"].keys() == {"history"}
        _answers(service, first)
        _takes_documents(service)
        second = release(
            knowledge, catalog, {"jira:HAUL-2": "A failed delivery is retried nine times."}, True
        )
        eventually(lambda: service.http.get("/readyz").json()["release"] == second, 60)
        answer = service.ask("How often is a failed delivery retried?")
        assert "nine times" in answer["answer"]
        assert "intuition" not in answer["degraded"]
        eventually(lambda: "releases_held 1.0" in service.metrics())


def _takes_documents(service: Service) -> None:
    """With the release's own embedder, which finds what is said in other words."""
    for text in ("Vacation is thirty days a year.", "The gateway calls three more times before it gives up."):
        assert service.http.post("/ingest", json={"text": text, "strategy": "dense"}).status_code == 200
    body = {"query": "How many retries does the gateway make?"}
    best, other = service.http.post("/query", json=body).json()["sources"]
    assert best["text"].startswith("The gateway calls")
    assert best["score"] > 0.4 > other["score"]


def test_an_engine_that_fails_while_it_serves_is_named_and_answers_go_on_without_it(
    knowledge: Knowledge, catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release(knowledge, catalog, {}, adapter=True)
    settings = Settings(
        store=str(tmp_path / "store"), cache=tmp_path / "cache", models=ROOT / "data" / "models",
        redis_url="redis://127.0.0.1:1/0",
    )  # fmt: skip
    options = ServingOptions(follow_s=0.2, intuition_tokens=6, intuition_grace_s=30, search_s=30)
    with running(create_app(settings, catalog, Parts(knowledge.artifacts, options=options))) as service:
        eventually(lambda: service.http.get("/readyz").status_code == 200, 120)
        (voice,) = service.app.state.services.follower.current.adapters.values()
        decoder = voice._engine.model._decoder

        def fail(*_: object) -> None:
            raise RuntimeError("CUDA error")

        monkeypatch.setattr(decoder, "step", fail)
        monkeypatch.setattr(decoder.slots, "release", fail)
        for _ in range(2):
            answer = service.ask("How often is a failed delivery retried?")
            assert (answer["answerable"], answer["intuition"]) == (True, None)
            assert "intuition" in answer["degraded"]
        ready = service.http.get("/readyz")
        assert ready.status_code == 200
        assert "restart the service" in ready.json()["problems"]["engine"]
        eventually(lambda: 'alchemy_problem{part="engine"} 1.0' in service.metrics())


def _answers(service: Service, release_id: str) -> None:
    answer = service.ask("How often is a failed delivery retried?")
    assert answer["release"] == release_id
    assert answer["citations"][0]["quote"].startswith("A failed delivery is retried three times")
    assert answer["degraded"] == ["history"]
    assert answer["intuition"]["adapter"] == "lora_adapter"
    vacation = service.ask(
        "How many days of vacation does an employee have?", filters={"sources": ["confluence"]}
    )
    assert vacation["citations"][0]["document_id"] == "confluence:9"
    chinese = service.ask("青岛仓库的温度阈值是多少？")
    assert "“青岛仓库的温度阈值是八度。" in chinese["answer"]
    declined = service.ask("Who won the football world cup in 1954?")
    assert (declined["answerable"], declined["citations"]) == (False, [])
    body = {"messages": [{"role": "user", "content": "When is a low battery alert raised?"}]}
    completion = service.http.post("/v1/chat/completions", json=body).raise_for_status().json()
    assert "15 percent" in completion["choices"][0]["message"]["content"]
    assert completion["usage"]["counted_by"] == "HuggingFaceTB/SmolLM2-135M-Instruct"
