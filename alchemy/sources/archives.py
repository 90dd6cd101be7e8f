"""Backups of any source's files: archives and packed files, one inside the other too.

| shape | known by | read by |
|---|---|---|
| zip | `PK` and no Office document | `zip_members` |
| zip whose directory is missing or damaged | the same | `zip_salvage` |
| tar | the checksum of its first header | `tar_members` |
| gzip, bzip2, xz, zstd | their magic numbers; a tar inside counts as one archive | `packed_streams` |

Members are unpacked one at a time into a temporary file with a name of ours and read as if they had been
uploaded under `<archive>/<member>`; nothing is ever written where a member wants to be. What is unsafe,
locked, damaged or a bomb becomes a row with the member's path, and the members beside it are read. The limits
are counted in bytes that were really unpacked, because what an archive says about its sizes may be a lie.
Office documents are zip files too, but documents: their own extractor reads them. The files of a dump of
PostgreSQL are one thing, so they are read together: see `pg_folder`.
"""

import re
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import IO

from alchemy.records import Draft, RawObject, Rejected
from alchemy.settings import CleanOptions
from alchemy.sources.archive_member import Member, problem_of, shown, unsafe
from alchemy.sources.drafts import located
from alchemy.sources.packed_streams import decompressor
from alchemy.sources.pg_folder import DumpFolders, read_pg_folder
from alchemy.sources.reasons import Unreadable, reject
from alchemy.sources.tar_members import is_tar, tar_members
from alchemy.sources.zip_members import DIRECTORY_BYTES, is_office, zip_members

ReadFile = Callable[[RawObject, Path, CleanOptions], "Iterator[Draft | Rejected]"]


@dataclass(frozen=True, slots=True)
class ArchiveLimits:
    """How much one raw object may unpack to, with everything inside it."""

    depth: int = 3  # archives inside archives; a tar inside its gzip counts once
    members: int = 10_000
    ratio: int = 200  # bytes unpacked for one packed byte; text rarely exceeds 30
    any_ratio_bytes: int = 64 << 20  # up to this size the ratio does not matter
    total_bytes: int = 16 << 30
    directory_bytes: int = DIRECTORY_BYTES


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
_BLOCK = 1 << 20


def archive_kind(path: Path, name: str) -> str:
    """`zip`, `tar`, `gz`, `bz2`, `xz`, `zst`, or "" for a file that is no archive, by content.

    Args:
        name: Decides for a damaged zip file only: a broken `a.docx` is a broken document.
    """
    with path.open("rb") as file:
        head = file.read(tarfile.BLOCKSIZE)
    kind = next((kind for magic, kind in _MAGICS if head.startswith(magic)), "")
    if kind == "zip":
        return "" if name.lower().endswith(_OFFICE_NAMES) or is_office(path) else "zip"
    if _BZ2.match(head):
        return "bz2"
    return kind or ("tar" if is_tar(head) else "")


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
        if self.raw.source != "database":
            yield from self.members(path, kind, outer, depth)
            return
        with tempfile.TemporaryDirectory(prefix="alchemy-archive-") as folder:
            dumps = DumpFolders(Path(folder))
            yield from self.members(path, kind, outer, depth, dumps)
            yield from self.dumps(dumps, kind, outer, depth)

    def members(
        self, path: Path, kind: str, outer: str, depth: int, dumps: DumpFolders | None = None
    ) -> Iterator[Draft | Rejected]:
        """Rows of the members, without those that are kept in `dumps`."""
        found = 0
        try:
            for member in _members(path, kind, outer or self.raw.key, self.limits):
                name = outer + shown(member.name)
                if self.members_left == 0:
                    self.stopped = True
                    detail = (
                        f"The archive has more than {self.limits.members} members; the rest was not read."
                    )
                    yield reject(self.raw, "too_many_members", detail, locator=name)
                    return
                self.members_left -= 1
                found += 1
                yield from self.member(member, kind, name, outer, depth, dumps)
                if self.stopped:
                    return
        except Unreadable as error:
            yield reject(self.raw, error.reason, error.detail, locator=outer.removesuffix("/"))
            return
        if not found:
            yield reject(self.raw, "empty", "The archive has no members.", locator=outer.removesuffix("/"))

    def member(
        self, member: Member, kind: str, name: str, outer: str, depth: int, dumps: DumpFolders | None
    ) -> Iterator[Draft | Rejected]:
        problem = member.problem or unsafe(member.name)
        if problem or member.stream is None:
            yield self.refuse(problem or Unreadable("broken", "The member cannot be opened."), name)
            return
        kept = dumps.place(name) if dumps else None
        if dumps and kept:
            with kept.open("wb") as out:
                problem, usable = self.unpack(member, out)
            if not usable:
                dumps.drop(name)
        else:
            with tempfile.NamedTemporaryFile(prefix="alchemy-member-") as file:
                problem, usable = self.unpack(member, file.file)
                if usable:
                    yield from self.unpacked(Path(file.name), kind, name, outer, depth)
        if problem:
            yield self.refuse(problem, name)

    def dumps(self, dumps: DumpFolders, kind: str, outer: str, depth: int) -> Iterator[Draft | Rejected]:
        """Rows of the files that were kept."""
        for folder, files in dumps.dumps():
            raw = replace(self.raw, key=f"{self.raw.key}/{folder}".removesuffix("/"))
            name = raw.key.removeprefix(f"raw/{raw.source}/")
            limit = self.options.max_document_bytes
            yield from located(read_pg_folder(raw, files, name, limit), self.raw, folder)
        for name, path in dumps.others():
            yield from self.unpacked(path, kind, name, outer, depth)

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
            yield from located(self.read_file(raw, path, self.options), self.raw, name)

    def unpack(self, member: Member, out: IO[bytes]) -> tuple[Unreadable | None, bool]:
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
            problem = problem_of(error)
            out.flush()
            return problem, problem.reason == "truncated" and size > 0
        return None, True

    def refuse(self, problem: Unreadable, name: str) -> Rejected:
        return reject(self.raw, problem.reason, problem.detail, locator=name, outcome=problem.outcome)


def _members(path: Path, kind: str, name: str, limits: ArchiveLimits) -> Iterator[Member]:
    """The files of one archive.

    Raises:
        Unreadable: The archive, or its rest, cannot be read.
    """
    if kind == "zip":
        yield from zip_members(path, limits.directory_bytes)
    elif kind == "tar":
        yield from tar_members(path)
    else:
        base = name.removesuffix("/").rpartition("/")[2]
        base = _SUFFIX.sub("", base) if _SUFFIX.search(base) else _TAR_SUFFIX.sub(".tar", base)
        with path.open("rb") as file:
            yield Member(base, partial(decompressor, kind, file), path.stat().st_size)
