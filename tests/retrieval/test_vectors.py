from pathlib import Path

import numpy as np
import pytest

from alchemy.records import Chunk, write_lines
from alchemy.retrieval import vectors
from alchemy.retrieval.index import build_index
from alchemy.retrieval.vectors import fill, write_vectors
from tests.retrieval.conftest import HashEmbedder
from tests.retrieval.test_index import digests


def parts_of(folder: Path, *groups: list[Chunk]) -> list[Path]:
    """The vectors of some parts of chunks, each in a file of its own."""
    found = []
    for number, group in enumerate(groups):
        part, target = folder / f"{number}.jsonl", folder / f"{number}.npy"
        write_lines(part, group)
        assert write_vectors(part, target, HashEmbedder()) == {"rows": len(group)}
        found.append(target)
    return found


def test_an_index_from_parts_is_the_index_of_all_chunks(tmp_path: Path, chunks: list[Chunk]) -> None:
    build_index(tmp_path / "whole", chunks, {"git:a1": 0.5}, HashEmbedder())
    parts = parts_of(tmp_path, chunks[:4], [], chunks[4:5], chunks[5:])
    build_index(tmp_path / "parts", chunks, {"git:a1": 0.5}, HashEmbedder(), parts=parts)
    assert digests(tmp_path / "parts") == digests(tmp_path / "whole")


def test_a_large_part_is_embedded_in_blocks_and_mapped(
    tmp_path: Path, chunks: list[Chunk], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vectors, "_BLOCK", 2)
    monkeypatch.setattr(vectors, "_MAPPED_BYTES", 0)
    (part,) = parts_of(tmp_path, chunks)
    expected = HashEmbedder().embed_passages([chunk.embed_text for chunk in chunks])
    assert np.array_equal(np.load(part), expected)
    filled = np.empty_like(expected)
    fill(filled, [part])
    assert np.array_equal(filled, expected)


def test_vectors_of_other_chunks_are_refused(tmp_path: Path, chunks: list[Chunk]) -> None:
    parts = parts_of(tmp_path, chunks[:4])
    with pytest.raises(ValueError, match=f"4 vectors for {len(chunks)} chunks"):
        build_index(tmp_path / "index", chunks, {}, HashEmbedder(), parts=parts)
