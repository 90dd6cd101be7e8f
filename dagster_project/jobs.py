"""The jobs people know, as asset selections.

Wash -> Quant -> Refine -> Index -> Train -> Evaluate -> Release (contract X17); the last two are one job.
"""

from dagster import AssetSelection, define_asset_job

_STAGES = {
    "wash": (AssetSelection.groups("ingestion", "corpus"), "Raw objects to cleaned corpus and chunks."),
    "quant": (AssetSelection.groups("quant"), "Metrics to features and insights."),
    "refine": (AssetSelection.groups("synthesis"), "Grounded training pairs."),
    "index": (AssetSelection.groups("knowledge"), "The hybrid index."),
    "train": (AssetSelection.groups("training"), "LoRA adapters."),
    "release": (AssetSelection.groups("release"), "Evaluation, gate and release."),
}

# One cycle at a time: the tag is limited to one running run in dagster.yaml.
_TAGS = {"alchemy/line": "main"}

jobs = [
    define_asset_job(
        "full_cycle", AssetSelection.all(), description="The whole line, raw objects to release.", tags=_TAGS
    ),
    *(
        define_asset_job(name, selection, description=description, tags=_TAGS)
        for name, (selection, description) in _STAGES.items()
    ),
]
