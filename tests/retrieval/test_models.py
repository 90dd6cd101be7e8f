"""The packaged embedder and reranker, and the whole search with them."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from alchemy.catalog import EmbeddingModel, LocalModel
from alchemy.retrieval.embed import Embedder
from alchemy.retrieval.fuse import SearchWeights
from alchemy.retrieval.index import Index, build_index
from alchemy.retrieval.reading import Reading
from alchemy.retrieval.rerank import Reranker
from alchemy.retrieval.search import Searcher
from alchemy.settings import SearchOptions, load_settings
from tests.retrieval.conftest import TEXTS, make_chunk

pytestmark = [
    pytest.mark.integration,
    # torch's SWIG types and huggingface_hub warn on import; neither is ours to mend.
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    return Embedder(EmbeddingModel(model_id="sentence-transformers/all-MiniLM-L6-v2"), load_settings().models)


@pytest.fixture(scope="module")
def reranker() -> Reranker:
    return Reranker(LocalModel(model_id="cross-encoder/ms-marco-MiniLM-L-12-v2"), load_settings().models)


def test_vectors_are_normalized_and_do_not_depend_on_their_neighbors(embedder: Embedder) -> None:
    texts = [text for _, _, text in TEXTS.values()]
    together = embedder.embed_passages(texts)
    assert together.shape == (len(texts), embedder.dimension)
    assert together.dtype == np.float32
    assert np.linalg.norm(together, axis=1) == pytest.approx(1.0, abs=1e-5)
    alone = np.stack([embedder.embed_passages([text])[0] for text in texts])
    assert (together * alone).sum(axis=1).min() > 0.999
    assert np.array_equal(together, embedder.embed_passages(texts))


def test_prompts_of_the_catalog_are_put_in_front() -> None:
    entry = EmbeddingModel(model_id="x", query_prompt="query: ", passage_prompt="passage: ")
    embedder, seen = Embedder(entry, Path()), []

    def encode(texts: list[str]) -> np.ndarray:
        seen.extend(texts)
        return np.ones((len(texts), 2), np.float32)

    embedder.__dict__["_backend"] = SimpleNamespace(dimension=2, encode=encode)
    embedder.embed_queries(["a"])
    embedder.embed_passages(["b"])
    assert seen == ["query: a", "passage: b"]


def test_an_english_model_says_that_it_reads_no_chinese(embedder: Embedder, reranker: Reranker) -> None:
    for model in (embedder, reranker):
        assert model.reads("Why does the gateway go offline in HAUL-158?") == 1
        assert model.reads("网关离线以后数据会丢失吗？") < 0.1
        assert 0.2 < model.reads("gateway 网关离线告警") < 0.8
        assert model.reads("Почему шлюз не отвечает") < 0.5
        assert model.reads("42?") == 1


def test_a_vocabulary_of_another_script_reads_it() -> None:
    class Characters:
        def token_to_id(self, token: str) -> int | None:
            return 0 if token == "<unk>" else None

        def encode(self, text: str, add_special_tokens: bool) -> SimpleNamespace:
            return SimpleNamespace(ids=[ord(character) for character in text])

    assert Reading(Characters()).share("网关离线 データ 가나다") == 1


def test_reranker_scores_do_not_depend_on_the_other_passages(reranker: Reranker) -> None:
    passages = [text for _, _, text in TEXTS.values()]
    scores = reranker.score("How much is a week on call paid?", passages)
    assert list(TEXTS)[int(scores.argmax())] == "confluence:3"
    assert scores[2] == reranker.score("How much is a week on call paid?", [passages[2]])[0]
    assert reranker.score("anything", []).shape == (0,)


def test_search_with_real_models_answers_declines_and_is_reproducible(
    tmp_path: Path, embedder: Embedder, reranker: Reranker
) -> None:
    chunks = [make_chunk(key, text, 0, source, project) for key, (source, project, text) in TEXTS.items()]
    for name in ("a", "b"):
        build_index(tmp_path / name, chunks, {}, embedder)
        index_bytes = (tmp_path / name / "vectors.faiss").read_bytes()
    assert index_bytes == (tmp_path / "a" / "vectors.faiss").read_bytes()
    index = Index.open(tmp_path / "a")
    searcher = Searcher(index, embedder, reranker, SearchWeights())
    options = SearchOptions(candidates=9, rerank=5, top_k=3)
    expected = {
        "How much is a week on call paid?": "confluence:3",
        "疫苗的温度范围是多少？": "confluence:2",
        "How tight should the screws of a Lantern 2 be?": "documents:h",
    }
    for query, document in expected.items():
        result = searcher.search(query, options)
        assert result.passages[0].chunk.document_id == document
        assert result.answerable
    for query in (
        "Who won the chess championship?",
        "仓库火灾时从哪个出口疏散？",
        "What is the meaning of HM-6120?",
    ):
        assert not searcher.search(query, options).answerable
    searcher.close()
    index.close()
