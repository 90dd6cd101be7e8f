"""From settings to the RAG API at work."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

from alchemy.catalog import Catalog, RemoteModel
from alchemy.rag.vector_store import VectorStore
from alchemy.settings import Settings
from alchemy.text.sanitize import Sanitizer
from serving.embeddings import Embeddings
from serving.finalist import Remote
from serving.fusing import Finalists
from serving.options import ServingOptions
from serving.rag.embedding import RemoteEmbedder, of_release
from serving.rag.options import RagOptions
from serving.rag.rag import Rag
from serving.released import Follower
from serving.watching.metrics import Metrics


@asynccontextmanager
async def opened_rag(
    settings: Settings,
    catalog: Catalog,
    options: RagOptions,
    serving: ServingOptions,
    follower: Follower,
    embeddings: Embeddings,
    sanitizer: Sanitizer,
    metrics: Metrics,
) -> AsyncGenerator[Rag, None]:
    """The RAG API until the context ends. Raises nothing: what is missing, the first request is told."""
    async with AsyncExitStack() as stack:
        models = tuple(
            Remote(
                entry,
                first_token_s=serving.first_token_s,
                stall_s=serving.stall_s,
                tokens=options.max_tokens,
            )
            for entry in _writers(catalog, options)
        )
        for model in models:
            stack.push_async_callback(model.close)
        embedding = of_release(follower, embeddings)
        if options.localai_url:
            embedding = remote = RemoteEmbedder(options)
            stack.push_async_callback(remote.close)
        finalists = Finalists(models, sanitizer)
        rag = Rag(options, _place(settings, options), embedding, finalists, sanitizer, metrics)
        stack.push_async_callback(asyncio.to_thread, rag.close)
        yield rag


def _writers(catalog: Catalog, options: RagOptions) -> Sequence[RemoteModel]:
    """The language models, asked in turn; none where the sources are quoted."""
    answering = {"temperature": options.temperature, "timeout_s": options.answer_s}
    if options.localai_url:
        entry = RemoteModel(
            model_id=f"openai/{options.llm_model}",
            base_url=options.openai_url,
            api_key=options.localai_api_key,
            **answering,
        )
        return (entry,)
    model_d = catalog.model_d
    entries = (model_d, *model_d.fallbacks) if model_d.uses_llm else ()
    return tuple(entry.model_copy(update=answering) for entry in entries)


def _place(settings: Settings, options: RagOptions) -> Callable[[], VectorStore] | None:
    """What opens the collections; None where production has no server for them."""
    if options.qdrant_url:
        key = options.qdrant_api_key.get_secret_value() if options.qdrant_api_key else None
        return partial(VectorStore.connect, options.qdrant_url, key, options.search_s)
    # The folder is for one process: replicas would each have their own documents.
    return (
        None if settings.profile == "production" else partial(VectorStore.embedded, settings.cache / "qdrant")
    )
