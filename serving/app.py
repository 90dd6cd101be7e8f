"""The service as an ASGI app: `create_app` wires the parts, the lifespan starts and stops them.

Tests and other front ends hand in their own parts (`Parts`); whatever is None is made from the settings.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial

from fastapi import FastAPI, Request
from starlette.responses import Response

from alchemy.artifacts import Artifacts
from alchemy.catalog import Catalog
from alchemy.errors import Unavailable
from alchemy.retrieval.conversation import ask_to_stand_alone
from alchemy.retrieval.rewrite import rewrite_query
from alchemy.settings import Settings
from alchemy.store import Store
from alchemy.synthesis.client import LlmClient, RetryPolicy
from alchemy.text.sanitize import Sanitizer
from serving import chat, embeddings_api, errors, lineage, openai_api, operations
from serving.answers import Answers
from serving.coordinator import Coordinator
from serving.embeddings import Embeddings
from serving.finalist import LanguageModel, LiteLlm, load_language_model
from serving.fusing import Finalists
from serving.guard import Guard
from serving.health import Health
from serving.loading import Loader
from serving.metrics import Metrics
from serving.observe import Observe
from serving.options import ServingOptions, load_options
from serving.pipeline import Pipeline
from serving.released import Follower, Load
from serving.services import Services
from serving.state import State
from serving.streams import ClientGone
from serving.tracing import open_tracing
from serving.valkey import EmbeddedValkey

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
            Store(settings.store_url, endpoint=settings.s3_endpoint, patience_s=options.store_s),
            settings.cache,
        )
        model = parts.model or _language_model(catalog, options)
        rewording = _rewording(settings, catalog) if catalog.model_d.uses_llm else None
        load = parts.load or Loader(settings, catalog, artifacts, intuition=options.intuition)
        follower = Follower(artifacts, load, metrics, options)
        state = State(url, deadline_s=options.state_s)
        answers = Answers(state, ttl_s=options.answer_ttl_s)
        pipeline = Pipeline(
            metrics,
            options=options,
            search=settings.search,
            finalists=Finalists(model, Sanitizer(settings.pseudonym_salt)),
            rewriter=partial(rewrite_query, rewording) if rewording and options.rewrite else None,
        )
        coordinator = Coordinator(
            follower,
            pipeline,
            answers,
            metrics,
            options=options,
            completer=partial(ask_to_stand_alone, rewording) if rewording else None,
        )
        embeddings = Embeddings(options)
        health = Health(follower, artifacts, state, metrics, options, settings.search)
        app.state.tracing = tracing = open_tracing(options.otlp_endpoint)
        app.state.services = Services(
            settings, options, catalog, artifacts, metrics, state, answers, follower, coordinator, embeddings,
            health,
        )  # fmt: skip
        watching = [asyncio.create_task(one.run()) for one in (follower, health)]
        try:
            yield
        finally:
            for task in watching:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
            await coordinator.close()
            embeddings.close()
            health.close()
            await follower.close()
            await state.close()
            if model:
                await model.close()
            if rewording:
                rewording.close()
            if tracing:
                await asyncio.to_thread(tracing.close)
            if valkey:
                await asyncio.to_thread(valkey.stop)

    app = FastAPI(title="Data Alchemy", version="0.1.0", lifespan=lifespan)
    app.add_middleware(Guard, api_key=settings.api_key, max_body_bytes=options.max_body_bytes)
    app.add_middleware(Observe, metrics=metrics)
    errors.install(app)

    @app.exception_handler(ClientGone)
    async def gone(_: Request, __: ClientGone) -> Response:
        return Response(status_code=499)  # nobody reads it; nginx's code, for the metrics

    for part in (chat, openai_api, embeddings_api, lineage, operations):
        app.include_router(part.router)
    return app


def _rewording(settings: Settings, catalog: Catalog) -> LlmClient:
    """The finalist's model for questions: one attempt, the same words every time, kept on disk."""
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
