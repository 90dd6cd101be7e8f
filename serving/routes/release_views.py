"""What is shown of releases: a row of the list, one with its evaluation and history, the diff of two.

Reads the store, and so blocks; knows nothing of HTTP. What the service serves now comes as an argument.
"""

from dataclasses import asdict
from typing import Any

from pydantic import BaseModel, ConfigDict

from alchemy.artifacts import Artifacts
from alchemy.comparison import Changes, compare_releases
from alchemy.errors import NotFound
from alchemy.release import describe, list_releases, read_release_alias, resolve_release

_LISTED = 200  # ids of documents or chunks that a diff names; the counts are of all
_OWN = frozenset({"id", "created_at", "aliases", "gate", "history"})  # of `describe`, beside the record


def example(row: dict[str, Any]) -> dict[str, Any]:
    """What a model's configuration says of its example."""
    return {"examples": [row]}


class _Wire(BaseModel):
    model_config = ConfigDict(frozen=True)


class Gate(_Wire):
    """The gate's last judgment."""

    passed: bool
    at: str
    reasons: list[str]


_ROW: dict[str, Any] = {
    "id": "5f1c0d2e9a77",
    "created_at": "2026-11-21T02:14:07.120+00:00",
    "aliases": ["champion", "candidate"],
    "serving": True,
    "gate": {"passed": True, "at": "2026-11-21T02:14:09.003+00:00", "reasons": []},
    "scores": {"recall_at_5": 0.91, "ndcg_at_10": 0.84, "leaks": 0},
}


class ReleaseRow(_Wire):
    model_config = ConfigDict(frozen=True, json_schema_extra=example(_ROW))

    id: str
    created_at: str
    aliases: list[str]  # champion, previous, candidate, pinned
    serving: bool
    gate: Gate | None  # None: never judged
    scores: dict[str, float | None]  # the headline of its evaluation; empty where that is gone


class ReleaseList(_Wire):
    model_config = ConfigDict(
        frozen=True,
        json_schema_extra=example(
            {"releases": [_ROW], "total": 1, "champion": "5f1c0d2e9a77", "pinned": None}
        ),
    )

    releases: list[ReleaseRow]  # newest first
    total: int
    champion: str | None
    pinned: str | None


class ReleaseDetail(ReleaseRow):
    model_config = ConfigDict(
        frozen=True,
        json_schema_extra=example(
            {
                **_ROW,
                "record": {"index": "aa63c0fec23a", "embedder": "sentence-transformers/all-MiniLM-L6-v2"},
                "history": [{"event": "promoted", "at": _ROW["created_at"], "by": "ann", "note": "reviewed"}],
                "report": {"retrieval": {"recall_at_5": {"mean": 0.91}}},
                "rendered": "## Retrieval on held-out questions",
            }
        ),
    )

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
    model_config = ConfigDict(
        frozen=True,
        json_schema_extra=example(
            {
                "before": "1b4e7d90c2aa",
                "after": "5f1c0d2e9a77",
                "parts": {"index": ["c3e896fb0833", "aa63c0fec23a"]},
                "scores": {"recall_at_5": [0.88, 0.91]},
                "documents": {
                    "added": ["jira:HAUL-212"],
                    "removed": [],
                    "changed": [],
                    "counts": {"added": 1, "removed": 0, "changed": 0},
                },
                "chunks": None,
                "missing": ["rag_chunks: version 77aa is gone"],
            }
        ),
    )

    before: str
    after: str
    parts: dict[str, tuple[Any, Any]]
    scores: dict[str, tuple[Any, Any]]
    documents: NameChanges | None  # None where a side's corpus was pruned
    chunks: NameChanges | None
    missing: list[str]


def list_view(artifacts: Artifacts, live: str, limit: int) -> ReleaseList:
    """The newest releases; `live` is the id of the one that serves."""
    ids = [one.version for one in list_releases(artifacts)][::-1]
    rows = [_row(artifacts, describe(artifacts, one), live) for one in ids[:limit]]
    return ReleaseList(releases=rows, total=len(ids), **aliases_view(artifacts))


def detail_view(artifacts: Artifacts, name: str, live: str) -> ReleaseDetail:
    """One release, by id, its beginning or an alias. Raises NotFound, and BadInput for several."""
    described = describe(artifacts, resolve_release(artifacts, name))
    report, rendered = _evaluation(artifacts, described["evaluation"])
    return ReleaseDetail(
        **_row(artifacts, described, live).model_dump(),
        record={name: value for name, value in described.items() if name not in _OWN},
        history=described["history"],
        report=report,
        rendered=rendered,
    )


def diff_view(artifacts: Artifacts, before: str, after: str) -> ReleaseDiff:
    """What differs between two releases. Raises like `detail_view`."""
    names = [resolve_release(artifacts, name) for name in (before, after)]
    found = compare_releases(artifacts, *names)
    return ReleaseDiff(
        before=found.before,
        after=found.after,
        parts=found.parts,
        scores=found.scores,
        documents=_bounded(found.documents),
        chunks=_bounded(found.chunks),
        missing=list(found.missing),
    )


def aliases_view(artifacts: Artifacts) -> dict[str, str | None]:
    """What is champion and what is pinned; None where nothing is."""
    aliases = {name: read_release_alias(artifacts, name) for name in ("champion", "pinned")}
    return {name: (alias.release or None) if alias else None for name, alias in aliases.items()}


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
