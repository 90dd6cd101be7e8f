"""Chunks of one document that stand side by side, read as one piece of its text.

Nothing is looked up: a chunk carries its exact span and the white space before it, so the text of a run of
neighbors is the document's own, `document.text[first.start:last.end]`, overlaps counted once.
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise

from alchemy.records import Chunk


def follows(chunk: Chunk, before: Chunk) -> bool:
    """Whether a chunk goes on where another ends or inside of it, with nothing left out between them."""
    same = (chunk.document_id, chunk.document_version) == (before.document_id, before.document_version)
    return (
        same
        and chunk.chunk_index == before.chunk_index + 1
        and before.start < chunk.start
        and len(chunk.gap) == max(0, chunk.start - before.end)
    )


def touch(chunk: Chunk, others: Iterable[Chunk]) -> bool:
    """Whether a chunk follows one of the others, or is followed by one."""
    return any(follows(chunk, other) or follows(other, chunk) for other in others)


def joined_text(chunks: Sequence[Chunk]) -> str:
    """The text of neighbors in reading order, each of which follows the one before."""
    return chunks[0].text + "".join(
        chunk.gap + chunk.text[max(0, before.end - chunk.start) :] for before, chunk in pairwise(chunks)
    )
