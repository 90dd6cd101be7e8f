import asyncio
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from typer.testing import CliRunner

from alchemy.cli import app
from alchemy.errors import BadInput
from alchemy.release import read_release_alias
from alchemy.settings import load_settings
from serving.bench import Load, Outcome, Report, bench, percentiles, pick, summarize
from tests.serving.conftest import Knowledge, Serve, Service, eventually


def run(service: Service, load: Load, **more: Any) -> Report:
    async def go() -> Report:
        async with httpx.AsyncClient(base_url=service.url) as http:
            return await bench(http, ["How often does the gateway retry?", "And why?"], load, **more)

    return asyncio.run(go())


def test_a_closed_loop_asks_everything_and_counts_it(knowledge: Knowledge, serve: Serve) -> None:
    knowledge.champion()
    with serve() as service:
        report = run(service, Load(users=3, requests=4, slo_s=600))
        assert 'http_requests_total{route="/api/chat",status="200"} 12.0' in service.metrics()
    assert (report.questions, report.answered, report.left, report.errors) == (12, 12, 0, {})
    assert report.goodput == 1.0
    assert report.mixed == 0
    assert report.degraded == {"history": 12}
    assert 0 < report.first_token["p50"] <= report.latency["p50"] <= report.latency["max"] <= report.seconds


def test_readers_who_leave_are_no_errors_and_hold_nothing(knowledge: Knowledge, serve: Serve) -> None:
    knowledge.champion()
    with serve() as service:
        report = run(service, Load(users=2, requests=10, cancels=1.0))
        eventually(lambda: "questions_in_flight 0.0" in service.metrics())
    assert (report.left, report.answered, report.errors) == (20, 0, {})


def test_refusals_are_errors_by_kind(knowledge: Knowledge, serve: Serve) -> None:
    knowledge.champion()
    go = threading.Event()
    knowledge.behavior.search = lambda _: go.wait(60)

    async def some() -> Report:
        async with httpx.AsyncClient(base_url=service.url) as http:
            asking = asyncio.create_task(bench(http, ["a", "b", "c"], Load(users=3, requests=1, zipf=0)))
            while "503" not in (await http.get("/metrics")).text:
                await asyncio.sleep(0.02)
            go.set()
            return await asking

    with serve(max_concurrent=1, search_s=60) as service:
        report = asyncio.run(some())
    assert report.errors["status 503"] == report.questions - report.answered > 0


def test_an_open_loop_charges_a_stall_to_everybody_who_would_have_asked(
    knowledge: Knowledge, serve: Serve
) -> None:
    knowledge.champion()
    go, seen = threading.Event(), []

    def stall(_: str) -> None:
        seen.append(1)
        go.wait(60)

    knowledge.behavior.search = stall

    async def some() -> Report:
        async with httpx.AsyncClient(base_url=service.url, limits=httpx.Limits(max_connections=1)) as http:
            load = Load(users=1, requests=6, rate=200, seed=3)
            asking = asyncio.create_task(bench(http, ["a", "b"], load))
            while not seen:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.5)  # all are due by now, and none was sent but the first
            go.set()
            return await asking

    with serve(search_s=60) as service:
        report = asyncio.run(some())
    assert report.answered == 6
    assert report.latency["p50"] >= 0.4


def test_promotions_in_between_lose_and_mix_nothing(knowledge: Knowledge, serve: Serve) -> None:
    releases = [knowledge.champion("ALPHA"), knowledge.release("BRAVO")]
    moved: list[str] = []

    async def swap(number: int) -> None:
        moved.append(releases[number % 2])
        await asyncio.to_thread(knowledge.promote, moved[-1])
        await asyncio.to_thread(service.wait_for, moved[-1])

    with serve() as service:
        report = run(service, Load(users=2, requests=20), swap=swap, swaps=3)
    assert (report.answered, report.mixed, report.swaps) == (40, 0, 3)
    assert moved == [releases[1], releases[0], releases[1]]


def test_a_slow_promotion_is_through_before_the_next_begins(knowledge: Knowledge, serve: Serve) -> None:
    knowledge.champion()
    seen: list[str] = []

    async def swap(number: int) -> None:
        seen.append(f"{number} begins")
        await asyncio.sleep(0.2)  # the next one is due meanwhile
        seen.append(f"{number} ends")

    with serve() as service:
        run(service, Load(users=2, requests=6), swap=swap, swaps=2)
    assert seen == ["1 begins", "1 ends", "2 begins", "2 ends"]


def test_questions_repeat_as_zipf_says() -> None:
    questions = ["a", "b", "c", "d"]
    counted = Counter(pick(questions, Load(users=100, requests=100, zipf=1.0)))
    assert [counted[name] / counted["a"] for name in questions] == pytest.approx(
        [1, 1 / 2, 1 / 3, 1 / 4], abs=0.05
    )
    assert min(Counter(pick(questions, Load(users=100, requests=100, zipf=0))).values()) > 2300
    with pytest.raises(BadInput):
        pick([], Load())


def test_percentiles_are_times_that_were_measured() -> None:
    assert percentiles([3.0, 1.0, 2.0]) == {"p50": 2.0, "p95": 3.0, "p99": 3.0, "max": 3.0}
    assert percentiles([n / 100 for n in range(1, 101)])["p95"] == 0.95
    assert percentiles([]) == {}


def test_goodput_is_the_share_of_whole_answers_in_time_among_those_who_stayed() -> None:
    answered = Outcome("answered", seconds=1.0, first_token_s=0.2, tokens=5, last_token_s=1.0)
    outcomes = [answered, replace(answered, seconds=9.0), Outcome("left"), Outcome("status 503")]
    report = summarize(outcomes, 2.0, slo_s=2.0)
    assert report.goodput == pytest.approx(1 / 3)
    assert report.requests_per_s == 2.0
    assert report.per_token["p50"] == pytest.approx(0.2)


Bench = Callable[..., Any]


@pytest.fixture
def alchemy_bench(knowledge: Knowledge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setenv("ALCHEMY_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("ALCHEMY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")
    for name in ("ALCHEMY_API_KEY", "S3_BUCKET", "S3_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)

    def go(*arguments: str, **environment: str) -> Any:
        for name, text in environment.items():
            monkeypatch.setenv(name, text)
        load_settings.cache_clear()
        try:
            return CliRunner().invoke(app, ["bench", *arguments])
        finally:
            load_settings.cache_clear()

    return go


def test_the_command_prints_a_table_or_json_and_puts_the_champion_back(
    knowledge: Knowledge, serve: Serve, alchemy_bench: Bench, tmp_path: Path
) -> None:
    first, second = knowledge.champion("ALPHA"), knowledge.champion("BRAVO")
    (tmp_path / "questions").write_text("How often does the gateway retry?\n\n网关重试几次？\n")
    with serve(api_key="k") as service:
        common = ("--url", service.url, "--users", "2", "--reqs", "3")
        table = alchemy_bench(*common, ALCHEMY_API_KEY="k")
        result = alchemy_bench(*common, "--swaps", "2", "--questions", str(tmp_path / "questions"), "--json")
        refused = alchemy_bench(*common, ALCHEMY_API_KEY="wrong")
    assert table.exit_code == 0, table.output
    assert "6 questions in" in table.output
    assert "first token" in table.output
    assert "goodput" in table.output
    assert result.exit_code == 0, result.output
    report = orjson.loads(result.output)
    assert (report["answered"], report["swaps"], report["mixed"]) == (6, 2, 0)
    champion = read_release_alias(knowledge.artifacts, "champion")
    assert champion and champion.release == second != first
    assert refused.exit_code == 1
    assert "status 401" in refused.output


def test_what_cannot_run_is_said_in_one_line(knowledge: Knowledge, alchemy_bench: Bench) -> None:
    nothing = alchemy_bench("--url", "http://127.0.0.1:1")
    assert (nothing.exit_code, "nothing answers at http://127.0.0.1:1" in nothing.output) == (1, True)
    alone = alchemy_bench("--swaps", "1")
    assert (alone.exit_code, "needs a champion and a previous release" in alone.output) == (1, True)
