"""The OpenAPI document, tried: what fits it and what does not is answered as it says, and never by 5xx."""

from collections.abc import Iterator
from contextlib import suppress

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.schemas import APIOperation
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.serving.conftest import Knowledge, Serve, Service, Valkey, bearer

CHECKS = [status_code_conformance, content_type_conformance, response_schema_conformance]
OPERATOR = "s3cret-operator-key"
# Of each operation, for what fits and for what does not. The seed is fixed: what fails once fails always.
TRIES = settings(
    max_examples=5, deadline=None, derandomize=True, database=None, phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)  # fmt: skip


@pytest.fixture
def service(knowledge: Knowledge, serve: Serve, valkey: Valkey) -> Iterator[Service]:
    knowledge.champion()
    with serve(redis_url=valkey.url, api_key=OPERATOR) as service:
        yield service


def try_out(operation: APIOperation, mode: GenerationMode, session: requests.Session) -> set[int]:
    """The statuses that generated requests were answered with, each one checked against the document."""
    statuses = set()

    @TRIES
    @given(operation.as_strategy(mode))
    def attempt(case: schemathesis.Case) -> None:
        response = case.call(session=session, headers=bearer(OPERATOR), timeout=60)
        statuses.add(response.status_code)
        case.validate_response(response, checks=CHECKS)

    with suppress(Unsatisfiable):  # a route without parameters: nothing can be wrong about them
        attempt()
    return statuses


def test_whatever_is_asked_is_answered_as_the_document_says(service: Service) -> None:
    schema = schemathesis.openapi.from_url(f"{service.url}/openapi.json", headers=bearer(OPERATOR))
    tried: dict[str, set[int]] = {}
    with requests.Session() as session:
        for result in schema.get_all_operations():
            operation = result.ok()
            for mode in GenerationMode:
                tried.setdefault(operation.label, set()).update(try_out(operation, mode, session))
    assert len(tried) > 40
    failed = {label for label, statuses in tried.items() if any(status >= 500 for status in statuses)}
    assert failed <= {"POST /api/jobs/full-cycle", "GET /api/jobs/{run_id}"}  # no Dagster is configured
