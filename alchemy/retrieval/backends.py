"""Where the vectors of an index are searched: in this process by FAISS, or in a vector database.

The snapshot stays the truth. A database holds a copy: a collection that is named after the digest of the
vectors, filled by the first process that opens them, told complete by its count, and never changed. So
there is nothing to keep in step: a rollback finds its collection, or makes it again. Not for texts and
keywords: the index reads them.
"""

import hashlib
from abc import ABC, abstractmethod
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from alchemy.errors import ContractBroken
from alchemy.retrieval.dense import Dense
from alchemy.settings import VectorOptions

Floats = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]

_BLOCK = 4096  # vectors in memory at once while a collection is filled


class VectorBackend(Protocol):
    """The unit vectors of the passages 0..n-1, asked for neighbors. `Dense` is the one in this process."""

    @property
    def count(self) -> int: ...

    def search(self, vector: Floats, k: int, allowed: Ids | None = None) -> tuple[Ids, Floats]:
        """The k nearest passages (ids, cosines), best first, ties by id; exact among `allowed` if given."""
        ...

    def cosines(self, vector: Floats, ids: Ids) -> Floats:
        """Cosine of the vector with each of the passages `ids`, [len(ids)]."""
        ...

    def close(self) -> None:
        """Lets go of connections; nothing is asked afterwards."""
        ...


class Collection(ABC):
    """A copy in a database, which may be there, in part or not yet; a `VectorBackend` when it is complete."""

    @property
    @abstractmethod
    def count(self) -> int:
        """Vectors that are there."""

    @abstractmethod
    def add(self, first: int, vectors: Floats) -> None:
        """Stores the vectors [n, d] of the passages from `first` on; again is the same as once."""

    @abstractmethod
    def search(self, vector: Floats, k: int, allowed: Ids | None = None) -> tuple[Ids, Floats]:
        """See `VectorBackend`."""

    @abstractmethod
    def close(self) -> None:
        """Ends the connections."""

    def cosines(self, vector: Floats, ids: Ids) -> Floats:
        """A search among `ids` alone, so that no vector has to travel."""
        found, cosines = self.search(vector, len(ids), np.unique(ids))
        order = np.argsort(found)
        return cosines[order][np.searchsorted(found[order], ids)]


def open_vectors(path: Path, options: VectorOptions) -> VectorBackend:
    """The vectors of an index file where the options want them searched.

    Raises:
        ContractBroken: the file is damaged, or the database's copy has other vectors.
        Unavailable: the database does not answer.
    """
    dense = Dense.open(path)
    if options.backend == "faiss":
        return dense
    collection = _open_collection(options, collection_name(path), dense.dimension)
    with ExitStack() as undo:
        undo.callback(collection.close)
        copy_vectors(dense, collection)
        undo.pop_all()
    return collection


def _open_collection(options: VectorOptions, name: str, dimension: int) -> Collection:
    if options.backend == "weaviate":
        from alchemy.retrieval.weaviate import Weaviate

        return Weaviate.open(options, name, dimension)
    from alchemy.retrieval.qdrant import Qdrant

    return Qdrant.open(options, name, dimension)


def collection_name(path: Path) -> str:
    """A name for the vectors of an index file that no others have."""
    with path.open("rb") as file:
        return f"alchemy_{hashlib.file_digest(file, 'sha256').hexdigest()[:32]}"


def copy_vectors(dense: Dense, collection: Collection) -> None:
    """Fills a collection unless it is complete. Two processes that do it at once write the same."""
    if collection.count < dense.count:
        for first in range(0, dense.count, _BLOCK):
            ids = np.arange(first, min(first + _BLOCK, dense.count))
            collection.add(first, dense.vectors(ids))
    if collection.count != dense.count:
        raise ContractBroken(
            f"the copy of {dense.count} vectors in the database has {collection.count};"
            " somebody else writes to it: delete the collection and open the index again"
        )
