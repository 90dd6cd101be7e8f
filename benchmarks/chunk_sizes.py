r"""Which chunk size and overlap find best: a sweep over judged collections.

    OMP_NUM_THREADS=1 python benchmarks/chunk_sizes.py --folder ../shared/retrieval/cranfield
    OMP_NUM_THREADS=1 python benchmarks/chunk_sizes.py --folder ../shared/retrieval/scifact-train \
        --questions 300 --others 300

The folder holds corpus.jsonl, queries.jsonl and qrels.tsv. Every size cuts the documents with the
project's chunker, builds the project's index of them and asks every question: dense and BM25, fused with
the default weights, without reranking. A document's rank is that of its best chunk. `--others` keeps the
judged documents and so many of the rest, drawn with a fixed seed.

- nDCG@10 and recall@10: means over questions with 95 % bootstrap intervals.
- against 128/32: the mean difference of nDCG@10 of the same questions, with its interval.
- told apart: how often a question has more support than another one whose documents were taken away (the
  area under the ROC curve); what abstention lives on.

Long pages made of several abstracts would change nothing: a chunk never crosses a heading, so each abstract
under its own heading is cut as if it stood alone.
"""

import argparse
import json
import random
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from retrieval import read_questions
from rich.console import Console
from rich.table import Table

from alchemy.catalog import load_catalog
from alchemy.models import resolve
from alchemy.records import Block, Document
from alchemy.retrieval import fuse
from alchemy.retrieval.calibrate import Judged, judge, support_with_and_without_gold
from alchemy.retrieval.embed import Embedder, Floats, Progress
from alchemy.retrieval.evaluate import Question, interval, ndcg, recall
from alchemy.retrieval.fuse import SearchWeights
from alchemy.retrieval.index import Index, build_index
from alchemy.retrieval.search import Searcher
from alchemy.settings import ChunkOptions, SearchOptions, load_settings
from alchemy.text.chunking import Tokenizer, chunk_documents

TARGETS = (64, 96, 128, 192, 256)
OVERLAPS = (0, 16, 32, 64)
REFERENCE = (128, 32)
_SEED = 7


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--others", type=int, help="unjudged documents to keep; all without it")
    parser.add_argument("--questions", type=int, help="use only the first N")
    arguments = parser.parse_args()
    settings = load_settings()
    model = load_catalog(settings.catalog).model_b
    tokenizer = Tokenizer(Path(resolve(model.model_id, settings.models)) / "tokenizer.json")
    embedder = Remembering(Embedder(model, settings.models))
    questions = read_questions(arguments.folder)[: arguments.questions]
    documents = read_documents(arguments.folder, questions, arguments.others)
    console = Console(width=120)
    console.print(f"{arguments.folder.name}: {len(documents):,} documents, {len(questions)} questions")
    sizes = [(target, overlap) for target in TARGETS for overlap in OVERLAPS if overlap * 2 <= target]
    results = {}
    for target, overlap in [REFERENCE, *(size for size in sizes if size != REFERENCE)]:
        options = ChunkOptions(target_tokens=target, overlap_tokens=overlap)
        results[target, overlap] = ask(documents, questions, tokenizer, embedder, options)
        console.log(target, overlap, f"{np.mean(results[target, overlap].ndcgs):.3f}")
    print_results(console, results, sizes)


@dataclass(frozen=True)
class Found:
    """What one size gave: the number of chunks, a value for each question, and the separation."""

    chunks: int
    ndcgs: list[float]
    recalls: list[float]
    told_apart: float


class Remembering:
    """The embedder, asked only once for each text: sizes share many chunks."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self._vectors: dict[str, Floats] = {}
        self.model_id, self.dimension, self.reads = embedder.model_id, embedder.dimension, embedder.reads

    def embed_passages(self, texts: Sequence[str], progress: Progress | None = None) -> Floats:
        new = [text for text in dict.fromkeys(texts) if text not in self._vectors]
        if new:
            self._vectors |= zip(new, self._embedder.embed_passages(new, progress), strict=True)
        return np.stack([self._vectors[text] for text in texts])

    def embed_queries(self, texts: Sequence[str]) -> Floats:
        return self.embed_passages(texts)  # the model has the same prompt for both: none


def read_documents(folder: Path, questions: Sequence[Question], others: int | None) -> list[Document]:
    rows = [json.loads(line) for line in (folder / "corpus.jsonl").open(encoding="utf-8")]
    if others is not None:
        judged = {document for question in questions for document in question.document_ids}
        rest = [row["_id"] for row in rows if row["_id"] not in judged]
        kept = judged | set(random.Random(_SEED).sample(rest, min(others, len(rest))))
        rows = [row for row in rows if row["_id"] in kept]
    return [_document(row["_id"], row["title"], row["text"]) for row in rows if row["text"].strip()]


def _document(key: str, title: str, text: str) -> Document:
    """As the pipeline makes it, without masking: the title stands above the text unless it begins with it."""
    blocks = []
    if not text.startswith(title):
        text = f"{title}\n\n{text}"
        blocks.append(Block(0, len(title), "heading", ""))
    blocks.append(Block(len(title) + 2 if blocks else 0, len(text), "prose", ""))
    return Document(
        id=key,
        version="1",
        source="documents",
        kind="file",
        key=key,
        title=title,
        project="",
        text=text,
        blocks=tuple(blocks),
        fields={},
        metrics={},
        url="",
        updated="",
        raw_key=key,
        raw_sha256="",
        locator="",
    )


def ask(
    documents: Sequence[Document],
    questions: Sequence[Question],
    tokenizer: Tokenizer,
    embedder: Remembering,
    options: ChunkOptions,
) -> Found:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "index"
        build_index(folder, chunk_documents(documents, tokenizer, options), {}, embedder)
        index = Index.open(folder)
        searcher = Searcher(index, embedder, None, SearchWeights())
        judged = judge(searcher, questions, SearchOptions())
        searcher.close()
        index.close()
    rankings = [ranking(question) for question in judged]
    return Found(
        chunks=index.count,
        ndcgs=[ndcg(ids, question.relevant) for ids, question in zip(rankings, judged, strict=True)],
        recalls=[recall(ids, question.relevant, 10) for ids, question in zip(rankings, judged, strict=True)],
        told_apart=area(*support_with_and_without_gold(judged, SearchWeights())),
    )


def ranking(question: Judged) -> list[str]:
    """Documents in the order of their best chunks."""
    scores = fuse.final_scores(question.evidence, SearchWeights())
    order = fuse.descending(scores, question.evidence.ids)
    return list(dict.fromkeys(question.documents[place] for place in order))


def area(positives: Sequence[float], negatives: Sequence[float]) -> float:
    """Area under the ROC curve = P(positive > negative) + P(equal) / 2 (Hanley & McNeil 1982)."""
    above, below = np.array(positives)[:, None], np.array(negatives)[None, :]
    return float(((above > below) + 0.5 * (above == below)).mean())


def print_results(
    console: Console, results: dict[tuple[int, int], Found], sizes: Sequence[tuple[int, int]]
) -> None:
    table = Table("target", "overlap", "chunks", "nDCG@10", "recall@10", "against 128/32", "told apart")
    for size in sizes:
        found = results[size]
        differences = np.array(found.ndcgs) - np.array(results[REFERENCE].ndcgs)
        against = interval(differences.tolist())
        table.add_row(
            str(size[0]),
            str(size[1]),
            f"{found.chunks:,}",
            _cell(found.ndcgs),
            _cell(found.recalls),
            f"{against.mean:+.3f} ({against.low:+.3f} to {against.high:+.3f})" if size != REFERENCE else "-",
            f"{found.told_apart:.3f}",
        )
    console.print(table)


def _cell(values: Sequence[float]) -> str:
    one = interval(values)
    return f"{one.mean:.3f} ({one.low:.3f} to {one.high:.3f})"


if __name__ == "__main__":
    main()
