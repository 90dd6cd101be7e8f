"""The hybrid index that answers are found in."""

from pathlib import Path
from typing import Any

from dagster import AssetExecutionContext, MaterializeResult, asset

from alchemy.artifacts import Artifact, Draft, Request
from alchemy.parts import read_parts
from alchemy.records import Chunk, Insight
from alchemy.retrieval.index import build_index
from alchemy.retrieval.vectors import write_vectors
from assets.corpus import rag_chunks
from assets.publishing import Inputs, log_progress, publish
from assets.quant import quant_insights
from resources.catalog import CatalogResource
from resources.store import StoreResource


@asset(
    group_name="knowledge",
    kinds={"faiss", "sqlite"},
    owners=["team:ml-platform"],
    code_version="3",
    deps=[rag_chunks, quant_insights],
)
def faiss_index(
    context: AssetExecutionContext, store: StoreResource, catalog: CatalogResource
) -> MaterializeResult:
    """FAISS vectors and BM25 statistics by chunk number, texts in SQLite, quant scores.

    Grain: one chunk. An immutable snapshot; serving maps it into memory. Used by `evaluation`, `release`.
    """
    artifacts = store.artifacts

    def build(draft: Draft, inputs: Inputs) -> dict[str, Any]:
        chunks = read_parts(Chunk, artifacts.parts(inputs["rag_chunks"], "part-"))
        insights = read_parts(Insight, artifacts.parts(inputs["quant_insights"], "part-"))
        scores = {insight.document_id: insight.score for insight in insights}
        vectors, embedded = embed(inputs["rag_chunks"])
        parts = artifacts.parts(vectors, "part-")
        made = build_index(draft.folder, chunks, scores, catalog.embedder, parts=parts)
        return {"rows": made["chunks"], "embedded": embedded, **made}

    def embed(chunks: Artifact) -> tuple[Artifact, int]:
        """The vectors are an artifact of their own: of a new version only parts that changed are embedded."""
        request = Request("vectors", {"rag_chunks": chunks.version}, "1", parameters, context.run.run_id)
        progress = log_progress(context, "embedded bytes")
        embedded = 0

        def make(part: Path, target: Path) -> dict[str, Any]:
            nonlocal embedded
            made = write_vectors(part, target, catalog.embedder)
            embedded += made["rows"]
            return made

        def build(draft: Draft) -> dict[str, Any]:
            counts = draft.derive(chunks, make, suffix=".npy", progress=progress)
            return {"rows": sum(count["rows"] for count in counts)}

        return artifacts.materialize_draft(request, build).artifact, embedded

    parameters = {"embedder": catalog.catalog.model_b.model_dump(exclude={"device"})}
    return publish(context, artifacts, build, inputs=["rag_chunks", "quant_insights"], parameters=parameters)
