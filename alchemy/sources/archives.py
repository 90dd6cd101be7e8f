"""Backups of any source's files: zip, tar, gzip, bzip2, xz and zstd, one inside the other too.

Members are unpacked one at a time into a temporary file with a name of ours and read as if they had been
uploaded under `<archive>/<member>`; nothing is ever written where a member wants to be. What is unsafe,
locked, damaged or a bomb becomes a row with the member's path, and the members beside it are read. The limits
are counted in bytes that were really unpacked, because what an archive says about its sizes may be a lie.
Office documents are zip files too, but documents: their own extractor reads them.
"""

import re
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import IO, Any, BinaryIO, Protocol

from alchemy.records import Draft, RawObject, Rejected
from alchemy.settings import CleanOptions
from alchemy.sources.reasons import Unreadable, reject, stop_if_disk_full

ReadFile = Callable[[RawObject, Path, CleanOptions], "Iterator[Draft | Rejected]"]


@dataclass(frozen=True, slots=True)
class ArchiveLimits:
    """How much one raw object may unpack to, with everything inside it."""

    depth: int = 3  # archives inside archives; a tar inside its gzip counts once
    members: int = 10_000
    ratio: int = 200  # bytes unpacked for one packed byte; text rarely exceeds 30
    any_ratio_bytes: int = 64 << 20  # up to this size the ratio does not matter
    total_bytes: int = 16 << 30
    directory_bytes: int = 64 << 20  # of a zip file, which Python reads as a whole


LIMITS = ArchiveLimits()

_MAGICS = (
    (b"PK\x03\x04", "zip"),
    (b"PK\x05\x06", "zip"),  # without members
    (b"\x1f\x8b\x08", "gz"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"\x28\xb5\x2f\xfd", "zst"),
)
_BZ2 = re.compile(rb"BZh[1-9](?:1AY&SY|\x17\x72\x45\x38\x50\x90)")
_OFFICE_NAMES = (
    ".docx",
    ".docm",
    ".dotx",
    ".xlsx",
    ".xlsm",
    ".pptx",
    ".pptm",
    ".odt",
    ".ods",
    ".odp",
    ".epub",
)
_SUFFIX = re.compile(r"\.(?:gz|gzip|bz2|xz|zst|zstd)\Z", re.I)
_TAR_SUFFIX = re.compile(r"\.t(?:gz|bz2?|xz|zst)\Z", re.I)
_SYSTEM = re.compile(r"(?:\A|/)(?:__MACOSX/|\.DS_Store\Z|Thumbs\.db\Z|desktop\.ini\Z|\._[^/]*\Z)", re.I)
_BLOCK = 1 << 20
_MAX_HEADER = 4 << 20  # extended headers of a tar are read as a whole
_MAX_WINDOW = 256 << 20  # memory that a decompressor may ask for
_AES = 99  # the compression "method" of WinZip's encryption


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class _Member:
    """A file of an archive: its stream, or why it is not to be read."""

    name: str
    stream: Callable[[], _Readable] | None = None
    packed: int = 0  # bytes it takes in the archive
    problem: Unreadable | None = None


def archive_kind(path: Path, name: str) -> str:
    """`zip`, `tar`, `gz`, `bz2`, `xz`, `zst`, or "" for a file that is no archive, by content.

    Args:
        name: Decides for a damaged zip file only: a broken `a.docx` is a broken document.
    """
    with path.open("rb") as file:
        head = file.read(tarfile.BLOCKSIZE)
    kind = next((kind for magic, kind in _MAGICS if head.startswith(magic)), "")
    if kind == "zip":
        return "" if name.lower().endswith(_OFFICE_NAMES) or _is_office(path) else "zip"
    if _BZ2.match(head):
        return "bz2"
    return kind or ("tar" if _is_tar(head) else "")


def read_archive(
    raw: RawObject,
    path: Path,
    kind: str,
    options: CleanOptions,
    read_file: ReadFile,
    limits: ArchiveLimits = LIMITS,
) -> Iterator[Draft | Rejected]:
    """Rows of all members in the archive's order; locators begin with the member's path.

    Args:
        kind: As `archive_kind` says.
        read_file: Reads a file that is no archive.

    Raises:
        Unavailable: The disk for temporary files is full; bad data never raises.
    """
    yield from _Unpacker(raw, path.stat().st_size, options, read_file, limits).read(path, kind, "", 1)


class _Unpacker:
    """One raw object being unpacked: what is left of its limits."""

    def __init__(
        self, raw: RawObject, size: int, options: CleanOptions, read_file: ReadFile, limits: ArchiveLimits
    ) -> None:
        self.raw, self.options, self.read_file, self.limits = raw, options, read_file, limits
        self.bytes_left = min(limits.total_bytes, max(4 * limits.any_ratio_bytes, limits.ratio * size))
        self.members_left = limits.members
        self.stopped = False  # a limit of the whole object is reached

    def read(self, path: Path, kind: str, outer: str, depth: int) -> Iterator[Draft | Rejected]:
        """Rows of one archive; `outer` is its own path inside the object, with a slash, or ""."""
        found = 0
        try:
            for member in _members(path, kind, outer or self.raw.key, self.limits):
                name = outer + _shown(member.name)
                if self.members_left == 0:
                    self.stopped = True
                    detail = (
                        f"The archive has more than {self.limits.members} members; the rest was not read."
                    )
                    yield reject(self.raw, "too_many_members", detail, locator=name)
                    return
                self.members_left -= 1
                found += 1
                yield from self.member(member, kind, name, outer, depth)
                if self.stopped:
                    return
        except Unreadable as error:
            yield reject(self.raw, error.reason, error.detail, locator=outer.removesuffix("/"))
            return
        if not found:
            yield reject(self.raw, "empty", "The archive has no members.", locator=outer.removesuffix("/"))

    def member(
        self, member: _Member, kind: str, name: str, outer: str, depth: int
    ) -> Iterator[Draft | Rejected]:
        problem = member.problem or _unsafe(member.name)
        if problem or member.stream is None:
            yield self.refuse(problem or Unreadable("broken", "The member cannot be opened."), name)
            return
        with tempfile.NamedTemporaryFile(prefix="alchemy-member-") as file:
            problem, usable = self.unpack(member, file.file)
            if usable:
                yield from self.unpacked(Path(file.name), kind, name, outer, depth)
        if problem:
            yield self.refuse(problem, name)

    def unpacked(
        self, path: Path, kind: str, name: str, outer: str, depth: int
    ) -> Iterator[Draft | Rejected]:
        inner = archive_kind(path, name)
        if inner == "tar" and kind not in ("zip", "tar"):
            yield from self.read(path, inner, outer, depth)  # a.tar.gz is one archive, not two
        elif inner and depth >= self.limits.depth:
            detail = f"The archive lies more than {self.limits.depth} archives deep."
            yield reject(self.raw, "too_deep", detail, locator=name)
        elif inner:
            yield from self.read(path, inner, f"{name}/", depth + 1)
        else:
            raw = replace(self.raw, key=f"{self.raw.key}/{name}", size=path.stat().st_size)
            for row in self.read_file(raw, path, self.options):
                locator = f"{name}: {row.locator}" if row.locator else name
                if isinstance(row, Rejected):
                    yield replace(row, raw_key=self.raw.key, locator=locator)
                else:
                    yield replace(row, locator=locator)

    def unpack(self, member: _Member, out: IO[bytes]) -> tuple[Unreadable | None, bool]:
        """Why the member is not whole, or None; and whether what was unpacked is worth reading."""
        size, allowed = 0, max(self.limits.any_ratio_bytes, self.limits.ratio * member.packed)
        assert member.stream
        try:
            stream = member.stream()
            while block := stream.read(_BLOCK):
                size += len(block)
                self.bytes_left -= len(block)
                if self.bytes_left < 0:
                    self.stopped = True
                    detail = "The archive unpacks to more bytes than the limit; the rest was not read."
                    return Unreadable("bomb", detail), False
                if size > allowed:
                    detail = f"The member unpacks to more than {allowed} bytes from {member.packed}."
                    return Unreadable("bomb", detail), False
                out.write(block)
            out.flush()
        except Exception as error:
            problem = _problem(error)
            out.flush()
            return problem, problem.reason == "truncated" and size > 0
        return None, True

    def refuse(self, problem: Unreadable, name: str) -> Rejected:
        return reject(self.raw, problem.reason, problem.detail, locator=name, outcome=problem.outcome)


def _members(path: Path, kind: str, name: str, limits: ArchiveLimits) -> Iterator[_Member]:
    """The files of one archive.

    Raises:
        Unreadable: The archive, or its rest, cannot be read.
    """
    if kind == "zip":
        yield from _zip_members(path, limits)
    elif kind == "tar":
        yield from _tar_members(path)
    else:
        base = name.removesuffix("/").rpartition("/")[2]
        base = _SUFFIX.sub("", base) if _SUFFIX.search(base) else _TAR_SUFFIX.sub(".tar", base)
        with path.open("rb") as file:
            yield _Member(base, partial(_decompressor, kind, file), path.stat().st_size)


def _zip_members(path: Path, limits: ArchiveLimits) -> Iterator[_Member]:
    try:
        if _directory_bytes(path) > limits.directory_bytes:
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
                yield _Member(info.filename, partial(archive.open, info), info.compress_size)
                continue
            yield _Member(info.filename, problem=problem)


def _tar_members(path: Path) -> Iterator[_Member]:
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
                    yield _Member(info.name, problem=problem)
                    continue
                yield _Member(info.name, partial(_opened, archive, info), info.size)
            file.seek(archive.offset)
            rest = file.read(tarfile.BLOCKSIZE)
        except (tarfile.TarError, ValueError, OverflowError, EOFError, OSError) as error:
            raise _problem(error) from error
        if rest.strip(b"\0"):  # tarfile stops at a bad header as if it were the end
            reason = "truncated" if len(rest) < tarfile.BLOCKSIZE else "broken"
            raise Unreadable(reason, "The tar archive cannot be read to its end; the members before it were.")


def _opened(archive: tarfile.TarFile, info: tarfile.TarInfo) -> _Readable:
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


def _decompressor(kind: str, file: BinaryIO) -> _Readable:
    if kind == "gz":
        import gzip

        return gzip.GzipFile(fileobj=file, mode="rb")
    if kind == "zst":
        return _ZstdStream(file)
    if kind == "bz2":
        import bz2

        return _BlockStream(file, bz2.BZ2Decompressor)
    import lzma

    return _BlockStream(file, lambda: lzma.LZMADecompressor(memlimit=_MAX_WINDOW))


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


class _BlockStream:
    """bzip2 or xz; streams one after another are one file. Raises EOFError where the last is not whole."""

    def __init__(self, file: BinaryIO, new: Callable[[], _Decompressor]) -> None:
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
        self.new = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW).decompressobj
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


def _problem(error: Exception) -> Unreadable:
    """What an exception while unpacking means for the member."""
    if isinstance(error, Unreadable):
        return error
    stop_if_disk_full(error)
    if isinstance(error, EOFError) or "unexpected end" in str(error):
        return Unreadable("truncated", "The data stops before its end; what came before it was read.")
    if isinstance(error, MemoryError) or "emory" in str(error):
        return Unreadable("memory_limit", "Unpacking the member takes more memory than the limit.")
    if isinstance(error, NotImplementedError):
        return Unreadable("unsupported", "The member is packed by a method that is not known here.")
    if isinstance(error, RuntimeError) and "password" in str(error):
        return Unreadable("encrypted", "The member can be opened only with a password.")
    if isinstance(error, zlib.error) and "incomplete" in str(error):
        return Unreadable("truncated", "The data stops before its end; what came before it was read.")
    return Unreadable("broken", f"The packed data is damaged ({type(error).__name__}).")


def _unsafe(name: str) -> Unreadable | None:
    path = name.replace("\\", "/")
    if (
        not path.strip("/ .")
        or path.startswith("/")
        or ".." in path.split("/")
        or re.match("[A-Za-z]:/", path)
    ):
        return Unreadable("unsafe_member", "The member's path leads out of the archive.")
    if _SYSTEM.search(path):
        return Unreadable("system_file", "An operating system put the file there.", "filtered")
    return None


def _shown(name: str) -> str:
    """A member's path as one line with forward slashes."""
    name = name.replace("\\", "/").removeprefix("./")
    return "".join(character if character.isprintable() else "\ufffd" for character in name)[:1000]


def _is_office(path: Path) -> bool:
    """Whether a zip file is an Office, OpenDocument or EPUB document."""
    try:
        if _directory_bytes(path) > LIMITS.directory_bytes:
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


def _is_tar(head: bytes) -> bool:
    """Whether a block has the checksum of a tar header."""
    if len(head) < tarfile.BLOCKSIZE:
        return False
    try:
        tarfile.TarInfo.frombuf(head, "utf-8", "replace")
    except tarfile.HeaderError:
        return False
    return True
