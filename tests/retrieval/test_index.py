import hashlib
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from alchemy.errors import BadInput, ContractBroken
from alchemy.records import Chunk
from alchemy.retrieval.dense import Dense
from alchemy.retrieval.index import Index, build_index
from tests.retrieval.conftest import HashEmbedder, make_chunk


def digests(folder: Path) -> dict[str, str]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in paths}


def test_the_same_input_gives_the_same_bytes_and_no_pickle(tmp_path: Path, chunks: list[Chunk]) -> None:
    for name in ("a", "b"):
        build_index(tmp_path / name, iter(chunks), {"git:a1": 0.5}, HashEmbedder())
    first = digests(tmp_path / "a")
    assert first == digests(tmp_path / "b")
    assert {Path(name).suffix for name in first} == {".faiss", ".json", ".npy", ".sqlite"}


def test_metrics_say_what_was_built(tmp_path: Path, chunks: list[Chunk]) -> None:
    seen: list[tuple[int, int]] = []
    metrics = build_index(tmp_path, chunks, {"git:a1": 0.5}, HashEmbedder(), lambda *x: seen.append(x))
    assert (metrics["chunks"], metrics["documents"], metrics["chunks_with_quant"]) == (9, 9, 1)
    assert (metrics["kind"], metrics["recall_at_10"], metrics["embedder"]) == ("flat", 1.0, "test/hash")
    assert seen[-1] == (9, 9)


def test_an_empty_corpus_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no chunk"):
        build_index(tmp_path, [], {}, HashEmbedder())


def test_two_chunks_with_one_id_are_refused(tmp_path: Path, chunks: list[Chunk]) -> None:
    with pytest.raises(BadInput, match=chunks[0].id):
        build_index(tmp_path, [chunks[0], chunks[1], chunks[0]], {}, HashEmbedder())


def test_chunks_are_found_by_id_and_by_document(tmp_path: Path) -> None:
    parts = [make_chunk("documents:h", f"part {n}", n) for n in range(3)]
    build_index(tmp_path, [make_chunk("git:x", "other"), *parts], {}, HashEmbedder())
    index = Index.open(tmp_path)
    assert index.count == 4
    assert index.chunk(parts[1].id) == parts[1]
    assert index.chunk("unknown") is None
    assert index.document_chunks("documents:h") == parts
    assert index.document_chunks("unknown") == []
    assert index.chunks([3, 0])[0] == parts[2]
    index.close()


@pytest.mark.parametrize("name", ["vectors.faiss", "quant.npy", "chunks.sqlite", "index.json"])
@pytest.mark.parametrize("damage", ["missing", "garbage"])
def test_a_damaged_file_is_named(folder: Path, name: str, damage: str) -> None:
    path = folder / name
    path.unlink() if damage == "missing" else path.write_bytes(b"not what it should be" * 9)
    with pytest.raises(ContractBroken, match=name):
        Index.open(folder)


def test_a_database_of_another_size_is_refused(folder: Path) -> None:
    with sqlite3.connect(folder / "chunks.sqlite") as database:
        database.execute("DELETE FROM chunks WHERE number = 8")
    database.close()
    with pytest.raises(ContractBroken, match=r"chunks\.sqlite"):
        Index.open(folder)


@pytest.fixture(scope="module")
def clustered() -> np.ndarray:
    random = np.random.default_rng(5)
    centers = random.normal(size=(40, 16))
    vectors = centers[random.integers(0, 40, 3000)] + 0.5 * random.normal(size=(3000, 16))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def test_many_vectors_get_lists_with_the_recall_that_was_asked_for(
    tmp_path: Path, clustered: np.ndarray
) -> None:
    metrics = Dense.build(tmp_path / "a", clustered, flat_limit=1000, target_recall=0.95)
    assert metrics.kind == "ivf"
    assert metrics.recall_at_10 >= 0.95
    assert metrics.probes < metrics.lists
    Dense.build(tmp_path / "b", clustered, flat_limit=1000, target_recall=0.95)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_vectors_that_their_codes_cannot_tell_apart_are_ordered_by_themselves(tmp_path: Path) -> None:
    random = np.random.default_rng(6)
    close = random.normal(size=(20, 16))[random.integers(0, 20, 2000)] + 0.02 * random.normal(size=(2000, 16))
    vectors = (close / np.linalg.norm(close, axis=1, keepdims=True)).astype(np.float32)
    metrics = Dense.build(tmp_path / "a", vectors, flat_limit=1000, target_recall=0.95)
    assert metrics.refined > 10
    assert metrics.recall_at_10 >= 0.95


def test_lists_without_exact_vectors_are_refused(tmp_path: Path) -> None:
    import faiss

    faiss.write_index(faiss.index_factory(16, "IVF8,SQ8"), str(tmp_path / "old.faiss"))
    with pytest.raises(ContractBroken, match=r"old\.faiss.*build the index again"):
        Dense.open(tmp_path / "old.faiss")


@pytest.mark.parametrize("flat_limit", [1000, 10_000])
def test_a_filtered_search_is_exact_in_both_kinds(
    tmp_path: Path, clustered: np.ndarray, flat_limit: int
) -> None:
    Dense.build(tmp_path / "a", clustered, flat_limit=flat_limit)
    dense = Dense.open(tmp_path / "a")
    allowed = np.arange(3, 3000, 97)
    ids, cosines = dense.search(clustered[0], 100, allowed)
    exact = clustered[allowed] @ clustered[0]
    assert ids.tolist() == allowed[np.argsort(-exact)].tolist()
    assert cosines == pytest.approx(np.sort(exact)[::-1], abs=1e-5)
    assert dense.cosines(clustered[0], ids) == pytest.approx(cosines, abs=1e-5)
    assert dense.search(clustered[7], 1)[0].tolist() == [7]
