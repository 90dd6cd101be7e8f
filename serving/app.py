"""The service as an ASGI app: `create_app` wires the parts, the lifespan starts and stops them.

Tests and other front ends hand in their own parts (`Parts`); whatever is None is made from the settings.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial

from fastapi import FastAPI, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from alchemy.artifacts import Artifacts
from alchemy.catalog import Catalog
from alchemy.errors import Unavailable
from alchemy.retrieval.rewrite import rewrite_query
from alchemy.settings import Settings
from alchemy.store import Store
from alchemy.synthesis.client import LlmClient, RetryPolicy
from serving import chat, errors, lineage, openai_api, operations
from serving.coordinator import Coordinator
from serving.finalist import LanguageModel, LiteLlm, load_language_model
from serving.loading import Loader
from serving.metrics import Metrics
from serving.options import ServingOptions, load_options
from serving.released import Follower, Load
from serving.security import Guard
from serving.services import Services
from serving.state import Answers, EmbeddedValkey
from serving.streams import ClientGone

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Parts:
    """Parts to use instead of those that the settings describe."""

    artifacts: Artifacts | None = None
    load: Load | None = None
    model: LanguageModel | None = None
    options: ServingOptions | None = None


def create_app(settings: Settings, catalog: Catalog, parts: Parts | None = None) -> FastAPI:
    """The app. Nothing is opened or started before its lifespan is."""
    parts = parts or Parts()
    options = parts.options or load_options()
    metrics = Metrics()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None, None]:
        valkey = None if settings.redis_url else EmbeddedValkey(settings.cache / "valkey")
        if valkey:
            try:
                await asyncio.to_thread(valkey.start)
            except Unavailable as error:
                log.error("answers go without history", extra={"reason": str(error)})
        url = settings.redis_url or (valkey.url if valkey else "")
        artifacts = parts.artifacts or Artifacts(
            Store(settings.store_url, endpoint=settings.s3_endpoint), settings.cache
        )
        model = parts.model or _language_model(catalog, options)
        rewriting = _rewriting(settings, catalog) if options.rewrite and catalog.model_d.uses_llm else None
        loader = Loader(settings, catalog, artifacts, metrics, intuition=options.intuition)
        follower = Follower(artifacts, parts.load or loader, metrics, options)
        answers = Answers(url, ttl_s=options.answer_ttl_s, deadline_s=options.state_s)
        coordinator = Coordinator(
            follower,
            answers,
            metrics,
            options=options,
            search=settings.search,
            model=model,
            rewriter=partial(rewrite_query, rewriting) if rewriting else None,
        )
        app.state.services = Services(
            settings, options, catalog, artifacts, metrics, answers, follower, coordinator
        )
        following = asyncio.create_task(follower.run())
        try:
            yield
        finally:
            following.cancel()
            with suppress(asyncio.CancelledError):
                await following
            coordinator.close()
            await follower.close()
            await asyncio.to_thread(loader.close)
            await answers.close()
            if model:
                await model.close()
            if rewriting:
                rewriting.close()
            if valkey:
                await asyncio.to_thread(valkey.stop)

    app = FastAPI(title="Data Alchemy", version="0.1.0", lifespan=lifespan)
    app.add_middleware(Guard, api_key=settings.api_key, max_body_bytes=options.max_body_bytes)
    app.add_middleware(Measure, metrics=metrics)
    errors.install(app)

    @app.exception_handler(ClientGone)
    async def gone(_: Request, __: ClientGone) -> Response:
        return Response(status_code=499)  # nobody reads it; nginx's code, for the metrics

    for router in (chat.router, openai_api.router, lineage.router, operations.router):
        app.include_router(router)
    return app


class Measure:
    """Time and status of every request, by route, until the last byte of its answer."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 500

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:
            # The template, not the path: ids and unknown paths must not become labels.
            route = getattr(scope.get("route"), "path", "other")
            self._metrics.latency.labels(route).observe(time.perf_counter() - started)
            self._metrics.requests.labels(route, str(status)).inc()


def _rewriting(settings: Settings, catalog: Catalog) -> LlmClient:
    """The finalist's model for rewriting: one attempt, the same words every time, kept on disk."""
    entry = catalog.model_d.model_copy(update={"temperature": 0.0})
    return LlmClient(entry, settings.cache / "rewritings.sqlite", retry=RetryPolicy(attempts=1))


def _language_model(catalog: Catalog, options: ServingOptions) -> LanguageModel | None:
    entry = catalog.model_d
    if not entry.uses_llm:
        return None
    pool = ThreadPoolExecutor(1, "litellm")
    pool.submit(load_language_model)  # meanwhile the release loads, which takes longer
    pool.shutdown(wait=False)
    return LiteLlm(
        entry, first_token_s=options.first_token_s, stall_s=options.stall_s, tokens=options.answer_tokens
    )
