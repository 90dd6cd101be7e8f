"""Vectors of passages as files, one for each part of the chunks: what has not changed is not embedded again.

Batches are formed inside of a part, so the vectors of a part depend on it alone: a run after a change ends in
the bytes of a run from scratch.
"""

from collections.abc import Iterable
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from alchemy.records import Chunk, read_lines
from alchemy.retrieval.embed import Embedding, Progress

Floats = npt.NDArray[np.float32]

_BLOCK = 4096  # passages whose texts are in memory at once
_MAPPED_BYTES = 1 << 20  # a smaller file is read; an empty one could not be mapped at all


def write_vectors(part: Path, target: Path, embedder: Embedding) -> dict[str, int]:
    """Writes the vectors of a JSON-lines file of chunks as `.npy`, [rows, d] float32; returns the `rows`."""
    rows = sum(1 for _ in read_lines(Chunk, part))
    shape = (rows, embedder.dimension)
    if not rows:  # nothing can be mapped into an empty file
        np.save(target, np.empty(shape, np.float32), allow_pickle=False)
        return {"rows": 0}
    vectors = np.lib.format.open_memmap(target, mode="w+", dtype=np.float32, shape=shape)
    embed_chunks(read_lines(Chunk, part), vectors, embedder)
    vectors.flush()
    return {"rows": rows}


def embed_chunks(
    chunks: Iterable[Chunk], vectors: Floats, embedder: Embedding, progress: Progress | None = None
) -> None:
    """Fills `vectors`, [n, d], with those of `n` chunks in their order."""
    rest, done = iter(chunks), 0
    while texts := [chunk.embed_text for chunk in islice(rest, _BLOCK)]:

        def report(part: int, _of: int, before: int = done) -> None:
            if progress:
                progress(before + part, len(vectors))

        vectors[done : done + len(texts)] = embedder.embed_passages(texts, report)
        done += len(texts)


def fill(vectors: Floats, parts: Iterable[Path]) -> None:
    """Copies the arrays of all parts, in order, into one. Raises ValueError where the rows do not fit."""
    done = 0
    for path in parts:
        large = path.stat().st_size > _MAPPED_BYTES
        block = np.load(path, mmap_mode="r" if large else None, allow_pickle=False)
        vectors[done : done + len(block)] = block
        done += len(block)
    if done != len(vectors):
        raise ValueError(f"{done} vectors for {len(vectors)} chunks")
