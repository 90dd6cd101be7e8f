"""What is brought in, what is asked, and what comes back: the wire format of the RAG API."""

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, StringConstraints

from alchemy.rag.vector_store import Strategy
from serving.rag.options import LARGEST_CHUNK, SMALLEST_CHUNK


def _plain(text: str) -> str:
    if not text.isprintable() or text != text.strip():
        raise ValueError("must be printable, without white space around it")
    return text


# Small letters: Qdrant's folders may lie on a file system that does not tell them from capitals.
CollectionName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
_DocumentId = Annotated[str, StringConstraints(min_length=1, max_length=200), AfterValidator(_plain)]
_Key = Annotated[str, StringConstraints(pattern=r"^\w[\w-]{0,63}$")]
_COLLECTION = Field(
    "default", description="To access sets, the project of that name of the source documents."
)
_LATENCY = "Milliseconds by stage, and in total."


class IngestRequest(BaseModel):
    """A document to be chunked, embedded and stored, in place of what it was before."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "collection_name": "manuals",
                    "document_id": "gateway.md",
                    "text": "The gateway retries a failed call three times. Then it raises GW-503.",
                    "metadata": {"title": "Gateway manual", "version": 4},
                }
            ]
        },
    )

    text: str = Field(min_length=1, description="Bounded by ALCHEMY_RAG_MAX_TEXT_CHARACTERS.")
    collection_name: CollectionName = _COLLECTION
    document_id: _DocumentId | None = Field(
        None, description="Ingested again, it replaces the document. Default: a digest of the text."
    )
    metadata: dict[_Key, JsonValue] = Field(
        default_factory=dict,
        max_length=64,
        description="Kept with every chunk; `title` is shown to the model.",
    )
    strategy: Strategy | None = Field(
        None, description="Vectors of a collection that this makes; 409 where it exists with others."
    )
    chunk_size: int | None = Field(
        None, ge=SMALLEST_CHUNK, le=LARGEST_CHUNK, description="Characters; default: CHUNK_SIZE."
    )
    chunk_overlap: int | None = Field(
        None, ge=0, description="Characters, fewer than chunk_size; default: ALCHEMY_RAG_CHUNK_OVERLAP."
    )


class Ingested(BaseModel):
    """What was stored."""

    collection_name: str
    document_id: str = Field(description="Masked, where it held something secret or personal.")
    chunks_created: int
    latency_ms: dict[str, float] = Field(description=_LATENCY)


class QueryRequest(BaseModel):
    """A question about the documents of a collection."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"collection_name": "manuals", "query": "How often does the gateway retry?"}]
        },
    )

    query: str = Field(min_length=1, description="Bounded by ALCHEMY_SERVING_MAX_QUESTION_CHARACTERS.")
    collection_name: CollectionName = _COLLECTION
    top_k: int = Field(10, ge=1, le=50, description="Chunks that the vectors find.")
    top_n: int = Field(3, ge=1, le=20, description="Of these, the sources: the best after reranking.")


class RagSource(BaseModel):
    """One chunk that the answer was written from; citation [n] is the nth of them."""

    text: str
    score: float = Field(description="Of the vectors: cosine, or the collection's other strategy.")
    rerank_score: float = Field(description="0.6 score + 0.4 Jaccard of the words; the order.")
    metadata: dict[str, Any] = Field(
        description="document_id, chunk_index and total_chunks, and what was ingested with the document."
    )


class Answered(BaseModel):
    """The answer, from its sources alone."""

    answer: str
    sources: list[RagSource]
    latency_ms: dict[str, float] = Field(description=_LATENCY)
    degraded: list[str] = Field(
        description="What the answer went without: retrieval, finalist, fallback, citations."
    )
