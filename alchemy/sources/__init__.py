"""Readers of raw objects, one module per family: bytes in, drafts and rejected rows out.

`read` is the only door. It is pure, streams, and never raises for bad data. Imports are lazy, because the
extractor's child process (`extract`) loads this package too and has to start quickly.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from alchemy.records import Draft, RawObject, Rejected
    from alchemy.settings import CleanOptions

__all__ = ["read"]


def read(raw: "RawObject", path: Path, options: "CleanOptions") -> "Iterator[Draft | Rejected]":
    """Drafts (not yet masked) and rejected rows of one raw object, in file order.

    An archive gives the rows of its members, each read as a file of the same source.

    Args:
        raw: The object as listed; `raw.source` picks the family, the content picks the format.
        path: A local copy of the object.

    Raises:
        KeyError: `raw.source` is no source.
        Unavailable: There is no disk space for temporary files. Bad data never raises.
    """
    from alchemy.errors import Unavailable
    from alchemy.records import SOURCES
    from alchemy.sources.archives import archive_kind, read_archive
    from alchemy.sources.reasons import reject, rejected_by, stop_if_disk_full

    if raw.source not in SOURCES:
        raise KeyError(raw.source)
    try:
        kind = archive_kind(path, raw.key)
        if kind:
            yield from read_archive(raw, path, kind, options, _read_file)
        else:
            yield from _read_file(raw, path, options)
    except Unavailable:
        raise
    except OSError as error:
        stop_if_disk_full(error)
        yield reject(raw, "unreadable_file", f"The file could not be read: {type(error).__name__}.")
    except Exception as error:
        yield rejected_by(error, raw)


def _read_file(raw: "RawObject", path: Path, options: "CleanOptions") -> "Iterator[Draft | Rejected]":
    """Rows of a file that is no archive."""
    from importlib import import_module

    from alchemy.errors import Unavailable
    from alchemy.sources.reasons import reject, rejected_by, stop_if_disk_full

    try:
        if _is_blank(path):
            yield reject(raw, "empty", "The file holds nothing.")
            return
        yield from import_module(f"alchemy.sources.{raw.source}").read(raw, path, options)
    except Unavailable:
        raise
    except OSError as error:
        stop_if_disk_full(error)
        yield reject(raw, "unreadable_file", f"The file could not be read: {type(error).__name__}.")
    except Exception as error:  # the last net: a reader's own bug costs one object, not the run
        yield rejected_by(error, raw)


def _is_blank(path: Path) -> bool:
    with path.open("rb") as file:
        while block := file.read(1 << 16):
            if block.strip(b" \t\r\n\x00\xef\xbb\xbf\xff\xfe"):
                return False
    return True
