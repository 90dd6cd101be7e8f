"""Datasets as folders of JSON-lines part files, read as a stream."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from alchemy.records import read_lines

R = TypeVar("R")


def read_parts(cls: type[R], paths: Iterable[Path]) -> Iterator[R]:
    """Streams the records of several part files, in order."""
    for path in paths:
        yield from read_lines(cls, path)
