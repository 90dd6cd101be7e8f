"""Collections in Qdrant: in memory, in a folder, and on a server that is not there."""

import json
import threading
import traceback
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qdrant_client import QdrantClient, models
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from alchemy.errors import Conflict, NotFound, Unavailable
from alchemy.rag.hashing import hashed
from alchemy.rag.scoring import hybrid, sparse_share
from alchemy.rag.vector_store import Point, Shape, Strategy, VectorStore, collection_name
from tests.ports import free_ports

TEXTS = (
    "the gateway retries three times",
    "invoices are sent on monday",
    "gateway invoices",
    "网关会重试三次",
)
HYBRID = Shape.of("hybrid", "e", 4)


def unit(seed: int) -> np.ndarray:
    vector = np.random.default_rng(seed).normal(size=4).astype(np.float32)
    return vector / np.linalg.norm(vector)


def points(texts: Sequence[str], strategy: Strategy = "hybrid", **metadata: Any) -> list[Point]:
    return [
        Point(
            text,
            metadata,
            None if strategy == "sparse" else unit(number),
            None if strategy == "dense" else hashed(text),
        )
        for number, text in enumerate(texts)
    ]


@pytest.fixture
def store() -> VectorStore:
    return VectorStore.connect(":memory:", None, 5)


def filled(store: VectorStore, strategy: Strategy = "hybrid", texts: Sequence[str] = TEXTS) -> Shape:
    shape = Shape.of(strategy) if strategy == "sparse" else Shape.of(strategy, "e", 4)
    store.make("c", shape)
    store.replace("c", "d", points(texts, strategy))
    return shape


def found(store: VectorStore, shape: Shape, question: str, k: int = 10) -> list[tuple[str, float]]:
    dense = None if shape.strategy == "sparse" else unit(0)
    sparse = None if shape.strategy == "dense" else hashed(question)
    return [(hit.text, hit.score) for hit in store.search("c", shape, dense, sparse, k)]


def stored(store: VectorStore, document: str = "d") -> list[str]:
    """The texts of a document in their order, as they lie in the database."""
    rows, _ = store._client.scroll("c", limit=1000)
    mine = [row.payload for row in rows if row.payload["document_id"] == document]
    return [row["text"] for row in sorted(mine, key=lambda row: (row["total_chunks"], row["chunk_index"]))]


def test_a_chunk_comes_back_with_its_place_and_metadata_which_cannot_take_its_names(
    store: VectorStore,
) -> None:
    store.make("c", HYBRID)
    store.replace("c", "d", points(TEXTS[:2], title="Manual", text="no", document_id="no", chunk_index=9))
    hit = store.search("c", HYBRID, unit(1), hashed("invoices"), 1)[0]
    assert (hit.text, hit.document_id, hit.chunk_index, hit.total_chunks) == (TEXTS[1], "d", 1, 2)
    assert hit.metadata == {"title": "Manual"}
    assert uuid.UUID(hit.id).version == 5


def test_dense_scores_are_cosines_in_their_order(store: VectorStore) -> None:
    shape = filled(store, "dense")
    cosines = {text: float(unit(0) @ unit(n)) for n, text in enumerate(TEXTS)}
    got = found(store, shape, "ignored")
    assert [text for text, _ in got] == sorted(cosines, key=lambda text: -cosines[text])
    assert dict(got) == pytest.approx(cosines, abs=1e-6)
    assert len(found(store, shape, "ignored", 2)) == 2


def test_sparse_scores_are_shares_that_rare_words_make_large(store: VectorStore) -> None:
    shape = filled(store, "sparse")
    got = dict(found(store, shape, "monday gateway"))
    assert set(got) == set(TEXTS[:3])  # what holds no word is not found
    assert 1 > got[TEXTS[1]] > got[TEXTS[0]] == pytest.approx(got[TEXTS[2]])
    assert dict(found(store, shape, "monday"))[TEXTS[1]] == pytest.approx(1.0)
    assert dict(found(store, shape, "网关 重试"))[TEXTS[3]] > 0.5
    assert found(store, shape, "of the and") == []


def test_hybrid_scores_weigh_both_vectors_of_every_chunk(
    store: VectorStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also those of a chunk that only one of the vectors found among its best."""
    monkeypatch.setattr("alchemy.rag.vector_store._CANDIDATES", 1)
    question = "invoices monday three"  # by words the second chunk is best, by vectors the first
    by_words = VectorStore.connect(":memory:", None, 5)
    shares = dict(found(by_words, filled(by_words, "sparse"), question))
    assert shares[TEXTS[1]] > shares[TEXTS[0]] > 0
    best = pytest.approx(hybrid(1.0, shares[TEXTS[0]]), abs=1e-6)
    assert found(store, filled(store), question, 1) == [(TEXTS[0], best)]


def test_sparse_shares_follow_qdrants_inverse_frequencies(store: VectorStore) -> None:
    """The formula's largest inverse frequency is Qdrant's own, for a word that one chunk holds."""
    shape = filled(store, "sparse")
    (answer,) = store._client.query_batch_points(
        "c",
        [
            models.QueryRequest(
                query=models.SparseVector(indices=hashed("monday").indices, values=hashed("monday").values),
                using="sparse",
            )
        ],
    )
    assert sparse_share(answer.points[0].score, hashed("monday"), len(TEXTS)) == pytest.approx(1.0)
    assert shape == Shape.of("sparse")


def test_equal_scores_come_in_the_order_of_documents_and_places(store: VectorStore) -> None:
    store.make("c", Shape.of("sparse"))
    for document in ("b", "a"):
        store.replace("c", document, points(["same words"] * 3, "sparse"))
    hits = store.search("c", Shape.of("sparse"), None, hashed("same words"), 10)
    assert [(hit.document_id, hit.chunk_index) for hit in hits] == [
        (document, place) for document in "ab" for place in range(3)
    ]


def test_a_document_that_became_shorter_leaves_nothing_behind_and_others_alone(store: VectorStore) -> None:
    filled(store)
    store.replace("c", "other", points(TEXTS[:1]))
    store.replace("c", "d", points(["one chunk now"]))
    assert stored(store) == ["one chunk now"]
    assert stored(store, "other") == [TEXTS[0]]
    store.replace("c", "d", points(["one chunk now"]))  # once more
    assert stored(store) == ["one chunk now"]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.sampled_from("abcd"), min_size=1, max_size=6), min_size=1, max_size=5))
def test_a_document_is_always_what_was_stored_last(versions: list[list[str]]) -> None:
    store = VectorStore.connect(":memory:", None, 5)
    store.make("c", Shape.of("sparse"))
    for texts in versions:
        store.replace("c", "d", points(texts, "sparse"))
    assert stored(store) == versions[-1]


@pytest.mark.parametrize("dies_in", ["upsert", "delete"])
def test_whoever_dies_between_the_writes_loses_no_document(
    store: VectorStore, monkeypatch: pytest.MonkeyPatch, dies_in: str
) -> None:
    filled(store)

    def die(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("alchemy.rag.vector_store._BATCH", 1)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(store._client, dies_in, die)
        store.replace("c", "d", points(["new one", "new two"]))
    assert set(stored(store)) >= set(TEXTS)
    store.replace("c", "d", points(["new one", "new two"]))
    assert stored(store) == ["new one", "new two"]


def test_of_two_writers_at_once_neither_deletes_the_others_document(
    store: VectorStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process writes the same document just after this one looked what is there."""
    filled(store)
    upsert: Callable[..., Any] = store._client.upsert
    other = VectorStore(store._client, embedded=True)

    def meanwhile(*args: Any, **options: Any) -> Any:
        monkeypatch.setattr(store._client, "upsert", upsert)
        other.replace("c", "d", points(["theirs"]))
        return upsert(*args, **options)

    monkeypatch.setattr(store._client, "upsert", meanwhile)
    store.replace("c", "d", points(["ours"]))
    assert {"theirs", "ours"} == set(stored(store))


@pytest.mark.parametrize(
    "other",
    [
        Shape.of("dense", "e", 4),
        Shape.of("sparse"),
        Shape.of("hybrid", "another", 4),
        Shape.of("hybrid", "e", 5),
        Shape("hybrid", "e", 4, 0),
    ],
)
def test_what_does_not_compare_is_refused_instead_of_scored(store: VectorStore, other: Shape) -> None:
    filled(store)
    assert store.shape("c") == HYBRID
    with pytest.raises(Conflict, match="do not compare"):
        store.make("c", other)
    with pytest.raises(Conflict, match="hybrid vectors of 4 numbers by e"):
        store.search("c", other, unit(0), hashed("x"), 1)


def test_a_collection_that_is_not_there_or_not_ours_is_named_so(store: VectorStore) -> None:
    with pytest.raises(NotFound):
        store.shape("c")
    with pytest.raises(NotFound):
        store.search("c", HYBRID, unit(0), None, 1)
    params = models.VectorParams(size=4, distance=models.Distance.DOT)
    store._client.create_collection("theirs", vectors_config=params)
    with pytest.raises(Conflict, match="not made by this service"):
        store.make("theirs", HYBRID)


@pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <_io.FileIO:pytest.PytestUnraisableExceptionWarning"
)
def test_a_folder_keeps_its_collections_and_is_of_one_owner(tmp_path: Path) -> None:
    store = VectorStore.embedded(tmp_path / "qdrant")
    shape = filled(store)
    before = dict(found(store, shape, "gateway"))
    with pytest.raises(Unavailable, match="QDRANT_URL"):
        VectorStore.embedded(tmp_path / "qdrant")
    store.close()
    again = VectorStore.embedded(tmp_path / "qdrant")
    assert again.shape("c") == shape
    assert dict(found(again, shape, "gateway")) == pytest.approx(before, abs=1e-6)
    again.close()


def test_a_server_that_is_not_there_is_named_by_its_setting() -> None:
    store = VectorStore.connect(f"http://127.0.0.1:{free_ports(1)[0]}", None, 1)
    for ask in (
        lambda: store.shape("c"),
        lambda: store.make("c", HYBRID),
        lambda: store.replace("c", "d", points(["x"])),
        lambda: store.search("c", HYBRID, unit(0), None, 1),
    ):
        with pytest.raises(Unavailable, match="QDRANT_URL"):
            ask()
    store.close()


NAMES = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,62}", fullmatch=True)
TENANTS = st.from_regex(r"[a-z0-9][a-z0-9._@+-]{0,63}", fullmatch=True)


@settings(max_examples=40, deadline=None)
@given(st.sets(TENANTS, min_size=2, max_size=3), st.sets(NAMES, min_size=2, max_size=3))
def test_no_choice_of_names_lets_two_tenants_meet(tenants: set[str], names: set[str]) -> None:
    made = [collection_name(tenant, name) for tenant in tenants for name in names]
    assert len(set(made)) == len(tenants) * len(names)
    assert max(map(len, made)) < 255
    qdrant = QdrantClient(":memory:")
    for name in made:  # Qdrant takes them
        qdrant.create_collection(name, vectors_config={})


@pytest.mark.parametrize(
    ("error", "says", "after"),
    [
        (UnexpectedResponse(401, "no", b"sk-secret", httpx.Headers()), "status 401", None),
        (ResponseHandlingException(httpx.LocalProtocolError("sk-secret")), "LocalProtocolError", None),
        (ResourceExhaustedResponse("sk-secret", 7), "status 429", 7.0),
        (json.JSONDecodeError("sk-secret", "<html>", 0), "JSONDecodeError", None),
        (RuntimeError("sk-secret"), "RuntimeError", None),
    ],
)
def test_whatever_goes_wrong_is_told_by_its_kind_alone(
    store: VectorStore, monkeypatch: pytest.MonkeyPatch, error: Exception, says: str, after: float | None
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(store._client, "collection_exists", fail)
    with pytest.raises(Unavailable) as raised:
        store.shape("c")
    assert says in str(raised.value) and "QDRANT_URL" in str(raised.value)
    assert raised.value.retry_after_s == after
    assert "sk-secret" not in "".join(traceback.format_exception(raised.value))


def test_a_store_that_is_closed_writes_no_further_batch(
    store: VectorStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("alchemy.rag.vector_store._BATCH", 1)
    filled(store)
    begun, closing, batches = threading.Event(), threading.Event(), []
    set_closing = store._closing.set

    def told() -> None:
        set_closing()
        closing.set()

    def upsert(*_: object, **__: object) -> None:
        batches.append(1)
        begun.set()
        assert closing.wait(60)

    monkeypatch.setattr(store._client, "upsert", upsert)
    monkeypatch.setattr(store._closing, "set", told)
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(store.replace, "c", "d", points(TEXTS[:3]))
        assert begun.wait(60)
        store.close()
        with pytest.raises(Unavailable, match="stopping"):
            writing.result(60)
    assert len(batches) == 1
