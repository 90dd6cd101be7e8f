"""Datasets as folders of JSON-lines part files, written and read as a stream.

Where a part ends depends only on the records and the size limit, so equal records give equal files.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, TypeVar

from alchemy.records import read_lines, to_line

R = TypeVar("R")


class PartWriter:
    """Writes `part-00000.jsonl`, `part-00001.jsonl` ...; a new part begins once one reaches `part_bytes`."""

    def __init__(self, folder: Path, part_bytes: int) -> None:
        self.folder = folder
        self.part_bytes = part_bytes
        self.count = 0
        self._file: BinaryIO | None = None
        self._parts = 0
        self._written = 0

    def __enter__(self) -> "PartWriter":
        self.folder.mkdir(parents=True, exist_ok=True)
        self._next()  # an empty dataset still has one, empty, part
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._file:
            self._file.close()

    def write(self, record: Any) -> None:
        self.write_line(to_line(record))

    def write_line(self, line: bytes) -> None:
        """Appends one JSON line, newline included."""
        if self._written >= self.part_bytes:
            self._next()
        assert self._file is not None
        self._file.write(line)
        self._written += len(line)
        self.count += 1

    def _next(self) -> None:
        if self._file:
            self._file.close()
        self._file = (self.folder / f"part-{self._parts:05d}.jsonl").open("wb")
        self._parts += 1
        self._written = 0


def read_parts(cls: type[R], paths: Iterable[Path]) -> Iterator[R]:
    """Streams the records of several part files, in order."""
    for path in paths:
        yield from read_lines(cls, path)
