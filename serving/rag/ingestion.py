"""A document into a collection: masked -> chunked -> embedded -> stored in place of what it was."""

import asyncio
import hashlib
from dataclasses import dataclass
from itertools import islice
from typing import Any

from alchemy.errors import BadInput, NotFound, Unavailable
from alchemy.rag.hashing import hashed
from alchemy.rag.metadata import cleaned
from alchemy.rag.vector_store import Point, Shape, collection_name
from alchemy.rag.windows import windows
from alchemy.text.document import normalize
from alchemy.text.sanitize import Sanitizer
from serving.people.access import Principal
from serving.rag.options import RagOptions
from serving.rag.rag import Rag, Stages, in_thread
from serving.rag.wire import Ingested, IngestRequest
from serving.released import Floats


@dataclass(frozen=True)
class _Document:
    """As it is stored."""

    id: str
    chunks: list[str]
    metadata: dict[str, Any]


async def ingest(rag: Rag, request: IngestRequest, asker: Principal) -> Ingested:
    """Stores a document, all of it or, where this fails, whatever it was before.

    Raises:
        BadInput: It is over the bounds, or nothing is left of it.
        Conflict: The collection's vectors do not compare with its.
        Unavailable: The database or the embedder does not answer, or not in time.
    """
    stages, name = Stages(), collection_name(asker.tenant, request.collection_name)
    with rag.working(), rag.watched():
        try:
            async with asyncio.timeout(rag.options.ingest_s):
                with stages.timed("chunk"):
                    document = await in_thread(rag.ingesting, _prepared, request, rag.options, rag.sanitizer)
                with stages.timed("embed"):
                    known = await in_thread(rag.ingesting, _known, rag, name)
                    strategy = request.strategy or (known.strategy if known else rag.options.strategy)
                    shape, dense = await rag.embedded(
                        strategy, known, lambda embedder: embedder.passages(document.chunks)
                    )
                with stages.timed("upsert"):
                    await in_thread(rag.ingesting, _put, rag, name, shape, document, dense)
        except TimeoutError:
            limit = f"{rag.options.ingest_s:g} s"
            raise Unavailable(f"the document was not stored within {limit}; send it again") from None
    return Ingested(
        collection_name=request.collection_name,
        document_id=document.id,
        chunks_created=len(document.chunks),
        latency_ms=stages.latency_ms,
    )


def _prepared(request: IngestRequest, options: RagOptions, sanitizer: Sanitizer) -> _Document:
    if len(request.text) > options.max_text_characters:
        raise BadInput(f"text: over {options.max_text_characters} characters")
    text = sanitizer.mask(normalize(request.text))
    size = request.chunk_size or options.chunk_size
    overlap = options.chunk_overlap if request.chunk_overlap is None else request.chunk_overlap
    spans = list(islice(windows(text, size, overlap), options.max_chunks + 1))
    if not spans:
        raise BadInput("text: nothing to read is in it")
    if len(spans) > options.max_chunks:
        raise BadInput(f"text: over {options.max_chunks} chunks; make them larger, or the document smaller")
    return _Document(
        sanitizer.mask(request.document_id) if request.document_id else _digest(text),
        [text[start:end] for start, end in spans],
        cleaned(request.metadata, sanitizer, options.max_metadata_bytes),
    )


def _known(rag: Rag, name: str) -> Shape | None:
    try:
        return rag.store.shape(name)
    except NotFound:
        return None


def _put(rag: Rag, name: str, shape: Shape, document: _Document, dense: Floats | None) -> None:
    points = [
        Point(
            text=text,
            metadata=document.metadata,
            dense=None if dense is None else dense[number],
            sparse=None if shape.strategy == "dense" else hashed(text),
        )
        for number, text in enumerate(document.chunks)
    ]
    rag.store.make(name, shape)
    rag.store.replace(name, document.id, points)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]
