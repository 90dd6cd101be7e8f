"""`alchemy bench`: load on a running service, and what it took."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from alchemy.artifacts import Artifacts
from alchemy.console import Json, command, open_artifacts, show
from alchemy.errors import BadInput, NotFound, Unavailable
from alchemy.settings import load_settings

if TYPE_CHECKING:
    from serving.bench import Report

app = typer.Typer()


@command(app, "bench")
def bench(
    users: Annotated[int, typer.Option(min=1, max=2000, help="People who ask at the same time.")] = 5,
    requests: Annotated[
        int, typer.Option("--reqs", "--requests", min=1, help="Questions of each of them.")
    ] = 10,
    url: Annotated[str, typer.Option(help="The service.")] = "http://127.0.0.1:8000",
    rate: Annotated[
        float | None, typer.Option(min=0.01, help="Questions a second that arrive whatever is answered.")
    ] = None,
    questions: Annotated[
        Path | None, typer.Option(help="One question a line; default: a built-in sample.")
    ] = None,
    zipf: Annotated[float, typer.Option(min=0, max=5, help="How unevenly questions repeat; 0: evenly.")] = 1,
    cancels: Annotated[float, typer.Option(min=0, max=1, help="Share of readers who leave midway.")] = 0,
    swaps: Annotated[
        int, typer.Option(min=0, help="Promotions of previous and champion in turn meanwhile; folder store.")
    ] = 0,
    slo: Annotated[float, typer.Option(min=0.001, help="Objective for a whole answer, in seconds.")] = 2,
    user: Annotated[
        str | None, typer.Option(help="Log in as; the password is read from ALCHEMY_BENCH_PASSWORD.")
    ] = None,
    password: Annotated[str | None, typer.Option(envvar="ALCHEMY_BENCH_PASSWORD", hidden=True)] = None,
    insecure: Annotated[bool, typer.Option(help="Take any certificate.")] = False,
    as_json: Json = False,
) -> None:
    """Ask a running service as many people do, and tell how fast and how well it answered.

    An API key is sent where ALCHEMY_API_KEY holds one.
    """
    from serving.bench import QUESTIONS, Load

    load = Load(users, requests, rate, zipf, cancels, slo)
    asked = _read(questions) if questions else QUESTIONS
    settings = load_settings()
    swap, restore = _swaps(open_artifacts(settings)) if swaps else (None, lambda: None)
    key = settings.api_key.get_secret_value() if settings.api_key else None
    login = (user, password or "") if user else None
    try:
        report = asyncio.run(_bench(url, asked, load, key, login, not insecure, swap, swaps))
    finally:
        restore()
    if as_json:
        show(asdict(report), as_json)
    else:
        _print(report)


async def _bench(
    url: str,
    questions: Sequence[str],
    load: Any,
    key: str | None,
    login: tuple[str, str] | None,
    verify: bool,
    swap: Callable[[int], Awaitable[None]] | None,
    swaps: int,
) -> "Report":
    import httpx

    from serving.bench import bench

    limits = httpx.Limits(max_connections=None, max_keepalive_connections=load.users)
    async with httpx.AsyncClient(base_url=url, limits=limits, verify=verify, timeout=60) as http:
        try:
            if login:
                form = {"username": login[0], "password": login[1]}
                response = await http.post("/api/auth/login", data=form)
                if response.status_code != 200:
                    raise BadInput(f"{url} does not let {login[0]!r} in: status {response.status_code}")
                key = response.json()["access_token"]
            if key:
                http.headers["Authorization"] = f"Bearer {key}"
            await http.get("/healthz")
        except httpx.TransportError as error:
            raise Unavailable(f"nothing answers at {url}: {error}") from None
        return await bench(http, questions, load, swap=swap, swaps=swaps)


def _read(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: {error}") from None
    return [line.strip() for line in lines if line.strip()]


def _swaps(artifacts: Artifacts) -> tuple[Callable[[int], Awaitable[None]], Callable[[], None]]:
    """What promotes the two newest champions in turn, and what puts the first one back."""
    from alchemy.release import promote, read_release_alias

    if artifacts.store.local_path("") is None:
        raise BadInput("--swaps moves the champion; it does so only in a folder store")
    champion, previous = (read_release_alias(artifacts, name) for name in ("champion", "previous"))
    if champion is None or previous is None:
        raise NotFound("--swaps needs a champion and a previous release")

    def move(release: str) -> None:
        now = read_release_alias(artifacts, "champion")
        promote(artifacts, release, expected=now, note="alchemy bench --swaps")

    async def swap(number: int) -> None:
        await asyncio.to_thread(move, (champion, previous)[number % 2].release)

    return swap, lambda: move(champion.release)


def _print(report: "Report") -> None:
    console = Console()
    table = Table("", "p50", "p95", "p99", "max", box=None)
    rows = {
        "whole answer": report.latency,
        "first token": report.first_token,
        "per token": report.per_token,
    }
    for name, times in rows.items():
        table.add_row(name, *(f"{value * 1000:.1f} ms" for value in times.values()))
    console.print(
        f"{report.questions} questions in {report.seconds:.2f} s: {report.requests_per_s:.1f} a second; "
        f"{report.answered} answered ({report.cached} from the cache), {report.left} left midway"
    )
    console.print(table)
    console.print(f"goodput: {report.goodput:.1%} within {report.slo_s:g} s")
    if report.swaps:
        console.print(f"{report.swaps} promotions; {report.mixed} answers mixed two releases")
    for kind, counted in (("error", report.errors), ("went without", report.degraded)):
        for name, count in counted.items():
            console.print(f"{kind}: {name} x {count}")
