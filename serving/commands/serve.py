"""`alchemy serve`: the service in place of the command."""

import os
import sys
from typing import Annotated

import typer

from alchemy.console import Json, command, show
from alchemy.settings import load_settings

app = typer.Typer()


@command(app, "serve")
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on; default ALCHEMY_HOST.")] = None,
    port: Annotated[int | None, typer.Option(help="Port; default ALCHEMY_PORT, or 8443 for HTTPS.")] = None,
    tls: Annotated[
        bool, typer.Option("--tls", help="HTTPS, with a certificate of its own unless one is given.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Answer questions over HTTP from the current champion, and follow it."""
    chosen = {"ALCHEMY_HOST": host, "ALCHEMY_PORT": port, "ALCHEMY_SERVING_TLS": tls or None}
    os.environ.update({name: str(value) for name, value in chosen.items() if value is not None})
    if as_json:
        from serving.options import load_options
        from serving.tls import address

        load_settings.cache_clear()
        show({"address": address(load_settings(), load_options())}, as_json)
        sys.stdout.flush()
    # Replaces this process, so that signals reach the service.
    os.execv(sys.executable, [sys.executable, "-m", "serving"])  # noqa: S606
