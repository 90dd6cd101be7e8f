"""The plain SQL that `pg_dump` would have written, put together from the pieces of an archive and read.

An archive holds the same statements and the same COPY data as a plain dump, in another order. Written one
after the other into a temporary file they are a plain dump, and `sql_dump` is the only reader of tables.
"""

import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from alchemy.records import Draft, RawObject, Rejected
from alchemy.sources.reasons import Unreadable, reject, rejected_by
from alchemy.sources.sql_dump import read_sql

_MAX_RATIO = 200
_ANY_RATIO = 256 << 20  # up to this size the data may compress as well as they like
_BEFORE, _AFTER = ("TABLE",), ("CONSTRAINT", "FK CONSTRAINT")


class PlainDump:
    """The dump as far as it is written; `problems` are what could not be, each with its locator."""

    def __init__(self, out: IO[bytes], packed: int) -> None:
        self.out = out
        self.left = max(_ANY_RATIO, _MAX_RATIO * packed)  # bytes of data that it may still take
        self.problems: list[tuple[Unreadable, str]] = []

    def define(self, entries: Iterable[Any]) -> None:
        """Tables and their keys; keys may stand anywhere in a dump."""
        entries = list(entries)
        for kinds in (_BEFORE, _AFTER):
            for entry in entries:
                if entry.desc in kinds and entry.defn:
                    self.out.write(entry.defn.encode() + b"\n")

    def add(self, entry: Any, blocks: Iterable[bytes]) -> None:
        """The data of a table: what COPY reads, or INSERT statements, which need nothing around them.

        Raises:
            Unreadable: `bomb`, or what `blocks` raises; the blocks before that are written.
        """
        if entry.copy_stmt:
            self.out.write(b"\n" + entry.copy_stmt.strip().encode() + b"\n")
        last = b"\n"
        for block in blocks:
            self.left -= len(block)
            if self.left < 0:
                raise Unreadable("bomb", "The archive unpacks to far more data than a dump would.")
            self.out.write(block)
            last = (last + block)[-4:]
        if entry.copy_stmt and not last.rstrip(b"\n").endswith(b"\\."):
            self.out.write(b"\\.\n")


def read_plain(
    raw: RawObject, packed: int, write: Callable[[PlainDump], None], name: str, limit: int
) -> Iterator[Draft | Rejected]:
    """Rows of all tables that `write` adds; where it raises, those before, and one row that says so.

    Args:
        packed: Bytes of the archive, with all its files.
    """
    with tempfile.NamedTemporaryFile(prefix="alchemy-dump-", suffix=".sql") as plain:
        dump = PlainDump(plain.file, packed)
        try:
            write(dump)
        except Exception as error:
            if isinstance(error, OSError) and error.errno:
                raise
            row = rejected_by(error, raw)
            dump.problems.append((Unreadable(row.reason, row.detail), ""))
        plain.flush()
        if plain.tell():
            yield from read_sql(raw, Path(plain.name), name, limit)
        elif not dump.problems:
            dump.problems.append((Unreadable("empty", "The archive holds no tables."), ""))
    for problem, locator in dump.problems:
        yield reject(raw, problem.reason, problem.detail, locator=locator)
