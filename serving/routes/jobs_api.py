"""Starting a cycle from the service, and watching it; Dagster does the work."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict

from alchemy.errors import Unavailable
from serving.people.access import Operator
from serving.routes.dagster_api import DagsterApi, JobRun
from serving.services import Services, services

router = APIRouter(prefix="/api/jobs", tags=["jobs"])

CYCLE = "full_cycle"


class Launched(BaseModel):
    model_config = ConfigDict(
        frozen=True,
        json_schema_extra={
            "examples": [
                {
                    "run_id": "5c0e7f6e-41a0-4cf1-9a43-0a2f0f5f3f4e",
                    "url": "http://dagster:3000/runs/5c0e7f6e-41a0-4cf1-9a43-0a2f0f5f3f4e",
                }
            ]
        },
    )

    run_id: str
    url: str  # of the run in Dagster's UI


class Watched(BaseModel):
    """A run and its steps; times are seconds since 1970."""

    model_config = ConfigDict(
        frozen=True,
        json_schema_extra={
            "examples": [
                {
                    "run": {
                        "id": "5c0e7f6e-41a0-4cf1-9a43-0a2f0f5f3f4e",
                        "job": "full_cycle",
                        "status": "STARTED",
                        "started": 1795226400.1,
                        "ended": None,
                        "steps": [
                            {
                                "name": "cleaned_corpus",
                                "status": "SUCCESS",
                                "started": 1795226401.0,
                                "ended": 1795226404.2,
                                "assets": ["cleaned_corpus"],
                            }
                        ],
                        "errors": [],
                    },
                    "url": "http://dagster:3000/runs/5c0e7f6e-41a0-4cf1-9a43-0a2f0f5f3f4e",
                    "done": False,
                }
            ]
        },
    )

    run: JobRun
    url: str
    done: bool


async def dagster(found: Annotated[Services, Depends(services)]) -> DagsterApi:
    """The client, as a dependency. Raises Unavailable naming the setting where it is not set."""
    if found.dagster is None:
        raise Unavailable(
            "no Dagster is configured: set ALCHEMY_SERVING_DAGSTER_URL to its webserver's address"
        )
    return found.dagster


@router.post("/full-cycle", status_code=202)
async def start_cycle(admin: Operator, api: Annotated[DagsterApi, Depends(dagster)]) -> Launched:
    """Starts the whole line, from raw objects to a release. It ends where the gate decides."""
    run_id = await api.launch(CYCLE, tags={"alchemy/started_by": admin.name})
    return Launched(run_id=run_id, url=f"{api.url}/runs/{run_id}")


@router.get("/{run_id}")
async def watch(run_id: UUID, _: Operator, api: Annotated[DagsterApi, Depends(dagster)]) -> Watched:
    """How a run stands: its steps, what they made, and why it failed."""
    run = await api.run(str(run_id))
    done = run.status in ("SUCCESS", "FAILURE", "CANCELED")
    return Watched(run=run, url=f"{api.url}/runs/{run.id}", done=done)
