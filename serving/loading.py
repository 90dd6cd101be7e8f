"""From a release record to a bundle that answers: index, embedder, reranker, adapters.

Models are kept between releases and shared by all that name them, so a new release costs its index and its
adapters; the base model is never loaded twice. Which weights a release needs is the release's word, how to
run them (device, prompts) is that of `models.yaml`.
"""

import logging
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from alchemy.artifacts import Artifacts
from alchemy.catalog import Catalog
from alchemy.release import Release, read_release
from alchemy.retrieval.index import Filters
from alchemy.retrieval.rewrite import Rewrite
from alchemy.retrieval.search import SearchResult
from alchemy.settings import SearchOptions, Settings
from alchemy.training.sampling import Sampling
from serving.generation.engines import Engine, write
from serving.released import Generate, Live, Message, Search
from serving.watching.metrics import Metrics

log = logging.getLogger(__name__)

T = TypeVar("T")

GENERAL = "lora_adapter"  # the adapter of all pairs


class _Voice:
    """One adapter of a release, as the coordinator calls it."""

    def __init__(self, engine: Engine, name: str, folder: Path) -> None:
        self._engine = engine
        self._handle = engine.load(name, folder)

    async def __call__(self, messages: list[Message], *, max_new_tokens: int, deadline_s: float) -> str:
        sampling = Sampling(max_new_tokens=max_new_tokens)
        written = await write(self._engine, messages, sampling, adapter=self._handle, deadline_s=deadline_s)
        return written.text

    def close(self) -> None:
        self._engine.unload(self._handle)


class Loader:
    """Loads releases. Called by the follower's one thread at a time."""

    def __init__(
        self,
        settings: Settings,
        catalog: Catalog,
        artifacts: Artifacts,
        metrics: Metrics,
        *,
        intuition: bool = True,
    ) -> None:
        self._intuition = intuition
        self._metrics = metrics
        self._settings = settings
        self._catalog = catalog
        self._artifacts = artifacts
        self._models: dict[tuple[str, str], Any] = {}

    @property
    def problem(self) -> str | None:
        """What is the matter with the engines, as it is now: one may fail long after it was loaded."""
        return "; ".join(problem for engine in self._engines() for problem in engine.problems) or None

    def __call__(self, release_id: str) -> Live:
        """Loads everything of the release. Raises when its index or search models cannot be loaded.

        Adapters are a suggestion beside the answer: without them the release serves and names the problem.
        """
        from alchemy.retrieval.index import Index
        from alchemy.retrieval.search import Searcher

        release = read_release(self._artifacts, release_id)
        embedder, reranker = self._embedder(release.embedder), self._reranker(release.reranker)
        folder = self._fetched("faiss_index", release.index)
        with ExitStack() as opened:  # closes all, whatever fails at it; here only where the loading fails
            index = Index.open(folder, self._settings.vectors)
            opened.callback(index.close)
            searcher = Searcher(index, embedder, reranker, release.weights)
            opened.callback(searcher.close)
            # The first question would load the weights; here nobody waits for it.
            searcher.search("warm up", self._settings.search)
            adapters, problems = self._adapters(release, opened) if self._intuition else ({}, ())
            return Live(
                id=release_id,
                release=release,
                search=_search(searcher),
                embed=embedder.embed_queries,
                embed_passages=embedder.embed_passages,
                document=index.document_chunks,
                adapters=adapters,
                count_tokens=self._token_counter(release.base_model) if adapters else None,
                problems=problems,
                close=opened.pop_all().close,
            )

    def _fetched(self, asset: str, version: str) -> Path:
        """The artifact's files, known to be what was published. Raises ContractBroken where they are not."""
        artifact = self._artifacts.get(asset, version)
        if self._artifacts.store.local_path(artifact.folder):  # used in place: no copying has checked them
            self._artifacts.verify(artifact)
        return self._artifacts.fetch(artifact)

    def close(self) -> None:
        """Ends the generations that are in work, as Unavailable."""
        for engine in self._engines():
            engine.close()

    def _embedder(self, model_id: str) -> Any:
        from alchemy.retrieval.embed import Embedder

        entry = self._catalog.model_b.model_copy(update={"model_id": model_id})
        return self._kept("embedder", model_id, lambda: Embedder(entry, self._settings.models))

    def _reranker(self, model_id: str) -> Any:
        from alchemy.retrieval.rerank import Reranker

        entry = self._catalog.reranker.model_copy(update={"model_id": model_id})
        return self._kept("reranker", model_id, lambda: Reranker(entry, self._settings.models))

    def _adapters(self, release: Release, opened: ExitStack) -> tuple[dict[str, Generate], tuple[str, ...]]:
        """The adapters by name, to be closed with what is `opened`, and what could not be loaded."""
        adapters: dict[str, Generate] = {}
        problems = []
        # The general adapter first: it is the one that is asked when none is named.
        for name in sorted(release.adapters, key=lambda name: (name != GENERAL, name)):
            try:
                folder = self._fetched(name, release.adapters[name])
                voice = _Voice(self._engine(release.base_model), name, folder)
                opened.callback(voice.close)
                adapters[name] = voice
            except Exception as error:
                problems.append(f"intuition of {name}: {type(error).__name__}: {error}")
                log.exception("adapter cannot be loaded", extra={"adapter": name})
        return adapters, tuple(problems)

    def _engines(self) -> list[Engine]:
        # Of a copy: another one may be loaded just now.
        return [model for (part, _), model in list(self._models.items()) if part == "engine"]

    def _engine(self, model_id: str) -> Engine:
        def load() -> Engine:
            entry = self._catalog.model_c
            if entry.engine.base_url:
                from serving.generation.external import ExternalEngine

                return ExternalEngine(model_id, entry.engine)
            from serving.generation.model_manager import ModelManager

            return ModelManager(model_id, entry, self._settings.models, self._metrics.generation)

        return self._kept("engine", model_id, load)

    def _token_counter(self, base_model: str) -> Callable[[str], int] | None:
        def load() -> Callable[[str], int] | None:
            from tokenizers import Tokenizer

            from alchemy.models import resolve

            path = Path(resolve(base_model, self._settings.models)) / "tokenizer.json"
            if not path.is_file():  # a hub name: its tokenizer is somewhere in the hub's cache
                return None
            tokenizer = Tokenizer.from_file(str(path))
            return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)

        try:
            return self._kept("tokenizer", base_model, load)
        except Exception as error:
            log.warning("tokens are estimated", extra={"model": base_model, "reason": str(error)})
            return None

    def _kept(self, part: str, model_id: str, load: Callable[[], T]) -> T:
        key = (part, model_id)
        if key not in self._models:
            self._models[key] = load()
        found: T = self._models[key]
        return found


def _search(searcher: Any) -> Search:
    def search(query: str, options: SearchOptions, filters: Filters, rewrite: Rewrite | None) -> SearchResult:
        today = datetime.now(UTC).date()
        found: SearchResult = searcher.search(query, options, filters, today, rewrite)
        return found

    return search
