"""Bytes of unknown encoding to clean text.

The order is BOM, strict UTF-8, UTF-16 by its NUL pattern, then line by line: lines that are valid UTF-8 stay
UTF-8 and only the others go to chardet, so one cp1252 line does not spoil a UTF-8 file and a whole GB18030
file is still recognized. `tidy` removes what no reader wants in a text: NULs, control characters, lone
surrogates, zero-width marks. Unicode normalization and masking belong to `alchemy.text.sanitize`.
"""

import codecs
import re
from dataclasses import dataclass

_SAMPLE = 1 << 16  # bytes that chardet sees
_MANY = 1024  # bytes in which chance evens out
_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16: its BOM begins with the same two bytes
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# chardet names the narrower relative; the wider superset decodes the same bytes and more.
_SUPERSETS = {
    "ascii": "cp1252",
    "iso-8859-1": "cp1252",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "shift_jis": "cp932",
    "euc-kr": "cp949",
}
_HIGH_RUN = re.compile(rb"[\x80-\xff]+")
_BINARY = re.compile(rb"[\x00-\x06\x0e-\x1a\x1c-\x1f]")
_UNWANTED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\xa0\xad\u200b\u2028\u2029\u2060\ufeff\ud800-\udfff]")
_REPLACED = {
    "\r": "\n",
    "\x0b": "\n",
    "\x0c": "\n",
    "\x85": "\n",
    "\u2028": "\n",
    "\u2029": "\n",
    "\xa0": " ",
}


class Undecodable(ValueError):
    """The bytes are not text in any encoding that we know."""


@dataclass(frozen=True, slots=True)
class Decoded:
    text: str
    encoding: str  # of the whole, or of the lines that were not UTF-8


def decode(data: bytes) -> Decoded:
    """Text of `data` as it stands, without the BOM; call `tidy` on what is shown to people.

    Raises:
        Undecodable: More than a twentieth of the bytes are control characters, a tenth where they are few; or
            UTF-16 or UTF-32 is broken.
    """
    for bom, encoding in _BOMS:
        if data.startswith(bom):
            return Decoded(data[len(bom) :].decode(encoding, "replace"), encoding)
    wide = wide_encoding(data)
    if wide:
        return Decoded(data.decode(wide, "replace"), wide)
    sample = data[:_SAMPLE]
    # Of random bytes every eleventh is one. A single NUL in a short line makes it no binary file.
    if len(_BINARY.findall(sample)) * (20 if len(sample) >= _MANY else 10) > len(sample):
        raise Undecodable("the bytes look binary")
    try:
        return Decoded(data.decode(), "utf-8")
    except UnicodeDecodeError:
        return _decode_lines(data)


def wide_encoding(data: bytes) -> str | None:
    """`utf-16-le` or `utf-16-be` where every other byte of the beginning is mostly NUL, else None."""
    sample = data[:4096]
    half = len(sample) // 2
    if half < 2 or b"\0" not in sample:
        return None
    even, odd = sample[::2].count(0), sample[1::2].count(0)
    if odd * 10 > half * 4 and even * 10 < half:
        return "utf-16-le"
    if even * 10 > half * 4 and odd * 10 < half:
        return "utf-16-be"
    return None


def tidy(text: str) -> str:
    """Without NULs, control and zero-width characters; line ends are `\\n`, lone surrogates are U+FFFD."""
    if "\r" in text:
        text = text.replace("\r\n", "\n")
    return _UNWANTED.sub(_replacement, text) if _UNWANTED.search(text) else text


def excerpt(data: bytes | str, limit: int = 200) -> str:
    """At most `limit` bytes of UTF-8 from the beginning, for a quarantine row."""
    if isinstance(data, str):
        data = data[:limit].encode("utf-8", "replace")
    else:
        wide = wide_encoding(data)
        if wide or data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            data = data[: limit * 2].decode(wide or "utf-16", "replace").encode("utf-8", "replace")
    text = tidy(data[:limit].decode("utf-8", "replace"))
    return text.encode()[:limit].decode("utf-8", "ignore")


def _decode_lines(data: bytes) -> Decoded:
    lines: list[str | None] = []
    foreign: list[bytes] = []
    for line in data.splitlines(keepends=True):
        try:
            lines.append(line.decode())
        except UnicodeDecodeError:
            lines.append(None)
            foreign.append(line)
    encoding = _guess(b"".join(foreign))
    others = iter(foreign)
    text = "".join(next(others).decode(encoding, "replace") if line is None else line for line in lines)
    return Decoded(text, encoding)


def _guess(data: bytes) -> str:
    sample = data[:_SAMPLE]
    runs = _HIGH_RUN.findall(sample)
    # Accented letters stand alone in Western text; every other script puts several high bytes in a row.
    # chardet is unsure there (it takes short French for Macedonian).
    if sum(map(len, runs)) < 1.5 * len(runs):
        return "cp1252"
    import chardet

    name = chardet.detect(sample)["encoding"] or "cp1252"
    name = _SUPERSETS.get(name.lower(), name)
    try:
        codecs.lookup(name)
    except LookupError:
        return "cp1252"
    return name


def _replacement(match: re.Match[str]) -> str:
    character = match.group()
    return "\ufffd" if "\ud800" <= character <= "\udfff" else _REPLACED.get(character, "")
