"""What is installed, reachable and released; what is missing, and how to get it."""

import importlib.util
import platform
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from alchemy.artifacts import Artifacts
from alchemy.catalog import load_catalog
from alchemy.engine import java_available, pick_engine
from alchemy.errors import AlchemyError
from alchemy.models import find, is_fetched
from alchemy.release import read_release_alias
from alchemy.settings import Settings
from alchemy.store import Store

# One module that stands for each extra.
_EXTRAS = {"dagster": "dagster", "serve": "fastapi", "train": "gguf", "spark": "pyspark", "k8s": "kubernetes"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `broken` needs mending; `missing` leaves one named feature out."""

    what: str
    state: Literal["ok", "missing", "broken"]
    detail: str


def examine(settings: Settings) -> Iterator[Finding]:
    """Looks at everything; never raises for what it finds."""
    version = platform.python_version()
    yield Finding("python", "ok" if sys.version_info >= (3, 11) else "broken", f"{version} (3.11 or newer)")
    for extra, module in _EXTRAS.items():
        found = importlib.util.find_spec(module) is not None
        how = "installed" if found else f"pip install -c constraints.txt -e '.[{extra}]'"
        yield Finding(f"extra {extra}", "ok" if found else "missing", how)
    java = java_available()
    yield Finding(
        "java", "ok" if java else "missing", "for the Spark engine" + ("" if java else ": install 17+")
    )
    yield _engine(settings)
    yield from _models(settings)
    yield from _store(settings)
    yield _redis(settings)


def _engine(settings: Settings) -> Finding:
    name = pick_engine(
        settings.engine,
        raw_bytes=0,
        spark_min_bytes=settings.spark_min_bytes,
        spark_master=settings.spark_master,
    )
    return Finding("engine", "ok", f"{name} for small data (mode {settings.engine})")


def _redis(settings: Settings) -> Finding:
    if settings.redis_url is None:
        return Finding("redis", "ok", "embedded Valkey, started by `alchemy serve`")
    try:
        import redis

        redis.Redis.from_url(settings.redis_url, socket_timeout=2, socket_connect_timeout=2).ping()
    except ImportError:
        return Finding("redis", "missing", "pip install -c constraints.txt -e '.[serve]'")
    except (redis.RedisError, ValueError) as error:
        return Finding("redis", "broken", f"REDIS_URL does not answer: {type(error).__name__}")
    return Finding("redis", "ok", "REDIS_URL answers")


def _models(settings: Settings) -> Iterator[Finding]:
    try:
        catalog = load_catalog(settings.catalog)
    except AlchemyError as error:
        yield Finding("models.yaml", "broken", str(error))
        return
    for part in ("model_b", "reranker", "model_c"):
        model_id = getattr(catalog, part).model_id
        packaged = find(model_id)
        if packaged is None:
            yield Finding(part, "ok", f"{model_id}, loaded by name")
        elif is_fetched(packaged, settings.models):
            yield Finding(part, "ok", model_id)
        else:
            yield Finding(part, "missing", f"{model_id}: `alchemy models pull` (or on first use)")
    pairs = "llm" if catalog.model_a.uses_llm else "template pairs; set DEEPSEEK_API_KEY for a model"
    answers = "llm" if catalog.model_d.uses_llm else "extractive answers; set DEEPSEEK_API_KEY for a model"
    yield Finding("model_a", "ok", pairs)
    yield Finding("model_d", "ok", answers)


def _store(settings: Settings) -> Iterator[Finding]:
    try:
        artifacts = Artifacts(Store(settings.store_url, endpoint=settings.s3_endpoint), settings.cache)
        sources = artifacts.store.folders("raw")
        champion = read_release_alias(artifacts, "champion")
    except AlchemyError as error:
        yield Finding("store", "broken", f"{settings.store_url}: {error}")
        return
    raw = f"raw data of {', '.join(sources)}" if sources else "no raw data; `alchemy upload FOLDER`"
    yield Finding("store", "ok", f"{settings.store_url}: {raw}")
    yield Finding(
        "champion",
        "ok" if champion else "missing",
        champion.release
        if champion
        else "dagster asset materialize --select '*' -m dagster_project.definitions",
    )
