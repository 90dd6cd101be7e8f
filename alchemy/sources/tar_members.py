"""The files of a tar archive, one after the other. What is no plain file is refused, never made."""

import tarfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from alchemy.sources.archive_member import Member, problem_of
from alchemy.sources.packed_streams import Readable
from alchemy.sources.reasons import Unreadable

_MAX_HEADER = 4 << 20  # extended headers of a tar are read as a whole


def is_tar(head: bytes) -> bool:
    """Whether a block has the checksum of a tar header."""
    if len(head) < tarfile.BLOCKSIZE:
        return False
    try:
        tarfile.TarInfo.frombuf(head, "utf-8", "replace")
    except tarfile.HeaderError:
        return False
    return True


def tar_members(path: Path) -> Iterator[Member]:
    """The files in their order.

    Raises:
        Unreadable: The archive, or its rest, cannot be read.
    """
    with path.open("rb") as file:
        bounded: Any = _Bounded(file)
        try:
            archive: Any = tarfile.open(  # noqa: SIM115 - closed with the file
                fileobj=bounded, mode="r:", encoding="utf-8", errors="replace"
            )
            while info := archive.next():
                archive.members = []  # else it keeps all of them
                if info.isdir():
                    continue
                if not info.isreg():
                    problem = Unreadable("unsafe_member", "The member is a link or a device, not a file.")
                    yield Member(info.name, problem=problem)
                    continue
                yield Member(info.name, partial(_opened, archive, info), info.size)
            file.seek(archive.offset)
            rest = file.read(tarfile.BLOCKSIZE)
        except (tarfile.TarError, ValueError, OverflowError, EOFError, OSError) as error:
            raise problem_of(error) from error
        if rest.strip(b"\0"):  # tarfile stops at a bad header as if it were the end
            reason = "truncated" if len(rest) < tarfile.BLOCKSIZE else "broken"
            raise Unreadable(reason, "The tar archive cannot be read to its end; the members before it were.")


def _opened(archive: tarfile.TarFile, info: tarfile.TarInfo) -> Readable:
    stream = archive.extractfile(info)
    if stream is None:
        raise Unreadable("unsafe_member", "The member is no file.")
    return stream


class _Bounded:
    """A file that refuses to read a lot at once, as tarfile would for a header that claims to be huge."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int) -> bytes:
        if size > _MAX_HEADER:
            raise tarfile.ReadError("a header is larger than the limit")
        return self.file.read(size)
