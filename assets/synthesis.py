"""Grounded training pairs out of the corpus."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dagster import AssetExecutionContext, MaterializeResult, MetadataValue, ResourceParam, asset

from alchemy.artifacts import Artifact, Artifacts, Draft
from alchemy.asking import load_questions
from alchemy.catalog import Refiner
from alchemy.errors import BadConfig, NotFound
from alchemy.parts import read_parts
from alchemy.records import Chunk, Document, Insight, SftPair, fingerprint
from alchemy.settings import Settings
from alchemy.synthesis.client import LlmClient
from alchemy.synthesis.funnel import render_funnel
from alchemy.synthesis.generate import LlmProvider, TemplateProvider
from alchemy.synthesis.judge import Judge
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
    templates over structured fields. No pair repeats a question that `alchemy eval` asks.
    """
    artifacts, refiner = store.artifacts, _refiner(catalog.catalog.model_a, settings)
    asked = _known_questions(artifacts)

    def build(draft: Draft, inputs: Inputs) -> dict[str, Any]:
        def parts(asset_name: str) -> Iterator[Path]:
            return artifacts.parts(inputs[asset_name], "part-")

        options = settings.synthesis
        with _client(refiner, settings) as client:
            funnel = write_pairs(
                draft.folder,
                lambda: read_parts(Document, parts("cleaned_corpus")),
                read_parts(Chunk, parts("rag_chunks")),
                read_parts(Insight, parts("quant_insights")),
                LlmProvider(client, options.threads) if client and refiner.uses_llm else TemplateProvider(),
                options,
                known_questions=asked,
                leaks=Sanitizer(settings.pseudonym_salt, addresses=settings.clean.street_addresses).leaks,
                judge=Judge(client, options.threads) if client and options.judge else None,
            )
            usage = asdict(client.usage) if client else {}
        context.log.info(f"{funnel['kept']} of {funnel['written']} pairs kept, by {funnel['provider']}")
        return {"rows": funnel["kept"], **funnel, **usage}

    def describe(artifact: Artifact) -> dict[str, Any]:
        rows = [
            {"kind": one.kind, "instruction": one.instruction, "response": one.response}
            for one in head(artifacts, artifact, SftPair, "sft_train")
        ]
        return {
            "funnel": MetadataValue.md(render_funnel(artifact.metrics)),
            "sample": table(rows, ["kind", "instruction", "response"]),
        }

    by_model = refiner.uses_llm or settings.synthesis.judge
    parameters = {
        "options": settings.synthesis.model_dump(exclude={"provider", "threads", "budget_usd"}),
        "provider": refiner.model_id if refiner.uses_llm else "template",
        "judge": refiner.model_id if settings.synthesis.judge else None,
        "temperature": refiner.temperature if by_model else None,
        "budget_usd": settings.synthesis.budget_usd if by_model else None,  # a raised one goes on from here
        "known_questions": fingerprint(asked),
    }
    inputs = ["cleaned_corpus", "rag_chunks", "quant_insights"]
    return publish(context, artifacts, build, inputs=inputs, parameters=parameters, describe=describe)


def _refiner(model: Refiner, settings: Settings) -> Refiner:
    chosen = settings.synthesis.provider
    return model if chosen == "auto" else model.model_copy(update={"provider": chosen})


def _known_questions(artifacts: Artifacts) -> list[str]:
    try:
        return sorted(one.question for one in load_questions(artifacts, None))
    except NotFound:
        return []


@contextmanager
def _client(refiner: Refiner, settings: Settings) -> Iterator[LlmClient | None]:
    """model_a, with its answers cached so that a killed run pays nothing twice, where a stage needs it."""
    options = settings.synthesis
    if not refiner.uses_llm and not options.judge:
        yield None
        return
    if not refiner.uses_llm and not refiner.configured:
        raise BadConfig("ALCHEMY_SYNTHESIS__JUDGE needs model_a with an api_key in models.yaml")
    with LlmClient(refiner, settings.cache / "llm.sqlite", budget_usd=options.budget_usd) as client:
        yield client
