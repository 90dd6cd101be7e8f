"""The answering service under load, each figure beside a rival's of the same run.

    python -m benchmarks.serving overhead          # (b) what the hub adds to a language model of 0.3 s
    python -m benchmarks.serving cached            # (c) answers from the cache, 200 users
    python -m benchmarks.serving swaps             # (d) 10,000 requests during 60 promotions
    python -m benchmarks.serving generation ...    # (a) batched generation; see benchmarks/generation.py

Services run in processes of their own, with a real Valkey beside them. The knowledge is that of the tests: a
release whose every part says its own name, so that an answer mixed of two shows, and whose search costs
nothing, so that what is measured is the service. The load generator writes HTTP itself: on two cores a full
client would cost more than what it measures.

Rivals: for (b) the model called directly, and a FastAPI route that passes the question to it through the same
litellm; for (c) a FastAPI route that gets the answer from the same Valkey by its exact question and nothing
else, no scope, no guard, no accounting.
"""

import argparse
import asyncio
import multiprocessing
import os
import runpy
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# As a script, Python would take this very file for the package `serving`: hence before the other imports.
# ruff: noqa: E402
sys.path[0] = str(Path(__file__).resolve().parents[1])

import orjson
from rich.console import Console
from rich.table import Table

from alchemy.artifacts import Artifacts
from alchemy.settings import Settings
from alchemy.store import Store
from serving.bench import percentiles
from tests.ports import free_ports
from tests.serving.conftest import PATIENT, Knowledge, Valkey, make_catalog

THINKS_S = 0.3
WORDS = ("It ", "retries", " three times", " [1]", ".")
QUESTION = "How often does the gateway retry?"
FOLLOW_S = 1.0  # between two looks at the aliases, as by default
UNLIMITED = {"requests_per_minute": 10**9, "max_concurrent": 1024, "canary_s": 0}


def main() -> None:
    if sys.argv[1:2] == ["generation"]:
        del sys.argv[1]
        runpy.run_path(str(Path(__file__).with_name("generation.py")), run_name="__main__")
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parts = parser.add_subparsers(required=True)
    overhead = parts.add_parser("overhead")
    overhead.add_argument("--requests", type=int, default=60)
    overhead.set_defaults(run=measure_overhead)
    cached = parts.add_parser("cached")
    cached.add_argument("--users", type=int, default=200)
    cached.add_argument("--requests", type=int, default=10_000)
    cached.set_defaults(run=measure_cached)
    swaps = parts.add_parser("swaps")
    swaps.add_argument("--requests", type=int, default=10_000)
    swaps.add_argument("--swaps", type=int, default=60)
    swaps.set_defaults(run=measure_swaps)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        arguments.run(arguments, Path(folder))


def measure_overhead(arguments: argparse.Namespace, folder: Path) -> None:
    """One after the other for the time of one, then ten at once for the time of all."""
    model_port, rival_port = free_ports(2)
    knowledge, state = _knowledge(folder), Valkey(folder / "valkey")
    state.start()
    release = knowledge.champion("ALPHA")
    llm = f"http://127.0.0.1:{model_port}/v1"
    completion = {"model": "m", "messages": [{"role": "user", "content": QUESTION}], "stream": True}
    with (
        _process(serve_model, model_port),
        _process(serve_rival, rival_port, llm),
        _hub(folder, {release: "ALPHA"}, state.url, llm) as hub,
    ):
        targets: dict[str, tuple[int, str, Callable[[int], Any]]] = {
            "the model itself": (model_port, "/v1/chat/completions", lambda _: completion),
            "FastAPI + litellm": (rival_port, "/ask", lambda n: {"question": f"{QUESTION} {n}"}),
            "the hub": (hub, "/api/chat", lambda n: {"question": f"{QUESTION} {n}"}),
        }
        table = Table("10 ms is the goal of p99", "p50", "p95", "p99", "max", "ten at once: median", "worst")
        for name, (port, path, body) in targets.items():
            asyncio.run(load(port, path, body, requests=10, users=2, first=10**6))  # warm
            alone = asyncio.run(load(port, path, body, requests=arguments.requests, users=1))
            over = percentiles([one.seconds - THINKS_S for one in alone])
            together = []
            for turn in range(10):
                began = time.perf_counter()
                first = 100_000 + 10 * turn
                asyncio.run(load(port, path, body, requests=10, users=10, first=first))
                together.append(time.perf_counter() - began)
            table.add_row(
                f"{name}: over {THINKS_S * 1000:.0f} ms",
                *(f"{value * 1000:.1f} ms" for value in over.values()),
                f"{statistics.median(together) * 1000:.0f} ms",
                f"{max(together) * 1000:.0f} ms",
            )
            if name == "the hub":
                own = [orjson.loads(one.body)["seconds"] for one in alone]
                inside = percentiles([one["total"] - one["waiting"] for one in own])
                table.add_row(
                    "the hub's own count (hub_overhead_seconds)",
                    *(f"{value * 1000:.1f} ms" for value in inside.values()),
                )
    state.stop()
    Console(width=140).print(table)


def measure_cached(arguments: argparse.Namespace, folder: Path) -> None:
    """Twenty questions, asked over and over."""
    (rival_port,) = free_ports(1)
    knowledge, state = _knowledge(folder), Valkey(folder / "valkey")
    state.start()
    release = knowledge.champion("ALPHA")
    table = Table("", "p50", "p95", "p99", "max", "requests/s")

    def body(number: int) -> dict[str, str]:
        return {"question": f"{QUESTION} In version {number % 20}?"}

    with _hub(folder, {release: "ALPHA"}, state.url) as hub, _process(serve_stored, rival_port, state.url):
        rates = {}
        for name, port, path in (
            ("redis GET behind FastAPI", rival_port, "/get"),
            ("the hub", hub, "/api/chat"),
        ):
            asyncio.run(load(port, path, body, requests=100, users=2))
            began = time.perf_counter()
            answers = asyncio.run(load(port, path, body, requests=arguments.requests, users=arguments.users))
            rates[name] = len(answers) / (time.perf_counter() - began)
            times = percentiles([one.seconds for one in answers]).values()
            table.add_row(name, *(f"{value * 1000:.1f} ms" for value in times), f"{rates[name]:.0f}")
        hits = sum(bool(orjson.loads(one.body).get("cached")) for one in answers)
    state.stop()
    Console(width=140).print(table)
    ratio = rates["the hub"] / rates["redis GET behind FastAPI"]
    print(f"{hits} of {len(answers)} answers came from the cache; {ratio:.2f} of the rival's rate")


def measure_swaps(arguments: argparse.Namespace, folder: Path) -> None:
    """Promotes in turn while people ask; every part of every answer must be of the release that it names."""
    knowledge, state = _knowledge(folder), Valkey(folder / "valkey")
    state.start()
    releases = {knowledge.champion("ALPHA"): "ALPHA", knowledge.release("BRAVO"): "BRAVO"}
    names = list(releases)
    answers: list[Reply] = []
    done = 0

    async def run(hub: int) -> None:
        async def promote() -> None:
            nonlocal done
            while done < arguments.swaps:
                # Each after its share of the requests, and seen by the service before the next.
                while len(answers) < arguments.requests * (done + 1) // (arguments.swaps + 1):
                    await asyncio.sleep(0.001)
                done += 1
                target = names[done % 2]
                await asyncio.to_thread(knowledge.promote, target)
                while orjson.loads((await get(hub, "/readyz")).body)["release"] != target:
                    await asyncio.sleep(0.005)

        asking = load(
            hub, "/api/chat", lambda n: {"question": f"{QUESTION} {n}"},
            requests=arguments.requests, users=16, replies=answers,
        )  # fmt: skip
        await asyncio.gather(promote(), asking)

    with _hub(folder, releases, state.url, follow_s=0.05) as hub:
        began = time.perf_counter()
        asyncio.run(run(hub))
        seconds = time.perf_counter() - began
    state.stop()
    lost = sum(one.status != 200 for one in answers) + arguments.requests - len(answers)
    mixed = sum(_is_mixed(orjson.loads(one.body), releases) for one in answers if one.status == 200)
    by_release = {
        releases[name]: sum(orjson.loads(one.body).get("release") == name for one in answers)
        for name in names
    }
    print(f"{len(answers)} requests during {done} swaps in {seconds:.1f} s: {lost} lost, {mixed} mixed")
    print(f"answered by: {by_release}")


def _is_mixed(answer: dict[str, Any], releases: dict[str, str]) -> bool:
    marker = releases[answer["release"]]
    other = next(name for name in releases.values() if name != marker)
    whole = orjson.dumps(answer).decode()
    return other in whole or f"I recall {marker}." != answer["intuition"]["text"] or marker not in whole


# -- the servers ----------------------------------------------------------------------------------------


def serve_model(port: int) -> None:
    """A language model that thinks for THINKS_S and then writes at once."""
    from fastapi import FastAPI
    from starlette.responses import StreamingResponse

    app = FastAPI()

    @app.post("/v1/chat/completions")
    async def complete() -> StreamingResponse:
        async def write() -> Any:
            await asyncio.sleep(THINKS_S)
            head = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m"}
            for word in WORDS:
                choice = {"index": 0, "delta": {"role": "assistant", "content": word}}
                yield b"data: " + orjson.dumps(head | {"choices": [choice]}) + b"\n\n"
            yield (
                b"data: "
                + orjson.dumps(head | {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
                + b"\n\ndata: [DONE]\n\n"
            )

        return StreamingResponse(write(), media_type="text/event-stream")

    _serve(app, port)


def serve_rival(port: int, llm: str) -> None:
    """What somebody would write in an afternoon: the question to the model, its words back."""
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    import litellm
    from fastapi import FastAPI

    litellm.suppress_debug_info = True
    litellm.disable_aiohttp_transport = True  # as the hub
    app = FastAPI()

    @app.post("/ask")
    async def ask(body: dict[str, str]) -> dict[str, str]:
        chunks = await litellm.acompletion(
            model="openai/m",
            api_base=llm,
            api_key="k",
            messages=[{"role": "user", "content": body["question"]}],
            stream=True,
        )
        words = [chunk.choices[0].delta.content or "" async for chunk in chunks if chunk.choices]
        return {"answer": "".join(words)}

    _serve(app, port)


def serve_stored(port: int, redis_url: str) -> None:
    """The stored bytes of the exact question."""
    from fastapi import FastAPI
    from redis.asyncio import BlockingConnectionPool, Redis
    from starlette.responses import Response

    app = FastAPI()
    redis = Redis.from_pool(BlockingConnectionPool.from_url(redis_url, max_connections=64))  # as the hub
    stored = b'{"answer": "' + b"x" * 1500 + b'"}'  # the size of a small answer with its citation

    @app.post("/get")
    async def get_stored(body: dict[str, str]) -> Response:
        key = f"rival:{body['question']}"
        found = await redis.get(key)
        if found is None:
            await redis.set(key, stored)
        return Response(found or stored, media_type="application/json")

    _serve(app, port)


def serve_hub(
    port: int, folder: Path, releases: dict[str, str], redis_url: str, llm: str | None, follow_s: float
) -> None:
    """The service with the tests' knowledge."""
    from serving.app import Parts, create_app
    from serving.options import ServingOptions

    knowledge = _knowledge(folder)
    knowledge.markers |= releases
    options = ServingOptions(**{**PATIENT, **UNLIMITED, "follow_s": follow_s})
    entry = {"provider": "llm", "base_url": llm, "api_key": "k", "timeout_s": 60} if llm else {}
    settings = Settings(store=str(folder / "store"), cache=folder / "cache", redis_url=redis_url)
    app = create_app(
        settings, make_catalog(**entry), Parts(knowledge.artifacts, knowledge.load, options=options)
    )
    _serve(app, port)


def _serve(app: Any, port: int) -> None:
    import uvicorn

    uvicorn.run(app, port=port, log_config=None)


@contextmanager
def _hub(
    folder: Path,
    releases: dict[str, str],
    redis_url: str,
    llm: str | None = None,
    *,
    follow_s: float = FOLLOW_S,
) -> Iterator[int]:
    (port,) = free_ports(1)
    with _process(serve_hub, port, folder, releases, redis_url, llm, follow_s):
        while asyncio.run(get(port, "/readyz")).status != 200:
            time.sleep(0.1)
        yield port


@contextmanager
def _process(target: Callable[..., None], port: int, *arguments: Any) -> Iterator[None]:
    """The server in a process of its own, once it listens."""
    process = multiprocessing.get_context("spawn").Process(
        target=target, args=(port, *arguments), daemon=True
    )
    process.start()
    try:
        while True:
            try:
                asyncio.run(get(port, "/"))
                break
            except OSError:
                if not process.is_alive():
                    raise SystemExit(f"{target.__name__} ended at once") from None
                time.sleep(0.1)
        yield
    finally:
        process.terminate()
        process.join(20)


def _knowledge(folder: Path) -> Knowledge:
    return Knowledge(Artifacts(Store(str(folder / "store")), folder / "cache"))


# -- the load -------------------------------------------------------------------------------------------


class Reply:
    """One response, and how long it took."""

    __slots__ = ("body", "seconds", "status")

    def __init__(self, status: int, body: bytes, seconds: float) -> None:
        self.status = status
        self.body = body
        self.seconds = seconds


async def load(
    port: int,
    path: str,
    body: Callable[[int], Any],
    *,
    requests: int,
    users: int,
    first: int = 0,
    replies: list[Reply] | None = None,
) -> Sequence[Reply]:
    """So many requests by so many users, each on one connection, one after the other."""
    replies = [] if replies is None else replies
    ahead = iter(range(first, first + requests))

    async def user() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for number in ahead:
            data = orjson.dumps(body(number))
            head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            began = time.perf_counter()
            writer.write(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
            status, answer = await _read(reader)
            replies.append(Reply(status, answer, time.perf_counter() - began))
        writer.close()

    await asyncio.gather(*(user() for _ in range(users)))
    return replies


async def get(port: int, path: str) -> Reply:
    """One GET on a connection of its own."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    status, body = await _read(reader)
    writer.close()
    return Reply(status, body, 0.0)


async def _read(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    status = int(head.split(b" ", 2)[1])
    if b"transfer-encoding: chunked" not in head:
        length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
        return status, await reader.readexactly(length)
    body = b""
    while size := int((await reader.readline()).strip(), 16):
        body += await reader.readexactly(size)
        await reader.readline()
    await reader.readline()
    return status, body


if __name__ == "__main__":
    main()
