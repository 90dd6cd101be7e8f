"""The judgment that the gate decides by."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import orjson
from dagster import (
    AssetExecutionContext,
    AssetKey,
    AssetsDefinition,
    MaterializeResult,
    MetadataValue,
    ResourceParam,
    asset,
)

from alchemy.artifacts import Artifact, Draft
from alchemy.evaluation.candidate import Candidate
from alchemy.evaluation.judge import judge_candidate
from alchemy.evaluation.pictures import report_picture
from alchemy.evaluation.report import RENDERED, REPORT
from alchemy.parts import read_parts
from alchemy.records import SftPair
from alchemy.retrieval.fuse import SearchWeights
from alchemy.settings import Settings
from alchemy.text.sanitize import Sanitizer
from assets.knowledge import faiss_index
from assets.publishing import Inputs, log_progress, picture, publish
from assets.synthesis import sft_pairs
from assets.training import GENERAL
from resources.catalog import CatalogResource
from resources.store import StoreResource


def evaluation_asset(named: Iterable[str]) -> AssetsDefinition:
    """The asset `evaluation`, which waits for the general adapter and for every named one."""
    adapters = [GENERAL, *named]

    @asset(
        group_name="release",
        kinds={"json"},
        owners=["team:ml-platform"],
        code_version="3",
        deps=[faiss_index, sft_pairs, *(AssetKey(name) for name in adapters)],
    )
    def evaluation(
        context: AssetExecutionContext,
        store: StoreResource,
        catalog: CatalogResource,
        settings: ResourceParam[Settings],
    ) -> MaterializeResult:
        """How good the candidate is on held-out questions and pairs: retrieval, answers, adapters, safety.

        Also tunes the search weights and the abstention threshold that the release carries.
        """
        artifacts = store.artifacts

        def build(draft: Draft, inputs: Inputs) -> dict[str, Any]:
            def pairs(split: str) -> Iterator[SftPair]:
                return read_parts(SftPair, artifacts.parts(inputs["sft_pairs"], f"sft_{split}"))

            candidate = Candidate(
                index=artifacts.fetch(inputs["faiss_index"]),
                adapters={name: artifacts.fetch(inputs[name]) for name in adapters},
                versions={name: artifact.version for name, artifact in inputs.items()},
                embedder=catalog.embedder,
                reranker=catalog.reranker,
                base=catalog.catalog.model_c,
                models=Path(catalog.models),
            )
            sanitizer = Sanitizer(settings.pseudonym_salt, addresses=settings.clean.street_addresses)
            return judge_candidate(
                candidate,
                pairs("eval"),
                pairs("holdout"),
                options=settings.search,
                count_leaks=lambda text: len(sanitizer.leaks(text)),
                folder=draft.folder,
                progress=log_progress(context, "questions asked"),
            )

        def describe(artifact: Artifact) -> dict[str, Any]:
            folder = artifacts.fetch(artifact)
            report = orjson.loads((folder / REPORT).read_bytes())
            return {
                "report": MetadataValue.md((folder / RENDERED).read_text(encoding="utf-8")),
                "plot": picture(report_picture(report), "measures with their intervals"),
            }

        parameters = {
            "options": settings.search.model_dump(),
            "defaults": asdict(SearchWeights()),
            "reranker": catalog.catalog.reranker.model_id,
            "base": catalog.catalog.model_c.model_id,
        }
        inputs = ["faiss_index", "sft_pairs", *adapters]
        return publish(context, artifacts, build, inputs=inputs, parameters=parameters, describe=describe)

    return evaluation
