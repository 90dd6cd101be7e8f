"""One contract for all that search vectors: FAISS flat and in lists, and the databases' copies."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pydantic import SecretStr, ValidationError
from qdrant_client import QdrantClient

from alchemy.errors import ContractBroken, Unavailable
from alchemy.records import Chunk
from alchemy.retrieval.backends import VectorBackend, collection_name, copy_vectors, open_vectors
from alchemy.retrieval.dense import Dense
from alchemy.retrieval.fuse import SearchWeights
from alchemy.retrieval.index import Index
from alchemy.retrieval.qdrant import Qdrant
from alchemy.retrieval.search import Searcher
from alchemy.settings import SearchOptions, VectorOptions
from tests.ports import free_ports
from tests.retrieval.conftest import HashEmbedder, OverlapReranker
from tests.retrieval.weaviate_server import WeaviateServer

# Qdrant's client in memory is exact whatever it is asked for, and says so.
pytestmark = pytest.mark.filterwarnings("ignore:Local mode performs exact")

COUNT, DIMENSION = 1200, 16
IN_MEMORY = VectorOptions(backend="qdrant", url=":memory:")


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    """Unit vectors in clusters; 700 and 900 are the same, and so are 5, 6 and 7."""
    random = np.random.default_rng(11)
    centers = random.normal(size=(20, DIMENSION))
    made = centers[random.integers(0, 20, COUNT)] + 0.5 * random.normal(size=(COUNT, DIMENSION))
    made /= np.linalg.norm(made, axis=1, keepdims=True)
    made[900], made[[6, 7]] = made[700], made[5]
    return made.astype(np.float32)


@pytest.fixture(scope="module")
def weaviate() -> Iterator[WeaviateServer]:
    server = WeaviateServer()
    yield server
    server.close()


def reached(server: WeaviateServer) -> VectorOptions:
    url = f"http://127.0.0.1:{server.port}"
    return VectorOptions(backend="weaviate", url=url, grpc_port=server.grpc_port, api_key=SecretStr("secret"))


@pytest.fixture(scope="module", params=["flat", "lists", "qdrant", "weaviate"])
def backend(
    request: pytest.FixtureRequest,
    vectors: np.ndarray,
    weaviate: WeaviateServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[VectorBackend]:
    path = tmp_path_factory.mktemp(request.param) / "vectors.faiss"
    Dense.build(path, vectors, flat_limit=100 if request.param == "lists" else COUNT + 1, target_recall=1.0)
    options = {"qdrant": IN_MEMORY, "weaviate": reached(weaviate)}
    opened = open_vectors(path, options.get(request.param, VectorOptions()))
    yield opened
    opened.close()


def exact(vectors: np.ndarray, query: np.ndarray, allowed: np.ndarray) -> list[int]:
    cosines = vectors[allowed] @ query
    return allowed[np.lexsort((allowed, -cosines))].tolist()


def test_every_vector_is_there(backend: VectorBackend) -> None:
    assert backend.count == COUNT


def test_the_nearest_are_those_of_an_exact_search_with_their_cosines(
    backend: VectorBackend, vectors: np.ndarray
) -> None:
    for query in vectors[100:120]:
        ids, cosines = backend.search(query, 10)
        assert ids.tolist() == exact(vectors, query, np.arange(COUNT))[:10]
        assert cosines == pytest.approx(vectors[ids] @ query, abs=1e-5)


def test_equal_vectors_come_in_the_order_of_their_ids(backend: VectorBackend, vectors: np.ndarray) -> None:
    assert backend.search(vectors[7], 3)[0].tolist() == [5, 6, 7]
    assert backend.search(vectors[900], 2)[0].tolist() == [700, 900]


@pytest.mark.parametrize("step", [1, 7, 400])
def test_a_filtered_search_returns_all_that_is_allowed_in_exact_order(
    backend: VectorBackend, vectors: np.ndarray, step: int
) -> None:
    allowed = np.arange(3, COUNT, step)
    ids, cosines = backend.search(vectors[0], COUNT, allowed)
    assert ids.tolist() == exact(vectors, vectors[0], allowed)
    assert cosines == pytest.approx(vectors[ids] @ vectors[0], abs=1e-5)


def test_nothing_allowed_or_asked_for_finds_nothing(backend: VectorBackend, vectors: np.ndarray) -> None:
    assert backend.search(vectors[0], 5, np.empty(0, np.int64))[0].tolist() == []
    assert backend.search(vectors[0], 0)[0].tolist() == []
    assert backend.cosines(vectors[0], np.empty(0, np.int64)).tolist() == []


def test_cosines_come_in_the_order_they_were_asked_for(backend: VectorBackend, vectors: np.ndarray) -> None:
    ids = np.array([900, 3, 700, 41, 1199])
    assert backend.cosines(vectors[8], ids) == pytest.approx(vectors[ids] @ vectors[8], abs=1e-5)


def test_a_search_ends_the_same_with_a_database(
    folder: Path, chunks: list[Chunk], searcher: Searcher
) -> None:
    index = Index.open(folder, IN_MEMORY)
    other = Searcher(index, HashEmbedder(), OverlapReranker(), SearchWeights())
    options = SearchOptions(candidates=3, rerank=2, top_k=3)
    for query in ("font cache", "TIKA-4833", "网关离线"):
        first, second = searcher.search(query, options), other.search(query, options)
        assert [p.chunk.id for p in first.passages] == [p.chunk.id for p in second.passages]
        assert [p.score for p in first.passages] == pytest.approx([p.score for p in second.passages])
    other.close()
    index.close()


@pytest.fixture
def dense(vectors: np.ndarray, tmp_path: Path) -> Dense:
    Dense.build(tmp_path / "vectors.faiss", vectors)
    return Dense.open(tmp_path / "vectors.faiss")


@pytest.fixture
def collection() -> Qdrant:
    return Qdrant.of(QdrantClient(":memory:"), "copy", DIMENSION)


def test_a_copy_that_was_cut_short_is_completed(
    dense: Dense, collection: Qdrant, vectors: np.ndarray
) -> None:
    collection.add(0, vectors[:500])
    copy_vectors(dense, collection)
    assert collection.count == COUNT
    assert collection.search(vectors[COUNT - 1], 1)[0].tolist() == [COUNT - 1]


def test_a_complete_copy_is_not_written_again(dense: Dense, collection: Qdrant, vectors: np.ndarray) -> None:
    copy_vectors(dense, collection)
    collection.add(3, vectors[[8]])  # would be gone if all were written once more
    copy_vectors(dense, collection)
    assert collection.cosines(vectors[8], np.array([3])) == pytest.approx(1.0, abs=1e-5)


def test_a_copy_with_more_vectors_is_refused(dense: Dense, collection: Qdrant, vectors: np.ndarray) -> None:
    collection.add(0, np.concatenate([vectors, vectors[:1]]))
    with pytest.raises(ContractBroken, match="1200 vectors in the database has 1201"):
        copy_vectors(dense, collection)


def test_other_vectors_have_another_collection(tmp_path: Path, vectors: np.ndarray) -> None:
    for name, rows in (("a", vectors), ("b", vectors), ("c", vectors[::-1])):
        Dense.build(tmp_path / name, rows)
    first, again, other = (collection_name(tmp_path / name) for name in "abc")
    assert first == again
    assert first != other


@pytest.mark.parametrize("name", ["Qdrant", "Weaviate"])
def test_a_database_that_is_gone_is_unavailable(dense: Dense, tmp_path: Path, name: str) -> None:
    (port,) = free_ports(1)
    url = f"https://127.0.0.1:{port}"
    gone = VectorOptions.model_validate({"backend": name.lower(), "url": url, "api_key": "hidden"})
    with pytest.raises(Unavailable, match=f"{name} does not answer") as error:
        open_vectors(tmp_path / "vectors.faiss", gone)
    assert "hidden" not in str(error.value)


def test_weaviate_is_asked_for_exact_filtered_searches_with_the_key(
    dense: Dense, tmp_path: Path, weaviate: WeaviateServer
) -> None:
    open_vectors(tmp_path / "vectors.faiss", reached(weaviate)).close()
    (schema,) = weaviate.schemas.values()
    index = schema["vectorConfig"]["default"]["vectorIndexConfig"]
    assert index["distance"] == "dot"
    assert index["flatSearchCutoff"] > 10**9
    assert weaviate.keys == {"Bearer secret"}


def test_a_database_needs_an_address() -> None:
    with pytest.raises(ValidationError, match="backend qdrant needs a url"):
        VectorOptions(backend="qdrant")
