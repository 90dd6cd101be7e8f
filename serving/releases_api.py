"""Releases for who runs the service: what there is, how it was judged, what differs, and what serves.

Every move is compare-and-swap on an alias, so of two people one gets 409; `expected` extends that to what
the page showed when its reader decided. A release that the gate has not passed is promoted only by `force`
with a reason. The release's history keeps who moved it and why.
"""

import asyncio
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, ConfigDict, Field

from alchemy.artifacts import Artifacts
from alchemy.comparison import Changes, compare_releases
from alchemy.errors import BadInput, Conflict, NotFound
from alchemy.release import (
    Alias,
    describe,
    list_releases,
    pin,
    promote,
    read_release_alias,
    resolve_release,
    rollback,
    unpin,
)
from serving.access import Operator
from serving.services import Services, services

router = APIRouter(prefix="/api/releases", tags=["releases"])

_LISTED = 200  # ids of documents or chunks that a diff names; the counts are of all

Found = Annotated[Services, Depends(services)]


class _Wire(BaseModel):
    model_config = ConfigDict(frozen=True)


class Gate(_Wire):
    """The gate's last judgment."""

    passed: bool
    at: str
    reasons: list[str]


class ReleaseRow(_Wire):
    model_config = ConfigDict(
        frozen=True,
        json_schema_extra={
            "examples": [
                {
                    "id": "5f1c0d2e9a77",
                    "created_at": "2026-11-21T02:14:07.120+00:00",
                    "aliases": ["champion", "candidate"],
                    "serving": True,
                    "gate": {"passed": True, "at": "2026-11-21T02:14:09.003+00:00", "reasons": []},
                    "scores": {"recall_at_5": 0.91, "ndcg_at_10": 0.84, "leaks": 0},
                }
            ]
        },
    )

    id: str
    created_at: str
    aliases: list[str]  # champion, previous, candidate, pinned
    serving: bool
    gate: Gate | None  # None: never judged
    scores: dict[str, float | None]  # the headline of its evaluation; empty where that is gone


class ReleaseList(_Wire):
    releases: list[ReleaseRow]  # newest first
    total: int
    champion: str | None
    pinned: str | None


class ReleaseDetail(ReleaseRow):
    record: dict[str, Any]  # models, versions of artifacts, weights
    history: list[dict[str, Any]]  # judged, promoted, pinned: when, why and by whom; oldest first
    report: dict[str, Any] | None  # the evaluation's sections, without single questions and pairs
    rendered: str | None  # the same as Markdown


class NameChanges(_Wire):
    """Ids, at most 200 of each kind; `counts` are of all."""

    added: list[str]
    removed: list[str]
    changed: list[str]
    counts: dict[str, int]


class ReleaseDiff(_Wire):
    before: str
    after: str
    parts: dict[str, tuple[Any, Any]]
    scores: dict[str, tuple[Any, Any]]
    documents: NameChanges | None  # None where a side's corpus was pruned
    chunks: NameChanges | None
    missing: list[str]


class Move(BaseModel):
    """What the mover saw and why they move."""

    model_config = ConfigDict(extra="forbid")

    expected: str | None = Field(
        None,
        max_length=100,
        description="The champion (or pinned release) that the decision was made on; another by now is 409.",
    )
    reason: str = Field("", max_length=500, description="Stands in the release's history.")


class Promotion(Move):
    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"expected": "5f1c0d2e9a77", "reason": "reviewed"}]}
    )

    force: bool = Field(False, description="Although the gate has not passed it; needs a reason.")


class Moved(_Wire):
    champion: str | None
    pinned: str | None


@router.get("")
async def releases(_: Operator, found: Found, limit: Annotated[int, Query(ge=1, le=200)] = 50) -> ReleaseList:
    """The newest releases, with the gate's verdict and what points at them."""
    live = found.follower.current

    def read() -> ReleaseList:
        artifacts = found.artifacts
        ids = [one.version for one in list_releases(artifacts)][::-1]
        rows = [_row(artifacts, describe(artifacts, one), live.id if live else "") for one in ids[:limit]]
        return ReleaseList(releases=rows, total=len(ids), **_aliases(artifacts))

    return await asyncio.to_thread(read)


@router.get("/{release_id}")
async def release(release_id: str, _: Operator, found: Found) -> ReleaseDetail:
    """One release, by id, its beginning or an alias: its parts, its evaluation and its history."""
    live = found.follower.current

    def read() -> ReleaseDetail:
        artifacts = found.artifacts
        described = describe(artifacts, resolve_release(artifacts, release_id))
        row = _row(artifacts, described, live.id if live else "")
        report, rendered = _evaluation(artifacts, described["evaluation"])
        record = {name: value for name, value in described.items() if name not in _OWN}
        return ReleaseDetail(
            **row.model_dump(), record=record, history=described["history"], report=report, rendered=rendered
        )

    return await asyncio.to_thread(read)


@router.get("/{before}/diff/{after}")
async def diff(before: str, after: str, _: Operator, found: Found) -> ReleaseDiff:
    """What differs between two releases: parts, scores, documents and chunks."""

    def compare() -> ReleaseDiff:
        names = [resolve_release(found.artifacts, name) for name in (before, after)]
        difference = compare_releases(found.artifacts, *names)
        return ReleaseDiff(
            before=difference.before,
            after=difference.after,
            parts=difference.parts,
            scores=difference.scores,
            documents=_bounded(difference.documents),
            chunks=_bounded(difference.chunks),
            missing=list(difference.missing),
        )

    return await asyncio.to_thread(compare)


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
    release_id: str, admin: Operator, found: Found, body: Promotion | None = None
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
async def hold(release_id: str, admin: Operator, found: Found, body: Move | None = None) -> Moved:
    """Makes a release serve until it is unpinned, whatever is promoted meanwhile."""
    body = body or Move()

    def move(artifacts: Artifacts) -> None:
        chosen, seen = resolve_release(artifacts, release_id), _seen(artifacts, "pinned", body)
        pin(artifacts, chosen, expected=seen, note=body.reason.strip(), by=admin.name)

    return await _moved(found, move)


_OWN = frozenset({"id", "created_at", "aliases", "gate", "history"})  # of `describe`, beside the record


async def _moved(found: Services, move: Any) -> Moved:
    await asyncio.to_thread(move, found.artifacts)
    await found.follower.refresh()  # so that the mover's next question is answered by what they chose
    return Moved(**await asyncio.to_thread(_aliases, found.artifacts))


def _aliases(artifacts: Artifacts) -> dict[str, str | None]:
    aliases = {name: read_release_alias(artifacts, name) for name in ("champion", "pinned")}
    return {name: (alias.release or None) if alias else None for name, alias in aliases.items()}


def _seen(artifacts: Artifacts, name: str, body: Move) -> Alias | None:
    """The alias to move. Raises Conflict when it is not what the mover saw."""
    alias = read_release_alias(artifacts, name)
    now = alias.release if alias else ""
    if body.expected is not None and body.expected != now:
        raise Conflict(f"the {name} is {now or 'none'} by now, and not {body.expected or 'none'}; look again")
    return alias


def _row(artifacts: Artifacts, described: dict[str, Any], live: str) -> ReleaseRow:
    gate = described["gate"]
    return ReleaseRow(
        id=described["id"],
        created_at=described["created_at"],
        aliases=described["aliases"],
        serving=described["id"] == live,
        gate=Gate(passed=gate["passed"], at=gate["at"], reasons=gate.get("reasons", [])) if gate else None,
        scores=_scores(artifacts, described["evaluation"]),
    )


def _scores(artifacts: Artifacts, version: str) -> dict[str, float | None]:
    from alchemy.evaluation.report import headline, read_report

    try:
        return headline(read_report(artifacts, version)) if version else {}
    except NotFound:  # pruned
        return {}


def _evaluation(artifacts: Artifacts, version: str) -> tuple[dict[str, Any] | None, str | None]:
    from alchemy.evaluation.report import RENDERED, read_report

    if not version:
        return None, None
    try:
        report = read_report(artifacts, version)
        rendered = artifacts.file(artifacts.get("evaluation", version), RENDERED).read_text(encoding="utf-8")
    except NotFound:
        return None, None
    adapters = {name: _without_singles(one) for name, one in report.get("adapters", {}).items()}
    return _without_singles(report) | {"adapters": adapters}, rendered


def _without_singles(section: dict[str, Any]) -> dict[str, Any]:
    """Means without the thousands of questions and pairs that they are of."""
    return {name: value for name, value in section.items() if name not in ("by_question", "by_pair")}


def _bounded(changes: Changes | None) -> NameChanges | None:
    if changes is None:
        return None
    names: dict[str, Any] = asdict(changes)
    counts = {kind: len(some) for kind, some in names.items()}
    return NameChanges(**{kind: list(some[:_LISTED]) for kind, some in names.items()}, counts=counts)
