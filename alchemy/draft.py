"""A version of an artifact in the making.

A draft that makes its files part by part keeps those that the version before made from the very same: the
cost of a new version follows the change, and its bytes are those of a version made from scratch.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alchemy.manifest import Artifact, ArtifactFile, Request
from alchemy.records import fingerprint

Locate = Callable[[Artifact, ArtifactFile], Path]


@dataclass(frozen=True, slots=True)
class Kept:
    """A file of the version before, and what was noted with it."""

    artifact: Artifact
    file: ArtifactFile
    counts: dict[str, Any]


class Draft:
    """A version in the making: new files in `folder`, and files kept from the version before."""

    def __init__(self, request: Request, folder: Path, before: Mapping[str, Kept], locate: Locate) -> None:
        """An empty draft.

        Args:
            folder: Where new files are written.
            before: The files of the version before by what they were made from.
            locate: Gives a local path of an artifact's file.
        """
        self.folder = folder
        self.request = request
        self.kept: dict[str, Kept] = {}  # by path in this version
        self.notes: dict[str, tuple[str, dict[str, Any]]] = {}  # path -> made from, counts
        self._before = before
        self._locate = locate

    def had(self, made_from: str) -> bool:
        """Whether the version before made a file from the same."""
        return made_from in self._before

    def keep(self, path: str, made_from: str) -> dict[str, Any]:
        """Takes over that file as `path`; returns the counts it was noted with. Raises KeyError."""
        found = self._before[made_from]
        self.kept[path] = found
        self.note(path, made_from, found.counts)
        return found.counts

    def note(self, path: str, made_from: str, counts: dict[str, Any]) -> None:
        """Says what the new file `path` was made from, so that the next version can keep it."""
        self.notes[path] = made_from, counts

    def derive(
        self,
        source: Artifact,
        make: Callable[[Path, Path], dict[str, Any]],
        *,
        suffix: str = ".jsonl",
        context: object = None,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> list[dict[str, Any]]:
        """One part from each part of `source`: `make(part, target)` runs for those that are new.

        Args:
            make: Writes the target, a function of the part, the request and `context` alone; returns counts.
            progress: Called with the bytes of `source` that are done, and all of them.

        Returns:
            The counts of all parts, in order.
        """
        files = [file for file in source.files if file.path.startswith("part-")]
        total, done, results = sum(file.size for file in files), 0, []
        for file in files:
            made_from = fingerprint(
                self.request.code_version, self.request.parameters, context, file.sha256, length=40
            )
            path = Path(file.path).with_suffix(suffix).name
            if self.had(made_from):
                counts = self.keep(path, made_from)
            else:
                counts = make(self._locate(source, file), self.folder / path)
                self.note(path, made_from, counts)
            results.append(counts)
            done += file.size
            progress(done, total)
        return results

    def parts(self) -> list[Path]:
        """Local paths of all `part-*` files, new and kept, in order."""
        new = {path.name: path for path in self.folder.glob("part-*")}
        kept = {path: self._locate(one.artifact, one.file) for path, one in self.kept.items()}
        return [path for _, path in sorted({**new, **kept}.items())]
