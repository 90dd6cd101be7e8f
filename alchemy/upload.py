"""Plain folders into the store and out of it."""

import hashlib
import shutil
from pathlib import Path
from typing import Any

from alchemy.artifacts import Artifact, Artifacts, home
from alchemy.errors import BadInput
from alchemy.listing import RAW, list_raw
from alchemy.records import SOURCES
from alchemy.store import Store


def upload_raw(store: Store, folder: Path) -> dict[str, Any]:
    """Copies `folder/<source>/**` to `raw/<source>/**`; an object with the same content is not written again.

    Nothing is removed from the store. Returns counts per source and the files that no source takes.
    Raises BadInput when no sub-folder is a source.
    """
    if not folder.is_dir():
        raise BadInput(f"{folder}: no such folder")
    present = [source for source in SOURCES if (folder / source).is_dir()]
    if not present:
        raise BadInput(f"{folder}: holds none of the folders {', '.join(SOURCES)}")
    counts: dict[str, dict[str, int]] = {}
    for source in present:
        known = {one.key: one.sha256 for one in list_raw(store, source)}
        count = {"uploaded": 0, "unchanged": 0}
        for path in sorted((folder / source).rglob("*")):
            if not path.is_file() or any(part.startswith(".") for part in path.relative_to(folder).parts):
                continue
            key = f"{RAW}/{path.relative_to(folder).as_posix()}"
            same = known.get(key) == _sha256(path)
            if not same:
                store.put(key, path)
            count["unchanged" if same else "uploaded"] += 1
        counts[source] = count
    ignored = sorted(path.name for path in folder.iterdir() if path.name not in SOURCES)
    return {"sources": counts, "ignored": ignored}


def export_artifact(artifacts: Artifacts, artifact: Artifact, folder: Path) -> dict[str, Any]:
    """Writes an artifact's files under the name that people know, `folder/<name>/...`."""
    target = folder / Path(home(artifact.asset)).name
    source = artifacts.fetch(artifact)
    for file in artifact.files:
        path = target / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / file.path, path)
    return {"folder": str(target), "version": artifact.version, "files": len(artifact.files)}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
