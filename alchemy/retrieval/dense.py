"""Nearest neighbors by integer id: FAISS over L2-normalized vectors, so inner product is cosine.

Below `FLAT_LIMIT` vectors the search is exact. Above it, an inverted file (IVF) of four-bit codes names the
candidates and the exact vectors order them, so cosines are always exact, and so is a filtered search. How
much a search looks at is raised until recall against the exact answer reaches `TARGET_RECALL` on a
sample, and what was measured is recorded. IVF rather than HNSW: parallel HNSW construction depends on
thread timing, and equal input must give equal bytes.
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
SAMPLE = 256  # questions asked when recall is measured
# A question is a passage plus noise of this length: cosine 0.63, the median of SciFact's claims to their
# nearest passage (MiniLM).
NOISE = 1.23
TRAINING_PER_LIST = 64  # FAISS wants 39 to 256 training vectors for each centroid
LEAST_REFINED = 10  # candidates that the exact vectors order, for each result
SEED = 1234


@dataclass(frozen=True, slots=True)
class DenseMetrics:
    """How the vectors are searched, and what that costs in recall and memory."""

    kind: str  # flat | ivf
    lists: int  # inverted lists, 0 for flat
    probes: int  # lists visited by one search
    refined: int  # candidates that the exact vectors order, for each result; 0 for flat
    recall_at_10: float  # against exact search, on SAMPLE questions
    megabytes: float  # upper bound of what a search keeps in memory


class Dense:
    """An immutable set of vectors 0..n-1."""

    def __init__(self, index: Any) -> None:
        self._index = index
        self._exact = _exact(index)
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
            flat = faiss.IndexFlatIP(dimension)
            flat.add(np.ascontiguousarray(vectors))
            faiss.write_index(flat, str(path))
            return DenseMetrics("flat", 0, 0, 0, 1.0, vectors.nbytes / 1e6)
        lists = _train(vectors)
        index = faiss.IndexRefineFlat(lists)
        index.add(np.ascontiguousarray(vectors))
        recall = _tune(index, lists, vectors, target_recall)
        faiss.write_index(index, str(path))
        code = lists.code_size + 8  # and the id
        megabytes = (vectors.nbytes + count * code + lists.nlist * dimension * 4) / 1e6
        return DenseMetrics("ivf", lists.nlist, lists.nprobe, int(index.k_factor), recall, megabytes)

    @classmethod
    def open(cls, path: Path) -> "Dense":
        """Maps an index file. Raises ContractBroken naming it when it is missing or damaged."""
        import faiss

        try:
            index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise ContractBroken(f"{path}: the vectors cannot be read: {reason}") from error
        if not isinstance(_exact(index), faiss.IndexFlat):
            raise ContractBroken(f"{path}: there are no exact vectors in it; build the index again")
        return cls(index)

    def search(self, vector: Floats, k: int, allowed: Ids | None = None) -> tuple[Ids, Floats]:
        """The k nearest passages (ids, cosines), best first, ties by id; exact among `allowed` if given."""
        import faiss

        k = min(k, self.count if allowed is None else len(allowed))
        if k == 0:
            return np.empty(0, np.int64), np.empty(0, np.float32)
        query = vector.reshape(1, -1)
        if allowed is None:
            cosines, ids = self._index.search(query, k)
        else:
            selector = faiss.IDSelectorBatch(allowed)
            only = faiss.SearchParameters(sel=selector)  # type: ignore[call-arg] # added when faiss loads
            cosines, ids = self._exact.search(query, k, params=only)
        found = ids[0] >= 0
        order = np.lexsort((ids[0][found], -cosines[0][found]))
        return ids[0][found][order], cosines[0][found][order]

    def cosines(self, vector: Floats, ids: Ids) -> Floats:
        """Cosine of the vector with each of the passages `ids`, [len(ids)]."""
        return self.vectors(ids) @ vector.reshape(-1)

    def close(self) -> None:
        """Nothing to do: the file is mapped until nobody holds this any more."""

    def vectors(self, ids: Ids) -> Floats:
        """The stored vectors of `ids`, [len(ids), d]."""
        if not len(ids):
            return np.empty((0, self.dimension), np.float32)
        return np.asarray(self._exact.reconstruct_batch(np.ascontiguousarray(ids, np.int64)))


def _exact(index: Any) -> Any:
    """The part of an index that holds the vectors themselves."""
    import faiss

    return faiss.downcast_index(index.refine_index) if isinstance(index, faiss.IndexRefine) else index


def _train(vectors: Floats) -> Any:
    """Inverted lists of product-quantized vectors: four bits for each two dimensions.

    Codes of so few bits are compared in registers (André, Kermarrec and Le Scouarnec, "Cache locality is not
    enough", VLDB 2015), and take 1/16 of the vectors' memory traffic.
    """
    import faiss

    count, dimension = vectors.shape
    lists = max(1, min(int(4 * count**0.5), count // 39))
    coarse = faiss.IndexFlatIP(dimension)
    index = faiss.IndexIVFPQFastScan(coarse, dimension, lists, dimension // 2, 4, faiss.METRIC_INNER_PRODUCT)
    index.by_residual = False  # codes of the vectors themselves: one table for all lists of a query
    index.cp.seed = index.pq.cp.seed = SEED
    index.cp.spherical = True
    sample = np.random.default_rng(SEED).permutation(count)[: lists * TRAINING_PER_LIST]
    index.train(np.ascontiguousarray(vectors[np.sort(sample)]))
    return index


def _tune(index: Any, lists: Any, vectors: Floats, target: float) -> float:
    """Sets the least that a search must look at to meet the target; returns the recall@10 that was measured.

    First how many candidates the exact vectors order, so that codes alone lose at most half of what may be
    lost: the more vectors there are, the more are nearer by their code. Then how many lists are visited.
    """
    questions = _questions(vectors)
    exact = index.refine_index.search(questions, 10)[1]

    def recall() -> float:
        found = index.search(questions, 10)[1]
        return float(np.mean([len(np.intersect1d(a, b)) / len(a) for a, b in zip(exact, found, strict=True)]))

    lists.nprobe, index.k_factor = lists.nlist, LEAST_REFINED
    while recall() < (1 + target) / 2 and index.k_factor * 10 < index.ntotal:
        index.k_factor *= 2
    lists.nprobe = 1
    while (measured := recall()) < target and lists.nprobe < lists.nlist:
        lists.nprobe = min(lists.nprobe + max(1, lists.nprobe // 4), lists.nlist)
    return measured


def _questions(vectors: Floats) -> Floats:
    """SAMPLE passages with noise of their own covariance: no question lies where no text does."""
    random = np.random.default_rng(SEED + 1)
    places = np.sort(random.permutation(len(vectors))[:SAMPLE])
    sample = np.asarray(vectors[places], np.float32)
    noise = random.normal(size=(len(sample), len(sample))) @ (sample - sample.mean(axis=0))
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    questions = sample + NOISE * noise
    return np.ascontiguousarray(questions / np.linalg.norm(questions, axis=1, keepdims=True), np.float32)
