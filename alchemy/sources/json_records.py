"""JSON of any outer form as a stream of records: JSON lines, an array, pages, pages one after another.

Lines are streamed. A whole document is parsed at once where it is whole; where it is not, `_split` walks its
brackets without recursion, so a truncated array still gives its complete records and one `truncated` row.
Nesting is bounded before anything is parsed.
"""

import io
import mmap
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from alchemy.records import Draft, RawObject, Rejected
from alchemy.sources.reasons import Unreadable, reject, rejected_by
from alchemy.text.decode import Undecodable, decode, wide_encoding

MAX_DEPTH = 200
_WHOLE_BYTES = 64 << 20  # larger documents are split instead of parsed at once
_MANY_BAD_LINES = 20  # bad lines before the first good one after which the file is no JSON at all
_SNIFFED = 1 << 16
_WIDE_BOMS = (b"\xff\xfe", b"\xfe\xff")
_BRACKETS = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[\[\]{}"]', re.DOTALL)
_BLANK = b" \t\r\n\x00"
_IDENTITY = frozenset(("number", "sha", "iid", "key", "oid", "id"))  # what a record has and a page has not
_ENVELOPE = frozenset(("data", "errors", "extensions"))  # of a GraphQL answer


@dataclass(frozen=True, slots=True)
class Found:
    """One JSON object and where it stood."""

    value: dict[str, Any]
    locator: str


def read_records(
    raw: RawObject, path: Path, build: Callable[[Found], Draft], containers: tuple[str, ...], limit: int
) -> Iterator[Draft | Rejected]:
    """Drafts of all records; `build` raises for a record that is not as it should be.

    Args:
        containers: Keys of a page object that hold its records, such as `issues`.
        limit: Bytes of one record beyond which it is `too_large`.
    """
    yield from build_all(raw, find_records(raw, path, containers, limit), build)


def build_all(
    raw: RawObject, records: Iterable[Found | Rejected], build: Callable[[Found], Draft]
) -> Iterator[Draft | Rejected]:
    """Drafts of records of any format, each built on its own."""
    for found in records:
        if isinstance(found, Rejected):
            yield found
            continue
        try:
            yield build(found)
        except Exception as error:  # whatever is wrong with one record must not cost the others
            yield rejected_by(error, raw, locator=found.locator, sample=_sample(found.value))


def find_records(
    raw: RawObject, path: Path, containers: tuple[str, ...], limit: int
) -> Iterator[Found | Rejected]:
    """JSON objects of a file in order, with a row for everything that is not one."""
    with closing(open_utf8(path)) as file:
        if _is_lines(file, containers, limit):
            yield from _lines(raw, file, containers, limit)
        else:
            yield from _document(raw, file, containers, limit)


def parse(data: bytes) -> Any:
    """One JSON value from bytes of any encoding.

    Duplicate keys keep the last value, numbers beyond 64 bits become floats, NaN and control characters in
    strings are accepted.

    Raises:
        Unreadable: `too_deep`, `undecodable` or `not_json`.
    """
    if data.count(b"[") + data.count(b"{") > MAX_DEPTH and _depth(data) > MAX_DEPTH:
        raise Unreadable("too_deep", f"The JSON nests deeper than {MAX_DEPTH} levels.")
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        return _parse_leniently(data, str(error))


def _parse_leniently(data: bytes, why: str) -> Any:
    import json

    try:
        text = decode(data).text
        # The strict parser refuses a lone surrogate escape; here it becomes U+FFFD when the text is tidied.
        return json.loads(text.strip(" \t\r\n\x00"), strict=False)
    except Undecodable as error:
        raise Unreadable("undecodable", "The record is not text in a known encoding.") from error
    except (ValueError, RecursionError) as error:
        raise Unreadable("not_json", f"The record is not JSON: {why}.") from error


def head_text(path: Path) -> str:
    """The beginning of a file as text, for deciding what it is; "" where it is no text."""
    with path.open("rb") as file:
        data = file.read(_SNIFFED)
    try:
        data.decode()
    except UnicodeDecodeError as error:
        if error.start >= len(data) - 3:  # a character that the cut went through
            data = data[: error.start]
    try:
        return decode(data).text.lstrip("\ufeff\x00 \t\r\n")
    except Undecodable:
        return ""


def open_utf8(path: Path) -> BinaryIO:
    """The file positioned after a BOM; UTF-16 is turned into UTF-8 in memory."""
    file = path.open("rb")
    head = file.read(4096)
    if head.startswith(_WIDE_BOMS) or wide_encoding(head):
        with file:
            data = head + file.read(_WHOLE_BYTES)
            if file.read(1):
                raise Unreadable("too_large", "A UTF-16 file of this size is not read.")
        return io.BytesIO(decode(data).text.encode("utf-8", "replace"))
    file.seek(3 if head.startswith(b"\xef\xbb\xbf") else 0)
    return file


def _is_lines(file: BinaryIO, containers: tuple[str, ...], limit: int) -> bool:
    """Whether the records are one to a line; looks at the first two lines that are not blank."""
    start = file.tell()
    try:
        first = _next_line(file, limit)
        if len(first) > limit:
            return False
        value, second = _value(first), _next_line(file, limit)
        if value is not None:  # a page or an array on a single line is a document
            return bool(second) or not (isinstance(value, list) or _is_page(value, containers))
        if not first.lstrip().startswith((b"{", b"[")):
            return True
        return len(second) <= limit and second.startswith(b"{") and _value(second) is not None
    finally:
        file.seek(start)


def _next_line(file: BinaryIO, limit: int) -> bytes:
    while line := file.readline(limit + 1):
        if line.strip(_BLANK):
            return line
    return b""


def _value(line: bytes) -> dict[str, Any] | list[Any] | None:
    try:
        value = parse(line)
    except Unreadable:
        return None
    return value if isinstance(value, dict | list) else None


def _lines(
    raw: RawObject, file: BinaryIO, containers: tuple[str, ...], limit: int
) -> Iterator[Found | Rejected]:
    bad: list[Rejected] = []  # before the first good line
    good = False
    number = 0
    while line := file.readline(limit + 1):
        number += 1
        locator = f"line {number}"
        rows: list[Found | Rejected]
        if len(line) > limit:
            rest = line
            while rest and not rest.endswith(b"\n"):
                rest = file.readline(1 << 20)
            detail = f"The line is longer than {limit} bytes."
            rows = [reject(raw, "too_large", detail, locator=locator, sample=line)]
        elif not line.strip(_BLANK):
            continue
        else:
            rows = _expand_line(raw, line, locator, containers)
        if good:
            yield from rows
            continue
        failed = [row for row in rows if isinstance(row, Rejected)]
        if len(failed) < len(rows) or not rows:
            good = True
            yield from bad
            yield from rows
            continue
        bad += failed
        if len(bad) >= _MANY_BAD_LINES:
            detail = f"None of the first {len(bad)} lines is a JSON object; the rest was not read."
            yield reject(raw, bad[0].reason, detail, sample=bad[0].sample)
            return
    if not good:
        yield from bad


def _expand_line(
    raw: RawObject, line: bytes, locator: str, containers: tuple[str, ...]
) -> list[Found | Rejected]:
    try:
        value = parse(line)
    except Unreadable as error:
        if error.reason == "not_json" and not line.endswith(b"\n") and _is_unfinished(line):
            error = Unreadable("truncated", "The last line stops in the middle of a record.")
        return [rejected_by(error, raw, locator=locator, sample=line)]
    return list(_expand(raw, value, locator, containers))


def _expand(
    raw: RawObject, value: Any, locator: str, containers: tuple[str, ...]
) -> Iterator[Found | Rejected]:
    """The records of one parsed value: itself, or the elements of an array or page."""
    prefix = f"{locator} " if locator else ""
    if isinstance(value, list):
        for index, item in enumerate(value):
            if isinstance(item, list):  # pages slurped into one array
                yield from _expand(raw, item, f"{prefix}[{index}]", containers)
            else:
                yield _record(raw, item, f"{prefix}[{index}]")
        return
    if isinstance(value, dict) and _is_page(value, containers):
        name = next(name for name in containers if isinstance(value.get(name), list))
        for index, item in enumerate(value[name]):
            yield _record(raw, item, f"{prefix}{name}[{index}]")
    elif isinstance(value, dict) and isinstance(value.get("data"), dict) and value.keys() <= _ENVELOPE:
        yield from _graphql(raw, value, prefix)
    else:
        yield _record(raw, value, locator)


def _is_page(value: dict[str, Any], containers: tuple[str, ...]) -> bool:
    """Whether an object holds records; one with a key of its own is a record, even with such a field."""
    return _IDENTITY.isdisjoint(value) and any(isinstance(value.get(name), list) for name in containers)


def _graphql(raw: RawObject, value: dict[str, Any], prefix: str) -> Iterator[Found | Rejected]:
    """The nodes of the outermost connections below `data`, or the one object that was asked for."""
    waiting: list[tuple[str, Any, dict[str, Any]]] = [(f"{prefix}data", value["data"], {})]
    found = False
    while waiting:
        place, item, owner = waiting.pop(0)
        if not isinstance(item, dict):
            continue
        nodes, edges = item.get("nodes"), item.get("edges")
        if isinstance(nodes, list) or isinstance(edges, list):
            name, found = "nodes" if isinstance(nodes, list) else "edges", True
            for index, entry in enumerate(item[name]):
                node = entry.get("node") if name == "edges" and isinstance(entry, dict) else entry
                owned = {"repository": owner, **node} if owner and isinstance(node, dict) else node
                yield _record(raw, owned, f"{place}.{name}[{index}]")
        elif not _IDENTITY.isdisjoint(item):
            found = True
            yield _record(raw, {"repository": owner, **item} if owner else item, place)
        else:
            known = {name: text for name, text in item.items() if isinstance(text, str)}
            waiting += [(f"{place}.{name}", inner, known or owner) for name, inner in item.items()]
    if not found:
        detail = "The answer of the GraphQL API holds no records."
        yield reject(raw, "wrong_shape", detail, locator=f"{prefix}data", sample=_sample(value))


def _record(raw: RawObject, value: Any, locator: str) -> Found | Rejected:
    if isinstance(value, dict):
        return Found(value, locator)
    detail = f"A record must be a JSON object; this is {type(value).__name__}."
    return reject(raw, "wrong_shape", detail, locator=locator, sample=_sample(value))


def _document(
    raw: RawObject, file: BinaryIO, containers: tuple[str, ...], limit: int
) -> Iterator[Found | Rejected]:
    start = file.tell()
    size = file.seek(0, io.SEEK_END) - start
    file.seek(start)
    if size <= _WHOLE_BYTES:
        data = file.read()
        try:
            value = parse(data)
        except Unreadable as error:
            if error.reason == "undecodable":
                yield rejected_by(error, raw, sample=data)
            else:
                yield from _salvage(raw, data, containers, limit)
            return
        yield from _expand(raw, value, "", containers)
    elif isinstance(file, io.BytesIO):
        yield from _salvage(raw, file.read(), containers, limit)
    else:
        with closing(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)) as view:
            yield from _salvage(raw, view, containers, limit)


def _salvage(
    raw: RawObject, data: bytes | mmap.mmap, containers: tuple[str, ...], limit: int
) -> Iterator[Found | Rejected]:
    """The complete records of a document that does not parse as a whole, and rows for the rest."""
    for what, locator, start, end in _split(data, containers):
        sample = data[start : min(end, start + 400)]
        if what == "record" and end - start > limit:
            detail = f"The record is longer than {limit} bytes."
            yield reject(raw, "too_large", detail, locator=locator, sample=sample)
        elif what == "record":
            try:
                yield from _expand(raw, parse(data[start:end]), locator, containers)
            except Unreadable as error:
                yield rejected_by(error, raw, locator=locator, sample=sample)
        else:
            where = f"{locator} at byte {start}" if locator else f"byte {start}"
            yield reject(raw, what, _SALVAGE[what], locator=where, sample=sample)


_SALVAGE = {
    "truncated": "The JSON ends in the middle of this record; the records before it were read.",
    "too_deep": f"The JSON nests deeper than {MAX_DEPTH} levels here; the rest of the file was not read.",
    "wrong_shape": "A record must be a JSON object; here stands something else.",
    "not_json": "This is not JSON.",
}


def _split(data: bytes | mmap.mmap, containers: tuple[str, ...]) -> Iterator[tuple[str, str, int, int]]:
    """Cuts JSON text into records by its brackets: (`record` or a reason code, locator, start, end).

    Works on any number of values one after another, in constant memory, at any nesting.
    """
    wanted = {f'"{name}"'.encode(): name for name in containers}
    depth = 0
    level = -1  # the nesting at which records stand; -1: none in this value
    label, index, values = "", 0, 0
    start = gap = 0  # of the record, and the end of what was accounted for
    key, key_end = b"", 0
    for match in _BRACKETS.finditer(data):
        at, token = match.start(), match.group()
        mark = token[:1]
        if mark == b'"':
            if len(token) == 1:
                break  # a string that never ends
            if depth == 1:
                key, key_end = token, match.end()
            continue
        if mark in b"[{":
            if depth == 0:
                if _solid(data, gap, at):
                    yield "not_json", "", gap, at
                level, label, index, start, gap = (
                    (1, "", 0, at, at + 1) if mark == b"[" else (0, "", 0, at, at)
                )
            elif (
                depth == 1 and level == 0 and mark == b"[" and key in wanted and _is_colon(data, key_end, at)
            ):
                level, label, index, gap = 2, wanted[key], 0, at + 1
            elif depth == level:
                if _solid(data, gap, at):
                    yield "wrong_shape", _place(label, index, values), gap, at
                    index += 1
                start = at
            depth += 1
            if depth > MAX_DEPTH:
                yield "too_deep", _place(label, index, values), start, len(data)
                return
        elif depth:
            depth -= 1
            if depth == level:
                yield "record", _place(label, index, values), start, match.end()
                index, gap = index + 1, match.end()
            elif depth == level - 1:  # the array of records closes
                if _solid(data, gap, at):
                    yield "wrong_shape", _place(label, index, values), gap, at
                level = -1
            if depth == 0:
                values, gap = values + 1, match.end()
    if depth:
        yield "truncated", _place(label, index, values), max(start, gap), len(data)
    elif _solid(data, gap, len(data)):
        yield "not_json", "", gap, len(data)


def _place(label: str, index: int, values: int) -> str:
    """Where a record stands; values after the first (pages one after another) are named too."""
    page = f"page {values + 1} " if values else ""
    return f"{page}{label}[{index}]"


def _solid(data: bytes | mmap.mmap, start: int, end: int) -> bool:
    """Whether something other than blanks and commas stands between two positions."""
    return bool(data[start : min(end, start + 4096)].strip(_BLANK + b","))


def _is_colon(data: bytes | mmap.mmap, start: int, end: int) -> bool:
    return end - start < 64 and data[start:end].strip(_BLANK) == b":"


def _depth(data: bytes) -> int:
    depth = deepest = 0
    for match in _BRACKETS.finditer(data):
        mark = match.group()[:1]
        if mark in b"[{":
            depth += 1
            if depth > deepest:
                deepest = depth
                if deepest > MAX_DEPTH:
                    break
        elif mark in b"]}":
            depth -= 1
    return deepest


def _is_unfinished(line: bytes) -> bool:
    return any(what == "truncated" for what, *_ in _split(line, ()))


def _sample(value: Any) -> bytes:
    try:
        return orjson.dumps(value, default=str)[:400]
    except (TypeError, ValueError):
        return repr(value)[:400].encode("utf-8", "replace")
