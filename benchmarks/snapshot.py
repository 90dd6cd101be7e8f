"""The index snapshot: how long it takes to build and to open, and what searching it keeps in memory.

    OMP_NUM_THREADS=1 python benchmarks/snapshot.py --chunks 200000
    OMP_NUM_THREADS=1 python benchmarks/snapshot.py --chunks 1000000

Texts are those of `benchmarks/lexical.py`, vectors those of `benchmarks/dense.py`. Another process opens
the snapshot and asks. Of its memory only the anonymous part is its own; the rest is pages of the mapped
files, which the system shares between processes and takes back when it needs them. The bound is that part
with all vectors, codes, statistics and scores in memory; texts stay on disk.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import orjson
from dense import DIMENSION, make_vectors
from lexical import make_corpus
from rich.console import Console
from rich.table import Table

from alchemy.records import Chunk, fingerprint
from alchemy.retrieval.index import Index, build_index

QUESTIONS = 200


class NoEmbedder:
    """Names the vectors' model; they are there already, so it embeds nothing."""

    model_id, dimension = "benchmark", DIMENSION


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--chunks", type=int, default=200_000)
    parser.add_argument("--folder", type=Path, help="folder to keep the snapshot in between runs")
    parser.add_argument("--ask", action="store_true", help="only open and ask the snapshot of --folder")
    arguments = parser.parse_args()
    if arguments.ask:
        print(orjson.dumps(ask(arguments.folder)).decode())
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary) / "snapshot"
        if not (folder / "index" / "index.json").exists():
            build(folder, arguments.chunks)
        command = [sys.executable, __file__, "--ask", "--folder", str(folder)]
        answer = orjson.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        table = Table(f"{arguments.chunks:,} chunks", "")
        for name, value in answer.items():
            table.add_row(name, f"{value:,.2f}" if "seconds" in name else f"{value:,.0f}")
        Console(width=110).print(table)


def build(folder: Path, count: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    vectors, questions = make_vectors(count, QUESTIONS)
    np.save(folder / "questions.npy", questions)
    np.save(folder / "vectors.npy", vectors)
    del vectors
    texts, asked = make_corpus(count, QUESTIONS)
    (folder / "questions.json").write_bytes(orjson.dumps(asked))
    started = time.process_time()
    parts = [folder / "vectors.npy"]
    build_index(folder / "index", make_chunks(texts), {}, NoEmbedder(), parts=parts)  # type: ignore[arg-type]
    print(f"built in {time.process_time() - started:.0f} CPU seconds")


def make_chunks(texts: Sequence[str]) -> Iterator[Chunk]:
    for number, text in enumerate(texts):
        yield Chunk(
            id=fingerprint(number),
            document_id=f"documents:{number // 5}",
            document_version="1",
            chunk_index=number % 5,
            total_chunks=5,
            start=0,
            end=len(text),
            text=text,
            header="",
            tokens=len(text.split()),
            source="documents",
            kind="file",
            project="",
            title="",
            section="",
            url="",
            raw_key="",
            raw_sha256="",
            locator="",
        )


def ask(folder: Path) -> dict[str, float]:
    """Opens the snapshot, asks it, and says how long it took and how much memory the process then has."""
    import bm25s  # noqa: F401 - libraries are loaded before the clock starts
    import faiss  # noqa: F401

    vectors = np.load(folder / "questions.npy")
    texts = orjson.loads((folder / "questions.json").read_bytes())
    before = memory_mb()
    started = time.perf_counter()
    index = Index.open(folder / "index")
    opened = time.perf_counter() - started
    own_at_start = memory_mb()["RssAnon"] - before["RssAnon"]
    for vector, text in zip(vectors, texts, strict=True):
        index.dense.search(vector, 50)
        index.chunks(index.lexical.scores(text, 5)[0].tolist())
    after = memory_mb()
    mapped = [path for path in (folder / "index").rglob("*") if path.suffix in {".faiss", ".npy"}]
    own = after["RssAnon"] - before["RssAnon"]
    return {
        "seconds to open": opened,
        "own MB when opened": own_at_start,
        f"own MB after {QUESTIONS} questions": own,
        "mapped MB then in memory": after["RssFile"] - before["RssFile"],
        "bound: own and all vectors and statistics, MB": own
        + sum(path.stat().st_size for path in mapped) / 1e6,
        "texts on disk, MB": (folder / "index" / "chunks.sqlite").stat().st_size / 1e6,
    }


def memory_mb() -> dict[str, float]:
    """Resident memory of this process: `RssAnon` is its own, `RssFile` pages of mapped files."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    fields = dict(line.split(":", 1) for line in lines if line.startswith("Rss"))
    return {name: int(value.split()[0]) * 1024 / 1e6 for name, value in fields.items()}


if __name__ == "__main__":
    main()
