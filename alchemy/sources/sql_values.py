"""Values as SQL dumps write them: between the parentheses of an INSERT, and in the cells of COPY data.

Binary data and NULL are None. Backslash escapes are undone in both.
"""

import re

from alchemy.sources.rows import Value

# One value of an INSERT: a quoted text (backslash or doubled quote inside), or anything up to , or ).
_VALUE = re.compile(
    r"\s*(?:[A-Za-z_]{0,12} ?'((?:[^'\\]++|\\.|'')*+)'(?:::[\w ]{1,40}(?:\(\d+\))?)?"
    r"|([^\s,()'][^,()']*+(?:\([^()']*\))?))\s*([,)])",
    re.DOTALL,
)
_ESCAPES = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "0": "\0", "Z": "\x1a"}
_ESCAPE = re.compile(r"\\(?:([0-7]{1,3})|x([0-9A-Fa-f]{1,2})|(.))", re.DOTALL)
_QUOTED_ESCAPE = re.compile(r"\\(.)|''", re.DOTALL)
_BYTEA = re.compile(r"\\x[0-9a-fA-F]*\Z")


def inserted_values(text: str, at: int) -> tuple[list[Value] | None, int]:
    """The values of "(a, 'b', NULL)" after the parenthesis, or None where the text ends before it closes."""
    values: list[Value] = []
    while found := _VALUE.match(text, at):
        quoted, plain, stop = found.groups()
        values.append(_unquoted(quoted) if quoted is not None else _plain(plain))
        at = found.end()
        if stop == ")":
            return values, at
    return None, at


def _unquoted(text: str) -> str | None:
    if "\\" not in text and "''" not in text:
        return text
    if _BYTEA.match(text):
        return None
    return _QUOTED_ESCAPE.sub(_unquote, text)


def _unquote(found: re.Match[str]) -> str:
    escaped = found.group(1)
    return _ESCAPES.get(escaped, escaped) if escaped else "'"


def _plain(text: str) -> Value:
    text = text.strip()
    lowered = text.lower()
    if lowered in ("null", "default") or lowered.startswith(("x'", "0x")):
        return None
    return text


def copied_value(cell: str) -> Value:
    """The value of a cell between tabs."""
    if cell == "\\N":
        return None
    if "\\" not in cell:
        return cell
    if cell.startswith("\\\\x") and _BYTEA.match(cell[1:]):
        return None  # binary data
    return _ESCAPE.sub(_unescape, cell)


def _unescape(found: re.Match[str]) -> str:
    octal, hexadecimal, other = found.groups()
    if octal:
        return chr(int(octal, 8) & 0xFF)
    return chr(int(hexadecimal, 16)) if hexadecimal else _ESCAPES.get(other, other)
