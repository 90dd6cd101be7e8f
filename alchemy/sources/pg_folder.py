"""Dumps of PostgreSQL that are a folder of files: `pg_dump -Fd`, packed as one archive, and `pg_dump -Ft`.

| file | holds |
|---|---|
| `toc.dat` | the table of contents |
| `3357.dat`, `.gz` or `.zst` | the data of one table, for COPY or as INSERT |
| `restore.sql` | of `-Ft` only: the definitions again, with `$$PATH$$` for where the files lie |
| `blobs.toc`, `blob_16415.dat` | large objects, which are binary and left out |

The files mean something only together, so those of one folder of an archive are kept until all of them are
there, under names of ours. A reader that sees one of them alone can only say so.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alchemy.records import Draft, RawObject, Rejected
from alchemy.sources.archive_member import problem_of
from alchemy.sources.packed_streams import decompressor
from alchemy.sources.pg_contents import MAGIC, incomplete, open_contents
from alchemy.sources.pg_plain import PlainDump, read_plain
from alchemy.sources.reasons import Unreadable

_CONTENTS = "toc.dat"
_PIECE = re.compile(
    r"(?:toc\.dat|restore\.sql|(?:\d+|blob_\d+)\.dat(?:\.(?:gz|lz4|zst))?|blobs(?:_\d+)?\.toc)\Z"
)
_TABLE, _LARGE_OBJECTS = re.compile(r"\d+\.dat\Z"), re.compile(r"blobs(?:_\d+)?\.toc\Z|blob_\d+\.dat\Z")
_PACKED = {".gz": "gz", ".zst": "zst"}
_BLOCK = 1 << 20


@dataclass(slots=True)
class DumpFolders:
    """Files of an archive that may be parts of dumps, by folder and name, and where they are kept."""

    root: Path
    folders: dict[str, dict[str, Path]] = field(default_factory=dict)
    count: int = 0

    def place(self, member: str) -> Path | None:
        """Where to unpack a member that may be a part of a dump; None for any other, and for a second one."""
        folder, _, name = member.rpartition("/")
        if not _PIECE.match(name):
            return None
        if name in self.folders.get(folder, {}):
            return None
        self.count += 1
        path = self.root / str(self.count)
        self.folders.setdefault(folder, {})[name] = path
        return path

    def drop(self, member: str) -> None:
        """Forgets a member that could not be unpacked."""
        folder, _, name = member.rpartition("/")
        del self.folders[folder][name]

    def dumps(self) -> Iterator[tuple[str, dict[str, Path]]]:
        """Each folder that is a dump, and its files."""
        yield from ((folder, files) for folder, files in self.folders.items() if _is_dump(files))

    def others(self) -> Iterator[tuple[str, Path]]:
        """Files that are only named like parts of a dump."""
        for folder, files in self.folders.items():
            if not _is_dump(files):
                yield from ((f"{folder}/{name}".removeprefix("/"), path) for name, path in files.items())


def read_pg_folder(
    raw: RawObject, files: dict[str, Path], name: str, limit: int
) -> Iterator[Draft | Rejected]:
    """Rows of all tables, in the order of the contents; a file that is missing or damaged has a row.

    Args:
        files: The files of the folder by their names, with `toc.dat` among them.
    """

    def write(dump: PlainDump) -> None:
        with open_contents(files[_CONTENTS]) as archive:
            if not archive.is_folder:
                raise Unreadable("broken", "The table of contents is not that of a dump in several files.")
            dump.define(archive.entries)
            for entry, file in zip(archive.entries, archive.files, strict=True):
                if file and entry.desc == "TABLE DATA":
                    _add_table(dump, entry, file, files)

    packed = sum(path.stat().st_size for path in files.values())
    yield from read_plain(raw, packed, write, name, limit)


def single_piece(name: str, path: Path, head: bytes) -> Unreadable | None:
    """What a file that came alone is to be refused for, if it is a part of a dump that says nothing alone.

    Data as INSERT statements say enough.
    """
    base = name.rpartition("/")[2]
    if _TABLE.match(base) and _tail(path).rstrip(b"\r\n").endswith(b"\\."):
        what = "the data of one table"
    elif _LARGE_OBJECTS.match(base):
        what = "large objects"
    elif b"$$PATH$$" in head:
        what = "the definitions"
    else:
        return None
    return incomplete(what)


def _is_dump(files: dict[str, Path]) -> bool:
    if _CONTENTS not in files:
        return False
    with files[_CONTENTS].open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def _add_table(dump: PlainDump, entry: Any, file: str, files: dict[str, Path]) -> None:
    """Adds what can be read of a table's file; the SQL reader sees that a table does not end."""
    found = next((one for one in (file, *(file + suffix for suffix in _PACKED)) if one in files), None)
    if found is None:
        locked = f"{file}.lz4" in files
        detail = f"The data of the table {entry.tag} " + (
            "are packed by lz4, which is not read here." if locked else f"are missing: {file} did not come."
        )
        problem = Unreadable("unsupported" if locked else "incomplete_dump", detail)
        dump.problems.append((problem, f"{file}.lz4" if locked else file))
        return
    try:
        dump.add(entry, _blocks(files[found], _PACKED.get(found.removeprefix(file), "")))
    except Exception as error:
        problem = problem_of(error)
        if problem.reason == "bomb":
            raise problem from error
        dump.out.write(b"\n")
        dump.problems.append((problem, found))


def _blocks(path: Path, kind: str) -> Iterator[bytes]:
    with path.open("rb") as file:
        stream = decompressor(kind, file) if kind else file
        while block := stream.read(_BLOCK):
            yield block


def _tail(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 64))
        return file.read()
