"""The batch engine and its manager on a tiny real model."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from alchemy.catalog import BaseModelEntry, EngineOptions
from alchemy.errors import BadInput, Conflict, NotFound, Unavailable
from alchemy.training.generate import Generation
from alchemy.training.sampling import Sampling
from serving.errors import retry_after
from serving.generation.engines import Piece, write
from serving.generation.model_manager import ModelManager
from serving.watching.metrics import GenerationMetrics
from tests.serving.conftest import eventually
from tests.tiny_models import make_adapter, make_base

QUESTION = [{"role": "user", "content": "What does ticket 7 say about gannet?"}]
LONG = Sampling(max_new_tokens=200, temperature=3.0, stop=("\x00never",))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_base(tmp_path_factory.mktemp("models") / "tiny-llama", hidden=64)


@pytest.fixture(scope="module")
def folders(tiny: str, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("adapters")
    return [make_adapter(tiny, root / f"a{seed}", seed=seed) for seed in range(3)]


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


def make_manager(tiny: str, registry: CollectorRegistry, **options: int) -> ModelManager:
    entry = BaseModelEntry(model_id=tiny, device="cpu", engine=EngineOptions(**options))
    return ModelManager(tiny, entry, Path("unused"), GenerationMetrics(registry))


@pytest.fixture
def manager(tiny: str, registry: CollectorRegistry) -> Iterator[ModelManager]:
    made = make_manager(tiny, registry, rows=4, waiting=30)
    yield made
    made.close()


class Rounds:
    """Lets the engine play so many rounds, or all."""

    def __init__(self) -> None:
        self._tickets = threading.Semaphore(0)

    def allow(self, count: int = 10**6) -> None:
        self._tickets.release(count)

    def wait(self) -> None:
        assert self._tickets.acquire(timeout=120)


@pytest.fixture
def rounds(manager: ModelManager, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rounds]:
    """The engine of `manager` plays only the rounds that are allowed."""
    allowed, play = Rounds(), manager.model.play

    def wait_and_play() -> object:
        allowed.wait()
        return play()

    monkeypatch.setattr(manager.model, "play", wait_and_play)
    yield allowed
    allowed.allow()


async def settled(check: object) -> None:
    await asyncio.to_thread(eventually, check)


def test_sixteen_requests_of_three_adapters_say_what_each_says_alone(
    manager: ModelManager, folders: list[Path]
) -> None:
    handles = [manager.load("general", folder) for folder in folders]
    asked = [([*handles, None][n % 4], Sampling(max_new_tokens=4 + n, seed=n)) for n in range(16)]

    async def together() -> list[Piece]:
        return await asyncio.gather(
            *(write(manager, QUESTION, sampling, adapter=handle) for handle, sampling in asked)
        )

    said = [piece.text for piece in asyncio.run(together())]
    alone = [manager.model.generate(QUESTION, sampling, adapter=handle) for handle, sampling in asked]
    assert said == alone


def test_a_stream_brings_pieces_and_then_its_end_with_the_counts(manager: ModelManager) -> None:
    async def read() -> list[Piece]:
        async with aclosing(manager.stream(QUESTION, Sampling(max_new_tokens=9))) as pieces:
            return [piece async for piece in pieces]

    pieces = asyncio.run(read())
    assert "".join(piece.text for piece in pieces) == manager.model.generate(
        QUESTION, Sampling(max_new_tokens=9)
    )
    assert [piece.finish for piece in pieces[:-1]] == [None] * (len(pieces) - 1)
    assert pieces[-1].finish in ("stop", "length")
    assert 0 < pieces[-1].tokens <= 9 < pieces[-1].prompt_tokens


def test_over_the_bound_a_request_is_told_when_to_come_again(
    manager: ModelManager, rounds: Rounds, registry: CollectorRegistry
) -> None:
    async def crowd() -> None:
        waiting = [asyncio.create_task(write(manager, QUESTION)) for _ in range(34)]
        await settled(lambda: manager.model.waiting == 34)
        with pytest.raises(Unavailable, match="has 34 requests") as refused:
            await write(manager, QUESTION)
        assert 1 <= int(retry_after(refused.value)) <= 60
        rounds.allow()
        assert all(piece.finish for piece in await asyncio.gather(*waiting))

    asyncio.run(crowd())
    assert b"generation_refused_total 1.0" in generate_latest(registry)


def test_a_canceled_request_frees_its_row_even_before_it_has_one(
    manager: ModelManager, rounds: Rounds
) -> None:
    async def leave() -> None:
        tasks = [asyncio.create_task(write(manager, QUESTION, LONG)) for _ in range(3)]
        await settled(lambda: manager.model.waiting == 3)
        tasks[0].cancel()
        await settled(lambda: any(text.canceled for text in manager.model._waiting))
        rounds.allow(1)
        await settled(lambda: manager.model.running == 2 and manager.model.waiting == 0)
        rounds.allow()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await settled(lambda: manager.model.running == 0)

    asyncio.run(leave())
    assert manager.engine._readers == {}


def test_a_deadline_ends_the_text_where_it_is(manager: ModelManager) -> None:
    late = asyncio.run(write(manager, QUESTION, LONG, deadline_s=0))
    assert (late.text, late.finish) == ("", "deadline")


def test_closing_answers_those_in_flight_and_all_that_come_later(
    manager: ModelManager, rounds: Rounds
) -> None:
    async def shut() -> None:
        tasks = [asyncio.create_task(write(manager, QUESTION, LONG)) for _ in range(3)]
        await settled(lambda: manager.model.waiting == 3)
        closing = asyncio.create_task(asyncio.to_thread(manager.close))
        await settled(lambda: manager.engine._closing)
        rounds.allow()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(error) for error in ended] == [Unavailable] * 3
        await closing
        with pytest.raises(Unavailable, match="closing"):
            await write(manager, QUESTION)

    asyncio.run(shut())
    assert not manager.engine._thread.is_alive()


def test_a_failed_round_is_told_to_its_requests_and_the_next_ones_are_served(
    manager: ModelManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = manager.model._decoder.step
    failures = iter([RuntimeError("out of memory")])

    def fail_once(*arguments: object) -> object:
        for error in failures:
            raise error
        return step(*arguments)

    monkeypatch.setattr(manager.model._decoder, "step", fail_once)
    with pytest.raises(Unavailable, match="the engine stopped"):
        asyncio.run(write(manager, QUESTION))
    assert "last round failed (RuntimeError)" in "".join(manager.problems)
    assert asyncio.run(write(manager, QUESTION)).finish
    assert manager.problems == ()


def test_an_engine_that_can_free_no_row_tells_its_readers_says_so_and_takes_no_more(
    manager: ModelManager, rounds: Rounds, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("CUDA error: device-side assert triggered")

    monkeypatch.setattr(manager.model._decoder, "step", fail)
    monkeypatch.setattr(manager.model._decoder.slots, "release", fail)

    async def ask() -> list[Piece | BaseException]:
        asking = [asyncio.create_task(write(manager, QUESTION, LONG, deadline_s=600)) for _ in range(6)]
        await settled(lambda: manager.model.waiting == 6)
        rounds.allow()
        return await asyncio.gather(*asking, return_exceptions=True)

    with caplog.at_level("ERROR", "serving"):
        told = asyncio.run(ask())
    assert {type(error) for error in told} == {Unavailable}
    assert "the batch engine has failed" in caplog.text
    assert "restart the service" in "".join(manager.problems)
    with pytest.raises(Unavailable, match="restart the service"):
        asyncio.run(write(manager, QUESTION))
    eventually(lambda: not manager.engine._thread.is_alive())
    assert (manager.model.running, manager.model.waiting) == (0, 0)


def test_who_enters_while_the_engine_closes_is_told_as_well(
    manager: ModelManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit = manager.model.submit

    def close_and_submit(*arguments: Any, **options: Any) -> Generation:
        manager.close()
        return submit(*arguments, **options)

    monkeypatch.setattr(manager.model, "submit", close_and_submit)
    with pytest.raises(Unavailable, match="the engine stopped"):
        asyncio.run(asyncio.wait_for(write(manager, QUESTION), 60))
    assert manager.model.waiting == 0


def test_a_text_that_fails_is_told_to_its_reader_alone(
    manager: ModelManager, rounds: Rounds, caplog: pytest.LogCaptureFixture
) -> None:
    async def ask() -> list[Piece | BaseException]:
        asking = [asyncio.create_task(write(manager, QUESTION, Sampling(max_new_tokens=9))) for _ in range(3)]
        await settled(lambda: manager.model.waiting == 3)
        manager.model._waiting[1]._choice.pick = None  # type: ignore[method-assign, assignment]
        rounds.allow()
        return await asyncio.gather(*asking, return_exceptions=True)

    with caplog.at_level("ERROR", "serving"):
        said = asyncio.run(ask())
    assert isinstance(said[1], Unavailable)
    assert "failed at one of its tokens" in str(said[1])
    assert "TypeError" in caplog.text
    assert said[0] == said[2] == asyncio.run(write(manager, QUESTION, Sampling(max_new_tokens=9)))
    assert manager.problems == ()


def test_what_cannot_be_met_is_refused_before_it_waits(manager: ModelManager) -> None:
    with pytest.raises(NotFound, match="no adapter nobody"):
        asyncio.run(write(manager, QUESTION, adapter="nobody"))
    with pytest.raises(BadInput, match="do not fit into 256"):
        asyncio.run(write(manager, QUESTION, Sampling(max_new_tokens=256)))
    assert manager.model.waiting == 0


def test_swaps_under_load_lose_no_answer_and_mix_no_two_versions(
    manager: ModelManager, folders: list[Path]
) -> None:
    sampling = Sampling(max_new_tokens=12)
    label = manager.put("general", folders[0])
    known = set()
    for folder in folders:
        label = manager.put("general", folder, expected=label)
        known.add(manager.model.generate(QUESTION, sampling, adapter="general"))
    assert len(known) == len(folders)

    async def load() -> list[Piece]:
        tasks = []
        for number in range(30):
            tasks.append(asyncio.create_task(write(manager, QUESTION, sampling, adapter="general")))
            await asyncio.to_thread(manager.put, "general", folders[number % len(folders)])
        return await asyncio.gather(*tasks)

    assert {piece.text for piece in asyncio.run(load())} == known


def test_of_many_swaps_that_race_exactly_one_wins(manager: ModelManager, folders: list[Path]) -> None:
    label, won, lost = manager.put("general", folders[0]), [], []

    def swap(folder: Path) -> None:
        try:
            won.append(manager.put("general", folder, expected=label))
        except Conflict:
            lost.append(folder)

    threads = [threading.Thread(target=swap, args=(folders[n % 3],)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(won), len(lost)) == (1, 5)
    assert manager.adapters == {"general": won[0]}


def test_the_work_of_the_engine_is_measured(manager: ModelManager, registry: CollectorRegistry) -> None:
    async def ask() -> list[Piece]:
        return await asyncio.gather(
            *(write(manager, QUESTION, Sampling(max_new_tokens=tokens)) for tokens in (1, 5, 100))
        )

    written = asyncio.run(ask())
    assert [piece.finish for piece in written] == ["length", "length", "stop"]

    def measured() -> bool:
        text = generate_latest(registry).decode()
        return all(
            line in text
            for line in (
                f'generation_tokens_total{{kind="prompt"}} {float(3 * prompt)}',
                f'generation_tokens_total{{kind="generated"}} {float(sum(p.tokens for p in written))}',
                "generation_first_token_seconds_count 3.0",
                "generation_queue_length 0.0",
                "generation_kv_slots_used 0.0",
                "generation_recompiles 0.0",
            )
        )

    prompt = len(manager.model.submit(QUESTION, Sampling(max_new_tokens=1)).prompt)
    manager.model.abandon()
    eventually(measured)
    assert "generation_batch_size_count" in generate_latest(registry).decode()


@pytest.mark.integration
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")  # of its own parts
def test_compiled_steps_say_the_same_in_any_company_and_are_made_before_anybody_waits(
    tiny: str, folders: list[Path], registry: CollectorRegistry
) -> None:
    manager = make_manager(tiny, registry, rows=2, compile=True)
    try:
        handles = [manager.load("general", folder) for folder in folders]
        asked = [(handles[n % 3], Sampling(max_new_tokens=3 + n)) for n in range(5)]

        async def together() -> list[Piece]:
            return await asyncio.gather(*(write(manager, QUESTION, s, adapter=handle) for handle, s in asked))

        said = [piece.text for piece in asyncio.run(together())]
        assert said == [manager.model.generate(QUESTION, s, adapter=handle) for handle, s in asked]
        assert manager.model.recompiles == 0
    finally:
        manager.close()
