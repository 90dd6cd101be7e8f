"""LoRA adapters: the general one, and one for each entry of `models.yaml: adapters:`."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import orjson
from dagster import AssetExecutionContext, AssetsDefinition, MaterializeResult, ResourceParam, asset

from alchemy.artifacts import Artifact, Draft
from alchemy.catalog import AdapterFilter
from alchemy.parts import read_parts
from alchemy.records import SftPair
from alchemy.settings import Settings
from alchemy.training.checkpoints import Checkpoints
from alchemy.training.curve import loss_curve
from alchemy.training.lora import RECIPE, train_lora
from alchemy.training.samples import answer_samples
from assets.publishing import Inputs, log_progress, picture, publish, table
from assets.synthesis import sft_pairs
from resources.catalog import CatalogResource
from resources.store import StoreResource

GENERAL = "lora_adapter"
CURVE = "loss.png"
SAMPLES = "samples.json"


def adapter_asset(name: str, chosen: AdapterFilter) -> AssetsDefinition:
    """An adapter trained on the pairs that the filter chooses."""
    of = ", ".join([*chosen.sources, *chosen.projects]) or "all sources"

    @asset(
        name=name,
        group_name="training",
        kinds={"pytorch", "huggingface"},
        owners=["team:ml-platform"],
        code_version=RECIPE,
        deps=[sft_pairs],
        pool="training",
        description=(
            f"LoRA adapter of the base model (model_c), trained on the pairs of {of}: safetensors and peft's "
            "configuration. The loss is on the response alone. Used by `evaluation`, `release` and serving."
        ),
    )
    def adapter(
        context: AssetExecutionContext,
        store: StoreResource,
        catalog: CatalogResource,
        settings: ResourceParam[Settings],
    ) -> MaterializeResult:
        artifacts, base = store.artifacts, catalog.catalog.model_c
        checkpoints = Checkpoints(artifacts.store, f"state/training/{name}")

        def build(draft: Draft, inputs: Inputs) -> dict[str, Any]:
            pairs = inputs["sft_pairs"]
            train = [
                pair
                for pair in read_parts(SftPair, artifacts.parts(pairs, "sft_train"))
                if chosen.takes(pair)
            ]
            evaluation = [
                pair for pair in read_parts(SftPair, artifacts.parts(pairs, "sft_eval")) if chosen.takes(pair)
            ]
            progress = log_progress(context, "training steps")
            report = train_lora(
                base.model_id,
                train,
                evaluation,
                base.lora,
                settings.train,
                device=base.device,
                folder=draft.folder,
                # A text does not say where it comes from, so only the adapter of everything learns from it.
                texts=_texts(artifacts.parts(pairs, "train.jsonl")) if chosen == AdapterFilter() else (),
                progress=lambda done, total, _: progress(done, total),
                checkpoints=checkpoints,
                models=Path(catalog.models),
            )
            samples = answer_samples(
                base.model_id, draft.folder, evaluation, device=base.device, models=Path(catalog.models)
            )
            (draft.folder / CURVE).write_bytes(loss_curve(report))
            (draft.folder / SAMPLES).write_bytes(orjson.dumps(samples, option=orjson.OPT_INDENT_2))
            return {
                "rows": len(train),
                "tokens": report.tokens,
                "pretraining_tokens": report.pretraining_tokens,
                "tokens_per_second": round(report.tokens_per_second, 1),
                "training_memory_mb": round(report.peak_memory_mb),
                "steps": report.steps,
                "left_out": report.left_out,
                "base_eval_loss": report.base_eval_loss,
                "eval_loss": report.eval_loss,
                "trainable_parameters": report.trainable_parameters,
                "dtype": report.dtype,
            }

        def describe(artifact: Artifact) -> dict[str, Any]:
            folder = artifacts.fetch(artifact)
            samples = orjson.loads((folder / SAMPLES).read_bytes())
            return {
                "pairs": artifact.inputs["sft_pairs"],
                "plot": picture((folder / CURVE).read_bytes(), "loss curve"),
                "sample": table(samples, ["question", "wanted", "before", "after"]),
            }

        parameters = {
            "base": base.model_id,
            "lora": base.lora.model_dump(),
            "options": settings.train.deciding,
            "filter": chosen.model_dump(),
        }
        result = publish(
            context, artifacts, build, inputs=["sft_pairs"], parameters=parameters, describe=describe
        )
        checkpoints.clear()  # not before: a run that is killed while it publishes goes on, too
        return result

    return adapter


def _texts(paths: Iterable[Path]) -> Iterator[str]:
    for path in paths:
        with path.open("rb") as file:
            for line in file:
                yield orjson.loads(line)["text"]


def adapter_assets(adapters: dict[str, AdapterFilter]) -> list[AssetsDefinition]:
    """The general adapter, then the named ones in the catalog's order."""
    named = {GENERAL: AdapterFilter(), **adapters}
    return [adapter_asset(name, chosen) for name, chosen in named.items()]
