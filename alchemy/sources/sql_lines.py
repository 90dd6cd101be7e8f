"""The lines of a SQL dump, decoded one by one, a long one in pieces, so that an INSERT may exceed memory."""

import codecs
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alchemy.text.decode import Undecodable, decode, wide_encoding

_PIECE = 1 << 20  # bytes of a line that are read at once


@contextmanager
def as_utf8(path: Path) -> Iterator[Path]:
    """The file, or a UTF-8 copy of a UTF-16 file, as PowerShell's `>` makes them."""
    with path.open("rb") as file:
        head = file.read(4096)
    wide = wide_encoding(head.removeprefix(codecs.BOM_UTF16_LE).removeprefix(codecs.BOM_UTF16_BE))
    if not wide:
        yield path
        return
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", newline="", suffix=".sql") as copy:
        with path.open(encoding=wide, errors="replace", newline="") as text:
            while block := text.read(1 << 20):
                copy.write(block.removeprefix("\ufeff").encode("utf-8", "replace").decode())
        copy.flush()
        yield Path(copy.name)


class Lines(Iterator[str]):
    """Lines, or their pieces of `_PIECE` bytes; `starts` says whether the last one began a line."""

    def __init__(self, path: Path) -> None:
        self.number = 0
        self.starts = True  # whether the piece that came last began a line
        self._back: list[str] = []
        self._pieces = self._read(path)

    def __next__(self) -> str:
        if self._back:
            self.starts = True
            self.number += 1
            return self._back.pop()
        text, self.starts = next(self._pieces)
        self.number += self.starts
        return text

    def push_back(self, line: str) -> None:
        """Gives a line back, or the end of one, which then is a line of its own."""
        if line.strip():
            self.number -= 1
            self._back.append(line)

    def whole(self, piece: str, limit: int) -> str | None:
        """The line that `piece` begins, None if it is longer than `limit` characters."""
        if piece.endswith("\n"):
            return piece
        pieces, size = [piece], len(piece)
        while not pieces[-1].endswith("\n"):
            following = next(self._pieces, None)
            if following is None:
                break
            size += len(following[0])
            pieces = [*pieces, following[0]] if size <= limit else [following[0]]
        return "".join(pieces) if size <= limit else None

    def skip_line(self) -> int:
        """Reads on to the end of the line and returns how many characters that were."""
        size = 0
        for text, _ in self._pieces:
            size += len(text)
            if text.endswith("\n"):
                break
        return size

    @staticmethod
    def _read(path: Path) -> Iterator[tuple[str, bool]]:
        with path.open("rb") as file:
            if file.read(3) != b"\xef\xbb\xbf":
                file.seek(0)
            carried, starts = b"", True
            while data := file.readline(_PIECE):
                data, carried = carried + data, b""
                if not data.endswith(b"\n"):
                    # No character of any encoding of SQL dumps has a comma's byte inside.
                    cut = data.rfind(b",") + 1 or _last_character(data)
                    data, carried = data[:cut], data[cut:]
                if data:
                    yield _decoded(data), starts
                    starts = data.endswith(b"\n")
            if carried:
                yield _decoded(carried), starts


def _last_character(data: bytes) -> int:
    """Where the last UTF-8 character begins, if it is not whole; else the end."""
    for back in range(1, min(4, len(data)) + 1):
        byte = data[-back]
        if byte >= 0xC0:
            whole = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return len(data) - back if back < whole else len(data)
        if byte < 0x80:
            break
    return len(data)


def _decoded(line: bytes) -> str:
    try:
        return decode(line).text
    except Undecodable:
        return line.decode("utf-8", "replace")
