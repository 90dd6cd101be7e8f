"""Retrieval: BM25, dense, rank fusion, convex combination and reranking on a BEIR-form folder.

    python benchmarks/retrieval.py --folder ../shared/retrieval/cranfield --questions 80

The folder holds corpus.jsonl, queries.jsonl and qrels.tsv. Weights are tuned on every other question and
everything is reported on the rest.
"""

import argparse
import csv
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
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
)
from alchemy.retrieval.embed import Embedder
from alchemy.retrieval.evaluate import Question, interval, ndcg, recall, reciprocal_rank
from alchemy.retrieval.fuse import SearchWeights
from alchemy.retrieval.index import Index, build_index
from alchemy.retrieval.rerank import Reranker
from alchemy.retrieval.search import Searcher
from alchemy.settings import SearchOptions, load_settings


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
    judged = judge(searcher, questions, options)
    tuning, held_out = judged[0::2], judged[1::2]
    tuned = best_weights(tuning, SearchWeights(), options.rerank)
    convex = best_weights([_without_logits(q) for q in tuning], SearchWeights(), options.rerank)
    default = SearchWeights()
    fused = {
        "convex, default": (replace(default, rerank=0.0), False),
        f"convex, tuned (lexical {convex.lexical})": (replace(convex, rerank=0.0), False),
        "reranker alone on top 20": (replace(tuned, rerank=1.0), True),
        "+ rerank, default": (default, True),
        f"+ rerank, tuned (lexical {tuned.lexical}, rerank {tuned.rerank})": (tuned, True),
    }
    rankings = {
        "BM25": [_by(q, q.evidence.bm25) for q in held_out],
        "dense": [_by(q, q.evidence.cosine) for q in held_out],
        "RRF (k = 60)": [_rrf(q) for q in held_out],
    }
    for name, (weights, rerank) in fused.items():
        rankings[name] = [_fused(q, weights, options.rerank if rerank else 0) for q in held_out]
    table = Table("ranking", "nDCG@10", "95 %", "recall@5", "recall@20", "MRR@10")
    for name, found in rankings.items():
        pairs = list(zip(found, (q.relevant for q in held_out), strict=True))
        main = interval([ndcg(ids, relevant) for ids, relevant in pairs])
        others = (
            np.mean([recall(ids, relevant, 5) for ids, relevant in pairs]),
            np.mean([recall(ids, relevant, 20) for ids, relevant in pairs]),
            np.mean([reciprocal_rank(ids, relevant) for ids, relevant in pairs]),
        )
        table.add_row(
            name, f"{main.mean:.3f}", f"{main.low:.3f}-{main.high:.3f}", *(f"{value:.3f}" for value in others)
        )
    Console(width=110).print(table)
    threshold = calibrate_abstention(*support_with_and_without_gold(tuning, tuned))
    positives, negatives = support_with_and_without_gold(held_out, tuned)
    answered, declined = np.mean(np.array(positives) >= threshold), np.mean(np.array(negatives) < threshold)
    print(
        f"abstention at {threshold:.3f}: {answered:.2f} answered, {declined:.2f} declined with gold removed"
    )


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


def _without_logits(question: Judged) -> Judged:
    none = np.full_like(question.evidence.logit, np.nan)
    return replace(question, evidence=replace(question.evidence, logit=none))


if __name__ == "__main__":
    main()
