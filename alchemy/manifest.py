"""What an artifact is: where it lives, what it was asked from, and the manifest that makes it exist."""

from dataclasses import dataclass, field
from typing import Any

from alchemy.records import fingerprint

MANIFEST = "manifest.json"

# The folder of each artifact in the store. The names are the ones people know from the contract.
HOMES = {
    "cleaned_corpus": "processed/cleaned_corpus.jsonl",
    "quarantine": "processed/quarantine.jsonl",
    "rag_chunks": "processed/rag_chunks.jsonl",
    "metrics": "processed/metrics.parquet",
    "quant_features": "quant/final_features.parquet",
    "quant_insights": "quant/insights.jsonl",
    "sft_pairs": "sft",
    "vectors": "processed/vectors.npy",
    "faiss_index": "index",
    "evaluation": "evaluations",
    "release": "releases",
}


def home(asset: str) -> str:
    """Where versions of `asset` live: `raw/git` -> `listings/git`, an adapter -> `adapters/<name>`."""
    if asset.startswith("raw/"):
        return f"listings/{asset.removeprefix('raw/')}"
    return HOMES.get(asset, f"adapters/{asset}")


@dataclass(frozen=True, slots=True)
class ArtifactFile:
    """One file of an artifact; `path` is relative to the artifact's folder."""

    path: str
    sha256: str
    size: int  # bytes


@dataclass(frozen=True, slots=True)
class Request:
    """What an artifact is asked to be made from. Equal requests need not be answered twice."""

    asset: str
    inputs: dict[str, str]  # asset -> version
    code_version: str
    parameters: dict[str, Any] = field(default_factory=dict)  # JSON values that change the result
    run_id: str = ""

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.inputs, self.code_version, self.parameters)


@dataclass(frozen=True, slots=True)
class Artifact:
    """The manifest of one version."""

    asset: str
    version: str
    files: tuple[ArtifactFile, ...]
    inputs: dict[str, str]
    code_version: str
    parameters: dict[str, Any]
    metrics: dict[str, Any]  # counts and measurements of the run that made it; not part of the version
    run_id: str
    created_at: str

    @property
    def folder(self) -> str:
        return f"{home(self.asset)}/{self.version}"

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)
