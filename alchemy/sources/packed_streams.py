"""Compressed files as streams that are read in blocks: gzip, bzip2, xz and zstd.

What a stream unpacks to is never held as a whole, and no header may ask for more memory than `MAX_WINDOW`.
Streams one after another are one file, as the command line tools have it. A stream that stops before its end
raises EOFError, after everything that it held was given.
"""

from collections.abc import Callable
from typing import BinaryIO, Protocol

MAX_WINDOW = 256 << 20  # memory that a decompressor may ask for


class Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


def decompressor(kind: str, file: BinaryIO) -> Readable:
    """The unpacked stream of a `gz`, `bz2`, `xz` or `zst` file."""
    if kind == "gz":
        import gzip

        return gzip.GzipFile(fileobj=file, mode="rb")
    if kind == "zst":
        return _ZstdStream(file)
    if kind == "bz2":
        import bz2

        return BlockStream(file, bz2.BZ2Decompressor)
    import lzma

    return BlockStream(file, lambda: lzma.LZMADecompressor(memlimit=MAX_WINDOW))


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


class BlockStream:
    """bzip2, xz or LZMA; streams one after another are one file. EOFError says that the last is not whole."""

    def __init__(self, file: Readable, new: Callable[[], _Decompressor]) -> None:
        self.file, self.new, self.decompressor = file, new, new()

    def read(self, size: int, /) -> bytes:
        while True:
            data = b""
            if self.decompressor.eof:
                data = self.decompressor.unused_data or self.file.read(1 << 16)
                if not data.strip(b"\0"):
                    return b""
                self.decompressor = self.new()
            elif self.decompressor.needs_input:
                data = self.file.read(1 << 16)
                if not data:
                    raise EOFError("the stream stops before its end")
            if block := self.decompressor.decompress(data, size):
                return block


class _ZstdStream:
    """zstd frames. Fed in small pieces, because a piece may unpack to 32,768 times its size at once."""

    def __init__(self, file: BinaryIO) -> None:
        import zstandard

        self.file, self.rest = file, b""
        self.new = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW).decompressobj
        self.frame = self.new()
        self.fresh = True  # nothing of this frame was read

    def read(self, _size: int, /) -> bytes:
        while True:
            data = self.rest or self.file.read(512)
            if not data:
                if self.fresh:
                    return b""
                raise EOFError("the stream stops before its end")
            block = self.frame.decompress(data)
            self.fresh, self.rest = False, b""
            if self.frame.eof:
                self.rest = self.frame.unused_data
                self.frame, self.fresh = self.new(), True
            if block:
                return block
