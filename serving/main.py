"""Runs the service: `alchemy serve`, or `python -m serving`."""

import logging.config
import os
import sys

from alchemy.catalog import load_catalog
from alchemy.settings import Settings, load_settings
from serving import tls
from serving.app import Parts, create_app
from serving.options import load_options
from serving.watching.logs import log_config


def run(settings: Settings) -> None:
    """Serves until a signal; one process, because the models are in it. Raises BadConfig."""
    import uvicorn

    config, options = log_config(), load_options()
    logging.config.dictConfig(config)
    app = create_app(settings, load_catalog(settings.catalog), Parts(options=options))
    context = None
    if options.tls:
        found = tls.certificate(options, settings.cache)
        context = tls.context(found)
        tls.keep_fresh(context, options, settings.cache, found)
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            host=settings.host,
            port=tls.port(settings, options),
            log_config=config,
            timeout_graceful_shutdown=15,
            server_header=False,
            ssl_context_factory=(lambda *_: context) if context else None,
            proxy_headers=False,  # whom to believe about addresses is ours to say (`addresses`)
        )
    )
    server.run()
    if not server.started:
        sys.exit(1)
    # Threads inside a model cannot be stopped, and ROCm may hang in its own exit handlers (contract 97).
    logging.shutdown()
    sys.stdout.flush()
    os._exit(0)


def main() -> None:
    """Serves with the settings of the environment."""
    run(load_settings())
