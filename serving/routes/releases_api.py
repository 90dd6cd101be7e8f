"""Releases for who runs the service: what there is, how it was judged, what differs, and what serves.

Every move is compare-and-swap on an alias, so of two people one gets 409; `expected` extends that to what
the page showed when its reader decided. A release that the gate has not passed is promoted only by `force`
with a reason. The release's history keeps who moved it and why.
"""

import asyncio
from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query
from pydantic import BaseModel, ConfigDict, Field

from alchemy.artifacts import Artifacts
from alchemy.errors import BadInput, Conflict
from alchemy.release import (
    Alias,
    describe,
    pin,
    promote,
    read_release_alias,
    resolve_release,
    rollback,
    unpin,
)
from serving.people.access import Operator
from serving.routes.release_views import (
    ReleaseDetail,
    ReleaseDiff,
    ReleaseList,
    aliases_view,
    detail_view,
    diff_view,
    example,
    list_view,
)
from serving.services import Services, services

router = APIRouter(prefix="/api/releases", tags=["releases"])

Found = Annotated[Services, Depends(services)]
Name = Annotated[
    str, Path(max_length=100, pattern="^[0-9A-Za-z]+$", description="An id, its beginning, or an alias.")
]


class Move(BaseModel):
    """What the mover saw and why they move."""

    model_config = ConfigDict(extra="forbid", json_schema_extra=example({"expected": "5f1c0d2e9a77"}))

    expected: str | None = Field(
        None,
        max_length=100,
        description="The champion (or pinned release) that the decision was made on; another by now is 409.",
    )
    reason: str = Field("", max_length=500, description="Stands in the release's history.")


class Promotion(Move):
    model_config = ConfigDict(
        extra="forbid", json_schema_extra=example({"expected": "5f1c0d2e9a77", "reason": "reviewed"})
    )

    force: bool = Field(False, description="Although the gate has not passed it; needs a reason.")


class Moved(BaseModel):
    model_config = ConfigDict(
        frozen=True, json_schema_extra=example({"champion": "5f1c0d2e9a77", "pinned": None})
    )

    champion: str | None
    pinned: str | None


@router.get("")
async def releases(_: Operator, found: Found, limit: Annotated[int, Query(ge=1, le=200)] = 50) -> ReleaseList:
    """The newest releases, with the gate's verdict and what points at them."""
    return await asyncio.to_thread(list_view, found.artifacts, _live(found), limit)


@router.get("/{release_id}")
async def release(release_id: Name, _: Operator, found: Found) -> ReleaseDetail:
    """One release: its parts, its evaluation and its history."""
    return await asyncio.to_thread(detail_view, found.artifacts, release_id, _live(found))


@router.get("/{before}/diff/{after}")
async def diff(before: Name, after: Name, _: Operator, found: Found) -> ReleaseDiff:
    """What differs between two releases: parts, scores, documents and chunks."""
    return await asyncio.to_thread(diff_view, found.artifacts, before, after)


@router.post("/rollback")
async def roll_back(admin: Operator, found: Found, body: Move | None = None) -> Moved:
    """Makes the previous release the champion again."""
    body = body or Move()

    def move(artifacts: Artifacts) -> None:
        _seen(artifacts, "champion", body)
        rollback(artifacts, by=admin.name)

    return await _moved(found, move)


@router.post("/unpin")
async def let_go(admin: Operator, found: Found, body: Move | None = None) -> Moved:
    """Lets the champion serve again."""
    body = body or Move()
    return await _moved(
        found, lambda artifacts: unpin(artifacts, expected=_seen(artifacts, "pinned", body), by=admin.name)
    )


@router.post("/{release_id}/promote")
async def make_champion(
    release_id: Name, admin: Operator, found: Found, body: Promotion | None = None
) -> Moved:
    """Makes a release the champion. 422 where the gate has not passed it and nobody forces it."""
    body = body or Promotion()

    def move(artifacts: Artifacts) -> None:
        chosen = resolve_release(artifacts, release_id)
        seen = _seen(artifacts, "champion", body)
        gate = describe(artifacts, chosen)["gate"]
        passed = bool(gate and gate["passed"])
        if not passed and not body.force:
            raise BadInput(
                f"the gate has not passed {chosen}; `force` and a `reason` promote it all the same"
            )
        if not passed and not body.reason.strip():
            raise BadInput("a forced promotion needs a `reason`; it stands in the release's history")
        note = body.reason.strip() if passed else f"forced: {body.reason.strip()}"
        promote(artifacts, chosen, expected=seen, note=note or "promoted by hand", by=admin.name)

    return await _moved(found, move)


@router.post("/{release_id}/pin")
async def hold(release_id: Name, admin: Operator, found: Found, body: Move | None = None) -> Moved:
    """Makes a release serve until it is unpinned, whatever is promoted meanwhile."""
    body = body or Move()

    def move(artifacts: Artifacts) -> None:
        chosen, seen = resolve_release(artifacts, release_id), _seen(artifacts, "pinned", body)
        pin(artifacts, chosen, expected=seen, note=body.reason.strip(), by=admin.name)

    return await _moved(found, move)


def _live(found: Services) -> str:
    """The id of what serves, or ""."""
    return found.follower.current.id if found.follower.current else ""


async def _moved(found: Services, move: Callable[[Artifacts], None]) -> Moved:
    await asyncio.to_thread(move, found.artifacts)
    await found.follower.refresh()  # so that the mover's next question is answered by what they chose
    return Moved(**await asyncio.to_thread(aliases_view, found.artifacts))


def _seen(artifacts: Artifacts, name: str, body: Move) -> Alias | None:
    """The alias to move. Raises Conflict when it is not what the mover saw."""
    alias = read_release_alias(artifacts, name)
    now = alias.release if alias else ""
    if body.expected is not None and body.expected != now:
        raise Conflict(f"the {name} is {now or 'none'} by now, and not {body.expected or 'none'}; look again")
    return alias
