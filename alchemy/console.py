"""What all commands share: how they fail, how they print, and where the artifacts are."""

from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.table import Table

from alchemy.artifacts import Artifacts
from alchemy.errors import AlchemyError
from alchemy.settings import Settings
from alchemy.store import Store

Json = Annotated[bool, typer.Option("--json", help="Print one JSON value instead of text.")]
Printed = Callable[..., Any]

_MOST_NAMES = 20


def command(group: typer.Typer, name: str) -> Callable[[Printed], Printed]:
    """Registers a command whose AlchemyErrors are one readable line and exit code 1."""

    def register(function: Printed) -> Printed:
        @wraps(function)
        def run(*args: Any, **kwargs: Any) -> None:
            try:
                function(*args, **kwargs)
            except AlchemyError as error:
                Console(stderr=True).print(f"alchemy: {error}", markup=False, soft_wrap=True)
                raise typer.Exit(1) from None

        group.command(name)(run)
        return function

    return register


def open_artifacts(settings: Settings) -> Artifacts:
    """The artifacts in the store that the settings name."""
    return Artifacts(Store(settings.store_url, endpoint=settings.s3_endpoint), settings.cache)


def show(value: Any, as_json: bool) -> None:
    """JSON for programs; a table of a list of rows, or one line per field, for people."""
    if as_json:
        print(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode())
        return
    console = Console(soft_wrap=True)
    if isinstance(value, list) and value:
        table = Table(*value[0], box=None)
        for row in value:
            table.add_row(*(_cell(cell) for cell in row.values()))
        console.print(table)
    elif isinstance(value, dict):
        for name, cell in value.items():
            console.print(f"{name}: {_cell(cell)}", markup=False, highlight=False)
    else:
        console.print("none")


def show_tree(node: dict[str, Any]) -> None:
    """An artifact above what it was made from, one line each; one that stands above is not told again."""
    told: set[tuple[str, str]] = set()

    def tell(one: dict[str, Any], depth: int) -> None:
        key = (one["asset"], one["version"])
        seen = key in told and one.get("inputs")
        note = (
            "(see above)" if seen else f"missing: {one['missing']}" if "missing" in one else one["created_at"]
        )
        print(f"{'  ' * depth}{'/'.join(key)}  {note}")
        told.add(key)
        for used in () if seen else one.get("inputs", ()):
            tell(used, depth + 1)

    tell(node, 0)


def bounded(fields: dict[str, Any]) -> dict[str, Any]:
    """For people: of a long sequence its length and the first names."""
    return {name: _first_names(value) for name, value in fields.items()}


def yes_no(value: bool) -> str:
    """For people."""
    return "yes" if value else "no"


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return yes_no(value)
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _first_names(value: Any) -> Any:
    if not isinstance(value, list | tuple):
        return value
    more = ", ..." if len(value) > _MOST_NAMES else ""
    names = ", ".join(map(str, value[:_MOST_NAMES]))
    return f"{len(value)} ({names}{more})" if value else "none"
