"""One member of a zip file, however it was found, with its data as a stream that unpacks a block at a time.

`zipfile` bounds what it unpacks at once for deflate only. A kilobyte of bzip2 may hold a gigabyte, so bzip2
and LZMA are unpacked here, from the packed bytes that `zipfile` gives when it is told that they are stored.
"""

import copy
import lzma
import struct
import zipfile
from bz2 import BZ2Decompressor
from collections.abc import Callable
from functools import partial

from alchemy.sources.archive_member import Member
from alchemy.sources.packed_streams import MAX_WINDOW, BlockStream, Readable
from alchemy.sources.reasons import Unreadable

Open = Callable[[zipfile.ZipInfo], Readable]

_AES = 99  # the compression "method" of WinZip's encryption
_PLAIN = (0, 8)  # file types of Unix: none given, or a plain file
_ENDS_ITSELF = 0x2  # the flag of LZMA data with a mark at their end
_PROPERTIES = 5  # bytes that LZMA needs to know before its data


def zip_member(info: zipfile.ZipInfo, opened: Open, packed: int) -> Member:
    """The member, with a problem if it is locked or no plain file.

    Args:
        opened: Opens a member as `ZipFile.open` does.
        packed: Bytes that its data take.
    """
    if info.flag_bits & 1 or info.compress_type == _AES:
        problem = Unreadable("encrypted", "The member can be opened only with a password.")
        return Member(info.filename, problem=problem)
    if info.external_attr >> 28 not in _PLAIN:
        problem = Unreadable("unsafe_member", "The member is a link or a device, not a file.")
        return Member(info.filename, problem=problem)
    return Member(info.filename, partial(_stream, info, opened), packed)


def _stream(member: zipfile.ZipInfo, opened: Open) -> Readable:
    if member.compress_type == zipfile.ZIP_BZIP2:
        return BlockStream(opened(_stored(member)), BZ2Decompressor)
    if member.compress_type == zipfile.ZIP_LZMA:
        return _lzma(member, opened(_stored(member)))
    return opened(member)


def _stored(member: zipfile.ZipInfo) -> zipfile.ZipInfo:
    packed = copy.copy(member)
    packed.compress_type, packed.file_size = zipfile.ZIP_STORED, member.compress_size
    if hasattr(packed, "CRC"):
        del packed.CRC  # of the unpacked data
    return packed


def _lzma(member: zipfile.ZipInfo, packed: Readable) -> Readable:
    """Begins with the header of a `.lzma` file, which says what a zip file's does (APPNOTE.TXT 5.8.8)."""
    _, length = struct.unpack("<HH", packed.read(4))
    if length != _PROPERTIES:
        raise lzma.LZMAError("the properties have another length")
    size = b"\xff" * 8 if member.flag_bits & _ENDS_ITSELF else struct.pack("<Q", member.file_size)
    header = packed.read(length) + size

    def begun() -> lzma.LZMADecompressor:
        decompressor = lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=MAX_WINDOW)
        decompressor.decompress(header, 1)
        return decompressor

    return BlockStream(packed, begun)
