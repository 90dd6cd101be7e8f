"""What differs between two releases: their parts, their scores, and what they know.

Documents and chunks are compared through the lineage: release -> index -> chunks -> corpus. Part files that
both sides share are not read, so the cost follows the difference.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import orjson

from alchemy.artifacts import Artifact, Artifacts
from alchemy.errors import NotFound
from alchemy.records import Chunk, fingerprint, from_row
from alchemy.release import Release, read_release

Pair = tuple[Any, Any]  # before, after; None where a side has none


@dataclass(frozen=True, slots=True)
class Changes:
    """Names that only one side has, and those that are not the same on both."""

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Difference:
    """What is not the same in two releases."""

    before: str
    after: str
    parts: dict[str, Pair]  # models, versions of artifacts and weights, by name
    scores: dict[str, Pair]  # what the gate looks at
    documents: Changes | None  # by id; None where a side's corpus is gone
    chunks: Changes | None  # by `document#number`; changed: another text or heading
    missing: tuple[str, ...]  # why something could not be compared


def compare_releases(artifacts: Artifacts, before: str, after: str) -> Difference:
    """What differs between two releases, given by id. Raises NotFound where one is not there."""
    missing: list[str] = []

    def attempt(read: Callable[[Release], Any]) -> Pair | None:
        """The same of both sides, or None where a version that it needs was pruned."""
        try:
            return read(sides[0]), read(sides[1])
        except NotFound as error:
            missing.append(str(error))
            return None

    sides = read_release(artifacts, before), read_release(artifacts, after)
    scores = attempt(lambda side: _scores(artifacts, side))
    chunks = attempt(lambda side: _chunks(artifacts, side))
    corpora = attempt(lambda side: _corpus(artifacts, side))
    return Difference(
        before=before,
        after=after,
        parts=_unequal(_parts(sides[0]), _parts(sides[1])),
        scores=_unequal(*scores) if scores else {},
        documents=_changes(artifacts, corpora, lambda row: (row["id"], row["version"])) if corpora else None,
        chunks=_changes(artifacts, chunks, _chunk_entry) if chunks else None,
        missing=tuple(dict.fromkeys(missing)),
    )


def _parts(release: Release) -> dict[str, Any]:
    """Every part by one flat name."""
    row = asdict(release)
    adapters, weights = row.pop("adapters"), row.pop("weights")
    return {
        **row,
        **{f"adapters.{name}": version for name, version in adapters.items()},
        **{f"weights.{name}": weight for name, weight in weights.items()},
    }


def _scores(artifacts: Artifacts, release: Release) -> dict[str, Any]:
    """Means and counts; single questions and pairs would fill pages."""
    from alchemy.evaluation.report import read_report, scores_of

    scores = asdict(scores_of(read_report(artifacts, release.evaluation)))
    return {name: value for name, value in scores.items() if not isinstance(value, dict)}


def _chunks(artifacts: Artifacts, release: Release) -> Artifact:
    index = artifacts.get("faiss_index", release.index)
    return artifacts.get("rag_chunks", index.inputs.get("rag_chunks", ""))


def _corpus(artifacts: Artifacts, release: Release) -> Artifact:
    chunks = _chunks(artifacts, release)
    return artifacts.get("cleaned_corpus", chunks.inputs.get("cleaned_corpus", ""))


def _chunk_entry(row: dict[str, Any]) -> tuple[str, str]:
    chunk = from_row(Chunk, row)
    return f"{chunk.document_id}#{chunk.chunk_index}", fingerprint(chunk.embed_text)


def _unequal(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Pair]:
    names = dict.fromkeys([*before, *after])
    pairs = {name: (before.get(name), after.get(name)) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _changes(
    artifacts: Artifacts, sides: Pair, entry: Callable[[dict[str, Any]], tuple[str, str]]
) -> Changes:
    """Compares the rows of two versions by the name and the content that `entry` gives."""
    before, after = (
        dict(map(entry, _rows_apart(artifacts, side, other))) for side, other in (sides, sides[::-1])
    )
    return Changes(
        added=tuple(name for name in after if name not in before),
        removed=tuple(name for name in before if name not in after),
        changed=tuple(name for name in after if name in before and before[name] != after[name]),
    )


def _rows_apart(artifacts: Artifacts, artifact: Artifact, other: Artifact) -> Iterator[dict[str, Any]]:
    """The rows of the part files that the other version does not have."""
    shared = {file.sha256 for file in other.files}
    for file in artifact.files:
        if file.path.startswith("part-") and file.sha256 not in shared:
            with artifacts.path(artifact, file).open("rb") as lines:
                yield from map(orjson.loads, lines)
