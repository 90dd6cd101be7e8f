"""Retrieval: BM25, dense, rank fusion, convex combination and reranking on a BEIR-form folder.

    python benchmarks/retrieval.py --folder ../shared/retrieval/cranfield
    python benchmarks/retrieval.py --folder ../shared/retrieval/scifact-train --questions 200

The folder holds corpus.jsonl, queries.jsonl and qrels.tsv. Every question is ranked with weights that were
tuned on four fifths of the questions, of which it is none.
"""

import argparse
import csv
import json
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from alchemy.catalog import load_catalog
from alchemy.records import Chunk, fingerprint
from alchemy.retrieval import fuse
from alchemy.retrieval.calibrate import (
    Judged,
    best_weights,
    calibrate_abstention,
    judge,
    support_with_and_without_gold,
    without_logits,
)
from alchemy.retrieval.embed import Embedder
from alchemy.retrieval.evaluate import Question, interval, ndcg, recall, reciprocal_rank
from alchemy.retrieval.fuse import SearchWeights
from alchemy.retrieval.index import Index, build_index
from alchemy.retrieval.rerank import Reranker
from alchemy.retrieval.search import Searcher
from alchemy.settings import SearchOptions, load_settings

FOLDS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--questions", type=int, default=0, help="use only the first N")
    parser.add_argument("--index", type=Path, help="folder to keep the index in between runs")
    parser.add_argument("--no-rerank", action="store_true")
    arguments = parser.parse_args()
    settings = load_settings()
    catalog = load_catalog(settings.catalog)
    embedder = Embedder(catalog.model_b, settings.models)
    reranker = Reranker(catalog.reranker, settings.models)
    chunks, questions = list(read_corpus(arguments.folder)), read_questions(arguments.folder)
    questions = questions[: arguments.questions or None]
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.index or Path(temporary) / "index"
        if not (folder / "index.json").exists():
            started = time.perf_counter()
            build_index(folder, chunks, {}, embedder)
            print(f"index of {len(chunks)} passages: {time.perf_counter() - started:.0f} s")
        index = Index.open(folder)
        searcher = Searcher(index, embedder, None if arguments.no_rerank else reranker, SearchWeights())
        compare(searcher, questions, settings.search)
        searcher.close()
        index.close()


def read_corpus(folder: Path) -> Iterator[Chunk]:
    """One passage for each document: these collections are of abstracts."""
    for line in (folder / "corpus.jsonl").open(encoding="utf-8"):
        row = json.loads(line)
        yield Chunk(
            id=fingerprint(row["_id"]),
            document_id=row["_id"],
            document_version="1",
            chunk_index=0,
            total_chunks=1,
            start=0,
            end=len(row["text"]),
            text=row["text"],
            header=row["title"],
            tokens=len(row["text"].split()),
            source="documents",
            kind="file",
            project="",
            title=row["title"],
            section="",
            url="",
            raw_key=row["_id"],
            raw_sha256="",
            locator="",
        )


def read_questions(folder: Path) -> list[Question]:
    relevant: dict[str, list[str]] = {}
    with (folder / "qrels.tsv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            if int(row["score"]) > 0:
                relevant.setdefault(row["query-id"], []).append(row["corpus-id"])
    rows = [json.loads(line) for line in (folder / "queries.jsonl").open(encoding="utf-8")]
    return [Question(row["text"], tuple(relevant[row["_id"]])) for row in rows if row["_id"] in relevant]


def compare(searcher: Searcher, questions: Sequence[Question], options: SearchOptions) -> None:
    """Prints the table; every question is ranked with weights that were tuned on the other folds."""
    judged = judge(searcher, questions, options)
    folds = [[q for i, q in enumerate(judged) if i % FOLDS != fold] for fold in range(FOLDS)]
    default = SearchWeights()
    tuned = [best_weights(fold, default, options.rerank) for fold in folds]
    convex = [best_weights(without_logits(fold), default, options.rerank) for fold in folds]
    parts = {
        "BM25": [_by(q, q.evidence.bm25) for q in judged],
        "dense": [_by(q, q.evidence.cosine) for q in judged],
    }
    rankings = parts | {
        "RRF (k = 60)": [_rrf(q) for q in judged],
        "convex, default": [_fused(q, replace(default, rerank=0.0), 0) for q in judged],
        f"convex, tuned (lexical {_range(w.lexical for w in convex)})": [
            _fused(q, convex[i % FOLDS], 0) for i, q in enumerate(judged)
        ],
        "convex, then the reranker alone": [
            _fused(q, replace(tuned[i % FOLDS], rerank=1.0), options.rerank) for i, q in enumerate(judged)
        ],
        "+ rerank, default": [_fused(q, default, options.rerank) for q in judged],
        f"+ rerank, tuned (lexical {_range(w.lexical for w in tuned)}, "
        f"rerank {_range(w.rerank for w in tuned)})": [
            _fused(q, tuned[i % FOLDS], options.rerank) for i, q in enumerate(judged)
        ],
    }
    gains = {
        name: np.array([ndcg(ids, q.relevant) for ids, q in zip(found, judged, strict=True)])
        for name, found in rankings.items()
    }
    best_part = max(parts, key=lambda name: gains[name].mean())
    table = Table(
        "ranking", "nDCG@10", "95 %", f"over {best_part}", "95 %", "recall@5", "recall@20", "MRR@10"
    )
    for name, found in rankings.items():
        pairs = [(ids, q.relevant) for ids, q in zip(found, judged, strict=True)]
        mean, over = interval(gains[name]), interval(gains[name] - gains[best_part])
        table.add_row(
            name,
            f"{mean.mean:.3f}",
            f"{mean.low:.3f}-{mean.high:.3f}",
            f"{over.mean:+.3f}",
            f"{over.low:+.3f} to {over.high:+.3f}",
            f"{np.mean([recall(ids, relevant, 5) for ids, relevant in pairs]):.3f}",
            f"{np.mean([recall(ids, relevant, 20) for ids, relevant in pairs]):.3f}",
            f"{np.mean([reciprocal_rank(ids, relevant) for ids, relevant in pairs]):.3f}",
        )
    Console(width=150).print(table)
    _print_abstention(judged, folds, tuned)


def _print_abstention(
    judged: Sequence[Judged], folds: Sequence[list[Judged]], tuned: Sequence[SearchWeights]
) -> None:
    """How often questions are answered, and declined when their documents are taken away."""
    answered: list[bool] = []
    declined: list[bool] = []
    for fold, (tuning, weights) in enumerate(zip(folds, tuned, strict=True)):
        threshold = calibrate_abstention(*support_with_and_without_gold(tuning, weights))
        positives, negatives = support_with_and_without_gold(judged[fold::FOLDS], weights)
        answered += [score >= threshold for score in positives]
        declined += [score < threshold for score in negatives]
    print(f"abstention: {np.mean(answered):.2f} answered, {np.mean(declined):.2f} declined with gold removed")


def _range(values: Iterable[float]) -> str:
    numbers = sorted(set(values))
    return f"{numbers[0]}" if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"


def _by(question: Judged, scores: fuse.Floats) -> list[str]:
    return [question.documents[place] for place in fuse.descending(scores, question.evidence.ids)]


def _rrf(question: Judged) -> list[str]:
    evidence = question.evidence
    rankings = [fuse.descending(scores, evidence.ids)[:50] for scores in (evidence.cosine, evidence.bm25)]
    scores = fuse.reciprocal_rank_fusion(rankings)
    return [question.documents[place] for place in sorted(scores, key=lambda place: -scores[place])]


def _fused(question: Judged, weights: SearchWeights, rerank: int) -> list[str]:
    evidence = question.evidence
    logit = evidence.logit.copy()
    logit[fuse.rerank_order(evidence, weights)[rerank:]] = np.nan
    return _by(question, fuse.final_scores(replace(evidence, logit=logit), weights))


if __name__ == "__main__":
    main()
