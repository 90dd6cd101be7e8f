"""For who runs the service: probes, metrics, and a reload that does not wait for the poll."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Response
from fastapi.responses import JSONResponse

from serving.people.access import Operator
from serving.services import Services, services

router = APIRouter(tags=["operations"])


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """200 while the process answers at all."""
    return {"status": "ok"}


@router.get("/readyz")
async def readyz(found: Annotated[Services, Depends(services)]) -> JSONResponse:
    """200 once a release is loaded; the body says what is pinned, missing, stale or degraded, and why."""
    body = await found.health.report()
    return JSONResponse(body, 200 if body["ready"] else 503)


@router.get("/metrics", include_in_schema=False)
async def metrics(found: Annotated[Services, Depends(services)]) -> Response:
    """Prometheus' text exposition."""
    return Response(found.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


@router.post("/api/models/reload")
async def reload(_: Operator, found: Annotated[Services, Depends(services)]) -> dict[str, Any]:
    """Looks at the champion alias now, and tries again a release that failed to load."""
    before = found.follower.current
    await found.follower.refresh(force=True)
    live = found.follower.current
    return {
        "release": live and live.id,
        "changed": live is not before,
        "problem": found.follower.problem,
    }
