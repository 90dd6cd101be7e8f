"""`alchemy refine`: training pairs anew, with what they are made from brought up to date first."""

from typing import Any

from alchemy.artifacts import Artifacts
from alchemy.materializing import Say, dagster_home, materialize

# Quant runs first (contract line 49): where nothing has changed, it does nothing.
_SELECT = "group:quant or key:sft_pairs"


def refine(artifacts: Artifacts, *, synthesis: bool, max_samples: int | None, say: Say) -> dict[str, Any]:
    """Makes the insights and the pairs of the current corpus; returns what became of the pairs.

    Args:
        artifacts: Where the corpus is, and where the pairs go.
        synthesis: Written by model_a, else by templates, which cost nothing.
        max_samples: Most pairs; None: as the settings say.
        say: Takes each line that a person wants to see.

    Raises:
        NotFound: There is no corpus yet, or no chunks of it.
        AlchemyError: The run failed.
    """
    for needed in ("cleaned_corpus", "rag_chunks"):
        artifacts.latest(needed)
    environment = {"ALCHEMY_SYNTHESIS__PROVIDER": "llm" if synthesis else "template"}
    if max_samples is not None:
        environment["ALCHEMY_SYNTHESIS__MAX_SAMPLES"] = str(max_samples)
    materialize(dagster_home(), _SELECT, environment, say)
    made = artifacts.latest("sft_pairs")
    names = ("provider", "written", "kept", "rejected", "kept_by_split", "kept_by_kind", "cost_usd")
    return {"version": made.version, **{name: made.metrics[name] for name in names if name in made.metrics}}
