import asyncio
import subprocess
import sys
from collections.abc import AsyncGenerator

import pytest

from serving import streams
from serving.streams import event_stream, frame, unless_gone


def test_a_frame_is_one_event() -> None:
    assert frame("{}") == "data: {}\n\n"
    assert frame("{}", event="token", number=3) == "id: 3\nevent: token\ndata: {}\n\n"


def test_silences_are_filled_with_comments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "_PING_S", 0.05)

    async def frames() -> AsyncGenerator[str, None]:
        yield "a"
        await asyncio.sleep(0.12)
        yield "b"

    async def read() -> list[str]:
        return [str(item) async for item in event_stream(frames()).body_iterator]

    items = asyncio.run(read())
    assert items[0] == "a" and items[-1] == "b"
    assert items[1:-1] and set(items[1:-1]) == {": still working\n\n"}


def test_the_app_is_imported_without_models_dagster_spark_or_kubernetes() -> None:
    heavy = (
        "torch faiss litellm transformers sentence_transformers peft dagster pyspark kubernetes onnxruntime"
    )
    code = f"import sys, serving.app, serving.main; print(sorted(set('{heavy}'.split()) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_who_is_canceled_while_the_work_ends_does_not_go_on() -> None:
    class Here:
        async def receive(self) -> dict[str, str]:
            await asyncio.sleep(3600)
            return {"type": "http.disconnect"}

    async def work() -> str:
        return "done"

    async def cancel_after(turns: int) -> bool:
        asked = asyncio.create_task(unless_gone(Here(), work()))  # type: ignore[arg-type]
        for _ in range(turns):
            await asyncio.sleep(0)
        if not asked.cancel():
            return False
        await asyncio.wait([asked])
        assert asked.cancelled(), f"canceled after {turns} turns of the event loop, it went on"
        return True

    async def at_every_moment() -> None:
        canceled = [await cancel_after(turns) for turns in range(1, 20)]
        assert canceled[0]

    asyncio.run(at_every_moment())
