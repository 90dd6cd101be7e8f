"""Nearest neighbors by integer id: FAISS over L2-normalized vectors, so inner product is cosine.

Below `FLAT_LIMIT` vectors the search is exact. Above it an inverted file (IVF) is trained; how many lists
a search visits is raised until recall against the exact answer reaches `TARGET_RECALL` on a sample, and
what was measured is recorded. IVF rather than HNSW: parallel HNSW construction depends on thread timing,
and equal input must give equal bytes; IVF also gives exact answers for a filtered search.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from alchemy.errors import ContractBroken

Floats = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]

FLAT_LIMIT = 50_000
TARGET_RECALL = 0.98  # of the exact 10 nearest, X23
SAMPLE = 256  # vectors asked for when recall is measured
NOISE = 0.75  # length of the noise added to them: cosine 0.8, as far as a good passage is from its question
TRAINING_PER_LIST = 64  # FAISS wants 39 to 256 training vectors for each centroid
SEED = 1234


@dataclass(frozen=True, slots=True)
class DenseMetrics:
    """How the vectors are searched, and what that costs in recall and memory."""

    kind: str  # flat | ivf
    lists: int  # inverted lists, 0 for flat
    probes: int  # lists visited by one search
    recall_at_10: float  # against exact search, on SAMPLE vectors with noise
    megabytes: float  # upper bound of what a search keeps in memory


class Dense:
    """An immutable set of vectors 0..n-1."""

    def __init__(self, index: Any) -> None:
        self._index = index
        self.count: int = index.ntotal
        self.dimension: int = index.d

    @classmethod
    def build(
        cls,
        path: Path,
        vectors: Floats,
        *,
        flat_limit: int = FLAT_LIMIT,
        target_recall: float = TARGET_RECALL,
    ) -> DenseMetrics:
        """Writes the index of `vectors` [n, d] to `path`; equal vectors give equal bytes."""
        import faiss

        count, dimension = vectors.shape
        if count < flat_limit:
            index = faiss.IndexFlatIP(dimension)
            index.add(np.ascontiguousarray(vectors))
            faiss.write_index(index, str(path))
            return DenseMetrics("flat", 0, 0, 1.0, vectors.nbytes / 1e6)
        index = _train(vectors)
        index.add(np.ascontiguousarray(vectors))
        recall = _tune_probes(index, vectors, target_recall)
        faiss.write_index(index, str(path))
        megabytes = (vectors.nbytes + count * 16 + index.nlist * dimension * 4) / 1e6
        return DenseMetrics("ivf", index.nlist, index.nprobe, recall, megabytes)

    @classmethod
    def open(cls, path: Path) -> "Dense":
        """Maps an index file. Raises ContractBroken naming it when it is missing or damaged."""
        import faiss

        try:
            index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise ContractBroken(f"{path}: the vectors cannot be read: {reason}") from error
        if isinstance(index, faiss.IndexIVF):
            index.make_direct_map()  # so that the vector of an id can be looked up
        return cls(index)

    def search(self, vector: Floats, k: int, allowed: Ids | None = None) -> tuple[Ids, Floats]:
        """The k nearest passages (ids, cosines), best first, ties by id; exact among `allowed` if given."""
        import faiss

        k = min(k, self.count if allowed is None else len(allowed))
        if k == 0:
            return np.empty(0, np.int64), np.empty(0, np.float32)
        parameters: Any = None
        if allowed is not None:
            selector = faiss.IDSelectorBatch(allowed)
            if isinstance(self._index, faiss.IndexIVF):
                parameters = faiss.SearchParametersIVF()
                parameters.nprobe = self._index.nlist
            else:
                parameters = faiss.SearchParameters()
            parameters.sel = selector
        cosines, ids = self._index.search(vector.reshape(1, -1), k, params=parameters)
        found = ids[0] >= 0
        order = np.lexsort((ids[0][found], -cosines[0][found]))
        return ids[0][found][order], cosines[0][found][order]

    def cosines(self, vector: Floats, ids: Ids) -> Floats:
        """Cosine of the vector with each of the passages `ids`, [len(ids)]."""
        return self.vectors(ids) @ vector.reshape(-1)

    def vectors(self, ids: Ids) -> Floats:
        """The stored vectors of `ids`, [len(ids), d]."""
        if not len(ids):
            return np.empty((0, self.dimension), np.float32)
        return np.asarray(self._index.reconstruct_batch(np.ascontiguousarray(ids, np.int64)))


def _train(vectors: Floats) -> Any:
    import faiss

    count, dimension = vectors.shape
    lists = max(1, min(int(4 * count**0.5), count // 39))
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(dimension), dimension, lists, faiss.METRIC_INNER_PRODUCT)
    index.cp.seed = SEED
    index.cp.spherical = True
    sample = np.random.default_rng(SEED).permutation(count)[: lists * TRAINING_PER_LIST]
    index.train(np.ascontiguousarray(vectors[np.sort(sample)]))
    return index


def _tune_probes(index: Any, vectors: Floats, target: float) -> float:
    """Doubles `nprobe` until the target is met; returns the recall@10 that was measured."""
    count = len(vectors)
    asked = np.sort(np.random.default_rng(SEED + 1).permutation(count)[:SAMPLE])
    noise = np.random.default_rng(SEED + 2).normal(size=(len(asked), vectors.shape[1]))
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    queries = np.ascontiguousarray(vectors[asked] + NOISE * noise, np.float32)
    index.nprobe = index.nlist
    exact = index.search(queries, 10)[1]
    probes = 1
    while True:
        index.nprobe = min(probes, index.nlist)
        found = index.search(queries, 10)[1]
        hits = [len(np.intersect1d(a, b)) / len(a) for a, b in zip(exact, found, strict=True)]
        recall = float(np.mean(hits))
        if recall >= target or index.nprobe == index.nlist:
            return recall
        probes *= 2
