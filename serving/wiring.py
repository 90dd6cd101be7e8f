"""From settings to the parts of a running service: each is made, started, and closed in the reverse order.

Tests and other front ends hand in their own parts (`Parts`); whatever is None is made from the settings.
"""

import asyncio
import logging
import threading
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial

from alchemy.artifacts import Artifacts
from alchemy.catalog import Catalog
from alchemy.errors import Unavailable
from alchemy.providers import litellm
from alchemy.retrieval.conversation import ask_to_stand_alone
from alchemy.retrieval.rewrite import rewrite_query
from alchemy.settings import Settings
from alchemy.store import Store
from alchemy.synthesis.client import LlmClient, RetryPolicy
from alchemy.text.sanitize import Sanitizer
from serving.answers import Answers
from serving.caching.cache import CacheManager
from serving.coordinator import Coordinator
from serving.embeddings import Embeddings
from serving.feedback import Feedbacks
from serving.finalist import LanguageModel, Remote
from serving.fusing import Finalists
from serving.loading import Loader
from serving.options import ServingOptions
from serving.people.people import open_people
from serving.pipeline import Pipeline
from serving.rag.opening import opened_rag
from serving.rag.options import RagOptions
from serving.released import Follower, Load
from serving.routes.dagster_api import DagsterApi
from serving.services import Services
from serving.sharing import Sharing
from serving.state import State
from serving.valkey import EmbeddedValkey
from serving.watching.health import Health, Watched
from serving.watching.metrics import Metrics

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Parts:
    """Parts to use instead of those that the settings describe."""

    artifacts: Artifacts | None = None
    load: Load | None = None
    models: tuple[LanguageModel, ...] | None = None
    options: ServingOptions | None = None
    rag: RagOptions | None = None


@asynccontextmanager
async def opened(
    settings: Settings,
    catalog: Catalog,
    parts: Parts,
    options: ServingOptions,
    rag_options: RagOptions,
    metrics: Metrics,
) -> AsyncGenerator[Services, None]:
    """The services of one app, at work until the context ends."""
    async with AsyncExitStack() as stack:
        state = State(await _state_url(settings, stack), deadline_s=options.state_s)
        stack.push_async_callback(state.close)
        people = open_people(settings, options, state, metrics)
        stack.callback(people.close)
        artifacts = parts.artifacts or Artifacts(
            Store(settings.store_url, endpoint=settings.s3_endpoint, patience_s=options.store_s),
            settings.cache,
        )
        models = _language_models(catalog, options) if parts.models is None else parts.models
        for model in models:
            stack.push_async_callback(model.close)
        rewording = _rewording(settings, catalog) if catalog.model_d.uses_llm else None
        if rewording:
            stack.callback(rewording.close)
        loader = Loader(settings, catalog, artifacts, metrics, intuition=options.intuition)
        stack.push_async_callback(asyncio.to_thread, loader.close)
        follower = Follower(artifacts, parts.load or loader, metrics, options)
        stack.push_async_callback(follower.close)
        answers = Answers(state, people.sealing, ttl_s=options.answer_ttl_s)
        sanitizer = Sanitizer(settings.pseudonym_salt)
        feedbacks = Feedbacks(
            state, people.sealing, artifacts.store, sanitizer, export_s=options.feedback_export_s
        )
        pipeline = Pipeline(
            metrics,
            options=options,
            search=settings.search,
            finalists=Finalists(models, sanitizer),
            rewriter=partial(rewrite_query, rewording) if rewording and options.rewrite else None,
        )
        cache = CacheManager(state, metrics, options, sealing=people.sealing)
        coordinator = Coordinator(
            follower,
            Sharing(pipeline, cache, follower, writers=[model.name for model in models]),
            answers,
            people.sessions,
            metrics,
            options=options,
            answered=people.answered,
            completer=partial(pipeline.in_words, ask_to_stand_alone, rewording) if rewording else None,
        )
        stack.push_async_callback(coordinator.close)
        embeddings = Embeddings(options)
        stack.callback(embeddings.close)
        rag = await stack.enter_async_context(
            opened_rag(settings, catalog, rag_options, options, follower, embeddings, sanitizer, metrics)
        )
        dagster = DagsterApi(options.dagster_url) if options.dagster_url else None
        if dagster:
            stack.push_async_callback(dagster.aclose)
        watched: dict[str, Watched] = {
            "feedback": feedbacks,
            "audit": people.audit,
            "revocation": people.credentials,
            "rag": rag,
            "engine": loader,
        }
        health = Health(follower, artifacts, state, metrics, options, settings.search, watched)
        stack.callback(health.close)
        for part in (follower, feedbacks, health):
            stack.push_async_callback(_ended, asyncio.create_task(part.run()))
        yield Services(
            settings=settings,
            options=options,
            catalog=catalog,
            artifacts=artifacts,
            metrics=metrics,
            state=state,
            people=people,
            answers=answers,
            feedbacks=feedbacks,
            follower=follower,
            coordinator=coordinator,
            embeddings=embeddings,
            rag=rag,
            health=health,
            dagster=dagster,
            cache=cache,
        )


async def _ended(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def _state_url(settings: Settings, stack: AsyncExitStack) -> str:
    """Of the server that is named, or of one that is started for as long as the stack is open."""
    if settings.redis_url:
        return settings.redis_url
    valkey = EmbeddedValkey(settings.cache / "valkey")
    stack.push_async_callback(asyncio.to_thread, valkey.stop)
    try:
        await asyncio.to_thread(valkey.start)
    except Unavailable as error:
        log.error("answers go without history", extra={"reason": str(error)})
    return valkey.url


def _rewording(settings: Settings, catalog: Catalog) -> LlmClient:
    """The finalist's model for questions: one attempt, the same words every time, kept on disk."""
    entry = catalog.model_d.model_copy(update={"temperature": 0.0})
    return LlmClient(entry, settings.cache / "rewritings.sqlite", retry=RetryPolicy(attempts=1))


def _language_models(catalog: Catalog, options: ServingOptions) -> tuple[LanguageModel, ...]:
    """The finalist and its fallbacks; none where answers are extractive."""
    entry = catalog.model_d
    if not entry.uses_llm:
        return ()
    # Seconds, in which the release loads, which takes longer: no question waits for it.
    threading.Thread(target=litellm, name="litellm", daemon=True).start()
    return tuple(
        Remote(
            model, first_token_s=options.first_token_s, stall_s=options.stall_s, tokens=options.answer_tokens
        )
        for model in (entry, *entry.fallbacks)
    )
