"""Raw bytes become documents, documents become chunks."""

from typing import Any

import orjson
from dagster import AssetExecutionContext, AssetKey, MaterializeResult, ResourceParam, asset

from alchemy.artifacts import Artifact, Draft
from alchemy.assembly import CONSERVATION, wash
from alchemy.corpus import CLEANER_VERSION, CleanJob
from alchemy.errors import BadInput
from alchemy.parts import read_parts
from alchemy.records import SOURCES, Chunk, Document, RawObject
from alchemy.settings import Settings
from alchemy.text.chunking import CHUNKER_VERSION, Tokenizer, write_chunks
from assets.publishing import Inputs, head, log_progress, publish, table
from resources.catalog import CatalogResource
from resources.engine import EngineResource
from resources.store import StoreResource

_RAW = [f"raw/{source}" for source in SOURCES]


@asset(
    group_name="corpus",
    kinds={"json", "spark"},
    owners=["team:data-platform"],
    code_version=CLEANER_VERSION,
    deps=[AssetKey(name.split("/")) for name in _RAW],
)
def cleaned_corpus(
    context: AssetExecutionContext,
    store: StoreResource,
    engine: EngineResource,
    settings: ResourceParam[Settings],
) -> MaterializeResult:
    """Cleaned, masked and deduplicated documents of all sources, as JSON lines.

    Grain: one issue, commit, pull request, page, file, row or feedback. What did not become a document is
    in `processed/quarantine.jsonl` with its reason. Used by `rag_chunks`, `metrics` and `sft_pairs`.
    Only objects whose digest is new are read, and only parts that they change are written; both engines
    publish the same bytes.
    """
    artifacts = store.artifacts
    job = CleanJob(store.store.url, store.endpoint, settings.clean, settings.pseudonym_salt)
    parameters = {"options": settings.clean.model_dump(), "salt": job.salt_digest}

    def build(draft: Draft, inputs: Inputs) -> dict[str, Any]:
        objects = [raw for name in _RAW for raw in read_parts(RawObject, artifacts.parts(inputs[name]))]
        if not objects:
            raise BadInput("there are no raw objects; put some under raw/<source>/ (`alchemy upload FOLDER`)")
        picked = engine.pick(sum(raw.size for raw in objects))
        context.log.info(f"{len(objects)} raw objects, {picked.name} engine")
        progress = log_progress(context, "cleaned bytes")
        made, new = wash(artifacts, job, objects, picked.clean, draft, progress)
        return {
            "rows": made.documents,
            "objects": len(objects),
            "pieces_cleaned": new,
            "parts": made.parts,
            "parts_written": made.parts_written,
            "engine": picked.name,
            "rejected_by_reason": made.reasons,
        }

    def describe(artifact: Artifact) -> dict[str, Any]:
        counts = orjson.loads(artifacts.file(artifact, CONSERVATION).read_bytes())
        rows = [{"source": source, **row} for source, row in counts.items()]
        columns = ["source", "records_in", "kept", "duplicate", "filtered", "quarantined"]
        documents = [
            {"id": one.id, "title": one.title, "text": one.text}
            for one in head(artifacts, artifact, Document)
        ]
        return {
            "conservation": table(rows, columns),
            "sample": table(documents, ["id", "title", "text"]),
        }

    return publish(context, artifacts, build, inputs=_RAW, parameters=parameters, describe=describe)


@asset(
    group_name="corpus",
    kinds={"json"},
    owners=["team:data-platform"],
    code_version=CHUNKER_VERSION,
    deps=[cleaned_corpus],
)
def rag_chunks(
    context: AssetExecutionContext,
    store: StoreResource,
    catalog: CatalogResource,
    settings: ResourceParam[Settings],
) -> MaterializeResult:
    """Whole-sentence windows over exact spans of the documents: `document.text[start:end] == chunk.text`.

    Grain: one window. Used by `faiss_index` and `sft_pairs`; answers cite chunks. Tokens are counted with
    the tokenizer of the embedding model (model_b).
    """
    artifacts = store.artifacts

    def build(draft: Draft, inputs: Inputs) -> dict[str, Any]:
        tokenizer = Tokenizer(catalog.embedder_folder / "tokenizer.json")
        counts = draft.derive(
            inputs["cleaned_corpus"],
            lambda part, target: write_chunks(part, target, tokenizer, settings.chunk),
            progress=log_progress(context, "chunked bytes"),
        )
        return {name: sum(count[name] for count in counts) for name in ("rows", "documents", "tokens")}

    def describe(artifact: Artifact) -> dict[str, Any]:
        rows = [
            {"document_id": one.document_id, "section": one.section, "tokens": one.tokens, "text": one.text}
            for one in head(artifacts, artifact, Chunk)
        ]
        return {"sample": table(rows, ["document_id", "section", "tokens", "text"])}

    parameters = {"options": settings.chunk.model_dump(), "tokenizer": catalog.catalog.model_b.model_id}
    return publish(
        context, artifacts, build, inputs=["cleaned_corpus"], parameters=parameters, describe=describe
    )
