"""Members of a zip file whose directory is missing, cut or damaged, found by their own headers.

A zip file lists its members at its end, so a transfer that stops loses the list and none of the members. Each
of them has a header of its own too (APPNOTE.TXT 4.3.7), and they stand one after another:

| member | its end is known by |
|---|---|
| sizes in the header, or in its ZIP64 field | the packed size |
| sizes after the data (bit 3: written to a pipe) | the descriptor that states the distance to itself |
| the last one, cut | the end of the file; what unpacks is read, and a row says so |

Between damaged places the next header is searched for. Whether a member was a link stands only in the lost
directory; here it is read as the text that it is, its target's path, and nothing follows it.
"""

import mmap
import struct
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO

from alchemy.sources.archive_member import Member
from alchemy.sources.packed_streams import Readable
from alchemy.sources.reasons import Unreadable
from alchemy.sources.zip_streams import zip_member

_HEADER = struct.Struct("<4s5H3L2H")
_MAGIC, _DESCRIPTOR = b"PK\x03\x04", b"PK\x07\x08"
_DIRECTORY = (b"PK\x01\x02", b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x08")  # where the members end
_METHODS = frozenset((*range(13), 14, 18, 19, *range(93, 100)))  # that the specification knows
_OFFICE = ("[Content_Types].xml", "_rels/.rels", "mimetype", "docProps/")  # how their first member is named
_SIZES_FOLLOW, _UTF8 = 0x8, 0x800
_IN_ZIP64, _ZIP64 = 0xFFFFFFFF, 1
_UNKNOWN = 1 << 62


def salvaged_members(path: Path) -> Iterator[Member]:
    """The files that can be found, in their order.

    Raises:
        Unreadable: `truncated`, after the last of them: at least the directory is missing.
    """
    count = 0
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        at = 0
        while (at := data.find(_MAGIC, at)) >= 0:
            info = _header(data, at)
            if info is None:
                at += len(_MAGIC)
                continue
            if not count and info.filename.startswith(_OFFICE):
                raise Unreadable("truncated", "The file is an Office document that was cut or is damaged.")
            count += not info.is_dir()
            if not info.is_dir():
                packed = min(info.compress_size, len(data) - info.header_offset)
                yield zip_member(info, partial(_opened, file), packed)
            at = min(info.header_offset + info.compress_size, len(data))
            if data[at : at + 4] in _DIRECTORY:
                break
    detail = "The zip archive has no readable directory at its end, so it was cut or is damaged."
    found = f" Without it, {count} of its files were found; others may be missing." if count else ""
    raise Unreadable("truncated", detail + found)


def _header(data: mmap.mmap, at: int) -> zipfile.ZipInfo | None:
    """What a member's header says, with its data's place as `header_offset`; None if it is no header."""
    name_at = at + _HEADER.size
    if name_at > len(data):
        return None
    _, _, flags, method, _, _, crc, packed, size, name_length, extra_length = _HEADER.unpack_from(data, at)
    extra_at = name_at + name_length
    start = extra_at + extra_length
    name = data[name_at:extra_at].decode("utf-8" if flags & _UTF8 else "cp437", "replace")
    if method not in _METHODS or not name.strip("\0") or start > len(data):
        return None
    info = zipfile.ZipInfo(name)
    info.flag_bits, info.compress_type, info.header_offset = flags, method, start
    info.CRC, info.compress_size, info.file_size = crc, packed, size
    if _IN_ZIP64 in (packed, size):
        _add_zip64_sizes(info, data[extra_at:start])
    if flags & _SIZES_FOLLOW and not info.compress_size and not info.is_dir():
        _add_following_sizes(info, data)
    return info


def _add_zip64_sizes(info: zipfile.ZipInfo, extra: bytes) -> None:
    """Sizes from the extra field, which has those that the header had no room for (APPNOTE.TXT 4.5.3)."""
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, at)
        if kind == _ZIP64 and length >= 16:
            info.file_size, info.compress_size = struct.unpack_from("<QQ", extra, at + 4)
        at += 4 + length


def _add_following_sizes(info: zipfile.ZipInfo, data: mmap.mmap) -> None:
    """Sizes from the descriptor behind the data: the first that states the distance to itself."""
    at = start = info.header_offset
    while (at := data.find(_DESCRIPTOR, at)) >= 0:
        for form in ("<QQ", "<LL"):  # the longer first, because the shorter reads its first number too
            if at + 8 + struct.calcsize(form) <= len(data):
                packed, size = struct.unpack_from(form, data, at + 8)
                if packed == at - start:
                    (info.CRC,) = struct.unpack_from("<L", data, at + 4)
                    info.compress_size, info.file_size = packed, size
                    return
        at += len(_DESCRIPTOR)
    info.compress_size = info.file_size = _UNKNOWN
    del info.CRC


def _opened(file: BinaryIO, info: zipfile.ZipInfo) -> Readable:
    file.seek(info.header_offset)
    return _Eager(file, "r", info)


class _Eager(zipfile.ZipExtFile):
    """Gives what it has: `read` of its base loses up to a block where the file stops."""

    def read(self, size: int | None = -1) -> bytes:
        return self.read1(size)
