"""Finds the runs of a text that hide another text: base64 (also URL-safe and line-wrapped) and %XX.

Secrets travel like this: in Kubernetes manifests, links and logs. Exactly one level is decoded, every
character of the text belongs to at most one run of each coding, and a decoded text is never longer than its
run: the work is linear in the text. What decodes to no readable text (hashes, pictures, paths, names of
classes) is dropped after its first bytes.
"""

import base64
import binascii
import re
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

import re2

_BASE64 = re2.compile(
    rb"(?:[A-Za-z0-9+/]{64}\n|[A-Za-z0-9+/]{76}\n)+[A-Za-z0-9+/]{2,76}={0,2}|[A-Za-z0-9+/_-]{16,}={0,2}"
)
_PERCENT = re2.compile(rb"[A-Za-z0-9._~+*-]*%[0-9A-Fa-f]{2}(?:%[0-9A-Fa-f]{2}|[A-Za-z0-9._~+*-])*")
_OTHER = re.compile(rb"[0-9a-f-]+|[0-9A-F-]+|[a-z_/-]+")  # hashes, words, paths
_LEAST = 16  # characters of a run of base64
_PROBE = 64  # base64 characters that tell a readable text from bytes


@dataclass(frozen=True, slots=True)
class Run:
    """Bytes `start:end` of a text, and the text that they decode to."""

    start: int
    end: int
    text: str


def decoded_runs(data: bytes) -> Iterator[Run]:
    """Every run of UTF-8 `data` that decodes to a readable text, in order of its coding."""
    for match in _BASE64.finditer(data) if len(data) >= _LEAST else ():
        start, end = match.span()
        text = _from_base64(data[start:end])
        while text is None and (cut := data.rfind(b"\n", start, end)) > 0:
            end = cut  # a word of the next line looked like the last line of the wrapped run
            text = _from_base64(data[start:end])
            if text is None:
                break
        if text is not None:
            yield Run(start, end, text)
    if b"%" in data:
        for match in _PERCENT.finditer(data):
            start, end = match.span()
            text = _readable(unquote_to_bytes(data[start:end].replace(b"+", b" ")))
            if text is not None:
                yield Run(start, end, text)


def _from_base64(run: bytes) -> str | None:
    """The text behind a run, or None where it is another kind of word or holds other bytes."""
    digits = run.rstrip(b"=").translate(_URL_SAFE, b"\n")
    if len(digits) % 4 == 1 or _OTHER.fullmatch(run):
        return None
    if _readable(base64.b64decode(digits[:_PROBE] + b"=" * (-len(digits[:_PROBE]) % 4)), cut=True) is None:
        return None
    try:
        return _readable(binascii.a2b_base64(digits + b"=" * (-len(digits) % 4)))
    except binascii.Error:
        return None


_URL_SAFE = bytes.maketrans(b"-_", b"+/")


def _readable(data: bytes, *, cut: bool = False) -> str | None:
    """UTF-8 text without control characters; `cut`: its last character may be incomplete."""
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        if not cut or error.start < len(data) - 3:
            return None
        text = data[: error.start].decode()
    return text if text.translate(_LINE_BREAKS).isprintable() else None


_LINE_BREAKS = {ord(mark): " " for mark in "\t\n\r"}
