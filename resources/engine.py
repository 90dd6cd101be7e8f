"""One facade over the Python and the Spark engine; the asset does not know which one runs."""

from dagster import ConfigurableResource
from pydantic import Field

from alchemy.engine import Engine, PythonEngine, pick_engine
from alchemy.settings import Settings


class EngineResource(ConfigurableResource):
    """Picks the cleaning engine by the contract's rule (X2)."""

    mode: str = Field(default="auto", pattern="^(auto|python|spark)$", description="auto, python or spark.")
    workers: int = Field(default=1, ge=1, le=256, description="Processes of the Python engine.")
    spark_master: str = Field(default="local[*]", description="Master URL: local[*], spark://..., k8s://...")
    spark_min_bytes: int = Field(default=100_000_000, ge=0, description="Raw bytes from which auto is Spark.")

    @classmethod
    def of(cls, settings: Settings) -> "EngineResource":
        return cls(
            mode=settings.engine,
            workers=settings.workers,
            spark_master=settings.spark_master,
            spark_min_bytes=settings.spark_min_bytes,
        )

    def pick(self, raw_bytes: int) -> Engine:
        """The engine for that much raw input."""
        name = pick_engine(
            self.mode,  # type: ignore[arg-type]
            raw_bytes=raw_bytes,
            spark_min_bytes=self.spark_min_bytes,
            spark_master=self.spark_master,
        )
        if name == "python":
            return PythonEngine(self.workers)
        from spark_jobs.clean import SparkEngine

        return SparkEngine(self.spark_master)
