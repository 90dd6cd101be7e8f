"""The service with one sentinel release, as a process of its own: tests kill it and limit what it may do.

python -m tests.serving.sentinel STORE RELEASE REDIS_URL PORT
"""

import logging.config
import sys
import tempfile
from pathlib import Path

import uvicorn

from alchemy.artifacts import Artifacts
from alchemy.settings import Settings
from alchemy.store import Store
from serving.app import Parts, create_app
from serving.options import ServingOptions
from serving.watching.logs import log_config
from tests.serving.conftest import PATIENT, Knowledge, make_catalog


def main(store: str, release: str, redis_url: str, port: str) -> None:
    """Serves until it is killed."""
    cache = Path(tempfile.gettempdir())
    knowledge = Knowledge(Artifacts(Store(store), cache), markers={release: "ALPHA"})
    logging.config.dictConfig(log_config())
    parts = Parts(knowledge.artifacts, knowledge.load, options=ServingOptions(**PATIENT))
    app = create_app(Settings(store=store, cache=cache, redis_url=redis_url), make_catalog(), parts)
    uvicorn.run(app, port=int(port), log_config=log_config())


main(*sys.argv[1:])
