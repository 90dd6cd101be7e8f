"""The files of a zip archive, as the directory at its end lists them."""

import struct
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from alchemy.sources.archive_member import Member
from alchemy.sources.reasons import Unreadable

DIRECTORY_BYTES = 64 << 20  # of a zip file's directory, which Python reads as a whole
_AES = 99  # the compression "method" of WinZip's encryption


def zip_members(path: Path, directory_bytes: int = DIRECTORY_BYTES) -> Iterator[Member]:
    """The files in the order of the directory.

    Args:
        directory_bytes: The largest directory that is read.

    Raises:
        Unreadable: The archive cannot be read.
    """
    try:
        if _directory_bytes(path) > directory_bytes:
            raise Unreadable("too_many_members", "The zip archive's directory is larger than the limit.")
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, struct.error) as error:
        detail = "The zip archive has no readable directory at its end, so it was cut or is damaged."
        raise Unreadable("truncated", detail) from error
    with archive:
        for info in archive.infolist():
            kind = info.external_attr >> 28  # the file type of Unix
            if info.is_dir():
                continue
            if info.flag_bits & 1 or info.compress_type == _AES:
                problem = Unreadable("encrypted", "The member can be opened only with a password.")
            elif kind not in (0, 8):
                problem = Unreadable("unsafe_member", "The member is a link or a device, not a file.")
            else:
                yield Member(info.filename, partial(archive.open, info), info.compress_size)
                continue
            yield Member(info.filename, problem=problem)


def is_office(path: Path) -> bool:
    """Whether a zip file is an Office, OpenDocument or EPUB document."""
    try:
        if _directory_bytes(path) > DIRECTORY_BYTES:
            return False
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, struct.error):
        return False
    return "[Content_Types].xml" in names or names[:1] == ["mimetype"]


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
