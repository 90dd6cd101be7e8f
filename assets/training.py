"""LoRA adapters: the general one, and one for each entry of `models.yaml: adapters:`."""

from pathlib import Path
from typing import Any

from dagster import AssetExecutionContext, AssetsDefinition, MaterializeResult, ResourceParam, asset

from alchemy.artifacts import Artifact, Draft
from alchemy.catalog import AdapterFilter
from alchemy.parts import read_parts
from alchemy.records import SftPair
from alchemy.settings import Settings
from alchemy.training.checkpoints import Checkpoints
from alchemy.training.curve import loss_curve
from alchemy.training.lora import RECIPE, train_lora
from assets.publishing import Inputs, log_progress, picture, publish
from assets.synthesis import sft_pairs
from resources.catalog import CatalogResource
from resources.store import StoreResource

GENERAL = "lora_adapter"


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
            held = read_parts(SftPair, artifacts.parts(pairs, "sft_eval"))
            progress = log_progress(context, "training steps")
            report = train_lora(
                base.model_id,
                train,
                [pair for pair in held if chosen.takes(pair)],
                base.lora,
                settings.train,
                device=base.device,
                folder=draft.folder,
                progress=lambda done, total, _: progress(done, total),
                checkpoints=checkpoints,
                models=Path(catalog.models),
            )
            (draft.folder / "loss.png").write_bytes(loss_curve(report))
            return {
                "rows": len(train),
                "tokens": report.tokens,
                "tokens_per_second": round(report.tokens_per_second, 1),
                "steps": report.steps,
                "left_out": report.left_out,
                "base_eval_loss": report.base_eval_loss,
                "eval_loss": report.eval_loss,
                "trainable_parameters": report.trainable_parameters,
                "dtype": report.dtype,
            }

        def describe(artifact: Artifact) -> dict[str, Any]:
            return {"plot": picture((artifacts.fetch(artifact) / "loss.png").read_bytes(), "loss curve")}

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


def adapter_assets(adapters: dict[str, AdapterFilter]) -> list[AssetsDefinition]:
    """The general adapter, then the named ones in the catalog's order."""
    named = {GENERAL: AdapterFilter(), **adapters}
    return [adapter_asset(name, chosen) for name, chosen in named.items()]
