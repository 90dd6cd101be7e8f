"""Nearest neighbors: recall@10 and questions a second of `Dense` against exact flat search.

    OMP_NUM_THREADS=1 python benchmarks/dense.py --vectors 200000
    OMP_NUM_THREADS=1 python benchmarks/dense.py --vectors 1000000

Questions are asked one at a time, as people ask them, and in one thread; rates are by the CPU time of the
process, so that a busy machine is fair to both. The vectors are made, and lie as sentence embeddings of
real text do (4,000 SciFact abstracts by MiniLM, in brackets): variances fall as 1/(i + 4), which 70 even
dimensions equal [71]; two of 4,000 have a cosine of 0.11 ± 0.115 [0.11 ± 0.124]; the nearest of 4,000 is at
0.58 [0.65]; the nearest passage of a question at 0.65 [0.63]. Passages are parts of documents, documents of
topics of uneven size. The bold row is what `Dense.build` has chosen; it has never seen these questions.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from alchemy.retrieval.dense import Dense

Floats = npt.NDArray[np.float32]

DIMENSION = 384
MEAN = 0.33  # length of the mean of all vectors
TOPIC, DOCUMENT, PASSAGE = 0.4, 0.3, 0.3  # shares of the variance
PER_DOCUMENT, PER_TOPIC = 5, 400
CLOSENESS = 0.6  # of a question to the passage it was made from, before others are nearer by chance
BLOCK = 50_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--vectors", type=int, default=200_000)
    parser.add_argument("--questions", type=int, default=500)
    arguments = parser.parse_args()
    vectors, questions = make_vectors(arguments.vectors, arguments.questions)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vectors.faiss"
        started = time.process_time()
        chosen = Dense.build(path, vectors)
        print(f"{chosen}\nbuilt in {time.process_time() - started:.0f} CPU seconds")
        compare(path, vectors, questions, chosen.probes)


def compare(path: Path, vectors: Floats, questions: Floats, chosen: int) -> None:
    flat = faiss.IndexFlatIP(vectors.shape[1])
    flat.add(vectors)
    exact = flat.search(questions, 10)[1]
    # Alone, not as a batch: a batch of a flat search is a matrix product, several times faster for each.
    flat_rate, _ = rate(lambda one: flat.search(one.reshape(1, -1), 10)[1][0], questions[:50])
    table = Table("search", "recall@10", "questions/s", "ratio to flat")
    table.add_row("flat", "1.0000", f"{flat_rate:,.0f}", "1.0x")
    index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
    dense = Dense(index)
    for probes in sorted({*(2**power for power in range(3, 10)), chosen}):
        faiss.ParameterSpace().set_index_parameter(index, "nprobe", probes)
        our_rate, found = rate(lambda one: dense.search(one, 10)[0], questions)
        recall = np.mean([len(np.intersect1d(a, b)) / 10 for a, b in zip(exact, found, strict=True)])
        table.add_row(
            f"{probes} probes",
            f"{recall:.4f}",
            f"{our_rate:,.0f}",
            f"{our_rate / flat_rate:.1f}x",
            style="bold" if probes == chosen else None,
        )
    Console(width=110).print(table)


def rate(answer: Callable[[Floats], Any], questions: Floats) -> tuple[float, list[Any]]:
    """Questions a CPU second, and the answers. The first question is asked twice: it touches the files."""
    answer(questions[0])
    started = time.process_time()
    answers = [answer(question) for question in questions]
    return len(questions) / (time.process_time() - started), answers


def make_vectors(count: int, questions: int = 0, seed: int = 3) -> tuple[Floats, Floats]:
    """Vectors of passages, [count, DIMENSION], and of questions about some; unit length."""
    random = np.random.default_rng(seed)
    deviations = np.sqrt(1 / (np.arange(DIMENSION) + 4))
    deviations /= np.linalg.norm(deviations)
    turn = np.linalg.qr(random.normal(size=(DIMENSION, DIMENSION)))[0]
    spread = (deviations[:, None] * turn).astype(np.float32)

    def draw(size: int) -> Floats:
        return random.standard_normal((size, DIMENSION), np.float32) @ spread

    mean = draw(1)
    mean *= MEAN / np.linalg.norm(mean)
    topics, documents = max(count // PER_TOPIC, 8), max(count // PER_DOCUMENT, 8)
    sizes = np.arange(1, topics + 1) ** -0.8
    topic, topic_of = draw(topics), random.choice(topics, documents, p=sizes / sizes.sum())
    document, document_of = draw(documents), np.sort(random.integers(documents, size=count))
    vectors = np.empty((count, DIMENSION), np.float32)
    for start in range(0, count, BLOCK):
        of = document_of[start : start + BLOCK]
        parts = (TOPIC, topic[topic_of[of]]), (DOCUMENT, document[of]), (PASSAGE, draw(len(of)))
        block = sum(share**0.5 * part for share, part in parts)
        vectors[start : start + BLOCK] = unit(mean + (1 - MEAN**2) ** 0.5 * block)
    about = vectors[random.choice(count, questions, replace=False)]
    noise = unit(mean + (1 - MEAN**2) ** 0.5 * draw(questions))
    return vectors, unit(CLOSENESS * about + (1 - CLOSENESS**2) ** 0.5 * noise)


def unit(vectors: Floats) -> Floats:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


if __name__ == "__main__":
    main()
