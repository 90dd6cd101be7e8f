"""Running the line in a test: a small raw folder, settings, definitions, one run in process."""

import shutil
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml
from dagster import AssetKey, AssetSelection, BetaWarning, DagsterInstance, SupersessionWarning
from dagster import Definitions as DagsterDefinitions

from alchemy.artifacts import Artifacts
from alchemy.settings import CleanOptions, SearchOptions, Settings, SynthesisOptions, TrainOptions
from alchemy.store import Store

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
DAGSTER_YAML = ROOT / "dagster_project" / "dagster.yaml"

# A dozen objects and a few more: every source, every reader, two that are broken.
SMALL = (
    "git/commits.jsonl",
    "git/pull_requests.json",
    "jira/haul-page-1.json",
    "jira/export-truncated.json",
    "confluence/qingdao-wangguan-lixian_65571.html",
    "confluence/tollgate-limits_65541.html",
    "confluence/runbook-gateway-offline_65547.html",
    "confluence/haulmark-architecture_65537.html",
    "documents/handbook.pdf",
    "documents/broken-scan.pdf",
    "documents/onboarding.docx",
    "database/servers.csv",
    "database/inventory.sqlite",
    "feedback/feedback.jsonl",
)
ASSETS = (
    *("raw/git", "raw/jira", "raw/confluence", "raw/documents", "raw/database", "raw/feedback"),
    *("cleaned_corpus", "rag_chunks", "metrics", "quant_features", "quant_insights", "sft_pairs"),
    *("faiss_index", "lora_adapter", "evaluation", "release"),
)


def copy_small_raw(store: Store) -> None:
    """Puts the small corpus into an empty store."""
    for name in SMALL:
        store.put(f"raw/{name}", EXAMPLES / "raw" / name)


def change_one_object(store: Store) -> None:
    """One wiki page says something else from now on."""
    key = "raw/confluence/tollgate-limits_65541.html"
    old = (EXAMPLES / key).read_bytes()
    note = b"<p>Since the spring release the night job of tollgate counts retries apart from first calls.</p>"
    mark = b'<div id="main-content" class="wiki-content group">'
    assert mark in old
    store.put(key, old.replace(mark, mark + note))


def write_catalog(path: Path, base: str) -> Path:
    """The project's own `models.yaml` with the tiny base, and never with a paid model."""
    rows = yaml.safe_load((ROOT / "models.yaml").read_text(encoding="utf-8"))
    rows["model_a"]["provider"], rows["model_d"]["provider"] = "template", "extractive"
    rows["model_c"] |= {"model_id": base, "device": "cpu"}
    path.write_text(yaml.safe_dump(rows), encoding="utf-8")
    return path


def line_settings(folder: Path, catalog: Path, models: Path, **changes: Any) -> Settings:
    """Settings of a line that lives in `folder` alone; nothing of the environment gets in."""
    values: dict[str, Any] = {
        "store": str(folder / "store"),
        "cache": folder / "cache",
        "catalog": catalog,
        "models": models,
        "engine": "python",
        "workers": 1,
        "s3_endpoint": None,
        "s3_bucket": None,
        "redis_url": None,
        "clean": CleanOptions(part_bytes=4096),  # a small corpus in many parts
        "synthesis": SynthesisOptions(max_samples=240, pairs_per_chunk=1, eval_share=0.1, holdout_share=0.1),
        "search": SearchOptions(rerank=8),
        "train": TrainOptions(max_tokens=12_000, max_length=256, learning_rate=1e-2, batch_tokens=1024),
    }
    return Settings(**values | changes)


def definitions_of(settings: Settings, **overrides: Any) -> DagsterDefinitions:
    """`build_definitions`, imported here so that what only reads settings needs no asset module."""
    from dagster_project.build import build_definitions

    with quiet():
        return build_definitions(settings, **overrides)


@contextmanager
def quiet() -> Iterator[None]:
    """Drops what dagster says about its own API."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BetaWarning)
        warnings.simplefilter("ignore", SupersessionWarning)
        warnings.filterwarnings(
            "ignore", "Property `ScheduleDefinition.environment_vars`", DeprecationWarning
        )
        yield


@dataclass(frozen=True)
class Run:
    """What one run did."""

    success: bool
    run_id: str
    metadata: dict[str, dict[str, Any]]  # asset -> metadata of its materialization, as plain values
    versions: dict[str, str]  # asset -> data version
    checks: dict[str, bool]  # asset:check -> passed
    check_metadata: dict[str, dict[str, Any]] = field(default_factory=dict)
    error: str = ""

    def reused(self) -> set[str]:
        return {asset for asset, values in self.metadata.items() if values["reused"]}


@dataclass(frozen=True)
class Line:
    """One store with everything that runs on it."""

    settings: Settings
    definitions: DagsterDefinitions
    artifacts: Artifacts

    @classmethod
    def of(cls, settings: Settings, **overrides: Any) -> "Line":
        store = Store(settings.store_url, endpoint=settings.s3_endpoint)
        return cls(settings, definitions_of(settings, **overrides), Artifacts(store, settings.cache))

    @property
    def store(self) -> Store:
        return self.artifacts.store

    def materialize(self, *assets: str, instance: DagsterInstance | None = None) -> Run:
        """Runs the assets (all where none is named) and their checks in this process."""
        with ExitStack() as stack:
            stack.enter_context(quiet())
            if instance is None:
                folder = stack.enter_context(TemporaryDirectory(prefix="alchemy-dagster-"))
                instance = stack.enter_context(DagsterInstance.ephemeral(tempdir=folder))
            return _run(self.definitions, assets, instance)

    def versions(self) -> dict[str, str]:
        """The latest version of every asset that has one."""
        found = {asset: self.artifacts.find(asset) for asset in (*ASSETS, "quarantine")}
        return {asset: artifact.version for asset, artifact in found.items() if artifact}


def copy_line(line: Line, folder: Path) -> Line:
    """The same line on a copy of its folder, so that a test may change it."""
    store = line.store.local_path("")
    assert store is not None
    shutil.copytree(store, folder / "store")
    changes = {"store": str(folder / "store"), "cache": folder / "cache"}
    return Line.of(line.settings.model_copy(update=changes))


def _run(definitions: DagsterDefinitions, assets: tuple[str, ...], instance: DagsterInstance) -> Run:
    job = definitions.resolve_implicit_global_asset_job_def()
    keys = [AssetKey(name.split("/")) for name in assets]
    if keys:
        graph = definitions.resolve_asset_graph()
        selection = AssetSelection.assets(*keys)
        job = job.get_subset(
            asset_selection=selection.resolve(graph), asset_check_selection=selection.resolve_checks(graph)
        )
    result = job.execute_in_process(instance=instance, raise_on_error=False)
    made = [event.step_materialization_data.materialization for event in _events(result, "materialization")]
    judged = [event.asset_check_evaluation_data for event in _events(result, "check_evaluation")]
    failed = [event for event in result.all_events if event.is_step_failure]
    return Run(
        success=result.success,
        run_id=result.run_id,
        metadata={
            one.asset_key.to_user_string(): {name: value.value for name, value in one.metadata.items()}
            for one in made
        },
        versions={
            one.asset_key.to_user_string(): (one.tags or {}).get("dagster/data_version", "") for one in made
        },
        checks={f"{one.asset_key.to_user_string()}:{one.check_name}": one.passed for one in judged},
        check_metadata={
            f"{one.asset_key.to_user_string()}:{one.check_name}": {
                name: value.value for name, value in one.metadata.items()
            }
            for one in judged
        },
        error="\n".join(str(event.step_failure_data.error) for event in failed),
    )


def _events(result: Any, kind: str) -> list[Any]:
    wanted = {
        "materialization": lambda event: event.is_step_materialization,
        "check_evaluation": lambda event: event.event_type_value == "ASSET_CHECK_EVALUATION",
    }[kind]
    return [event for event in result.all_events if wanted(event)]
