"""The hybrid index that answers are found in."""

from typing import Any

from dagster import AssetExecutionContext, MaterializeResult, asset

from alchemy.artifacts import Draft
from alchemy.parts import read_parts
from alchemy.records import Chunk, Insight
from alchemy.retrieval.index import build_index
from assets.corpus import rag_chunks
from assets.publishing import Inputs, log_progress, publish
from assets.quant import quant_insights
from resources.catalog import CatalogResource
from resources.store import StoreResource


@asset(
    group_name="knowledge",
    kinds={"faiss", "sqlite"},
    owners=["team:ml-platform"],
    code_version="1",
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
        made = build_index(
            draft.folder, chunks, scores, catalog.embedder, log_progress(context, "embedded chunks")
        )
        return {"rows": made["chunks"], **made}

    parameters = {"embedder": catalog.catalog.model_b.model_dump(exclude={"device"})}
    return publish(context, artifacts, build, inputs=["rag_chunks", "quant_insights"], parameters=parameters)
