"""The models of `models.yaml`, loaded when an asset first asks, once per process."""

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from dagster import ConfigurableResource
from pydantic import Field

from alchemy.catalog import Catalog, load_catalog
from alchemy.models import resolve
from alchemy.settings import Settings

if TYPE_CHECKING:
    from alchemy.retrieval.embed import Embedder
    from alchemy.retrieval.rerank import Reranker


class CatalogResource(ConfigurableResource):
    """Which models play which part; any Hugging Face name works by changing the file."""

    path: str = Field(description="Path of models.yaml.")
    models: str = Field(description="Folder of model weights; packaged ones are fetched into it once.")

    @classmethod
    def of(cls, settings: Settings) -> "CatalogResource":
        return cls(path=str(settings.catalog), models=str(settings.models))

    @cached_property
    def catalog(self) -> Catalog:
        return load_catalog(Path(self.path))

    @cached_property
    def embedder_folder(self) -> Path:
        """The folder with the embedding model's `tokenizer.json`."""
        return Path(resolve(self.catalog.model_b.model_id, Path(self.models)))

    @cached_property
    def embedder(self) -> "Embedder":
        from alchemy.retrieval.embed import Embedder

        return Embedder(self.catalog.model_b, Path(self.models))

    @cached_property
    def reranker(self) -> "Reranker":
        from alchemy.retrieval.rerank import Reranker

        return Reranker(self.catalog.reranker, Path(self.models))

    @cached_property
    def base_model(self) -> str:
        """The base of the adapters: a local folder, or the name that transformers loads."""
        return resolve(self.catalog.model_c.model_id, Path(self.models))
