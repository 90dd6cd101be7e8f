"""Immutable, content-addressed versions of what the stages make, and the lineage between them.

An artifact is a folder `<home>/<version>/` whose `manifest.json` is written last: without it the version
does not exist, so nothing half-written can ever be read. `<home>/latest` is a small alias moved by
compare-and-swap. The version is a hash of the files alone, so the same content made by another engine,
on another store or in another run has the same version.

`materialize` is the one way in: it skips the work when `latest` already answers the same request. Where a
file of the version before was made from the very same, a `Draft` keeps it: the cost of a new version follows
the change.
"""

import hashlib
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from alchemy.draft import Draft, Kept
from alchemy.errors import Conflict, ContractBroken, NotFound
from alchemy.manifest import MANIFEST, Artifact, ArtifactFile, Request, home
from alchemy.records import fingerprint
from alchemy.store import Store

__all__ = ["MANIFEST", "Artifact", "ArtifactFile", "Artifacts", "Draft", "Materialized", "Request", "home"]

_COPIES = 16  # files that are copied inside the store at once


@dataclass(frozen=True, slots=True)
class Materialized:
    """An artifact, and whether it was already there for the same request."""

    artifact: Artifact
    reused: bool


Build = Callable[[Path], dict[str, Any]]
BuildDraft = Callable[[Draft], dict[str, Any]]


class Artifacts:
    """The artifacts in one store. `cache` is a local folder for copies when the store is remote."""

    def __init__(self, store: Store, cache: Path) -> None:
        self.store = store
        self.cache = cache

    def latest(self, asset: str) -> Artifact:
        """The current version. Raises NotFound where the asset was never made."""
        alias = self._alias(asset)
        if alias is None:
            raise NotFound(f"{asset}: never materialized; run `dagster asset materialize --select {asset}`")
        return self.get(asset, alias["version"])

    def find(self, asset: str) -> Artifact | None:
        """`latest`, or None where the asset was never made."""
        return None if self._alias(asset) is None else self.latest(asset)

    def get(self, asset: str, version: str) -> Artifact:
        """One version. Raises NotFound, also for what cannot be a version: an empty one, a path."""
        if not version.isalnum():
            raise NotFound(f"{asset}: there is no version {version!r}")
        row = orjson.loads(self.store.get(f"{home(asset)}/{version}/{MANIFEST}"))
        return Artifact(**{**row, "files": tuple(ArtifactFile(**file) for file in row["files"])})

    def versions(self, asset: str) -> list[Artifact]:
        """Every complete version, oldest first."""
        found = []
        for name in self.store.folders(home(asset)):
            if self.store.head(f"{home(asset)}/{name}/{MANIFEST}"):
                found.append(self.get(asset, name))
        return sorted(found, key=lambda artifact: (artifact.created_at, artifact.version))

    def materialize(self, request: Request, build: Build) -> Materialized:
        """Answers the request: reuses `latest` where it was made from the same, else builds and publishes.

        `build` gets an empty folder, fills it with files (sub-folders are fine) and returns metrics as JSON
        values. Whatever it raises passes through, and nothing of it becomes visible.
        """
        return self.materialize_draft(request, lambda draft: build(draft.folder))

    def materialize_draft(self, request: Request, build: BuildDraft) -> Materialized:
        """`materialize` for a `build` that keeps files of the version before."""
        alias = self._alias(request.asset)
        if alias and alias["fingerprint"] == request.fingerprint:
            return Materialized(self.get(request.asset, alias["version"]), reused=True)
        with self.draft(request) as draft:
            return Materialized(self.publish(draft, build(draft)), reused=False)

    @contextmanager
    def draft(self, request: Request) -> Iterator[Draft]:
        """An empty draft to fill and `publish`; for stages that make two artifacts in one pass."""
        with tempfile.TemporaryDirectory(prefix="alchemy-") as name:
            yield Draft(request, Path(name), self._files_before(request.asset), self.path)

    def fetch(self, artifact: Artifact) -> Path:
        """A local folder with the artifact's files: the store's own, or a verified copy in the cache.

        Raises ContractBroken when a copied file's sha256 is not the manifest's.
        """
        for file in artifact.files:
            self.path(artifact, file)
        return self.store.local_path(artifact.folder) or self.cache / artifact.folder

    def file(self, artifact: Artifact, path: str) -> Path:
        """A local path of the file called `path`. Raises NotFound where the artifact has none."""
        for file in artifact.files:
            if file.path == path:
                return self.path(artifact, file)
        raise NotFound(f"{artifact.folder}: it has no file {path}")

    def path(self, artifact: Artifact, file: ArtifactFile) -> Path:
        """A local path of one file: the store's own, or a verified copy in the cache.

        Raises ContractBroken when a copied file's sha256 is not the manifest's.
        """
        key = f"{artifact.folder}/{file.path}"
        local = self.store.local_path(key)
        if local is not None:
            return local
        path = self.cache / key
        if not path.exists():
            fresh = path.with_name(path.name + ".unverified")
            self.store.download(key, fresh)
            if _sha256(fresh) != file.sha256:
                fresh.unlink()
                raise ContractBroken(f"{key}: content is not what was published")
            fresh.replace(path)
        return path

    def verify(self, artifact: Artifact) -> None:
        """Reads every file and compares digests. Raises ContractBroken naming the first that differs."""
        for file in artifact.files:
            if self.store.sha256(f"{artifact.folder}/{file.path}") != file.sha256:
                raise ContractBroken(f"{artifact.folder}/{file.path}: content is not what was published")

    def parts(self, artifact: Artifact, prefix: str = "") -> Iterator[Path]:
        """Local paths of the data files whose path starts with `prefix`, in order."""
        for file in artifact.files:
            if file.path.startswith(prefix):
                yield self.path(artifact, file)

    def lineage(self, asset: str, version: str) -> dict[str, Any]:
        """The artifact and everything it was made from, as a tree of {asset, version, inputs}."""
        artifact = self.get(asset, version)
        return {
            "asset": asset,
            "version": version,
            "created_at": artifact.created_at,
            "run_id": artifact.run_id,
            "inputs": [self.lineage(name, used) for name, used in sorted(artifact.inputs.items())],
        }

    def _alias(self, asset: str) -> dict[str, Any] | None:
        return read_alias(self.store, f"{home(asset)}/latest")[0]

    def publish(self, draft: Draft, metrics: dict[str, Any]) -> Artifact:
        """Makes the draft a version, and the latest one. `metrics` are JSON values."""
        request, new = draft.request, draft.folder
        made = [
            ArtifactFile(path.relative_to(new).as_posix(), _sha256(path), path.stat().st_size)
            for path in new.rglob("*")
            if path.is_file()
        ]
        kept = [ArtifactFile(path, one.file.sha256, one.file.size) for path, one in draft.kept.items()]
        files = tuple(sorted([*made, *kept], key=lambda file: file.path.split("/")))
        artifact = Artifact(
            asset=request.asset,
            version=fingerprint([(file.path, file.sha256) for file in files]),
            files=files,
            inputs=request.inputs,
            code_version=request.code_version,
            parameters=request.parameters,
            metrics=orjson.loads(orjson.dumps(metrics)),  # as it will be read back
            run_id=request.run_id,
            created_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
        )
        manifest = f"{artifact.folder}/{MANIFEST}"
        if self.store.head(manifest) is None:
            for file in made:
                self.store.put(f"{artifact.folder}/{file.path}", new / file.path)
            self._copy_kept(draft, artifact)
            # Two runs may publish the same content at once: same files, one manifest.
            try:
                self.store.create(manifest, orjson.dumps(asdict(artifact), option=orjson.OPT_INDENT_2))
            except Conflict:
                artifact = self.get(request.asset, artifact.version)
        else:
            artifact = self.get(request.asset, artifact.version)
        if draft.notes:
            self.store.put(_notes_key(artifact, request.fingerprint), orjson.dumps(draft.notes))
        self._point_latest(request, artifact)
        return artifact

    def _copy_kept(self, draft: Draft, artifact: Artifact) -> None:
        def copy(path: str, one: Kept) -> None:
            self.store.copy(f"{one.artifact.folder}/{one.file.path}", f"{artifact.folder}/{path}")

        with ThreadPoolExecutor(_COPIES) as pool:
            list(pool.map(copy, draft.kept.keys(), draft.kept.values()))

    def _files_before(self, asset: str) -> dict[str, Kept]:
        """The files of the latest version by what they were made from."""
        alias = self._alias(asset)
        if alias is None:
            return {}
        artifact = self.get(asset, alias["version"])
        files = {file.path: file for file in artifact.files}
        try:
            notes = orjson.loads(self.store.get(_notes_key(artifact, alias["fingerprint"])))
        except NotFound:
            return {}
        return {made_from: Kept(artifact, files[path], counts) for path, (made_from, counts) in notes.items()}

    def _point_latest(self, request: Request, artifact: Artifact) -> None:
        key = f"{home(request.asset)}/latest"
        value = {"version": artifact.version, "fingerprint": request.fingerprint}
        while True:
            current, etag = read_alias(self.store, key)
            if current == value:
                return
            try:
                move_alias(self.store, key, value, etag)
                return
            except Conflict:
                continue  # another run published in between: its version exists, ours is newer


def _notes_key(artifact: Artifact, fingerprint: str) -> str:
    """Where it says what the files were made from: by request, for equal files can come from two."""
    return f"{artifact.folder}/made_from/{fingerprint}.json"


def read_alias(store: Store, key: str) -> tuple[dict[str, Any] | None, str | None]:
    """The alias' value and the etag to move it with; (None, None) where it was never set."""
    try:
        data, etag = store.get_with_etag(key)
    except NotFound:
        return None, None
    return orjson.loads(data), etag


def move_alias(store: Store, key: str, value: dict[str, Any], etag: str | None) -> None:
    """Sets the alias if it is still at `etag` (None: if it does not exist). Raises Conflict."""
    data = orjson.dumps(value)
    if etag is None:
        store.create(key, data)
    else:
        store.update(key, data, etag)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
