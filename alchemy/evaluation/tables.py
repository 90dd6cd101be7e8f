"""Tables and numbers of the report as Markdown."""

from collections.abc import Mapping, Sequence


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table."""
    return [
        f"| {' | '.join(head)} |",
        "|" + "---|" * len(head),
        *(f"| {' | '.join(row)} |" for row in rows),
    ]


def spread(one: Mapping[str, float] | None) -> str:
    """A mean with its interval."""
    return "-" if one is None else f"{one['mean']:.3f} ({one['low']:.3f} to {one['high']:.3f})"


def change(one: Mapping[str, float] | None) -> str:
    """A relative change with its interval."""
    return "-" if one is None else f"{one['mean']:+.1%} ({one['low']:+.1%} to {one['high']:+.1%})"


def share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
