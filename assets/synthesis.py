"""Grounded training pairs out of the corpus."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dagster import AssetExecutionContext, MaterializeResult, ResourceParam, asset

from alchemy.artifacts import Artifact, Draft
from alchemy.catalog import Refiner
from alchemy.parts import read_parts
from alchemy.records import Chunk, Document, Insight, SftPair
from alchemy.settings import Settings
from alchemy.synthesis.client import LlmClient
from alchemy.synthesis.generate import LlmProvider, Provider, TemplateProvider
from alchemy.synthesis.pairs import write_pairs
from alchemy.synthesis.prompts import PROMPTS_VERSION
from alchemy.text.sanitize import Sanitizer
from assets.corpus import cleaned_corpus, rag_chunks
from assets.publishing import Inputs, head, publish, table
from assets.quant import quant_insights
from resources.catalog import CatalogResource
from resources.store import StoreResource


@asset(
    group_name="synthesis",
    kinds={"json", "openai"},
    owners=["team:ml-platform"],
    code_version=PROMPTS_VERSION,
    deps=[cleaned_corpus, rag_chunks, quant_insights],
)
def sft_pairs(
    context: AssetExecutionContext,
    store: StoreResource,
    catalog: CatalogResource,
    settings: ResourceParam[Settings],
) -> MaterializeResult:
    """Instruction and response pairs, every one grounded in a quote of its chunk, split by document.

    Grain: one pair. `sft_train.jsonl` teaches the adapters, `sft_eval.jsonl` tunes, `sft_holdout.jsonl`
    judges; `train.jsonl` is plain text for continued pre-training. Written by model_a, or without a key by
    templates over structured fields.
    """
    artifacts, refiner = store.artifacts, catalog.catalog.model_a

    def build(draft: Draft, inputs: Inputs) -> dict[str, Any]:
        def parts(asset_name: str) -> Iterator[Path]:
            return artifacts.parts(inputs[asset_name], "part-")

        with _provider(refiner, settings) as (provider, client):
            funnel = write_pairs(
                draft.folder,
                lambda: read_parts(Document, parts("cleaned_corpus")),
                read_parts(Chunk, parts("rag_chunks")),
                read_parts(Insight, parts("quant_insights")),
                provider,
                settings.synthesis,
                Sanitizer(settings.pseudonym_salt, addresses=settings.clean.street_addresses).leaks,
            )
            usage = asdict(client.usage) if client else {}
        context.log.info(f"{funnel['kept']} of {funnel['written']} pairs kept, by {funnel['provider']}")
        return {"rows": funnel["kept"], **funnel, **usage}

    def describe(artifact: Artifact) -> dict[str, Any]:
        rows = [
            {"kind": one.kind, "instruction": one.instruction, "response": one.response}
            for one in head(artifacts, artifact, SftPair, "sft_train")
        ]
        return {"sample": table(rows, ["kind", "instruction", "response"])}

    parameters = {
        "options": settings.synthesis.model_dump(exclude={"threads", "budget_usd"}),
        "provider": refiner.model_id if refiner.uses_llm else "template",
        "temperature": refiner.temperature if refiner.uses_llm else None,
    }
    inputs = ["cleaned_corpus", "rag_chunks", "quant_insights"]
    return publish(context, artifacts, build, inputs=inputs, parameters=parameters, describe=describe)


@contextmanager
def _provider(refiner: Refiner, settings: Settings) -> Iterator[tuple[Provider, LlmClient | None]]:
    """Who writes: model_a, with its answers cached so that a killed run pays nothing twice, or templates."""
    options = settings.synthesis
    if not refiner.uses_llm:
        yield TemplateProvider(options.pairs_per_chunk), None
        return
    cache = settings.cache / "llm.sqlite"
    with LlmClient(refiner, cache, budget_usd=options.budget_usd) as client:
        yield LlmProvider(client, options.pairs_per_chunk, options.threads), client
