"""The records that flow between the stages, and their JSON-lines and Arrow forms.

    RawObject -> Draft -> Document -> Chunk -> index, SftPair
                   \\-> Rejected (quarantined | filtered | duplicate)

Records are frozen and validated where they are made (`alchemy.sources`, `alchemy.text`); nothing
downstream checks them again. Text positions are Python string indexes (code points), half open.
"""

import dataclasses
import hashlib
import types
import typing
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar

import orjson
import pyarrow as pa

SOURCES = ("git", "jira", "confluence", "documents", "database", "feedback")

BlockKind = Literal["prose", "heading", "code", "table"]
Outcome = Literal["quarantined", "filtered", "duplicate"]
Split = Literal["train", "eval", "holdout"]


@dataclass(frozen=True, slots=True)
class Slice:
    """A run of whole lines of a large object, bytes `start` to `end`, that is read on its own."""

    start: int
    end: int
    sha256: str


@dataclass(frozen=True, slots=True)
class RawObject:
    """One object under `raw/<source>/` as a listing saw it. Grain: one file."""

    source: str
    key: str
    size: int  # bytes
    sha256: str
    slices: tuple[Slice, ...] = ()  # of a large file of JSON lines; () means that it is read as a whole


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a draft in reading order, before masking; becomes one or more blocks of a document."""

    text: str
    kind: BlockKind = "prose"


@dataclass(frozen=True, slots=True)
class Draft:
    """One record as a reader found it: decoded, structured, not yet masked. Never written to the store."""

    kind: str  # commit, issue, pull_request, page, file, row, feedback
    key: str  # natural key, unique within its source: KAFKA-19836, a commit sha, a path
    title: str
    parts: tuple[Part, ...]
    locator: str  # where in the object: "line 17", "issues[3]", "page 2", ""
    project: str = ""
    fields: dict[str, str] = field(default_factory=dict)  # structured text: status, resolution, author ...
    metrics: dict[str, float] = field(default_factory=dict)  # numbers: additions, votes, comments ...
    people: tuple[str, ...] = ()  # names found in the record's own author fields, to be masked everywhere
    url: str = ""
    updated: str = ""  # ISO 8601, "" where the format has no date


@dataclass(frozen=True, slots=True)
class Rejected:
    """A record that did not become a document, and why. Nothing is ever lost without one of these."""

    source: str
    raw_key: str
    raw_sha256: str
    locator: str  # member, record number or byte offset inside the object
    outcome: Outcome
    stage: str  # read, sanitize, filter, dedup
    reason: str  # a code of docs/quarantine.md
    detail: str  # one readable sentence, masked; for a duplicate, the id of the document that was kept
    sample: str = ""  # at most 200 bytes, masked


@dataclass(frozen=True, slots=True)
class Block:
    """A span of `Document.text` that a chunk never leaves."""

    start: int
    end: int
    kind: BlockKind
    section: str  # the headings above it, outermost first, joined by " > "


@dataclass(frozen=True, slots=True)
class Document:
    """A cleaned, masked record; `text[block.start:block.end]` is a block. Grain: one issue, commit, row."""

    id: str  # "<source>:<key>"
    version: str  # hash of everything a reader of the document can see
    source: str
    kind: str
    key: str
    title: str
    project: str
    text: str
    blocks: tuple[Block, ...]
    fields: dict[str, str]
    metrics: dict[str, float]
    url: str
    updated: str
    raw_key: str
    raw_sha256: str
    locator: str


@dataclass(frozen=True, slots=True)
class Chunk:
    """What retrieval finds and answers cite; an exact span: `document.text[start:end] == text`."""

    id: str  # hash of document id, document version, span and chunker version
    document_id: str
    document_version: str
    chunk_index: int
    total_chunks: int
    start: int
    end: int
    text: str
    header: str  # context for the embedder only: source, project, key, title, section
    tokens: int  # of `text`, by the embedder's tokenizer
    source: str
    kind: str
    project: str
    title: str
    section: str
    url: str
    raw_key: str
    raw_sha256: str
    locator: str
    updated: str = ""  # of the document: ISO 8601, "" where the format has no date
    gap: str = ""  # the white space after the chunk before; "" where the two overlap

    @property
    def embed_text(self) -> str:
        """What is embedded and indexed: the context header, then the exact text."""
        return f"{self.header}\n{self.text}"


@dataclass(frozen=True, slots=True)
class Metric:
    """The numbers measured on one document; the wide form is `metrics.parquet`, one row per document."""

    document_id: str
    source: str
    kind: str
    values: dict[str, float]


@dataclass(frozen=True, slots=True)
class Insight:
    """What the numbers say about one document: percentile facts as text, and a score in [0, 1]."""

    document_id: str
    facts: tuple[str, ...]
    score: float


@dataclass(frozen=True, slots=True)
class SftPair:
    """A grounded training pair: `evidence_quote` stands word for word in the chunk's document."""

    id: str
    instruction: str
    response: str
    evidence_quote: str
    chunk_id: str
    document_id: str
    split: Split
    kind: str  # fact, how, numeric, unanswerable ...
    provider: str  # template, or the model's name
    project: str = ""  # of the document, so that an adapter can learn from some projects alone


R = TypeVar("R")


def fingerprint(*parts: object, length: int = 20) -> str:
    """Hex sha256 of the canonical JSON of `parts`, cut to `length` characters.

    Equal arguments give equal results in every process and on every platform.
    """
    data = orjson.dumps(parts, option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(data).hexdigest()[:length]


def to_line(record: Any) -> bytes:
    """One JSON line, newline included; keys sorted, so equal records are equal bytes."""
    return orjson.dumps(record, option=orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE)


def from_row(cls: type[R], row: dict[str, Any]) -> R:
    """Builds a record from its JSON object. Raises KeyError or TypeError on a row of another shape."""
    return cls(**{name: build(row[name]) for name, build in _builders(cls)})  # type: ignore[arg-type]


def from_line(cls: type[R], line: bytes) -> R:
    """The inverse of `to_line`."""
    return from_row(cls, orjson.loads(line))


def read_lines(cls: type[R], path: Path) -> Iterator[R]:
    """Streams the records of one JSON-lines file."""
    with path.open("rb") as file:
        for line in file:
            yield from_line(cls, line)


def write_lines(path: Path, records: Iterable[Any]) -> int:
    """Writes records as JSON lines; returns how many."""
    count = 0
    with path.open("wb") as file:
        for record in records:
            file.write(to_line(record))
            count += 1
    return count


def arrow_schema(cls: type) -> pa.Schema:
    """The Arrow schema of a record type, derived from its annotations."""
    hints = typing.get_type_hints(cls)
    return pa.schema([(f.name, _arrow_type(hints[f.name])) for f in dataclasses.fields(cls)])


@cache
def _builders(cls: Any) -> tuple[tuple[str, Any], ...]:
    hints = typing.get_type_hints(cls)
    return tuple((f.name, _builder(hints[f.name])) for f in dataclasses.fields(cls))


def _builder(hint: Any) -> Any:
    if typing.get_origin(hint) is tuple:
        item = typing.get_args(hint)[0]
        if dataclasses.is_dataclass(item):
            return lambda rows: tuple(from_row(item, row) for row in rows)  # type: ignore[arg-type]
        return tuple
    if dataclasses.is_dataclass(hint):
        return lambda row: from_row(hint, row)  # type: ignore[arg-type]
    return lambda value: value


def _arrow_type(hint: Any) -> pa.DataType:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return pa.string()
    if origin is tuple:
        return pa.list_(_arrow_type(args[0]))
    if origin is dict:
        return pa.map_(_arrow_type(args[0]), _arrow_type(args[1]))
    if origin in (typing.Union, types.UnionType):
        return _arrow_type(next(a for a in args if a is not type(None)))
    if dataclasses.is_dataclass(hint):
        return pa.struct(list(arrow_schema(hint)))  # type: ignore[arg-type]
    return {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}[hint]
