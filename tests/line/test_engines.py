"""Another engine and another store publish the same versions of everything."""

import os
from pathlib import Path
from typing import Any

import pytest

from alchemy.engine import Engine
from resources.engine import EngineResource
from tests.line.running import ASSETS, Line, Run, copy_small_raw, line_settings

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def spark_run(
    spark: Any, s3_server: Any, catalog: Path, models_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Line, Run]:
    """The line on SeaweedFS with Spark."""
    from spark_jobs.clean import SparkEngine

    class SharedSession(EngineResource):
        def pick(self, raw_bytes: int) -> Engine:
            return SparkEngine("local[2]", spark)

    settings = line_settings(
        tmp_path_factory.mktemp("spark"),
        catalog,
        models_folder,
        store=f"s3://{s3_server.bucket}/{os.urandom(6).hex()}",
        s3_endpoint=s3_server.endpoint,
        engine="spark",
    )
    line = Line.of(settings, engine=SharedSession())
    copy_small_raw(line.store)
    return line, line.materialize()


def test_spark_on_s3_gives_every_asset_the_version_that_python_in_a_folder_gives(
    spark_run: tuple[Line, Run], line: Line, first_run: Run
) -> None:
    other, run = spark_run
    assert run.success, run.error
    assert run.metadata["cleaned_corpus"]["engine"] == "spark"
    assert run.metadata["cleaned_corpus"]["uri"].startswith("s3://")
    assert {asset: run.versions[asset] for asset in ASSETS} == first_run.versions
    assert other.versions() == line.versions()
    assert run.checks == first_run.checks


def test_copies_of_remote_artifacts_are_verified_and_equal(
    spark_run: tuple[Line, Run], line: Line, first_run: Run
) -> None:
    other, _ = spark_run
    for asset in ("cleaned_corpus", "faiss_index", "lora_adapter", "release"):
        remote, local = other.artifacts.latest(asset), line.artifacts.latest(asset)
        assert remote.files == local.files
        other.artifacts.verify(remote)


def test_a_second_run_on_s3_reuses_everything(spark_run: tuple[Line, Run]) -> None:
    other, _ = spark_run
    run = other.materialize()
    assert run.success, run.error
    assert run.reused() == set(ASSETS)
