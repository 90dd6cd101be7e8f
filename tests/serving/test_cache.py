import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from alchemy.errors import Unavailable
from alchemy.quoting import Citation
from serving.answer import Answer, Usage
from serving.caching.cache import CacheManager, CacheScope, Figures, worth_keeping
from serving.caching.cache_checks import agree, wilson
from serving.options import ServingOptions
from serving.state import PREFIX, State
from serving.watching.metrics import Metrics
from tests.serving.conftest import Knowledge, Serve, Valkey, eventually
from tests.serving.conftest import embed as embed_words

SCOPE = CacheScope(release="r1", tenant="default", access="all", parameters="p")
ASKED = "How do I rotate a tenant's API key?"
REPHRASED = "How can the API key of a tenant be rotated?"
DAY = 86_400.0


async def embed(texts: list[str]) -> Any:
    return embed_words(texts)


async def same(texts: list[str]) -> Any:
    """All texts are one direction: the guard alone decides."""
    return np.ones((len(texts), 8), np.float32) / np.sqrt(8, dtype=np.float32)


async def never(texts: list[str]) -> Any:
    raise AssertionError(f"embedded {texts}")


def make_answer(text: str = "By hand.", *documents: str, **changes: Any) -> Answer:
    row: dict[str, Any] = {
        "id": f"ans-{text}", "release": "r1", "created_at": "2026-01-01", "answer": text, "answerable": True,
        "finalist": "extractive", "citations": [make_citation(d) for d in documents or ("wiki:1",)],
        "intuition": None, "degraded": [], "seconds": {},
        "usage": Usage(prompt_tokens=1, completion_tokens=1, counted_by="estimate"),
    }  # fmt: skip
    return Answer(**{**row, **changes})


def make_citation(document: str, start: int = 0) -> Citation:
    return Citation(
        number=1, document_id=document, document_version="1", chunk_id="c", title="t", source="jira", url="",
        quote="q", start=start, end=start + 1, raw_key="k", raw_sha256="s", locator="", score=1.0,
    )  # fmt: skip


Test = Callable[[CacheManager, State], Awaitable[None]]


def with_cache(valkey: Valkey, test: Test, *, clock: Callable[[], float] = time.time, **options: Any) -> None:
    """Runs the test with a cache of its own metrics on the server."""

    async def run() -> None:
        state = State(valkey.url, deadline_s=30)
        cache = CacheManager(state, Metrics(), ServingOptions(**options), clock=clock)
        try:
            await test(cache, state)
        finally:
            await state.close()

    asyncio.run(run())


def test_the_same_letters_are_an_exact_hit_without_embedding(valkey: Valkey) -> None:
    async def test(cache: CacheManager, _: State) -> None:
        assert await cache.find(ASKED, SCOPE, never) is None
        assert await cache.keep(ASKED, SCOPE, embed, make_answer())
        hit = await cache.find("  how do I rotate a  tenant's API key ??", SCOPE, never)
        assert hit
        assert (hit.tier, hit.question, hit.similarity, hit.answer) == ("exact", ASKED, 1.0, make_answer())
        assert (cache.hits, cache.misses) == ({"exact": 1, "semantic": 0}, 1)

    with_cache(valkey, test)


def test_other_words_are_a_semantic_hit_only_above_the_cosine(valkey: Valkey) -> None:
    def constant(*vector: float) -> Any:
        async def embed(texts: list[str]) -> Any:
            return np.array([vector], np.float32)

        return embed

    async def test(cache: CacheManager, _: State) -> None:
        await cache.keep(ASKED, SCOPE, constant(1, 1, 1, 1), make_answer())
        assert await cache.find(REPHRASED, SCOPE, constant(1, 0, 0, 0)) is None  # exactly 0.5
        hit = await cache.find(REPHRASED, SCOPE, constant(1, 1, 0, 0))
        assert hit
        assert (hit.tier, hit.question) == ("semantic", ASKED)
        assert hit.similarity == pytest.approx(0.5**0.5)

    assert ServingOptions().cache_similarity == 0.92
    with_cache(valkey, test, cache_similarity=0.5)


def test_the_guard_refuses_what_the_cosine_takes_for_the_same(valkey: Valkey) -> None:
    async def test(cache: CacheManager, _: State) -> None:
        await cache.keep("Does gannet call plover?", SCOPE, same, make_answer())
        assert await cache.find("Does plover call gannet?", SCOPE, never) is None

    with_cache(valkey, test)


@pytest.mark.parametrize("field", ["release", "tenant", "access", "parameters"])
def test_nothing_is_found_across_two_scopes(valkey: Valkey, field: str) -> None:
    async def test(cache: CacheManager, _: State) -> None:
        await cache.keep(ASKED, SCOPE, same, make_answer())
        other = replace(SCOPE, **{field: "other"})
        assert await cache.find(ASKED, other, same) is None
        assert await cache.find(REPHRASED, other, same) is None

    with_cache(valkey, test)


def test_scopes_whose_parts_run_together_are_two() -> None:
    assert CacheScope("a", "bc", "", "").id != CacheScope("ab", "c", "", "").id


def test_the_semantic_tier_and_the_whole_cache_can_be_switched_off(valkey: Valkey) -> None:
    async def exact_only(cache: CacheManager, _: State) -> None:
        assert await cache.keep(ASKED, SCOPE, never, make_answer())
        assert await cache.find(ASKED, SCOPE, never)
        assert await cache.find(REPHRASED, SCOPE, never) is None

    async def off(cache: CacheManager, _: State) -> None:
        assert await cache.find(ASKED, SCOPE, never) is None
        assert not await cache.keep("Who pays?", SCOPE, never, make_answer())

    with_cache(valkey, exact_only, cache_semantic=False)
    with_cache(valkey, off, cache=False)


def test_another_process_finds_it_at_once_and_a_restart_keeps_it(valkey: Valkey) -> None:
    async def keep(cache: CacheManager, _: State) -> None:
        await cache.keep(ASKED, SCOPE, same, make_answer())
        other = State(valkey.url, deadline_s=30)
        assert await CacheManager(other, Metrics(), ServingOptions()).find(REPHRASED, SCOPE, same)
        await other.close()

    async def find(cache: CacheManager, _: State) -> None:
        hit = await cache.find(REPHRASED, SCOPE, same)
        assert hit
        assert hit.answer == make_answer()

    with_cache(valkey, keep)
    valkey.kill()
    valkey.start()
    with_cache(valkey, find)


def test_a_lost_state_server_finds_nothing_keeps_nothing_and_says_so(valkey: Valkey) -> None:
    async def test(cache: CacheManager, _: State) -> None:
        await cache.keep(ASKED, SCOPE, same, make_answer())
        assert cache.problem is None
        await asyncio.to_thread(valkey.kill)
        assert await cache.find(ASKED, SCOPE, never) is None
        assert not await cache.keep(ASKED, SCOPE, same, make_answer())
        assert "state server" in (cache.problem or "")
        with pytest.raises(Unavailable):
            await cache.forget("wiki:1")
        await asyncio.to_thread(valkey.start)
        while not await cache.find(ASKED, SCOPE, never):  # it is left alone for a second
            await asyncio.sleep(0.05)
        assert cache.problem is None

    with_cache(valkey, test)


def test_an_embedder_that_fails_costs_the_hit_not_the_answer(valkey: Valkey) -> None:
    async def broken(texts: list[str]) -> Any:
        raise RuntimeError("out of memory")

    async def test(cache: CacheManager, _: State) -> None:
        assert await cache.keep(ASKED, SCOPE, same, make_answer())
        assert await cache.find(REPHRASED, SCOPE, broken) is None
        assert await cache.keep("Who pays for it?", SCOPE, broken, make_answer())
        assert await cache.find("Who pays for it?", SCOPE, never)

    with_cache(valkey, test)


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        ({}, True),
        ({"answerable": False, "citations": []}, True),
        ({"degraded": ["intuition"]}, False),
        ({"citations": []}, False),
        ({"release": None}, False),
    ],
)
def test_only_whole_answers_with_citations_and_refusals_are_kept(changes: dict[str, Any], kept: bool) -> None:
    assert worth_keeping(make_answer(**changes)) is kept


def test_the_conversation_an_answer_was_made_in_is_not_kept(valkey: Valkey) -> None:
    async def test(cache: CacheManager, _: State) -> None:
        answer = make_answer(session="s-1", standalone="Who pays Ann?")
        await cache.keep("Who pays Ann?", SCOPE, same, answer)
        hit = await cache.find("Who pays Ann?", SCOPE, never)
        assert hit
        assert (hit.answer.session, hit.answer.standalone) == (None, None)

    with_cache(valkey, test)


def test_an_answer_of_another_release_than_its_scope_is_not_kept(valkey: Valkey) -> None:
    async def test(cache: CacheManager, _: State) -> None:
        assert not await cache.keep(ASKED, SCOPE, same, make_answer(release="r2"))

    with_cache(valkey, test)


def test_answers_and_refusals_expire_each_in_its_time(valkey: Valkey) -> None:
    now = [1_000_000.0]

    async def test(cache: CacheManager, state: State) -> None:
        await cache.keep("Who pays?", SCOPE, same, make_answer())
        await cache.keep("Who sings?", SCOPE, same, make_answer(answerable=False, citations=[]))
        ttl = [
            await state.call(lambda redis, key=key: redis.pttl(key))
            async for key in state._redis.scan_iter(f"{PREFIX}cache:*:e:*")
        ]
        assert sorted(round(ms / 1000) for ms in ttl) == [60, 1000]
        now[0] += 61  # the refusal is over for the books, too
        await cache.keep("Who drives?", SCOPE, same, make_answer())
        assert (await cache.figures("default")).entries == 2
        assert await cache.find("Who sings?", SCOPE, never) is None
        assert await cache.find("Who pays?", SCOPE, never)

    with_cache(valkey, test, clock=lambda: now[0], cache_ttl_s=1000, cache_refusal_ttl_s=60)


def test_what_expired_leaves_the_sets_that_name_it(valkey: Valkey) -> None:
    """The server drops an entry before the books say so; steady traffic would keep the sets alive."""

    async def test(cache: CacheManager, state: State) -> None:
        async def members(kind: str) -> int:
            keys = [key async for key in state._redis.scan_iter(f"{PREFIX}cache:*{kind}:*")]
            return sum([await state.call(lambda redis, key=key: redis.scard(key)) for key in keys])

        for round_ in range(3):
            for number in range(20):  # one meaning and one document, in twenty wordings of the exact tier
                await cache.keep(f"{ASKED}{' please' * number}", SCOPE, same, make_answer("a", "wiki:1"))
            assert await members(":m") == await members("d") == 20, round_
            await asyncio.sleep(1.01)
        await cache.keep(ASKED, SCOPE, same, make_answer("a", "wiki:1"))
        assert await members(":m") == await members("d") == 1
        assert await cache.find(REPHRASED, SCOPE, same)
        assert await cache.forget("wiki:1") == 1

    with_cache(valkey, test, cache_ttl_s=1)


def test_a_question_that_counts_from_today_is_another_one_tomorrow(valkey: Valkey) -> None:
    now = [20 * DAY]

    async def test(cache: CacheManager, _: State) -> None:
        await cache.keep("Why was gannet restarted on Monday?", SCOPE, same, make_answer())
        assert await cache.find("Why was gannet restarted on Monday?", SCOPE, same)
        assert await cache.find("Why did we restart gannet on Monday?", SCOPE, same)
        now[0] += DAY
        assert await cache.find("Why was gannet restarted on Monday?", SCOPE, same) is None
        assert await cache.find("Why did we restart gannet on Monday?", SCOPE, same) is None

    with_cache(valkey, test, clock=lambda: now[0])


def test_the_oldest_entries_make_room(valkey: Valkey) -> None:
    now = [1_000_000.0]

    async def test(cache: CacheManager, _: State) -> None:
        for name in ("ann", "bea", "cem", "dan"):
            now[0] += 1
            await cache.keep(f"Where is {name}?", SCOPE, same, make_answer())
        found = [await cache.find(f"Where is {name}?", SCOPE, same) for name in ("ann", "bea", "cem", "dan")]
        assert [hit is not None for hit in found] == [False, True, True, True]
        await cache.keep("Where is ann?", replace(SCOPE, parameters="q"), same, make_answer())
        assert await cache.figures("default") == Figures(4, pytest.approx(4 * 900, rel=0.5), 2)

    with_cache(valkey, test, clock=lambda: now[0], cache_entries=3)


def test_the_bytes_of_all_scopes_are_bounded(valkey: Valkey) -> None:
    now = [1_000_000.0]

    async def test(cache: CacheManager, _: State) -> None:
        for number in range(20):
            now[0] += 1
            scope = replace(SCOPE, parameters=str(number % 4))
            assert await cache.keep(f"Where is box {number}?", scope, same, make_answer("x" * 2000))
        figures = await cache.figures("default")
        assert 0 < figures.bytes <= 20_000
        assert figures.entries < 8
        assert await cache.find("Where is box 19?", replace(SCOPE, parameters="3"), same)
        assert not await cache.keep("Where is it?", SCOPE, same, make_answer("x" * 30_000))
        assert cache._metrics.cache_bytes._value.get() == figures.bytes

    with_cache(valkey, test, clock=lambda: now[0], cache_bytes=20_000)


def test_what_cites_a_document_is_forgotten_with_it(valkey: Valkey) -> None:
    async def test(cache: CacheManager, state: State) -> None:
        other = replace(SCOPE, tenant="other")
        await cache.keep("Who pays?", SCOPE, same, make_answer("a", "wiki:a b/1", "wiki:2"))
        await cache.keep("Who sings?", SCOPE, same, make_answer("b", "wiki:2"))
        await cache.keep("Who pays?", other, same, make_answer("c", "wiki:a b/1"))
        assert await cache.forget("wiki:a b/1", tenant="default") == 1
        assert await cache.find("Who pays?", SCOPE, same) is None
        assert await cache.find("Who sings?", SCOPE, same)
        assert await cache.find("Who pays?", other, same)
        assert await cache.forget("wiki:a b/1") == 1
        assert await cache.forget("wiki:2") == 1
        assert await cache.forget("wiki:2") == 0
        left = [key async for key in state._redis.scan_iter(f"{PREFIX}cache:*")]
        assert left == [f"{PREFIX}cache:bytes".encode()]  # the total, which is nought
        assert await cache.figures("default") == Figures(0, 0, 0)

    with_cache(valkey, test)


def test_a_tenant_or_a_release_is_cleared_and_the_rest_stays(
    valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.caching.cache._BATCH", 2)

    async def test(cache: CacheManager, _: State) -> None:
        for tenant in ("one", "two"):
            for release in ("r1", "r2"):
                scope = CacheScope(release, tenant, "all", "")
                for name in ("ann", "bea", "cem"):
                    await cache.keep(f"Where is {name}?", scope, same, make_answer(release=release))
        assert await cache.clear(tenant="one", release="r1") == 3
        assert await cache.clear(release="r2") == 6
        assert (await cache.figures("one")).entries == 0
        assert (await cache.figures("two")).entries == 3
        assert await cache.clear() == 3

    with_cache(valkey, test)


@pytest.mark.parametrize(
    ("field", "value", "question"),
    [
        ("record", b"{not json", ASKED),
        ("record", b"\xff\xfe", REPHRASED),
        ("record", b'{"question": "x"}', REPHRASED),
        ("vector", b"abc", REPHRASED),
        ("vector", np.full(8, np.nan, "<f2").tobytes(), REPHRASED),
    ],
)
def test_a_corrupt_entry_is_no_hit_and_no_error(
    valkey: Valkey, field: str, value: bytes, question: str
) -> None:
    async def test(cache: CacheManager, state: State) -> None:
        await cache.keep(ASKED, SCOPE, same, make_answer())
        [key] = [key async for key in state._redis.scan_iter(f"{PREFIX}cache:*:e:*")]
        await state.call(lambda redis: redis.hset(key, field, value))
        assert await cache.find(question, SCOPE, same) is None
        if len(value) < 16:
            assert cache._metrics.cache_corrupt._value.get() == 1
            assert (await cache.figures("default")).entries == 0
        await cache.keep(ASKED, SCOPE, same, make_answer())
        assert await cache.find(question, SCOPE, same)

    with_cache(valkey, test)


def test_a_record_under_the_key_of_another_question_or_scope_is_not_given_out(valkey: Valkey) -> None:
    async def test(cache: CacheManager, state: State) -> None:
        await cache.keep("Who pays?", SCOPE, same, make_answer("pays"))
        await cache.keep("Who sings?", SCOPE, same, make_answer("sings"))
        first, second = [key async for key in state._redis.scan_iter(f"{PREFIX}cache:*:e:*")]
        record = await state.call(lambda redis: redis.hget(first, "record"))
        await state.call(lambda redis: redis.hset(second, "record", record))
        questions = ("Who pays?", "Who sings?")
        found = [await cache.find(question, SCOPE, same) for question in questions]
        assert sum(hit is not None for hit in found) == 1
        await state.call(lambda redis: redis.hset(first, "record", record.replace(b'"default"', b'"other"')))
        assert not any([await cache.find(question, SCOPE, same) for question in questions])

    with_cache(valkey, test)


def test_two_who_keep_the_same_question_leave_one_entry_and_right_sums(valkey: Valkey) -> None:
    async def test(cache: CacheManager, _: State) -> None:
        kept = (cache.keep(ASKED, SCOPE, same, make_answer("x" * 100)) for _ in range(20))
        assert all(await asyncio.gather(*kept))
        figures = await cache.figures("default")
        assert figures.entries == 1
        await cache.clear()
        assert cache._metrics.cache_bytes._value.get() == 0

    with_cache(valkey, test)


def test_a_fresh_answer_judges_the_cached_one(valkey: Valkey) -> None:
    async def test(cache: CacheManager, _: State) -> None:
        await cache.keep(ASKED, SCOPE, same, make_answer("a", "wiki:1"))
        hit = await cache.find(REPHRASED, SCOPE, same)
        assert hit
        assert cache.sampled()
        assert cache.false_hits is None
        assert all(cache.check(hit, make_answer("b", "wiki:1")) for _ in range(9))
        assert not cache.check(hit, make_answer("b", "wiki:2"))
        assert cache.false_hits == pytest.approx((0.1, 0.0179, 0.4042), abs=1e-3)
        text = cache._metrics.text().decode()
        assert "inference_cache_shadow_checks_total 10.0" in text
        assert "inference_cache_false_hits_total 1.0" in text
        assert 'inference_cache_false_hit_rate{bound="estimate"} 0.1' in text
        assert 'inference_cache_hits_total{tier="semantic"} 1.0' in text

    with_cache(valkey, test, cache_shadow=1.0)


def test_answers_agree_by_spans_where_they_are_quotes_and_by_documents_where_a_model_wrote() -> None:
    quotes = make_answer("a", citations=[make_citation("wiki:1", 5)])
    assert agree(quotes, make_answer("other lead", citations=[make_citation("wiki:1", 5)]))
    assert not agree(quotes, make_answer("a", citations=[make_citation("wiki:1", 6)]))
    written = make_answer("a", "wiki:1", "wiki:2", finalist="gpt")
    assert agree(written, make_answer("b", "wiki:1", finalist="gpt"))
    assert not agree(written, make_answer("b", "wiki:1", "wiki:3", "wiki:4", finalist="gpt"))
    refused = make_answer("no", answerable=False, citations=[])
    assert agree(refused, refused)
    assert not agree(refused, written)
    assert not agree(written, refused)


def test_the_interval_is_that_of_wilson() -> None:
    assert wilson(0, 10) == pytest.approx((0, 0, 0.2775), abs=1e-3)  # Wilson 1927; R: prop.test(0, 10)
    assert wilson(10, 10) == pytest.approx((1, 0.7225, 1), abs=1e-3)


def test_an_admin_sees_and_empties_what_the_tenant_has(
    knowledge: Knowledge, serve: Serve, valkey: Valkey
) -> None:
    knowledge.champion()
    with serve(redis_url=valkey.url) as service:
        report = service.http.get("/api/cache").json()
        assert report == {
            "entries": 0, "bytes": 0, "scopes": 0, "hits": {"exact": 0, "semantic": 0}, "misses": 0,
            "checks": 0, "false_hits": None, "problem": None,
        }  # fmt: skip

        async def fill(cache: CacheManager, _: State) -> None:
            await cache.keep("Who pays?", SCOPE, same, make_answer("a", "git:x/y#1"))
            await cache.keep("Who sings?", SCOPE, same, make_answer("b", "wiki:2"))
            await cache.keep("Who sings?", replace(SCOPE, tenant="other"), same, make_answer("c", "wiki:2"))

        with_cache(valkey, fill)
        assert service.http.get("/api/cache").json()["entries"] == 2
        gone = service.http.delete("/api/cache/documents/git:x%2Fy%231")
        assert gone.json() == {"dropped": 1}
        assert service.http.delete("/api/cache", params={"release": "r9"}).json() == {"dropped": 0}
        assert service.http.delete("/api/cache").json() == {"dropped": 1}

        async def left(cache: CacheManager, _: State) -> None:
            assert (await cache.figures("other")).entries == 1

        with_cache(valkey, left)
        valkey.kill()
        report = service.http.get("/api/cache").json()
        assert report["entries"] is None
        assert "state server" in report["problem"]
        assert service.http.delete("/api/cache").status_code == 503
        valkey.start()
        eventually(lambda: service.http.delete("/api/cache").status_code == 200)
