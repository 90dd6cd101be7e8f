"""Collections of chunks in Qdrant: made when first written to, and true to how they were made.

A collection holds a named dense vector (cosine), a sparse one to which Qdrant adds the inverse frequencies,
or both. It remembers which, whose embedder, and how many numbers, so that vectors which do not compare are
refused instead of scored. A document's old chunks go only when its new ones are there: whoever dies in
between leaves both, and nobody's document is ever lost.
"""

import hashlib
import threading
import uuid
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from alchemy.errors import Conflict, NotFound, Unavailable
from alchemy.rag.hashing import VERSION, SparseVector
from alchemy.rag.scoring import hybrid, sparse_share
from alchemy.retrieval.qdrant import answering

Floats = npt.NDArray[np.float32]
Strategy = Literal["dense", "sparse", "hybrid"]

RESERVED = ("text", "document_id", "chunk_index", "total_chunks")  # of a payload; the rest is the caller's
_SETTING = "QDRANT_URL"
_DENSE, _SPARSE = "dense", "sparse"  # names of the vectors
_IDS = uuid.UUID("7c0a3b1e-6f0f-5a55-9a53-2f6f3f1c8f5d")  # namespace of point ids
_CANDIDATES = 50  # taken by each vector before both are weighed; SearchOptions.candidates does the same
_BATCH = 128  # points of one request: with 1,024 dimensions some 3 MB of JSON, and Qdrant takes 32
_PAGE = 1000  # ids of one answer


@dataclass(frozen=True, slots=True)
class Shape:
    """How the vectors of a collection are made; those of two shapes do not compare."""

    strategy: Strategy
    embedder: str  # "" where there are no dense vectors
    dimension: int
    hashing: int  # version; 0 where there are no sparse vectors

    @classmethod
    def of(cls, strategy: Strategy, embedder: str = "", dimension: int = 0) -> "Shape":
        """The shape of vectors that are made now."""
        return cls(strategy, embedder, dimension, 0 if strategy == "dense" else VERSION)

    def check(self, wanted: "Shape") -> None:
        """Raises Conflict where vectors of the wanted shape do not compare with these."""
        if self != wanted:
            raise Conflict(
                f"the collection has {self}, and {wanted} do not compare with them: use another one"
            )

    def __str__(self) -> str:
        by = f" of {self.dimension} numbers by {self.embedder}" if self.embedder else ""
        return f"{self.strategy} vectors{by}{f' (terms of version {self.hashing})' if self.hashing else ''}"


@dataclass(frozen=True, slots=True)
class Point:
    """One chunk to be stored."""

    text: str
    metadata: Mapping[str, Any]  # without the reserved names
    dense: Floats | None
    sparse: SparseVector | None


@dataclass(frozen=True, slots=True)
class Hit:
    """One chunk that was found; `score` is that of the collection's strategy (`scoring`)."""

    id: str
    text: str
    document_id: str
    chunk_index: int
    total_chunks: int
    metadata: Mapping[str, Any]
    score: float


class VectorStore:
    """A server, or Qdrant's own small form in this process. Safe to call from threads; all of it blocks.

    Every method raises Unavailable where Qdrant does not answer as it should.
    """

    def __init__(self, client: Any, *, embedded: bool) -> None:
        self._client = client
        self._embedded = embedded
        # Two writers of one document would each leave the other's chunks; those of other processes may.
        self._writing = threading.RLock()
        # The form in this process is not made for threads.
        self._reading: AbstractContextManager[Any] = self._writing if embedded else nullcontext()
        self._closing = threading.Event()

    @classmethod
    def connect(cls, url: str, api_key: str | None, timeout_s: float) -> "VectorStore":
        """A server, which is asked nothing yet; or `:memory:`."""
        from qdrant_client import QdrantClient

        # Asked for its version it would have to answer, before we can say who does not.
        client = QdrantClient(
            location=url, api_key=api_key, timeout=max(1, round(timeout_s)), check_compatibility=False
        )
        return cls(client, embedded=url == ":memory:")

    @classmethod
    def embedded(cls, folder: Path) -> "VectorStore":
        """A folder of this process' own. Raises Unavailable where another process has it."""
        from qdrant_client import QdrantClient

        folder.mkdir(parents=True, exist_ok=True)
        try:
            client = QdrantClient(path=str(folder), force_disable_check_same_thread=True)
        except RuntimeError as error:
            raise Unavailable(f"{error} (QDRANT_URL)") from None
        return cls(client, embedded=True)

    def shape(self, name: str) -> Shape:
        """How the collection was made. Raises NotFound, or Conflict where it is not one of ours."""
        return self._described(name)[0]

    def make(self, name: str, shape: Shape) -> None:
        """Makes the collection where it is not there. Raises Conflict where it is, in another shape."""
        from qdrant_client.http.exceptions import ApiException

        with answering(_SETTING), self._writing:
            if not self._client.collection_exists(name):
                try:
                    self._client.create_collection(name, metadata=asdict(shape), **_configured(shape))
                except ApiException:  # another process may have been first
                    if not self._client.collection_exists(name):
                        raise
            self.shape(name).check(shape)
            if not self._embedded:  # without it, finding a document's chunks reads all; made again, it stays
                self._client.create_payload_index(name, "document_id", "keyword")

    def replace(self, name: str, document_id: str, points: Sequence[Point]) -> None:
        """Stores a document's chunks in order, then deletes those that it had before."""
        from qdrant_client import models

        made = [
            models.PointStruct(
                id=point_id(document_id, number, len(points), point),
                vector=_vectors(point),
                payload={
                    **point.metadata,
                    "text": point.text,
                    "document_id": document_id,
                    "chunk_index": number,
                    "total_chunks": len(points),
                },
            )
            for number, point in enumerate(points)
        ]
        with answering(_SETTING), self._writing:
            # Only what was there before: what another process writes meanwhile is not ours to delete.
            old = self._ids(name, document_id) - {str(point.id) for point in made}
            for start in range(0, len(made), _BATCH):
                if self._closing.is_set():
                    raise Unavailable("the service is stopping; send the document again")
                self._client.upsert(name, made[start : start + _BATCH], wait=True)
            if old:
                self._client.delete(name, models.PointIdsList(points=sorted(old)), wait=True)

    def search(
        self, name: str, shape: Shape, dense: Floats | None, sparse: SparseVector | None, k: int
    ) -> list[Hit]:
        """The k best chunks, best first, ties by document and place.

        Args:
            name: Of the collection.
            shape: As it was when the question's vectors were made.
            dense: The question's [dimension], where the strategy has one.
            sparse: Likewise.
            k: At most so many.

        Raises:
            NotFound: There is no such collection.
            Conflict: It has another shape.
        """
        made, chunks = self._described(name)
        made.check(shape)
        asked: dict[str, Any] = {_DENSE: dense.tolist()} if dense is not None else {}
        if sparse and sparse.indices:
            asked[_SPARSE] = _qdrant(sparse)
        found = self._scored(name, asked, max(k, _CANDIDATES) if len(asked) > 1 else k)
        if len(asked) > 1:  # what one vector found, the other has to judge too
            found = self._scored(name, asked, len(found), list(found))
        hits = []
        for id_, (payload, scores) in found.items():
            share = sparse_share(scores.get(_SPARSE, 0.0), sparse, chunks) if sparse else 0.0
            cosine = scores.get(_DENSE, 0.0)
            score = {"dense": cosine, "sparse": share, "hybrid": hybrid(cosine, share)}[shape.strategy]
            hits.append(_hit(id_, payload, score))
        hits.sort(key=lambda hit: (-hit.score, hit.document_id, hit.chunk_index, hit.id))
        return hits[:k]

    def close(self) -> None:
        """Ends the connections; a document that is being stored keeps what it was before, too."""
        self._closing.set()
        with self._reading:
            self._client.close()

    def _scored(
        self, name: str, asked: Mapping[str, Any], limit: int, among: Sequence[str] | None = None
    ) -> dict[str, tuple[Mapping[str, Any], dict[str, float]]]:
        """By id: payload, and score of each vector that was asked for and found it."""
        from qdrant_client import models

        if not asked or not limit:
            return {}
        only = models.Filter(must=[models.HasIdCondition(has_id=list(among))]) if among else None
        requests = [
            models.QueryRequest(query=query, using=vector, filter=only, limit=limit, with_payload=True)
            for vector, query in asked.items()
        ]
        with answering(_SETTING), self._reading:
            answers = self._client.query_batch_points(name, requests)
        found: dict[str, tuple[Mapping[str, Any], dict[str, float]]] = {}
        for vector, answer in zip(asked, answers, strict=True):
            for point in answer.points:
                found.setdefault(str(point.id), (point.payload or {}, {}))[1][vector] = float(point.score)
        return found

    def _described(self, name: str) -> tuple[Shape, int]:
        """Shape and number of chunks."""
        with answering(_SETTING), self._reading:
            if not self._client.collection_exists(name):
                raise NotFound("there is no such collection")
            info = self._client.get_collection(name)
        try:
            return Shape(**(info.config.metadata or {})), info.points_count or 0
        except TypeError:
            raise Conflict(
                "the collection was not made by this service, or by a Qdrant older than 1.16"
            ) from None

    def _ids(self, name: str, document_id: str) -> set[str]:
        """Of the points that the document has."""
        from qdrant_client import models

        match = models.MatchValue(value=document_id)
        of_document = models.Filter(must=[models.FieldCondition(key="document_id", match=match)])
        found: set[str] = set()
        after = None
        while True:
            rows, after = self._client.scroll(
                name, of_document, limit=_PAGE, offset=after, with_payload=False, with_vectors=False
            )
            found.update(str(row.id) for row in rows)
            if after is None:
                return found


def collection_name(tenant: str, name: str) -> str:
    """What a tenant's collection is called in Qdrant: no two tenants' names can be made to meet.

    The tenant's part is of one length and no tenant can choose it.
    """
    return f"rag-{hashlib.sha256(tenant.encode()).hexdigest()}-{name}"


def point_id(document_id: str, number: int, total: int, point: Point) -> str:
    """The same for the same chunk of the same document, and another one for whatever differs."""
    metadata = repr(sorted(point.metadata.items()))
    return str(uuid.uuid5(_IDS, "\0".join((document_id, str(number), str(total), point.text, metadata))))


def _configured(shape: Shape) -> dict[str, Any]:
    """The vectors of a new collection."""
    from qdrant_client import models

    made: dict[str, Any] = {"vectors_config": {}}
    if shape.strategy != "sparse":
        made["vectors_config"][_DENSE] = models.VectorParams(
            size=shape.dimension, distance=models.Distance.COSINE
        )
    if shape.strategy != "dense":
        made["sparse_vectors_config"] = {_SPARSE: models.SparseVectorParams(modifier=models.Modifier.IDF)}
    return made


def _vectors(point: Point) -> dict[str, Any]:
    made: dict[str, Any] = {}
    if point.dense is not None:
        made[_DENSE] = point.dense.tolist()
    if point.sparse and point.sparse.indices:
        made[_SPARSE] = _qdrant(point.sparse)
    return made


def _qdrant(vector: SparseVector) -> Any:
    from qdrant_client import models

    return models.SparseVector(indices=list(vector.indices), values=list(vector.values))


def _hit(id_: str, payload: Mapping[str, Any], score: float) -> Hit:
    own = {name: value for name, value in payload.items() if name not in RESERVED}
    return Hit(
        id_,
        payload["text"],
        payload["document_id"],
        payload["chunk_index"],
        payload["total_chunks"],
        own,
        score,
    )
