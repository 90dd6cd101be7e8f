"""A small client of Dagster's GraphQL API: start a job, and look at one run.

Over HTTP alone, so that the service needs nothing of Dagster. Only what the admin page shows is asked for.
"""

from dataclasses import dataclass
from typing import Any

import httpx

from alchemy.errors import NotFound, Unavailable

_JOBS = """{ repositoriesOrError { __typename
  ... on RepositoryConnection { nodes { name location { name } jobs { name } } }
  ... on PythonError { message } } }"""
_LAUNCH = """mutation ($params: ExecutionParams!) { launchRun(executionParams: $params) { __typename
  ... on LaunchRunSuccess { run { runId } }
  ... on Error { message }
  ... on RunConfigValidationInvalid { errors { message } } } }"""
_RUN = """query ($id: ID!) { runOrError(runId: $id) { __typename
  ... on Run { runId jobName status startTime endTime stepKeysToExecute
    stepStats { stepKey status startTime endTime materializations { assetKey { path } } } }
  ... on Error { message } } }"""
_EVENTS = """query ($id: ID!, $after: String) { logsForRun(runId: $id, afterCursor: $after, limit: 1000) {
  ... on EventConnection { cursor hasMore events { __typename
    ... on ErrorEvent { error { message className causes { message className } } }
    ... on StepEvent { stepKey } } } } }"""


@dataclass(frozen=True, slots=True)
class Step:
    name: str
    status: str  # SUCCESS, FAILURE, IN_PROGRESS, SKIPPED, ..., or WAITING
    started: float | None  # seconds since 1970
    ended: float | None
    assets: tuple[str, ...]  # what it has materialized


@dataclass(frozen=True, slots=True)
class JobRun:
    id: str
    job: str
    status: str  # as Dagster says it: QUEUED, STARTING, STARTED, SUCCESS, FAILURE, CANCELED, ...
    started: float | None
    ended: float | None
    steps: tuple[Step, ...]
    errors: tuple[str, ...]


class DagsterApi:
    """Dagster's webserver at `url`. Close it with `aclose`."""

    def __init__(self, url: str, *, timeout_s: float = 15) -> None:
        self.url = url.rstrip("/")
        # The address is the operator's own: a proxy of the environment has no say in it.
        self._http = httpx.AsyncClient(timeout=timeout_s, trust_env=False)

    async def launch(self, job: str, *, tags: dict[str, str]) -> str:
        """Starts a job with its default configuration; returns the run's id.

        Raises:
            NotFound: No code location has that job.
            Unavailable: Dagster does not answer, or does not start it; the message says why.
        """
        repository = await self._repository(job)
        params = {
            "selector": {
                "jobName": job,
                "repositoryName": repository["name"],
                "repositoryLocationName": repository["location"]["name"],
            },
            "executionMetadata": {"tags": [{"key": key, "value": value} for key, value in tags.items()]},
        }
        result = (await self._ask(_LAUNCH, params=params))["launchRun"]
        if result["__typename"] != "LaunchRunSuccess":
            reasons = [one["message"] for one in result.get("errors", ())] or [result.get("message", "")]
            raise Unavailable(f"Dagster did not start {job}: {'; '.join(reasons) or result['__typename']}")
        return str(result["run"]["runId"])

    async def run(self, run_id: str) -> JobRun:
        """The run as it is now. Raises NotFound, and Unavailable when Dagster does not answer."""
        row = (await self._ask(_RUN, id=run_id))["runOrError"]
        if row["__typename"] == "RunNotFoundError":
            raise NotFound(f"Dagster knows no run {run_id}")
        if row["__typename"] != "Run":
            raise Unavailable(f"Dagster cannot show run {run_id}: {row.get('message', row['__typename'])}")
        known = {step["stepKey"]: step for step in row["stepStats"]}
        names = [*known, *(name for name in row["stepKeysToExecute"] or () if name not in known)]
        failed = row["status"] in ("FAILURE", "CANCELED")
        return JobRun(
            id=row["runId"],
            job=row["jobName"],
            status=row["status"],
            started=row["startTime"],
            ended=row["endTime"],
            steps=tuple(_step(name, known.get(name)) for name in names),
            errors=await self._errors(run_id) if failed else (),
        )

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._http.aclose()

    async def _repository(self, job: str) -> dict[str, Any]:
        result = (await self._ask(_JOBS))["repositoriesOrError"]
        for repository in result.get("nodes", ()):
            if any(one["name"] == job for one in repository["jobs"]):
                found: dict[str, Any] = repository
                return found
        raise NotFound(result.get("message") or f"no code location of {self.url} has a job {job}")

    async def _errors(self, run_id: str) -> tuple[str, ...]:
        """Why the run failed: the innermost message of each error once, with the step that had it first."""
        found: dict[str, str] = {}
        after, more = None, True
        while more:
            page = (await self._ask(_EVENTS, id=run_id, after=after))["logsForRun"]
            for event in page.get("events", ()):
                if error := event.get("error"):
                    inner = (error["causes"] or [error])[-1]["message"].strip()
                    found.setdefault(inner, f"{event['stepKey']}: {inner}" if event.get("stepKey") else inner)
            after, more = page.get("cursor"), page.get("hasMore", False)
        return tuple(found.values())

    async def _ask(self, query: str, **variables: Any) -> dict[str, Any]:
        try:
            response = await self._http.post(
                f"{self.url}/graphql", json={"query": query, "variables": variables}
            )
            answer = response.raise_for_status().json()
        except (httpx.HTTPError, ValueError) as error:
            reason = str(error) or type(error).__name__
            raise Unavailable(
                f"Dagster does not answer at ALCHEMY_SERVING_DAGSTER_URL={self.url}: {reason}"
            ) from error
        if answer.get("errors"):
            raise Unavailable(f"Dagster refuses the question: {answer['errors'][0]['message']}")
        data: dict[str, Any] = answer["data"]
        return data


def _step(name: str, row: dict[str, Any] | None) -> Step:
    if row is None:
        return Step(name, "WAITING", None, None, ())
    assets = ["/".join(one["assetKey"]["path"]) for one in row["materializations"] if one["assetKey"]]
    return Step(name, row["status"] or "WAITING", row["startTime"], row["endTime"], tuple(assets))
