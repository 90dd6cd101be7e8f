"""The model catalog, `models.yaml`: which model plays which part, swapped without a code change.

A refiner, B embedding, C base of the adapters, D finalist, the reranker, and named adapters.
"""

import os
import re
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from alchemy.errors import BadConfig
from alchemy.records import SOURCES, SftPair

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class LocalModel(_Entry):
    """A model that runs in this process."""

    model_id: str = Field(min_length=1, description="Hugging Face name, folder, or a name from a package.")
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?|mps)$")


class EmbeddingModel(LocalModel):
    query_prompt: str = Field("", description="Prefix of queries, for models that were trained with one.")
    passage_prompt: str = Field("", description="Prefix of passages.")


class LoraOptions(_Entry):
    """peft's names; defaults of contract line 78."""

    r: int = Field(16, ge=1, le=512)
    alpha: int = Field(32, ge=1)
    dropout: float = Field(0.0, ge=0, lt=1)
    target_modules: str | list[str] = "all-linear"


class EngineOptions(_Entry):
    """How the service runs the base model: in its own process, or at an endpoint elsewhere."""

    rows: int = Field(16, ge=1, le=1024, description="Texts that are written at once.")
    waiting: int = Field(64, ge=1, description="Requests that may wait; one more is answered 503.")
    kv_mib: int = Field(1024, ge=1, description="Memory for the keys and values of texts in the making.")
    compile: bool = Field(False, description="Run torch.compile over the steps; needs a C++ compiler.")

    base_url: str | None = Field(
        None, description="An OpenAI-compatible endpoint (vLLM, SGLang, TGI), e.g. http://gpu:8000/v1."
    )
    api_key: SecretStr | None = None
    model: str | None = Field(None, description="The base's name at the endpoint; default: model_id.")
    load_adapters: bool = Field(
        False,
        description="Load adapters by vLLM's /v1/load_lora_adapter; the endpoint must see our cache folder. "
        "Else it must serve each adapter under its own name.",
    )
    timeout_s: float = Field(60, gt=0, description="Longest silence of the endpoint.")


class BaseModelEntry(LocalModel):
    lora: LoraOptions = LoraOptions()
    engine: EngineOptions = EngineOptions()


class RemoteModel(_Entry):
    """A model behind an OpenAI-compatible or any other endpoint that litellm knows."""

    model_id: str = Field(
        min_length=1, description="litellm's name, e.g. deepseek/deepseek-chat, openai/NAME."
    )
    base_url: str | None = None
    api_key: SecretStr | None = None
    temperature: float = Field(0.3, ge=0, le=2)
    timeout_s: float = Field(60, gt=0)

    @property
    def configured(self) -> bool:
        """Whether there is somebody to call."""
        return bool(self.api_key and self.api_key.get_secret_value())


class Refiner(RemoteModel):
    provider: Literal["auto", "llm", "template"] = "auto"

    @property
    def uses_llm(self) -> bool:
        return self.provider == "llm" or (self.provider == "auto" and self.configured)


class Finalist(RemoteModel):
    provider: Literal["auto", "llm", "extractive"] = "auto"
    fallbacks: list[RemoteModel] = Field(
        default_factory=list, max_length=5, description="Asked in turn where the one before wrote nothing."
    )

    @property
    def uses_llm(self) -> bool:
        return self.provider == "llm" or (self.provider == "auto" and self.configured)


class AdapterFilter(_Entry):
    """Which pairs an adapter learns from; empty lists mean all."""

    sources: list[Literal[SOURCES]] = Field(default_factory=list)  # type: ignore[valid-type]
    projects: list[str] = Field(default_factory=list)

    def takes(self, pair: SftPair) -> bool:
        """Whether the adapter learns from the pair. A document id begins with its source."""
        return (not self.sources or pair.document_id.partition(":")[0] in self.sources) and (
            not self.projects or pair.project in self.projects
        )


class Catalog(_Entry):
    model_a: Refiner
    model_b: EmbeddingModel
    reranker: LocalModel
    model_c: BaseModelEntry
    model_d: Finalist
    adapters: dict[str, AdapterFilter] = Field(default_factory=dict)


def load_catalog(path: Path) -> Catalog:
    """Reads `models.yaml`. Raises BadConfig with the file, the place and what is wrong."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise BadConfig(f"{path}: cannot be read ({error.strerror}); set ALCHEMY_CATALOG") from None
    try:
        rows = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise BadConfig(f"{path}: not YAML: {error}") from None
    if not isinstance(rows, dict):
        raise BadConfig(f"{path}: must be a mapping with model_a, model_b, reranker, model_c, model_d")
    try:
        return Catalog.model_validate(_expand(rows, path))
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_input=False)]
        raise BadConfig(f"{path}:\n  " + "\n  ".join(lines)) from None


def _expand(value: Any, path: Path) -> Any:
    """Replaces ${VAR} and ${VAR:-default} in every string of a YAML tree; "" becomes None."""
    if isinstance(value, dict):
        return {key: _expand(item, path) for key, item in value.items()}
    if isinstance(value, list):
        return [_expand(item, path) for item in value]
    if not isinstance(value, str):
        return value

    def variable(match: re.Match[str]) -> str:
        name, default = match.group(1), match.group(2)
        found = os.environ.get(name, default)
        if found is None:
            raise BadConfig(f"{path}: ${{{name}}} is not set; set it in .env or write ${{{name}:-default}}")
        return found

    expanded = _VARIABLE.sub(variable, value)
    return None if "${" in value and not expanded else expanded
