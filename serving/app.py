"""The service as an ASGI app: routes, middleware, and the lifespan around the parts (`wiring`)."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from starlette.responses import Response

from alchemy.catalog import Catalog
from alchemy.settings import Settings
from serving import errors
from serving.guard import Guard
from serving.headers import DOCS
from serving.options import load_options
from serving.rag.options import load_rag_options
from serving.routes import (
    auth_api,
    cache_api,
    chat,
    embeddings_api,
    feedback_api,
    jobs_api,
    lineage,
    openai_api,
    operations,
    pages,
    passages,
    rag_api,
    releases_api,
    sessions_api,
    socket,
    users_api,
)
from serving.streams import ClientGone
from serving.watching.metrics import Metrics
from serving.watching.observe import Observe
from serving.watching.tracing import open_tracing
from serving.wiring import Parts, opened

_PARTS = (
    # First what is asked most.
    *(chat, socket, feedback_api, openai_api, embeddings_api, rag_api, lineage, passages),
    *(auth_api, users_api, sessions_api),
    *(releases_api, jobs_api, cache_api, operations),
)


def create_app(settings: Settings, catalog: Catalog, parts: Parts | None = None) -> FastAPI:
    """The app. Nothing is opened or started before its lifespan is."""
    parts = parts or Parts()
    options = parts.options or load_options()
    rag_options = parts.rag or load_rag_options()
    metrics = Metrics()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None, None]:
        app.state.tracing = tracing = open_tracing(options.otlp_endpoint)
        async with opened(settings, catalog, parts, options, rag_options, metrics) as services:
            app.state.services = services
            yield
        if tracing:
            await asyncio.to_thread(tracing.close)

    app = FastAPI(
        title="Data Alchemy",
        version="0.1.0",
        lifespan=lifespan,
        docs_url=DOCS if settings.login == "open" else None,  # a browser could send no token to it
        redoc_url=None,
        responses=errors.RESPONSES,
    )
    documents = {"/ingest": rag_options.max_body_bytes}
    app.add_middleware(Guard, max_body_bytes=options.max_body_bytes, of_curators=documents)
    app.add_middleware(Observe, metrics=metrics)
    errors.install(app)

    @app.exception_handler(ClientGone)
    async def gone(_: Request, __: ClientGone) -> Response:
        return Response(status_code=499)  # nobody reads it; nginx's code, for the metrics

    for part in _PARTS:
        app.include_router(part.router)
    pages.install(app)
    return app
