"""For who runs the service: probes, metrics, and a reload that does not wait for the poll."""

import time
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Response
from fastapi.responses import JSONResponse

from alchemy.errors import Unavailable
from serving.services import Services, services

router = APIRouter(tags=["operations"])


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """200 while the process answers at all."""
    return {"status": "ok"}


@router.get("/readyz")
async def readyz(found: Annotated[Services, Depends(services)]) -> JSONResponse:
    """200 once a release is loaded; the body says what is pinned, missing or degraded, with reasons."""
    follower, live = found.follower, found.follower.current
    history = None
    try:
        await found.state.ping()
    except Unavailable as error:
        history = str(error)
    body = {
        "ready": live is not None,
        "release": live and live.id,
        "champion": follower.champion or None,
        "pinned": follower.pinned or None,  # it serves, whatever the champion is
        "loading": follower.loading,
        "problems": {
            name: problem
            for name, problem in {
                "release": follower.problem,
                "parts": "; ".join(live.problems) if live else None,
                "history": history,
                "feedback": found.feedbacks.problem,
            }.items()
            if problem
        },
        "champion_checked_s_ago": round(time.time() - follower.checked_at, 1)
        if follower.checked_at
        else None,
    }
    return JSONResponse(body, 200 if live else 503)


@router.get("/metrics", include_in_schema=False)
async def metrics(found: Annotated[Services, Depends(services)]) -> Response:
    """Prometheus' text exposition."""
    return Response(found.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


@router.post("/api/models/reload")
async def reload(found: Annotated[Services, Depends(services)]) -> dict[str, Any]:
    """Looks at the champion alias now, and tries again a release that failed to load."""
    before = found.follower.current
    await found.follower.refresh(force=True)
    live = found.follower.current
    return {
        "release": live and live.id,
        "changed": live is not before,
        "problem": found.follower.problem,
    }
