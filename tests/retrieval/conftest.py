"""A small corpus, and embedder and reranker objects that need no weights."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alchemy.records import Chunk, fingerprint
from alchemy.retrieval.fuse import SearchWeights
from alchemy.retrieval.index import Index, build_index
from alchemy.retrieval.lexical import tokenize
from alchemy.retrieval.search import Searcher

TEXTS = {
    "jira:TIKA-4833": ("jira", "TIKA", "TIKA-4833 NullPointerException when a font is missing"),
    "jira:TIKA-4834": ("jira", "TIKA", "TIKA-4834 follows TIKA-4833: the font cache in foo_bar grows"),
    "jira:KAFKA-1": ("jira", "KAFKA", "KAFKA-1 the broker loses its font cache after a restart"),
    "git:a1": ("git", "TIKA", "Release 2.7.11 fixes org.apache.tika.Parser for missing fonts"),
    "git:a2": ("git", "KAFKA", "Brokers restart faster with a smaller log"),
    "confluence:1": ("confluence", "OPS", "网关离线以后最多可以保存 21 天的数据"),
    "confluence:2": ("confluence", "OPS", "青岛冷库里疫苗的温度范围是 2 到 8 度"),
    "confluence:3": ("confluence", "OPS", "A week on call is paid with EUR 420 since 14 July 2026"),
    "documents:h": ("documents", "OPS", "Tighten the four screws of a Lantern 2 to 4.5 newton metres"),
}


def make_chunk(
    document_id: str, text: str, index: int = 0, source: str = "jira", project: str = "P", **changes: Any
) -> Chunk:
    made = Chunk(
        id=fingerprint(document_id, index, text),
        document_id=document_id,
        document_version="1",
        chunk_index=index,
        total_chunks=1,
        start=0,
        end=len(text),
        text=text,
        header=f"{source} {project}",
        tokens=len(text.split()),
        source=source,
        kind="page",
        project=project,
        title="",
        section="",
        url="",
        raw_key="raw/x",
        raw_sha256="0" * 64,
        locator="",
    )
    return replace(made, **changes)


class HashEmbedder:
    """Each term is a fixed random direction: texts that share terms are near. Reads everything."""

    model_id = "test/hash"
    dimension = 64

    def embed_passages(
        self, texts: Sequence[str], progress: Callable[[int, int], None] | None = None
    ) -> np.ndarray:
        vectors = np.stack([self._vector(text) for text in texts])
        if progress:
            progress(len(texts), len(texts))
        return vectors

    def embed_queries(self, texts: Sequence[str]) -> np.ndarray:
        return self.embed_passages(texts)

    def reads(self, text: str) -> float:
        return 1.0

    def _vector(self, text: str) -> np.ndarray:
        seeds = [int.from_bytes(hashlib.sha256(t.encode()).digest()[:8]) for t in tokenize(text)] or [0]
        total = sum(np.random.default_rng(seed).normal(size=self.dimension) for seed in seeds)
        return (total / np.linalg.norm(total)).astype(np.float32)


class OverlapReranker:
    """A logit that grows with the share of the query's terms in the passage."""

    model_id = "test/overlap"

    def __init__(self) -> None:
        self.asked: list[int] = []

    def score(self, query: str, passages: Sequence[str]) -> np.ndarray:
        self.asked.append(len(passages))
        wanted = set(tokenize(query))
        shares = [len(wanted & set(tokenize(p))) / max(len(wanted), 1) for p in passages]
        return np.array([8 * share - 4 for share in shares], np.float32)

    def reads(self, text: str) -> float:
        return 1.0


@pytest.fixture
def chunks() -> list[Chunk]:
    return [make_chunk(key, text, 0, source, project) for key, (source, project, text) in TEXTS.items()]


@pytest.fixture
def folder(tmp_path: Path, chunks: list[Chunk]) -> Path:
    build_index(tmp_path / "index", chunks, {"git:a1": 0.9, "jira:KAFKA-1": 0.1}, HashEmbedder())
    return tmp_path / "index"


@pytest.fixture
def searcher(folder: Path):
    index = Index.open(folder)
    searcher = Searcher(index, HashEmbedder(), OverlapReranker(), SearchWeights())
    yield searcher
    searcher.close()
    index.close()
