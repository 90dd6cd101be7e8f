"""Embedding: passages a second of `Embedder` against plain sentence-transformers in fp32.

    python benchmarks/embed.py --folder ../shared/retrieval/scifact-train

The rival is `SentenceTransformer(...).encode(texts)` as it comes: fp32, batches of 32. Both get the same
texts, cut to the length of a chunk, and take turns, so that a busy machine is fair to both.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from retrieval import read_corpus
from rich.console import Console
from rich.table import Table
from sentence_transformers import SentenceTransformer

from alchemy.catalog import load_catalog
from alchemy.models import resolve
from alchemy.retrieval.embed import Embedder
from alchemy.settings import load_settings

Floats = npt.NDArray[np.float32]

CHARACTERS = 600  # about 128 tokens of English


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="BEIR form: corpus.jsonl")
    parser.add_argument("--texts", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    texts = [chunk.embed_text[:CHARACTERS] for chunk in read_corpus(arguments.folder)][: arguments.texts]
    settings = load_settings()
    entry = load_catalog(settings.catalog).model_b
    plain = SentenceTransformer(resolve(entry.model_id, settings.models), device="cpu")
    embedder = Embedder(entry.model_copy(update={"device": "cpu"}), settings.models)
    prompted = [entry.passage_prompt + text for text in texts]
    contenders: dict[str, Callable[[], Floats]] = {
        "sentence-transformers, fp32": lambda: plain.encode(prompted, normalize_embeddings=True),
        "alchemy": lambda: embedder.embed_passages(texts),
    }
    plain.encode(prompted[:2])
    embedder.embed_queries(["warm"])
    seconds = {name: [0.0, 0.0] for name in contenders}
    vectors: dict[str, Floats] = {}
    for _ in range(arguments.rounds):
        for name, embed in contenders.items():
            wall, cpu = time.perf_counter(), time.process_time()
            vectors[name] = embed()
            seconds[name][0] += time.perf_counter() - wall
            seconds[name][1] += time.process_time() - cpu
    first = next(iter(contenders))
    table = Table(entry.model_id, "passages/s", "passages/CPU s", "ratio", "CPU ratio", "least cosine")
    for name, (wall, cpu) in seconds.items():
        table.add_row(
            name,
            f"{arguments.rounds * len(texts) / wall:.1f}",
            f"{arguments.rounds * len(texts) / cpu:.1f}",
            f"{seconds[first][0] / wall:.2f}x",
            f"{seconds[first][1] / cpu:.2f}x",
            f"{(vectors[name] * vectors[first]).sum(axis=1).min():.5f}",
        )
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
