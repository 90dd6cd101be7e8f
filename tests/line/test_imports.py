"""What a fresh interpreter loads: the code location and the service start without what they do not need."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.line.running import ROOT

pytestmark = pytest.mark.integration

HEAVY = {
    "torch",
    "pyspark",
    "transformers",
    "peft",
    "faiss",
    "litellm",
    "sentence_transformers",
    "kubernetes",
}


@pytest.mark.parametrize(
    ("module", "banned"),
    [
        ("dagster_project.definitions", HEAVY | {"serving", "onnxruntime", "matplotlib"}),
        (
            "serving.app",
            {"dagster", "pyspark", "kubernetes", "torch", "assets", "dagster_project", "spark_jobs"},
        ),
        # The service brings commands of its own, but nothing of what they run.
        ("alchemy.cli", HEAVY | {"dagster", "fastapi", "uvicorn", "redis", "cryptography"}),
        ("sensors.plan", HEAVY | {"dagster"}),
        ("spark_jobs.clean", HEAVY | {"dagster", "serving"}),
    ],
)
def test_importing_a_module_loads_nothing_that_it_may_do_without(
    module: str, banned: set[str], tmp_path: Path
) -> None:
    script = f"import sys, {module}\nprint(' '.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env={
            **os.environ,
            "ALCHEMY_STORE": str(tmp_path / "store"),
            "ALCHEMY_CACHE": str(tmp_path / "cache"),
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert loaded & banned == set()
    assert list(tmp_path.iterdir()) == []  # importing writes nothing either


@pytest.mark.parametrize("package", ["alchemy", "spark_jobs", "serving"])
def test_no_arrow_points_at_dagster(package: str) -> None:
    """`alchemy` knows nothing of Dagster, Spark or HTTP; what distributes or serves it nothing of Dagster."""
    banned = {"dagster", "assets", "resources", "sensors", "dagster_project"}
    if package == "alchemy":
        banned |= {"fastapi", "serving", "pyspark", "spark_jobs"}
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in sorted((ROOT / package).rglob("*.py"))
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if (words := line.split())[:1] in (["import"], ["from"]) and words[1].partition(".")[0] in banned
    ]
    assert found == []
