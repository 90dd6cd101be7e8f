"""Cuts documents into chunks: sliding windows of whole sentences over exact spans of the text.

`document.text[chunk.start:chunk.end] == chunk.text` holds for every chunk, so a citation can point at the
very characters. A chunk never leaves its section: headings stand at the beginning of a chunk or nowhere.
Code and tables are cut at line ends only, prose between sentences; what is longer than a chunk all by itself
is cut at line ends, after clauses or table cells, between words, and only an endless word between characters.
Where a table goes on in another chunk, that chunk's header repeats its first row: the text stays exact.

Every sentence is counted once, in batches over many documents, and windows add these counts up. That is
exact for tokenizers that never join characters across white space (all of the BERT family).
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from alchemy.errors import NotFound
from alchemy.records import Block, BlockKind, Chunk, Document, fingerprint, read_lines, to_line
from alchemy.settings import ChunkOptions
from alchemy.text.sentences import CJK, split_sentences

CHUNKER_VERSION = "3"  # part of every chunk id: raise it whenever other chunks come out

Count = Callable[[list[str]], list[int]]

_BATCH_CHARACTERS = 1 << 19  # documents are counted together up to this size
_BATCH_TEXTS = 1024  # an encoding keeps about 100 bytes per token alive
_CHARACTERS_PER_TOKEN = 12  # a word of 1 MB is one unknown token to WordPiece, and still no small chunk
_TITLE_CHARACTERS = 120
_SECTION_CHARACTERS = 100
_KEY_CHARACTERS = 40
_COLUMNS_CHARACTERS = 200  # a wide table must not crowd the text out of the embedder's window

# Where a unit that is longer than a chunk may be cut; each match is a piece, white space is between them.
_LINE = re.compile(r"\S.*")
_CLAUSE = re.compile(r"\S.*?(?:[,;:|](?=\s)|[，；：、]+|\Z)", re.DOTALL)
_WORD = re.compile(rf"[{CJK}][，；：、。！？”’」』）】》]*|[^\s{CJK}]+")


@dataclass(frozen=True, slots=True)
class Unit:
    """What a window takes or leaves as a whole: a sentence, a line, a heading, or a piece of a long one."""

    start: int
    end: int
    kind: BlockKind
    block: int
    tokens: int = 0
    broken: bool = False  # begins or ends without white space: counts of such neighbors need not add up

    @property
    def size(self) -> int:
        return max(self.tokens, (self.end - self.start) // _CHARACTERS_PER_TOKEN)


class Tokenizer:
    """Counts tokens as the embedder will, special tokens left out."""

    def __init__(self, path: Path) -> None:
        """Reads a `tokenizer.json`. Raises NotFound where there is none."""
        import tokenizers

        if not path.is_file():
            raise NotFound(f"no tokenizer file at {path}; check model_b in models.yaml")
        self._tokenizer = tokenizers.Tokenizer.from_file(str(path))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()

    def count_tokens(self, texts: list[str]) -> list[int]:
        return [
            len(encoding)
            for start in range(0, len(texts), _BATCH_TEXTS)
            for encoding in self._tokenizer.encode_batch_fast(
                texts[start : start + _BATCH_TEXTS], add_special_tokens=False
            )
        ]


def write_chunks(part: Path, target: Path, tokenizer: Tokenizer, options: ChunkOptions) -> dict[str, int]:
    """Writes the chunks of a JSON-lines file of documents as another one; returns counts of both."""
    rows = tokens = 0
    documents: set[str] = set()
    with target.open("wb") as out:
        for chunk in chunk_documents(read_lines(Document, part), tokenizer, options):
            out.write(to_line(chunk))
            rows += 1
            tokens += chunk.tokens
            documents.add(chunk.document_id)
    return {"rows": rows, "documents": len(documents), "tokens": tokens}


def chunk_documents(
    documents: Iterable[Document], tokenizer: Tokenizer, options: ChunkOptions
) -> Iterator[Chunk]:
    """Chunks of a stream of documents, in their order; memory is bounded by the largest document.

    About 1 MB of text per CPU second, nearly all of it the tokenizer's; see docs/chunking.md.

    Args:
        documents: Cleaned documents.
        tokenizer: The embedder's.
        options: Target and overlap, in tokens.
    """
    batch: list[Document] = []
    characters = 0
    for document in documents:
        batch.append(document)
        characters += len(document.text)
        if characters >= _BATCH_CHARACTERS:
            yield from _chunk_batch(batch, tokenizer.count_tokens, options)
            batch, characters = [], 0
    yield from _chunk_batch(batch, tokenizer.count_tokens, options)


def chunk_document(document: Document, count: Count, options: ChunkOptions) -> list[Chunk]:
    """The chunks of one document. `count` gives the number of tokens of each text of a list."""
    return _chunk_batch([document], count, options)


def header(document: Document, section: str, columns: str = "") -> str:
    """One line that tells the embedder where a passage comes from; no part of the passage.

    `columns` is the first row of the table that the passage goes on with. Whatever the arguments, the line
    has less than 600 characters.
    """
    project = _head(document.project, _KEY_CHARACTERS)
    names = (document.source, project, document.kind, _short_key(document.key))
    line = " ".join(dict.fromkeys(name for name in names if name))
    title = _head(document.title, _TITLE_CHARACTERS)
    if title and title != document.key:
        line += f": {title}"
    parts = (line, _tail(section, _SECTION_CHARACTERS), _head(columns, _COLUMNS_CHARACTERS))
    return " | ".join(part for part in parts if part)


def _chunk_batch(documents: Sequence[Document], count: Count, options: ChunkOptions) -> list[Chunk]:
    units = [_units(document) for document in documents]
    texts = [
        document.text[unit.start : unit.end]
        for document, own in zip(documents, units, strict=True)
        for unit in own
    ]
    counts = iter(count(texts) if texts else [])
    chunks = []
    for document, own in zip(documents, units, strict=True):
        counted = [replace(unit, tokens=next(counts)) for unit in own]
        fitting = [
            piece for unit in counted for piece in _fit(unit, document.text, count, options.target_tokens)
        ]
        chunks += _chunks(document, fitting, count, options)
    return chunks


# ------------------------------------------------------------------------------------------------ units


def _units(document: Document) -> list[Unit]:
    return [
        Unit(block.start + start, block.start + end, block.kind, number)
        for number, block in enumerate(document.blocks)
        for start, end in _spans(block.kind, document.text[block.start : block.end])
    ]


def _spans(kind: BlockKind, text: str) -> Iterable[tuple[int, int]]:
    if kind == "prose":
        return split_sentences(text)
    if kind == "heading":
        return [(0, len(text))] if text.strip() else []
    return _lines(text)


def _lines(text: str) -> Iterator[tuple[int, int]]:
    """Lines that are not blank, with their indentation. A regex for this is quadratic in trailing blanks."""
    start = 0
    for line in text.split("\n"):
        if line.strip():
            yield start, start + len(line.rstrip())
        start += len(line) + 1


def _fit(unit: Unit, text: str, count: Count, target: int) -> list[Unit]:
    """The unit, or pieces of it of at most `target` tokens where it is longer."""
    if unit.size <= target:
        return [unit]
    pieces = [unit]
    for pattern in (_LINE, _CLAUSE, _WORD, *_character_runs(target)):
        pieces = _cut(pieces, pattern, text, count, target)
    return _joined(pieces, target)


def _character_runs(longest: int) -> Iterator[re.Pattern[str]]:
    """For endless words, shorter and shorter: one character can be several tokens."""
    while longest:
        yield re.compile(f".{{1,{longest}}}", re.DOTALL)
        longest //= 2


def _cut(pieces: list[Unit], pattern: re.Pattern[str], text: str, count: Count, target: int) -> list[Unit]:
    """Cuts the pieces that are still longer than `target` into the matches of the pattern."""
    smaller = [
        replace(piece, start=start, end=end, broken=piece.broken or _breaks(piece, text, start, end))
        for piece in pieces
        if piece.size > target
        for start, end in (match.span() for match in pattern.finditer(text, piece.start, piece.end))
    ]
    if not smaller:
        return pieces
    kept = [piece for piece in pieces if piece.size <= target]
    return sorted([*kept, *_counted(smaller, text, count)], key=lambda piece: piece.start)


def _breaks(unit: Unit, text: str, start: int, end: int) -> bool:
    """Whether cutting `start:end` out of a unit parts it from a character that is no white space."""
    return any(unit.start <= at < unit.end and not text[at].isspace() for at in (start - 1, end))


def _joined(pieces: list[Unit], target: int) -> list[Unit]:
    joined = pieces[:1]
    for piece in pieces[1:]:
        last = joined[-1]
        whole = replace(
            last, end=piece.end, tokens=last.tokens + piece.tokens, broken=last.broken or piece.broken
        )
        if whole.size <= target:
            joined[-1] = whole
        else:
            joined.append(piece)
    return joined


def _counted(units: list[Unit], text: str, count: Count) -> list[Unit]:
    counts = count([text[unit.start : unit.end] for unit in units])
    return [replace(unit, tokens=tokens) for unit, tokens in zip(units, counts, strict=True)]


# ---------------------------------------------------------------------------------------------- windows


def _chunks(document: Document, units: list[Unit], count: Count, options: ChunkOptions) -> list[Chunk]:
    windows = [
        (window, document.blocks[group[-1].block].section)
        for group in _groups(units, document.blocks)
        for window in _windows(group, options)
    ]
    texts = [document.text[window[0].start : window[-1].end] for window, _ in windows]
    inexact = [number for number, (window, _) in enumerate(windows) if any(unit.broken for unit in window)]
    recounted = (
        dict(zip(inexact, count([texts[number] for number in inexact]), strict=True)) if inexact else {}
    )
    tops = {unit.block: unit for unit in reversed(units)}  # the first unit of each block
    ends = [0, *(window[-1].end for window, _ in windows)]  # of the window before each
    return [
        Chunk(
            id=fingerprint(document.id, document.version, window[0].start, window[-1].end, CHUNKER_VERSION),
            document_id=document.id,
            document_version=document.version,
            chunk_index=number,
            total_chunks=len(windows),
            start=window[0].start,
            end=window[-1].end,
            text=texts[number],
            header=header(document, section, _columns(document, window[0], tops)),
            tokens=recounted.get(number, sum(unit.tokens for unit in window)),
            source=document.source,
            kind=document.kind,
            project=document.project,
            title=document.title,
            section=section,
            url=document.url,
            raw_key=document.raw_key,
            raw_sha256=document.raw_sha256,
            locator=document.locator,
            updated=document.updated,
            gap=document.text[ends[number] : window[0].start],
        )
        for number, (window, section) in enumerate(windows)
    ]


def _columns(document: Document, first: Unit, tops: Mapping[int, Unit]) -> str:
    """The first row of the table that a window begins inside of; "" for every other window."""
    top = tops[first.block]
    if first.kind != "table" or first is top:
        return ""
    return " ".join(document.text[top.start : top.end].split())


def _groups(units: list[Unit], blocks: Sequence[Block]) -> Iterator[list[Unit]]:
    """Runs of units that may share a window: headings, then what stands under them."""
    group: list[Unit] = []
    for unit in units:
        body = group and group[-1].kind != "heading"
        if body and (unit.kind == "heading" or blocks[unit.block].section != blocks[group[-1].block].section):
            yield group
            group = []
        group.append(unit)
    if group:
        yield group


def _windows(units: list[Unit], options: ChunkOptions) -> Iterator[list[Unit]]:
    """Fills windows up to the target; each repeats the last sentences of the one before."""
    target = options.target_tokens
    start = stop = 0
    while stop < len(units):
        fresh, size = stop, sum(unit.size for unit in units[start:stop])
        while stop < len(units) and (stop == start or size + units[stop].size <= target):
            size += units[stop].size
            stop += 1
        stop = _before_a_cut_block(units, fresh, stop, target)
        yield units[start:stop]
        if stop < len(units):
            start = _overlap_start(units, start, stop, options)


def _before_a_cut_block(units: list[Unit], fresh: int, stop: int, target: int) -> int:
    """Leaves code or a table to the next window where that spares a cut or a lonely first line.

    `fresh` is the first unit that this window does not repeat: one of them has to stay.
    """
    if stop == len(units) or units[stop].kind not in ("code", "table"):
        return stop
    first = stop
    while first > fresh and units[first - 1].block == units[stop].block:
        first -= 1
    stays = first > fresh and units[first - 1].kind != "heading"
    lonely = stop - first == 1  # the header row of a table says nothing without a row
    return first if stays and (lonely or _block_size(units, first, target) <= target) else stop


def _overlap_start(units: list[Unit], start: int, stop: int, options: ChunkOptions) -> int:
    """Index of the first sentence that the next window, which goes on with `units[stop]`, repeats."""
    coming = units[stop].size
    if units[stop].kind in ("code", "table") and units[stop - 1].block != units[stop].block:
        block = _block_size(units, stop, options.target_tokens)
        coming = block if block <= options.target_tokens else coming
    room = min(options.overlap_tokens, options.target_tokens - coming)
    first = stop
    while first - 1 > start and units[first - 1].kind == "prose" and units[first - 1].size <= room:
        first -= 1
        room -= units[first].size
    return first


def _block_size(units: list[Unit], first: int, limit: int) -> int:
    """Size of the block that begins with `units[first]`; counting ends above `limit`."""
    size, number = 0, first
    while number < len(units) and units[number].block == units[first].block and size <= limit:
        size += units[number].size
        number += 1
    return size


# ----------------------------------------------------------------------------------------------- header


def _short_key(key: str) -> str:
    if re.fullmatch(r"[0-9a-f]{32,64}", key):
        return key[:10]
    return _tail(key, _KEY_CHARACTERS)


def _head(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"


def _tail(text: str, limit: int) -> str:
    return text if len(text) <= limit else "…" + text[1 - limit :].lstrip()
