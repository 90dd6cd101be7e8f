"""Vectors in Qdrant: one collection for each set of vectors, points numbered as passages.

A filtered search is exact: Qdrant scores every allowed passage, so it is never short of one that exists. An
unfiltered one is as good as Qdrant's HNSW graph.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from json import JSONDecodeError
from typing import Any

import numpy as np
import numpy.typing as npt

from alchemy.errors import Unavailable
from alchemy.retrieval.backends import Collection
from alchemy.settings import VectorOptions

Floats = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]

_SETTING = "ALCHEMY_VECTORS__URL"
_BATCH = 256  # points of one request: at 1,024 dimensions some 5 MB of JSON, and Qdrant takes 32


class Qdrant(Collection):
    """A collection of a server, or of `:memory:` in this process. Safe to search from threads."""

    def __init__(self, client: Any, name: str) -> None:
        self._client = client
        self._name = name

    @classmethod
    def open(cls, options: VectorOptions, name: str, dimension: int) -> "Qdrant":
        """Connects, and makes the collection where it is not there. Raises Unavailable."""
        from qdrant_client import QdrantClient

        client = QdrantClient(
            location=options.url,
            api_key=options.api_key.get_secret_value() if options.api_key else None,
            timeout=round(options.timeout_s),
            check_compatibility=False,  # it would ask before we can say who does not answer
        )
        return cls.of(client, name, dimension)

    @classmethod
    def of(cls, client: Any, name: str, dimension: int) -> "Qdrant":
        """The collection of a client, made where it is not there."""
        from qdrant_client.models import Distance, VectorParams

        with answering(_SETTING):
            if not client.collection_exists(name):
                # Unit vectors: the inner product is the cosine, and what is stored is what was sent.
                params = VectorParams(size=dimension, distance=Distance.DOT)
                client.create_collection(name, vectors_config=params)
        return cls(client, name)

    @property
    def count(self) -> int:
        with answering(_SETTING):
            return int(self._client.count(self._name, exact=True).count)

    def add(self, first: int, vectors: Floats) -> None:
        """Stores the vectors [n, d] of the passages from `first` on; again is the same as once."""
        with answering(_SETTING):
            self._client.upload_collection(
                self._name, vectors, ids=range(first, first + len(vectors)), batch_size=_BATCH, wait=True
            )

    def search(self, vector: Floats, k: int, allowed: Ids | None = None) -> tuple[Ids, Floats]:
        """The k nearest passages (ids, cosines), best first, ties by id; exact among `allowed` if given."""
        from qdrant_client.models import Filter, HasIdCondition, SearchParams

        if k == 0 or (allowed is not None and not len(allowed)):
            return np.empty(0, np.int64), np.empty(0, np.float32)
        only = None if allowed is None else Filter(must=[HasIdCondition(has_id=allowed.tolist())])
        with answering(_SETTING):
            points = self._client.query_points(
                self._name,
                query=vector.reshape(-1).tolist(),
                query_filter=only,
                search_params=SearchParams(exact=allowed is not None),
                limit=k,
                with_payload=False,
            ).points
        ids = np.array([point.id for point in points], np.int64)
        cosines = np.array([point.score for point in points], np.float32)
        order = np.lexsort((ids, -cosines))
        return ids[order], cosines[order]

    def close(self) -> None:
        """Ends the connections."""
        self._client.close()


@contextmanager
def answering(setting: str) -> Iterator[None]:
    """Raises Unavailable, naming the setting, where Qdrant does not answer as it should.

    Of the error only its kind is told: its text may hold the key, the address' password, or content.
    """
    from qdrant_client.common.client_exceptions import QdrantException, ResourceExhaustedResponse
    from qdrant_client.http.exceptions import ApiException, ResponseHandlingException, UnexpectedResponse

    # Besides its own: a proxy's page that is no JSON, and the folder of the form without a server.
    try:
        yield
    except (ApiException, QdrantException, JSONDecodeError, RuntimeError, sqlite3.Error) as error:
        after = None
        if isinstance(error, UnexpectedResponse):
            reason = f"status {error.status_code}"
        elif isinstance(error, ResourceExhaustedResponse):
            reason, after = "status 429", float(error.retry_after_s)
        else:
            cause = error.source if isinstance(error, ResponseHandlingException) else error
            reason = type(cause).__name__
        told = f"Qdrant does not answer as it should ({reason}); is {setting} right?"
        raise Unavailable(told, retry_after_s=after) from None
