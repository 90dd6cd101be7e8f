"""The commands of `alchemy` that belong to the service.

`alchemy.cli` finds them by the entry point "alchemy.commands", so that `alchemy` never imports `serving`.
They import what they need when they run: the command line loads them all.
"""

import typer

from serving.commands import bench, serve, users


def add_to(app: typer.Typer) -> None:
    """Adds `serve`, `bench` and `users` to the command line."""
    app.add_typer(serve.app)
    app.add_typer(bench.app)
    app.add_typer(users.users, name="users")
