"""The whole cache on hand-written pairs, with the packaged embedder and a real server."""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from alchemy.catalog import EmbeddingModel
from alchemy.retrieval.embed import Embedder
from alchemy.settings import load_settings
from serving.caching.cache import CacheManager, CacheScope, Hit
from serving.caching.equivalence import plain_wording
from serving.options import ServingOptions
from serving.state import State
from serving.watching.metrics import Metrics
from tests.serving.conftest import Valkey
from tests.serving.question_pairs import DIFFERENT, SAME, SCOPES, Pair
from tests.serving.test_cache import make_answer

pytestmark = [
    pytest.mark.integration,
    # torch's SWIG types and huggingface_hub warn on import; neither is ours to mend.
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]


@pytest.fixture(scope="module")
def embed() -> Callable[[list[str]], Any]:
    """The packaged embedder's vectors of every question in the pairs, made in one go."""
    embedder = Embedder(
        EmbeddingModel(model_id="sentence-transformers/all-MiniLM-L6-v2"), load_settings().models
    )
    texts = sorted({plain_wording(text) for pair in (*DIFFERENT, *SAME) for text in (pair.a, pair.b)})
    vectors = dict(zip(texts, embedder.embed_queries(texts), strict=True))

    async def embed(texts: list[str]) -> Any:
        return np.stack([vectors[text] for text in texts])

    return embed


def hits_of(valkey: Valkey, embed: Any, pairs: Sequence[Pair]) -> list[tuple[Pair, Hit]]:
    """The pairs of which one question finds the other's answer, asked in both orders."""

    async def run() -> list[tuple[Pair, Hit]]:
        state = State(valkey.url, deadline_s=30)
        cache = CacheManager(state, Metrics(), ServingOptions(cache_shadow=0))
        found = []
        for number, pair in enumerate(pairs):
            for first, second in ((pair.a, pair.b), (pair.b, pair.a)):
                kept = CacheScope("r1", f"tenant {number}", "all", first)
                asked = replace(kept, **{pair.kind: "another"}) if pair.kind in SCOPES else kept
                assert await cache.keep(first, kept, embed, make_answer(first))
                assert await cache.find(first, kept, embed)
                hit = await cache.find(second, asked, embed)
                if hit:
                    found.append((pair, hit))
                await cache.clear()
        await state.close()
        return found

    return asyncio.run(run())


def test_no_question_gets_the_answer_of_a_different_one(valkey: Valkey, embed: Any) -> None:
    assert len(DIFFERENT) >= 300
    assert sum(pair.written != "before" for pair in DIFFERENT) * 3 >= len(DIFFERENT)
    assert hits_of(valkey, embed, DIFFERENT) == []


def test_most_paraphrases_get_the_answer(valkey: Valkey, embed: Any) -> None:
    assert len(SAME) >= 200
    found = {pair for pair, hit in hits_of(valkey, embed, SAME) if hit.tier == "semantic"}
    share = len(found) / len(SAME)
    by_writing = Counter(pair.written for pair in found)
    assert share >= 0.6, f"{share:.0%} of the paraphrases hit: {by_writing}"
