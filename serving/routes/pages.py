"""The web page: `GET /` and `/static/*`, as they lie in `serving/web`.

There is no build step, so file names do not change with their content: browsers keep the files but ask each
time whether they are still current (ETag). That a page can load nothing but these files: `headers`.
"""

from pathlib import Path

from fastapi import FastAPI, Request
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

WEB = Path(__file__).parents[1] / "web"


class _Files(StaticFiles):
    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers["Cache-Control"] = "no-cache"
        return response


def install(app: FastAPI) -> None:
    """Serves the page. Nothing of it is secret: it asks for a login itself."""

    files = _Files(directory=WEB)

    @app.get("/", include_in_schema=False)
    async def page(request: Request) -> Response:
        return await files.get_response("index.html", request.scope)

    app.mount("/static", files, name="static")
