"""Archives of `pg_dump -Fc`: one file with a table of contents and blocks of data.

pgdumplib reads the contents. The blocks are unpacked here, in their order in the file: the library holds
whole tables in memory, and refuses archives that were written to a pipe, which have no offsets. Large objects
are left out: they are binary.
"""

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from alchemy.records import Draft, RawObject, Rejected
from alchemy.sources.pg_contents import incomplete, open_contents
from alchemy.sources.pg_plain import PlainDump, read_plain
from alchemy.sources.reasons import Unreadable

_BLOCK = 1 << 20
_DATA, _BLOBS = b"\x01", b"\x03"


def read_pg_archive(raw: RawObject, path: Path, name: str, limit: int) -> Iterator[Draft | Rejected]:
    """Rows of all tables; an archive that stops gives the rows before, and one row that says so."""

    def write(dump: PlainDump) -> None:
        with open_contents(path) as archive:
            if archive.is_folder:
                raise incomplete("the table of contents")
            dump.define(archive.entries)
            _add_tables(archive, dump)

    yield from read_plain(raw, path.stat().st_size, write, name, limit)


def _add_tables(archive: Any, dump: PlainDump) -> None:
    entries = {entry.dump_id: entry for entry in archive.entries}
    packed = archive.compression_algorithm != "none"
    while True:
        kind, dump_id = archive._read_block_header()
        if not kind:
            return
        if kind == _BLOBS:
            while archive._read_int():
                _skip_chunks(archive)
        elif kind != _DATA or dump_id is None:
            raise Unreadable("broken", "A block of the archive is damaged; the tables before it were read.")
        elif dump_id in entries:
            dump.add(entries[dump_id], _chunks(archive, packed))
        else:
            _skip_chunks(archive)


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
