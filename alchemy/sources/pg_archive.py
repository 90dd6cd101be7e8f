"""Archives of `pg_dump -Fc`, turned into the plain SQL that `pg_dump` would have written, and read as that.

pgdumplib reads the table of contents. The data blocks are unpacked here, in their order in the file: the
library holds whole tables in memory, and refuses archives that were written to a pipe, which have no offsets.
"""

import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from alchemy.records import Draft, RawObject, Rejected
from alchemy.sources.reasons import Unreadable, reject, rejected_by
from alchemy.sources.sql_dump import read_sql

_BLOCK = 1 << 20
_MAX_RATIO = 200
_ANY_RATIO = 256 << 20  # up to this size the data may compress as well as it likes
_DATA, _BLOBS = b"\x01", b"\x03"
_BEFORE, _AFTER = ("TABLE",), ("CONSTRAINT", "FK CONSTRAINT")


def read_pg_archive(raw: RawObject, path: Path, name: str, limit: int) -> Iterator[Draft | Rejected]:
    """Rows of all tables; an archive that stops gives the rows before, and one row that says so."""
    problem: Unreadable | None = None
    with tempfile.NamedTemporaryFile(prefix="alchemy-dump-", suffix=".sql") as plain:
        try:
            _write_sql(path, plain.file)
        except Exception as error:
            if isinstance(error, OSError) and error.errno:
                raise
            row = rejected_by(error, raw)
            problem = Unreadable(row.reason, row.detail)
        plain.flush()
        if plain.tell():
            yield from read_sql(raw, Path(plain.name), name, limit)
        elif not problem:
            problem = Unreadable("empty", "The archive holds no tables.")
    if problem:
        yield reject(raw, problem.reason, problem.detail)


def _write_sql(path: Path, out: IO[bytes]) -> None:
    """Definitions of tables, their data as COPY, and keys.

    Raises:
        Unreadable: `unsupported`, `broken`, `truncated` or `bomb`; what was written before is usable.
    """
    archive = _open(path)
    try:
        entries = list(archive.entries)
        for entry in entries:
            if entry.desc in _BEFORE and entry.defn:
                out.write(entry.defn.encode() + b"\n")
        for entry in entries:
            if entry.desc in _AFTER and entry.defn:  # keys may stand anywhere in a dump
                out.write(entry.defn.encode() + b"\n")
        _copy_data(archive, {entry.dump_id: entry for entry in entries}, out, path.stat().st_size)
    finally:
        archive._handle.close()
        archive._temp_dir.cleanup()


def _open(path: Path) -> Any:
    """pgdumplib's view of the archive, positioned after its table of contents."""
    from pgdumplib.dump import Dump

    class Contents(Dump):  # type: ignore[misc, unused-ignore]
        """Without the data, which `load` would copy to memory and to a folder."""

        @property
        def _data_entries(self) -> list[Any]:
            return []

    archive: Any = Contents()
    try:
        archive.load(path)
    except ValueError as error:
        _close(archive)
        if "nsupported" in str(error):
            raise Unreadable(
                "unsupported", "The archive's version or compression is not known here."
            ) from error
        raise Unreadable("broken", "The archive's table of contents is damaged.") from error
    except Exception as error:
        _close(archive)
        detail = f"The archive's table of contents is damaged ({type(error).__name__})."
        raise Unreadable("broken", detail) from error
    return archive


def _close(archive: Any) -> None:
    if archive._handle is not None:
        archive._handle.close()
    archive._temp_dir.cleanup()


def _copy_data(archive: Any, entries: dict[int, Any], out: IO[bytes], size: int) -> None:
    left = max(_ANY_RATIO, _MAX_RATIO * size)
    packed = archive.compression_algorithm != "none"
    while True:
        kind, dump_id = archive._read_block_header()
        if not kind:
            return
        if kind == _BLOBS:
            while archive._read_int():
                _skip_chunks(archive)
            continue
        if kind != _DATA or dump_id is None:
            raise Unreadable("broken", "A block of the archive is damaged; the tables before it were read.")
        entry = entries.get(dump_id)
        if entry is None or not entry.copy_stmt:
            _skip_chunks(archive)
            continue
        out.write(b"\n" + entry.copy_stmt.strip().encode() + b"\n")
        last = b"\n"
        for block in _chunks(archive, packed):
            left -= len(block)
            if left < 0:
                raise Unreadable("bomb", "The archive unpacks to far more data than a dump would.")
            out.write(block)
            last = block[-4:]
        if not last.rstrip(b"\n").endswith(b"\\."):
            out.write(b"\\.\n")


def _chunks(archive: Any, packed: bool) -> Iterator[bytes]:
    """The data of one block, unpacked.

    Raises:
        Unreadable: `truncated` or `broken`.
    """
    decompressor = zlib.decompressobj()
    for data in _packed_chunks(archive):
        if not packed:
            yield data
            continue
        rest = data
        while rest:
            try:
                block = decompressor.decompress(rest, _BLOCK)
            except zlib.error as error:
                raise Unreadable("broken", "A table's data is damaged; what came before was read.") from error
            rest = decompressor.unconsumed_tail
            if block:
                yield block
    if packed and (block := decompressor.flush()):
        yield block


def _packed_chunks(archive: Any) -> Iterator[bytes]:
    while True:
        left = archive._read_int()
        if left is None:
            raise Unreadable("truncated", "The archive stops inside a table; what came before was read.")
        if left <= 0:
            return
        while left:
            data = archive._handle.read(min(left, _BLOCK))
            if not data:
                raise Unreadable("truncated", "The archive stops inside a table; what came before was read.")
            left -= len(data)
            yield data


def _skip_chunks(archive: Any) -> None:
    for _ in _packed_chunks(archive):
        pass
