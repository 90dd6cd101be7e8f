"""One file inside an archive: its name, its stream, or why it is not to be read."""

import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from alchemy.sources.packed_streams import Readable
from alchemy.sources.reasons import Unreadable, stop_if_disk_full

_SYSTEM = re.compile(r"(?:\A|/)(?:__MACOSX/|\.DS_Store\Z|Thumbs\.db\Z|desktop\.ini\Z|\._[^/]*\Z)", re.I)


@dataclass(frozen=True, slots=True)
class Member:
    """A file of an archive; one with a `problem` has no stream."""

    name: str
    stream: Callable[[], Readable] | None = None
    packed: int = 0  # bytes it takes in the archive
    problem: Unreadable | None = None


def unsafe(name: str) -> Unreadable | None:
    """Why a member of this name is not to be read, or None."""
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


def shown(name: str) -> str:
    """A member's path as one line with forward slashes."""
    name = name.replace("\\", "/").removeprefix("./")
    return "".join(character if character.isprintable() else "\ufffd" for character in name)[:1000]


def problem_of(error: Exception) -> Unreadable:
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
