"""What a loader lets go of when a release is closed, or cannot be loaded. With real parts: `test_loading`."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from alchemy.settings import Settings
from serving.loading import Loader
from serving.released import Live, _Held
from serving.watching.metrics import Metrics
from tests.serving.conftest import Knowledge, eventually, make_catalog


class Opened:
    """Something that notes its closing, and fails at it where it is told to."""

    def __init__(self, name: str, closed: list[str], failing: set[str]) -> None:
        self._name = name
        self._closed = closed
        self._failing = failing

    def close(self) -> None:
        self._closed.append(self._name)
        if self._name in self._failing:
            raise RuntimeError(f"{self._name} does not close")


class Engine:
    """Has every adapter, and notes whom it lets go of."""

    problems: tuple[str, ...] = ()

    def __init__(self, closed: list[str], failing: set[str]) -> None:
        self._note = lambda name: Opened(name, closed, failing).close()

    def load(self, name: str, _: object) -> str:
        return name

    def unload(self, handle: str) -> None:
        self._note(handle)


@pytest.fixture
def closed() -> list[str]:
    return []


@pytest.fixture
def failing() -> set[str]:
    """Names of what fails when it is closed; `search` fails at the warm-up."""
    return set()


@pytest.fixture
def engine(closed: list[str], failing: set[str]) -> Engine:
    return Engine(closed, failing)


@pytest.fixture
def loader(
    knowledge: Knowledge,
    engine: Engine,
    closed: list[str],
    failing: set[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Loader:
    """A loader that has its models already."""

    class Searcher(Opened):
        def __init__(self, *_: object) -> None:
            super().__init__("searcher", closed, failing)

        def search(self, *_: object) -> None:
            if "search" in failing:
                raise RuntimeError("no weights")

    def open_index(*_: object) -> Any:
        index: Any = Opened("index", closed, failing)
        index.document_chunks = None
        return index

    monkeypatch.setattr("alchemy.retrieval.index.Index.open", open_index)
    monkeypatch.setattr("alchemy.retrieval.search.Searcher", Searcher)
    loader = Loader(Settings(), make_catalog(), knowledge.artifacts, Metrics())
    loader._models |= {
        ("embedder", "e"): SimpleNamespace(embed_queries=None, embed_passages=None),
        ("reranker", "r"): None,
        ("engine", "no such base"): engine,
        ("tokenizer", "no such base"): None,
    }
    return loader


@pytest.fixture
def load(loader: Loader, knowledge: Knowledge) -> Callable[[], Live]:
    """Loads a release of an index and two adapters."""
    adapters = {name: knowledge._artifact(name, "ALPHA", {}) for name in ("lora_adapter", "support")}
    release = knowledge.release("ALPHA", adapters=adapters)
    return lambda: loader(release)


def test_a_release_closes_all_that_it_opened_in_the_reverse_order(
    load: Callable[[], Live], closed: list[str]
) -> None:
    live = load()
    assert (list(live.adapters), live.problems, closed) == (["lora_adapter", "support"], (), [])
    live.close()
    assert closed == ["support", "lora_adapter", "searcher", "index"]


@pytest.mark.parametrize("name", ["support", "searcher", "index"])
def test_what_does_not_close_holds_nothing_else_open_and_is_logged(
    load: Callable[[], Live],
    closed: list[str],
    failing: set[str],
    caplog: pytest.LogCaptureFixture,
    name: str,
) -> None:
    gone: list[Live] = []
    failing.add(name)
    held = _Held(load(), gone.append)
    held.retire()
    eventually(lambda: gone)
    assert closed == ["support", "lora_adapter", "searcher", "index"]
    assert f"{name} does not close" in caplog.text


def test_an_index_whose_warm_up_fails_is_closed_again(
    load: Callable[[], Live], closed: list[str], failing: set[str]
) -> None:
    failing.add("search")
    with pytest.raises(RuntimeError, match="no weights"):
        load()
    assert closed == ["searcher", "index"]


def test_adapters_of_a_release_that_fails_behind_them_are_let_go(
    loader: Loader, load: Callable[[], Live], closed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: str) -> None:
        raise RuntimeError("no tokenizer")

    monkeypatch.setattr(loader, "_token_counter", fail)
    with pytest.raises(RuntimeError, match="no tokenizer"):
        load()
    assert closed == ["support", "lora_adapter", "searcher", "index"]


def test_what_is_the_matter_with_an_engine_is_told_as_it_is_now(loader: Loader, engine: Engine) -> None:
    assert loader.problem is None
    engine.problems = ("no memory", "no device")
    assert loader.problem == "no memory; no device"
