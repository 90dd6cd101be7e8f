"""What serves now: one immutable bundle per release, and the follower that swaps bundles.

A request takes the bundle once, at its start, and uses nothing else: no answer mixes two releases. The
follower looks at the aliases every second, loads a new release completely in a thread, then
swaps one reference; a release that cannot be loaded leaves the old one serving, and is tried again, as is
one that serves without some of its parts. A bundle is closed when
the last request, and the last thread that still works for one, has let go of it.

Knows nothing of HTTP and nothing of how a release is loaded (see `loading`).
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from alchemy.artifacts import Artifacts
from alchemy.errors import AlchemyError
from alchemy.records import Chunk
from alchemy.release import Release, read_release_alias
from alchemy.retrieval.index import Filters
from alchemy.retrieval.rewrite import Rewrite
from alchemy.retrieval.search import SearchResult
from alchemy.settings import SearchOptions
from serving.options import ServingOptions
from serving.watching.metrics import Metrics

log = logging.getLogger(__name__)

T = TypeVar("T")
Message = dict[str, str]  # {"role": ..., "content": ...}
Floats = npt.NDArray[np.float32]
Search = Callable[[str, SearchOptions, Filters, Rewrite | None], SearchResult]
Embed = Callable[[list[str]], Floats]  # n texts -> [n, dimension], unit length; blocks
Document = Callable[[str], list[Chunk]]  # document id -> its chunks in reading order; blocks


class Generate(Protocol):
    """Writes until done or for `deadline_s` seconds; canceling its task ends it."""

    async def __call__(self, messages: list[Message], *, max_new_tokens: int, deadline_s: float) -> str: ...


def _nothing() -> None:
    return None


@dataclass(frozen=True)
class Live:
    """Everything that one release answers with, loaded."""

    id: str
    release: Release
    search: Search
    embed: Embed  # the one embedder, as the search asks it
    embed_passages: Embed  # the same, as the index was made
    document: Document  # empty for one that the release does not know
    adapters: Mapping[str, Generate] = field(default_factory=dict)  # by name, the general one first
    count_tokens: Callable[[str], int] | None = None  # by the base model's tokenizer
    problems: tuple[str, ...] = ()  # parts that could not be loaded, each with why
    close: Callable[[], None] = _nothing


Load = Callable[[str], Live]  # by release id; blocks; whatever it raises is a failed load


class Lease:
    """One request's hold on a bundle. Also a context manager."""

    def __init__(self, held: "_Held") -> None:
        self._held = held
        self.live = held.live

    def __enter__(self) -> "Lease":
        return self

    def __exit__(self, *_: object) -> None:
        self._held.give()

    def submit(self, pool: Executor, function: Callable[..., T], *args: Any) -> "asyncio.Future[T]":
        """Runs `function` in the pool; the bundle stays open until the thread is through.

        A request that is gone or past its deadline cannot stop a thread inside a C library, so closing
        the index under it would crash the process.
        """
        self._held.take()
        # With the request's context, so that log lines and spans of the thread are the request's.
        future = pool.submit(copy_context().run, function, *args)
        future.add_done_callback(lambda _: self._held.give())
        result = asyncio.wrap_future(future)
        # A request may be gone before its thread fails: looking at the error here keeps asyncio quiet.
        result.add_done_callback(lambda done: done.cancelled() or done.exception())
        return result


class Follower:
    """Keeps `current` at what is pinned, else at what the champion alias names."""

    def __init__(self, artifacts: Artifacts, load: Load, metrics: Metrics, options: ServingOptions) -> None:
        self._artifacts = artifacts
        self._load = load
        self._metrics = metrics
        self._options = options
        self._held: _Held | None = None
        self._refreshing = asyncio.Lock()
        self._pool = ThreadPoolExecutor(1, "release")
        self._failed = ""
        self._failures = 0
        self._retry_at = 0.0
        self.problem: str | None = "starting"  # why `current` is not what it should be
        self.loading: str | None = None
        self.champion = self.pinned = ""  # release ids; what is pinned serves whatever the champion is
        self.checked_at = 0.0  # time.time() of the last good look at the aliases

    @property
    def current(self) -> Live | None:
        """The bundle that serves; to use it, take a `lease`."""
        return self._held.live if self._held else None

    def lease(self) -> Lease | None:
        """A hold on the current bundle, or None where no release is loaded."""
        held = self._held
        if held is None:
            return None
        held.take()
        return Lease(held)

    async def run(self) -> None:
        """Follows until canceled."""
        while True:
            try:
                await self.refresh()
            except Exception:  # the follower must outlive anything; what happened is in the log
                log.exception("following the release aliases failed")
            await asyncio.sleep(self._options.follow_s)

    async def refresh(self, *, force: bool = False) -> None:
        """Looks at the aliases and loads what they name.

        `force` tries at once what failed: a release, or the parts that the current one goes without.
        """
        async with self._refreshing:
            try:
                wanted = await self._in_thread(self._wanted)
            except AlchemyError as error:
                self.problem = f"the release aliases cannot be read: {error}"
                return
            self.checked_at = time.time()
            if wanted is None:
                self.problem = "no release is champion yet; run the full cycle or `alchemy promote`"
                return
            held = self._held if self._held and self._held.live.id == wanted else None
            if held:
                self.problem = None
            due = force or wanted != self._failed or time.monotonic() >= self._retry_at
            if due and (held is None or held.live.problems):
                await self._swap(wanted)

    async def close(self) -> None:
        """Lets go of the current bundle."""
        held, self._held = self._held, None
        if held:
            held.retire()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _wanted(self) -> str | None:
        names = {name: read_release_alias(self._artifacts, name) for name in ("champion", "pinned")}
        self.champion, pinned = (alias.release if alias else "" for alias in names.values())
        self.pinned = self._options.release or pinned
        return self.pinned or self.champion or None

    async def _swap(self, wanted: str) -> None:
        self.loading, started = wanted, time.monotonic()
        try:
            live = await self._in_thread(self._load, wanted)
        except Exception as error:
            self._try_again(wanted)
            self.problem = f"release {wanted} cannot be loaded: {type(error).__name__}: {error}"
            self._metrics.load_failures.inc()
            log.exception("release cannot be loaded", extra={"release": wanted})
            return
        finally:
            self.loading = None
        self._metrics.releases_held.inc()
        old, self._held = self._held, _Held(live, self._closed)
        if old:
            old.retire()
        self.problem = None
        if live.problems:  # it serves without those parts, which may be mended in the store
            self._try_again(wanted)
        else:
            self._failed, self._failures = "", 0
        self._metrics.serving(wanted)
        self._metrics.load_seconds.observe(time.monotonic() - started)
        log.info("release serves", extra={"release": wanted, "seconds": time.monotonic() - started})

    def _try_again(self, release_id: str) -> None:
        """Some time later, and ever later the more often it fails."""
        self._failures = self._failures + 1 if release_id == self._failed else 1
        self._failed = release_id
        pause = self._options.follow_s * 2 ** min(self._failures, 10)
        self._retry_at = time.monotonic() + min(pause, self._options.load_retry_s)

    def _closed(self, live: Live) -> None:
        self._metrics.releases_held.dec()
        log.info("release closed", extra={"release": live.id})

    async def _in_thread(self, function: Callable[..., T], *args: Any) -> T:
        return await asyncio.wrap_future(self._pool.submit(function, *args))


class _Held:
    """Counts who uses a bundle; closes it when it is retired and nobody does. Thread-safe."""

    def __init__(self, live: Live, closed: Callable[[Live], None]) -> None:
        self.live = live
        self._closed = closed
        self._users = 1  # the follower itself, until it retires the bundle
        self._lock = threading.Lock()

    def take(self) -> None:
        with self._lock:
            self._users += 1

    def give(self) -> None:
        with self._lock:
            self._users -= 1
            last = self._users == 0
        if last:
            # Its own thread, because the last to let go may be the event loop.
            threading.Thread(target=self._close, name=f"close-{self.live.id}", daemon=True).start()

    retire = give

    def _close(self) -> None:
        try:
            self.live.close()
        except Exception:  # whatever it holds on to, it serves no more
            log.exception("a release did not close cleanly", extra={"release": self.live.id})
        self._closed(self.live)
