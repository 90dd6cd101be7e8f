"""Vectors in Weaviate: one collection for each set of vectors, objects without properties, ids from numbers.

A filtered search is exact: the cutoff under which Weaviate leaves its graph and scores every allowed object
is set over any number of passages. An unfiltered one is as good as Weaviate's HNSW graph.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import numpy as np
import numpy.typing as npt

from alchemy.errors import Unavailable
from alchemy.retrieval.backends import Collection
from alchemy.settings import VectorOptions

Floats = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]

_BATCH = 1000  # objects of one request: at 1,024 dimensions 4 MB
_ALWAYS_EXACT = 2**31 - 1


class Weaviate(Collection):
    """A collection of a server. Safe to search from threads."""

    def __init__(self, client: Any, name: str) -> None:
        self._client = client
        self._objects = client.collections.use(name)

    @classmethod
    def open(cls, options: VectorOptions, name: str, dimension: int) -> "Weaviate":
        """Connects, and makes the collection where it is not there. Raises Unavailable."""
        import weaviate
        from weaviate.classes.config import Configure, VectorDistances
        from weaviate.classes.init import AdditionalConfig, Auth, Timeout

        address = urlsplit(str(options.url))
        secure = address.scheme == "https"
        client = weaviate.WeaviateClient(
            weaviate.connect.ConnectionParams.from_params(
                http_host=str(address.hostname),
                http_port=address.port or (443 if secure else 8080),
                http_secure=secure,
                grpc_host=str(address.hostname),
                grpc_port=options.grpc_port,
                grpc_secure=secure,
            ),
            auth_client_secret=Auth.api_key(options.api_key.get_secret_value()) if options.api_key else None,
            additional_config=AdditionalConfig(
                timeout=Timeout(init=options.timeout_s, query=options.timeout_s, insert=options.timeout_s)
            ),
        )
        name = name.capitalize()  # as Weaviate does
        with ExitStack() as undo, _answering():
            undo.callback(client.close)
            client.connect()
            if not client.collections.exists(name):
                index = Configure.VectorIndex.hnsw(
                    distance_metric=VectorDistances.DOT, flat_search_cutoff=_ALWAYS_EXACT
                )
                vectors = Configure.Vectors.self_provided(vector_index_config=index)
                client.collections.create(name, vector_config=vectors)
            undo.pop_all()
        return cls(client, name)

    @property
    def count(self) -> int:
        with _answering():
            return int(self._objects.aggregate.over_all(total_count=True).total_count)

    def add(self, first: int, vectors: Floats) -> None:
        """Stores the vectors [n, d] of the passages from `first` on; again is the same as once."""
        from weaviate.classes.data import DataObject

        for start in range(0, len(vectors), _BATCH):
            objects: list[Any] = [
                DataObject(properties={}, uuid=_uuid(first + number), vector=vectors[number].tolist())
                for number in range(start, min(start + _BATCH, len(vectors)))
            ]
            with _answering():
                errors = self._objects.data.insert_many(objects).errors
            if errors:
                message = next(iter(errors.values())).message
                raise Unavailable(f"Weaviate refused {len(errors)} of {len(objects)} vectors: {message}")

    def search(self, vector: Floats, k: int, allowed: Ids | None = None) -> tuple[Ids, Floats]:
        """The k nearest passages (ids, cosines), best first, ties by id; exact among `allowed` if given."""
        from weaviate.classes.query import Filter, MetadataQuery

        if k == 0 or (allowed is not None and not len(allowed)):
            return np.empty(0, np.int64), np.empty(0, np.float32)
        only = None if allowed is None else Filter.by_id().contains_any([_uuid(one) for one in allowed])
        with _answering():
            found = self._objects.query.near_vector(
                vector.reshape(-1).tolist(),
                limit=k,
                filters=only,
                return_metadata=MetadataQuery(distance=True),
                return_properties=False,
            ).objects
        ids = np.array([one.uuid.int - 1 for one in found], np.int64)
        cosines = np.array([-one.metadata.distance for one in found], np.float32)  # "dot" is negated
        order = np.lexsort((ids, -cosines))
        return ids[order], cosines[order]

    def close(self) -> None:
        """Ends the connections."""
        self._client.close()


def _uuid(number: int) -> UUID:
    return UUID(int=int(number) + 1)  # the id of zeros means "none"


@contextmanager
def _answering() -> Iterator[None]:
    from weaviate.exceptions import WeaviateBaseError

    try:
        yield
    except WeaviateBaseError as error:
        raise Unavailable(
            f"Weaviate does not answer as it should: {error.message}; is ALCHEMY_VECTORS__URL right?"
        ) from error
