"""The object store and its artifacts, as a Dagster resource."""

from functools import cached_property
from pathlib import Path

from dagster import ConfigurableResource
from pydantic import Field

from alchemy.artifacts import Artifacts
from alchemy.settings import Settings
from alchemy.store import Store


class StoreResource(ConfigurableResource):
    """Where everything lives: a folder on a laptop, a bucket elsewhere."""

    url: str = Field(description="Folder or s3://bucket[/prefix].")
    endpoint: str | None = Field(default=None, description="S3 endpoint, where it is not AWS.")
    cache: str = Field(description="Local folder for copies of remote artifacts.")

    @classmethod
    def of(cls, settings: Settings) -> "StoreResource":
        return cls(url=settings.store_url, endpoint=settings.s3_endpoint, cache=str(settings.cache))

    @cached_property
    def artifacts(self) -> Artifacts:
        return Artifacts(Store(self.url, endpoint=self.endpoint), Path(self.cache))

    @property
    def store(self) -> Store:
        return self.artifacts.store
