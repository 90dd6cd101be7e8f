"""A walk over all definitions: everything says who owns it, what it holds and what checks it."""

from pathlib import Path

import pytest
from dagster import AssetSpec

from alchemy.settings import Settings
from tests.line.running import ASSETS, ROOT, Line, definitions_of, line_settings

GROUPS = {"ingestion", "corpus", "quant", "synthesis", "knowledge", "training", "release"}
JOBS = {"full_cycle", "wash", "quant", "refine", "index", "train", "release"}
# Assets whose content another check judges, and which.
WITHOUT_OWN_CHECK = {
    "quant_features": "derived from `metrics` alone; its report names a witness for every dropped column",
    "quant_insights": "derived from `metrics` and `quant_features`; pairs that quote it are checked",
    "faiss_index": "its recall and its leaks are measured by `evaluation` and judged by `release:gate`",
    "lora_adapter": "its held-out loss is measured by `evaluation` and judged by `release:gate`",
    "evaluation": "it is what `release:gate` judges by",
}


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    folder = tmp_path_factory.mktemp("graph")
    return line_settings(folder, ROOT / "models.yaml", folder, cycle_cron="7 3 * * 1")


@pytest.fixture(scope="module")
def graph(settings: Settings) -> Line:
    return Line.of(settings)


@pytest.fixture(scope="module")
def specs(graph: Line) -> dict[str, AssetSpec]:
    return {spec.key.to_user_string(): spec for spec in graph.definitions.resolve_all_asset_specs()}


def test_the_assets_are_those_of_the_design(specs: dict[str, AssetSpec]) -> None:
    assert specs.keys() == set(ASSETS)


@pytest.mark.parametrize("asset", ASSETS)
def test_every_asset_says_what_it_is_and_whose(specs: dict[str, AssetSpec], asset: str) -> None:
    spec = specs[asset]
    assert spec.group_name in GROUPS
    assert spec.kinds
    assert spec.owners
    assert spec.code_version
    assert spec.description
    assert len(spec.description) > 60


def test_every_group_has_an_asset(specs: dict[str, AssetSpec]) -> None:
    assert {spec.group_name for spec in specs.values()} == GROUPS


def test_every_asset_has_a_check_or_a_reason_to_have_none(graph: Line, specs: dict[str, AssetSpec]) -> None:
    checked = {
        key.asset_key.to_user_string() for key in graph.definitions.resolve_asset_graph().asset_check_keys
    }
    derived = {name for name in specs if not name.startswith("raw/")}  # listings are checked by conservation
    assert derived - checked == WITHOUT_OWN_CHECK.keys()


def test_every_check_but_drift_and_quarantine_stops_what_is_downstream_of_it(graph: Line) -> None:
    """These two are news about the data, not faults of it: they warn with numbers."""
    resolved = graph.definitions.resolve_asset_graph()
    warning = {key.name for key in resolved.asset_check_keys if not resolved.get_check_spec(key).blocking}
    assert warning == {"feature_drift", "quarantined"}


def test_every_asset_descends_from_the_raw_sources_and_leads_to_the_release(graph: Line) -> None:
    resolved = graph.definitions.resolve_asset_graph()
    release = next(key for key in resolved.get_all_asset_keys() if key.path == ["release"])
    above = {key.to_user_string() for key in resolved.get_ancestor_asset_keys(release)}
    assert above == set(ASSETS) - {"release"}
    roots = {key.to_user_string() for key in resolved.root_materializable_asset_keys}
    assert roots == {name for name in ASSETS if name.startswith("raw/")}


def test_the_jobs_have_the_names_that_people_know(graph: Line) -> None:
    names = {job.name for job in graph.definitions.resolve_all_job_defs()}
    assert {name for name in names if not name.startswith("__")} == JOBS


def test_the_full_cycle_runs_everything_and_the_stages_together_do_too(graph: Line) -> None:
    def selected(job: str) -> set[str]:
        layer = graph.definitions.resolve_job_def(job).asset_layer
        return {key.to_user_string() for key in layer.selected_asset_keys}

    assert selected("full_cycle") == set(ASSETS)
    stages = [selected(job) for job in sorted(JOBS - {"full_cycle"})]
    assert set.union(*stages) == set(ASSETS)
    assert sum(len(stage) for stage in stages) == len(ASSETS)


def test_the_schedule_follows_the_settings(graph: Line) -> None:
    schedule = graph.definitions.resolve_schedule_def("full_cycle_schedule")
    assert schedule.cron_schedule == "7 3 * * 1"
    assert schedule.job_name == "full_cycle"


def test_the_sensors_start_the_full_cycle_and_are_on_by_default(graph: Line) -> None:
    for name in ("raw_objects", "feedback"):
        sensor = graph.definitions.resolve_sensor_def(name)
        assert sensor.job_name == "full_cycle"
        assert sensor.default_status.value == "RUNNING"


def test_an_adapter_of_the_catalog_becomes_an_asset_that_release_waits_for(tmp_path: Path) -> None:
    catalog = tmp_path / "models.yaml"
    text = (ROOT / "models.yaml").read_text(encoding="utf-8")
    catalog.write_text(
        text.replace("adapters: {}", "adapters: {support: {sources: [jira]}}"), encoding="utf-8"
    )
    definitions = definitions_of(line_settings(tmp_path, catalog, tmp_path))
    resolved = definitions.resolve_asset_graph()
    support = next(key for key in resolved.get_all_asset_keys() if key.path == ["support"])
    assert resolved.get(support).group_name == "training"
    below = {key.to_user_string() for key in resolved.get(support).child_keys}
    assert "evaluation" in below
