"""The files of a zip archive, as the directory at its end lists them, or else as they can be found."""

import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path

from alchemy.sources.archive_member import Member
from alchemy.sources.reasons import Unreadable
from alchemy.sources.zip_salvage import salvaged_members
from alchemy.sources.zip_streams import zip_member

DIRECTORY_BYTES = 64 << 20  # of a zip file's directory, which Python reads as a whole


def zip_members(path: Path, directory_bytes: int = DIRECTORY_BYTES) -> Iterator[Member]:
    """The files in the order of the directory.

    Args:
        directory_bytes: The largest directory that is read.

    Raises:
        Unreadable: The directory is too large, or is missing, and the files that were found had their turn.
    """
    archive = _opened(path, directory_bytes)
    if archive is None:
        yield from salvaged_members(path)
        return
    with archive:
        for info in archive.infolist():
            if not info.is_dir():
                yield zip_member(info, archive.open, info.compress_size)


def is_office(path: Path) -> bool:
    """Whether a zip file is an Office, OpenDocument or EPUB document."""
    try:
        archive = _opened(path, DIRECTORY_BYTES)
    except Unreadable:
        return False
    if archive is None:
        return False
    with archive:
        names = archive.namelist()
    return "[Content_Types].xml" in names or names[:1] == ["mimetype"]


def _opened(path: Path, directory_bytes: int) -> zipfile.ZipFile | None:
    """The archive, or None where it has no readable directory of its own.

    Where a zip file was cut behind an archive inside it, `zipfile` takes the inner directory for the outer;
    but then its first member does not stand at the beginning.
    """
    try:
        if _directory_bytes(path) > directory_bytes:
            raise Unreadable("too_many_members", "The zip archive's directory is larger than the limit.")
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, struct.error):
        return None
    if min((info.header_offset for info in archive.infolist()), default=archive.start_dir):
        archive.close()
        return None
    return archive


def _directory_bytes(path: Path) -> int:
    """The size of a zip file's directory by its end record, because `ZipFile` reads it unasked."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - 65_600))
        tail = file.read()
        at = tail.rfind(b"PK\x05\x06")
        if at < 0 or len(tail) < at + 22:
            raise zipfile.BadZipFile("no end record")
        found: int = struct.unpack_from("<L", tail, at + 12)[0]
        if found == 0xFFFFFFFF and tail[max(0, at - 20) :][:4] == b"PK\x06\x07":
            file.seek(struct.unpack_from("<Q", tail, at - 12)[0])
            found = struct.unpack_from("<Q", file.read(56), 40)[0]
    return min(found, size)
