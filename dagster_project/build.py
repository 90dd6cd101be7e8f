"""`build_definitions`: what production, the command line and the tests all call."""

from typing import Any

from dagster import Definitions, in_process_executor, load_asset_checks_from_modules, load_assets_from_modules

from alchemy.settings import Settings
from assets import checks, corpus, evaluation, knowledge, quant, raw, release, synthesis, training
from dagster_project.jobs import jobs
from dagster_project.schedules import build_schedules
from resources.catalog import CatalogResource
from resources.engine import EngineResource
from resources.store import StoreResource
from sensors.raw import sensors


def build_definitions(settings: Settings, **overrides: Any) -> Definitions:
    """All assets, checks, jobs, schedules and sensors over one set of resources.

    `overrides` replaces resources by name (store, engine, catalog, settings).
    """
    modules = [raw, corpus, quant, synthesis, knowledge, release]
    resources: dict[str, Any] = {
        "settings": settings,
        "store": StoreResource.of(settings),
        "engine": EngineResource.of(settings),
        "catalog": CatalogResource.of(settings),
        **overrides,
    }
    adapters = resources["catalog"].catalog.adapters
    return Definitions(
        assets=[
            *load_assets_from_modules(modules),
            *training.adapter_assets(adapters),
            evaluation.evaluation_asset(adapters),
        ],
        asset_checks=load_asset_checks_from_modules([checks]),
        jobs=jobs,
        schedules=build_schedules(settings),
        sensors=sensors,
        resources=resources,
        executor=in_process_executor,  # a step costs milliseconds, not a process; see docs for Kubernetes
    )
