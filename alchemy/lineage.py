"""What came from what: forward from a raw object, and back from a chunk or an artifact.

Nothing is recorded for these questions; they are answered from manifests and from the records themselves.
A pair is followed by its chunk's id, a hash of the text and its place, and not by its manifest: equal pairs
that two corpora gave are one version, whose manifest names the first corpus only.

Answers are not here: only the service knows them (`serving.routes.lineage`).
"""

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import orjson

from alchemy.artifacts import Artifact, Artifacts
from alchemy.catalog import AdapterFilter
from alchemy.errors import BadInput, NotFound
from alchemy.manifest import HOMES
from alchemy.records import Chunk, Document, SftPair, from_line, from_row, read_lines
from alchemy.release import list_releases, read_release, read_release_alias

R = TypeVar("R")

_PAIRS = "sft_"  # files of pairs; train.jsonl beside them is plain text


@dataclass(frozen=True, slots=True)
class Impact:
    """What came from one raw object. Versions are written `asset/version`."""

    object: str
    present: bool  # whether the object is still in the store
    documents: tuple[str, ...]  # ids, in the current corpus
    rejected: dict[str, int]  # outcome -> records, in the current quarantine
    chunks: tuple[str, ...]  # ids, in the current version
    pairs: tuple[str, ...]  # ids, in the current version
    indexes: tuple[str, ...]  # all versions that hold a chunk of it
    adapters: tuple[str, ...]  # all versions that were trained on a pair of it
    releases: tuple[str, ...]  # ids of those with such an index or adapter
    unknown: tuple[str, ...]  # versions whose own input is gone, so nobody can tell

    @property
    def nothing(self) -> bool:
        """Whether nothing at all came from the object."""
        made = (self.documents, self.rejected, self.chunks, self.pairs, self.indexes, self.adapters)
        return not any(made)


def known_assets(artifacts: Artifacts) -> list[str]:
    """Every asset that can have versions in the store: listings, the named ones, adapters."""
    listings = [f"raw/{name}" for name in artifacts.store.folders("listings")]
    return [*listings, *HOMES, *artifacts.store.folders("adapters")]


def find_impact(artifacts: Artifacts, key: str) -> Impact:
    """Everything that came from the raw object, in all versions that are complete.

    Raises NotFound where nothing did.
    """
    chunks_of = _by_version(artifacts, "rag_chunks", "part-", lambda path: _ids_from(path, key))
    about = {chunk for ids in chunks_of.values() for chunk in ids}
    pairs_of = _by_version(artifacts, "sft_pairs", _PAIRS, lambda path: _pairs_about(path, about))
    unknown: list[str] = []

    def made_of(asset: str, source: str, came: Callable[[Artifact, str], bool]) -> Iterator[Artifact]:
        known = chunks_of if source == "rag_chunks" else pairs_of
        for one in artifacts.versions(asset):
            used = one.inputs.get(source, "")
            if used not in known:
                unknown.append(_name(one))
            elif came(one, used):
                yield one

    indexes = list(made_of("faiss_index", "rag_chunks", lambda _, used: bool(chunks_of[used])))
    adapters = [
        one
        for name in artifacts.store.folders("adapters")
        for one in made_of(
            name, "sft_pairs", lambda one, used: any(_learned(one, pair) for pair in pairs_of[used])
        )
    ]
    reached = {(one.asset, one.version) for one in (*indexes, *adapters)}
    found = Impact(
        object=key,
        present=artifacts.store.head(key) is not None,
        documents=tuple(row["id"] for row in _current_rows(artifacts, "cleaned_corpus", key)),
        rejected=dict(Counter(row["outcome"] for row in _current_rows(artifacts, "quarantine", key))),
        chunks=tuple(_current(artifacts, "rag_chunks", chunks_of)),
        pairs=tuple(pair.id for pair in _current(artifacts, "sft_pairs", pairs_of)),
        indexes=tuple(map(_name, indexes)),
        adapters=tuple(map(_name, adapters)),
        releases=tuple(
            one.version
            for one in list_releases(artifacts)
            if not reached.isdisjoint(read_release(artifacts, one.version).parts.items())
        ),
        unknown=tuple(unknown),
    )
    if found.nothing:
        state = "no run has read it" if found.present else "there is no such object"
        raise NotFound(f"{key}: nothing came from it ({state}); keys look like raw/git/log.jsonl")
    return found


def trace(artifacts: Artifacts, name: str) -> dict[str, Any]:
    """The lineage of a chunk's id, of `ASSET` (its current version) or of `ASSET/VERSION`, as JSON values.

    Raises NotFound where there is nothing of that name, and BadInput for an answer.
    """
    if name.startswith("ans-"):
        raise BadInput(f"{name}: only the service knows its answers; GET /v1/answers/{name}/lineage")
    assets = known_assets(artifacts)
    asset, _, version = name.rpartition("/")
    if name in assets:
        return trace_artifact(artifacts, name, artifacts.latest(name).version)
    if asset in assets:
        return trace_artifact(artifacts, asset, version)
    return trace_chunk(artifacts, name)


def trace_artifact(artifacts: Artifacts, asset: str, version: str) -> dict[str, Any]:
    """The version and everything it was made from, down to the listings of the raw objects.

    `Artifacts.lineage`, with {"missing": why} for inputs that are gone. Raises NotFound where the version
    itself is.
    """
    artifact = artifacts.get(asset, version)

    def used(name: str, version: str) -> dict[str, Any]:
        try:
            return trace_artifact(artifacts, name, version)
        except NotFound as error:
            return {"asset": name, "version": version, "missing": str(error)}

    return {
        "asset": asset,
        "version": version,
        "created_at": artifact.created_at,
        "run_id": artifact.run_id,
        "inputs": [used(*one) for one in sorted(artifact.inputs.items())],
    }


def trace_chunk(artifacts: Artifacts, chunk_id: str) -> dict[str, Any]:
    """From a chunk of the champion's index back to its raw object, as JSON values.

    `exact` says whether the document's text at the span is the chunk's; None where the document is gone.
    `state` of the raw object is "unchanged", "changed" or "gone". Raises NotFound.
    """
    champion = read_release_alias(artifacts, "champion")
    if champion is None:
        raise NotFound(
            "there is no champion yet, and so no index to look in; materialize the `release` asset"
        )
    index = artifacts.get("faiss_index", read_release(artifacts, champion.release).index)
    chunk = _stored_chunk(artifacts, index, chunk_id)
    if chunk is None:
        raise NotFound(
            f"{chunk_id}: no chunk of the champion's index; give a chunk's id, an asset or ASSET/VERSION"
        )
    document = _document_of(artifacts, index, chunk)
    return {
        "release": champion.release,
        "index": _name(index),
        "chunk": {"id": chunk.id, "start": chunk.start, "end": chunk.end, "text": chunk.text},
        "exact": document.text[chunk.start : chunk.end] == chunk.text if document else None,
        "document": {
            "id": chunk.document_id,
            "version": chunk.document_version,
            "title": chunk.title,
            "url": chunk.url,
        },
        "raw": {
            "source": chunk.source,
            "key": chunk.raw_key,
            "sha256": chunk.raw_sha256,
            "locator": chunk.locator,
            "state": _state(artifacts, chunk.raw_key, chunk.raw_sha256),
        },
    }


def _stored_chunk(artifacts: Artifacts, index: Artifact, chunk_id: str) -> Chunk | None:
    """The chunk of that id. Of the index only the file of the texts is needed."""
    from alchemy.retrieval.index import CHUNKS

    path = artifacts.file(index, CHUNKS).resolve()
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True)) as database:
        row = database.execute("SELECT record FROM chunks WHERE id = ?", (chunk_id,)).fetchone()
    return from_line(Chunk, row[0]) if row else None


def _document_of(artifacts: Artifacts, index: Artifact, chunk: Chunk) -> Document | None:
    """The document in the version that the chunk was cut from; None where it was pruned."""
    try:
        chunks = artifacts.get("rag_chunks", index.inputs.get("rag_chunks", ""))
        corpus = artifacts.get("cleaned_corpus", chunks.inputs.get("cleaned_corpus", ""))
    except NotFound:
        return None
    for path in artifacts.parts(corpus, "part-"):
        for row in _rows_from(path, chunk.raw_key):
            if (row["id"], row["version"]) == (chunk.document_id, chunk.document_version):
                return from_row(Document, row)
    return None


def _state(artifacts: Artifacts, key: str, sha256: str) -> str:
    try:
        return "unchanged" if artifacts.store.sha256(key) == sha256 else "changed"
    except NotFound:
        return "gone"


def _by_version(
    artifacts: Artifacts, asset: str, prefix: str, read: Callable[[Path], list[R]]
) -> dict[str, list[R]]:
    """What `read` finds in the files of every version; a file that several versions share is read once."""
    known: dict[str, list[R]] = {}
    found = {}
    for artifact in artifacts.versions(asset):
        files = [file for file in artifact.files if file.path.startswith(prefix)]
        for file in files:
            if file.sha256 not in known:
                known[file.sha256] = read(artifacts.path(artifact, file))
        found[artifact.version] = [row for file in files for row in known[file.sha256]]
    return found


def _rows_from(path: Path, key: str) -> Iterator[dict[str, Any]]:
    """The rows of a JSON-lines file that come from a raw object; other lines are not parsed."""
    mark = b'"raw_key":' + orjson.dumps(key)
    with path.open("rb") as file:
        for line in file:
            if mark in line:
                yield orjson.loads(line)


def _ids_from(path: Path, key: str) -> list[str]:
    return [row["id"] for row in _rows_from(path, key)]


def _pairs_about(path: Path, chunks: set[str]) -> list[SftPair]:
    return [pair for pair in read_lines(SftPair, path) if pair.chunk_id in chunks]


def _current_rows(artifacts: Artifacts, asset: str, key: str) -> Iterator[dict[str, Any]]:
    artifact = artifacts.find(asset)
    for path in artifacts.parts(artifact, "part-") if artifact else ():
        yield from _rows_from(path, key)


def _current(artifacts: Artifacts, asset: str, by_version: dict[str, list[R]]) -> list[R]:
    artifact = artifacts.find(asset)
    return by_version[artifact.version] if artifact else []


def _learned(adapter: Artifact, pair: SftPair) -> bool:
    """Whether an adapter was trained on a pair of its version of the pairs."""
    chosen = AdapterFilter.model_validate(adapter.parameters.get("filter", {}))
    return pair.split == "train" and chosen.takes(pair)


def _name(artifact: Artifact) -> str:
    return f"{artifact.asset}/{artifact.version}"
