"""The table of contents of a `pg_dump` archive: what it defines, and where the data of each table are.

| written by | first bytes | data of a table |
|---|---|---|
| `pg_dump -Fc` | `PGDMP`, format 1 | blocks behind the contents, see `pg_archive` |
| `pg_dump -Fd`, `pg_dump -Ft` | `PGDMP` in `toc.dat`, format 3 | a file of its own, see `pg_folder` |

pgdumplib reads archives of PostgreSQL 9.0 to 17; it knows only the first form. In the others an entry ends
with the name of its file instead of an offset (`WriteExtraToc` in PostgreSQL's pg_backup_directory.c).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alchemy.sources.reasons import Unreadable

MAGIC = b"PGDMP"
_FOLDER_FORMATS = ("Tar", "Directory")


@contextmanager
def open_contents(path: Path) -> Iterator[Any]:
    """pgdumplib's view of the archive, positioned after its contents, with two attributes more.

    `is_folder` says that the data are in other files; `files` has a name, or "", for each of `entries`.

    Raises:
        Unreadable: `unsupported` or `broken`.
    """
    archive = _new()
    try:
        try:
            archive.load(path)
        except Exception as error:
            if isinstance(error, OSError) and error.errno:
                raise
            if "nsupported" in str(error):
                detail = "The archive's version or compression is not known here."
                raise Unreadable("unsupported", detail) from error
            detail = f"The archive's table of contents is damaged ({type(error).__name__})."
            raise Unreadable("broken", detail) from error
        yield archive
    finally:
        if archive._handle is not None:
            archive._handle.close()
        archive._temp_dir.cleanup()


def incomplete(part: str) -> Unreadable:
    """What a file of a dump is refused for that came without the others."""
    detail = (
        f"The file is {part} of a PostgreSQL dump, and the dump's other files are not with it; pack them all"
        " into one tar file."
    )
    return Unreadable("incomplete_dump", detail)


def _new() -> Any:
    from pgdumplib.dump import Dump

    class Contents(Dump):  # type: ignore[misc, unused-ignore]
        """Without the data, which `load` would copy to memory and to a folder."""

        is_folder = False

        def _read_header(self) -> None:
            super()._read_header()
            self.is_folder = self._format in _FOLDER_FORMATS
            self.files: list[str] = []
            if self.is_folder:
                self._compression_algorithm = 0  # of the data; here the names of their files say it

        def _read_offset(self) -> tuple[int, int]:
            if not self.is_folder:
                return super()._read_offset()  # type: ignore[no-any-return, unused-ignore]
            self.files.append(self._read_bytes().decode(self.encoding, "replace"))
            return 0, 0

        @property
        def _data_entries(self) -> list[Any]:
            return []

    return Contents()
