"""Recall on the real corpus: questions from structured facts, and identifiers, asked of the released index.

    ALCHEMY_STORE=/tmp/store python benchmarks/questions.py --raw ../shared/corpus/raw
    ALCHEMY_STORE=/tmp/store python benchmarks/questions.py --misses

With `--raw` the whole line runs first, as `make demo RAW=...` does it; without, the store holds what such a
run left. Index, models and weights are those of the champion, or of the candidate where the gate let none
through. `structured_questions` says what is asked; documents that the weights were tuned on (split `eval` of
the pairs) are not asked about. Goals: recall@5 of at least 0.85 for the questions, and 1 for identifiers.
"""

import argparse
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from rich.console import Console
from rich.table import Table
from structured_questions import Structured, structured_questions

from alchemy.artifacts import Artifacts
from alchemy.catalog import load_catalog
from alchemy.errors import NotFound
from alchemy.parts import read_parts
from alchemy.records import Document, SftPair
from alchemy.release import Release, read_release, read_release_alias
from alchemy.retrieval.embed import Embedder
from alchemy.retrieval.evaluate import interval, recall
from alchemy.retrieval.index import Index
from alchemy.retrieval.rerank import Reranker
from alchemy.retrieval.search import Passage, Searcher
from alchemy.settings import SearchOptions, Settings, load_settings
from alchemy.store import Store
from alchemy.upload import upload_raw

LINE = ("dagster", "asset", "materialize", "--select", "*", "-m", "dagster_project.definitions")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--raw", type=Path, help="run the line over this folder first")
    parser.add_argument("--each", type=int, default=90, help="questions of each kind (default 90)")
    parser.add_argument("--misses", action="store_true", help="list what was not found, and what was instead")
    arguments = parser.parse_args()
    settings = load_settings()
    artifacts = Artifacts(Store(settings.store_url, endpoint=settings.s3_endpoint), settings.cache)
    if arguments.raw:
        if not arguments.raw.is_dir():
            sys.exit(f"{arguments.raw}: there is no such folder; this benchmark is about the real corpus")
        upload_raw(artifacts.store, arguments.raw)
        subprocess.run([sys.executable, "-m", *LINE], check=True)
    try:
        release = released(artifacts)
    except NotFound as error:
        sys.exit(f"{error}; run this benchmark with --raw FOLDER first")
    questions, left_out = questions_of(artifacts, arguments.each)
    with closing(open_searcher(artifacts, release, settings)) as searcher:
        print(f"index {release.index}, {release.weights}")
        found = [ask(searcher, question, settings.search) for question in questions]
    print_recall(questions, found)
    for reason, count in sorted(left_out.items()):
        print(f"left out {count:5,d}  {reason}")
    if arguments.misses:
        print_misses(questions, found)


def released(artifacts: Artifacts) -> Release:
    """The champion, or the newest candidate. Raises NotFound where nothing was ever released."""
    for name in ("champion", "candidate"):
        if alias := read_release_alias(artifacts, name):
            return read_release(artifacts, alias.release)
    raise NotFound("the store has no release")


def questions_of(artifacts: Artifacts, each: int) -> tuple[list[Structured], Counter[str]]:
    """Questions about the corpus in the store, without the documents that weights were tuned on."""
    corpus = read_parts(Document, artifacts.parts(artifacts.latest("cleaned_corpus"), "part-"))
    tuning = read_parts(SftPair, artifacts.parts(artifacts.latest("sft_pairs"), "sft_eval"))
    return structured_questions(list(corpus), {pair.document_id for pair in tuning}, each)


def open_searcher(artifacts: Artifacts, release: Release, settings: Settings) -> Searcher:
    """The release's search, with the models and weights that it names."""
    catalog = load_catalog(settings.catalog)
    index = Index.open(artifacts.fetch(artifacts.get("faiss_index", release.index)))
    embedder = Embedder(catalog.model_b.model_copy(update={"model_id": release.embedder}), settings.models)
    reranker = Reranker(catalog.reranker.model_copy(update={"model_id": release.reranker}), settings.models)
    return Searcher(index, embedder, reranker, release.weights)


def ask(searcher: Searcher, question: Structured, options: SearchOptions) -> tuple[Passage, ...]:
    """Passages, enough of them for five documents."""
    return searcher.search(question.text, options.model_copy(update={"top_k": 20})).passages


def print_recall(questions: Sequence[Structured], found: Sequence[Sequence[Passage]]) -> None:
    table = Table("kind", "questions", "recall@5", "95 %", "right section in the first 5", "not found")
    answered = list(zip(questions, found, strict=True))
    kinds = list(dict.fromkeys(question.kind for question in questions))
    rows = [(kind, [one for one in answered if one[0].kind == kind]) for kind in kinds]
    structured = [one for one in answered if one[0].kind != "identifiers"]
    for name, some in [*rows, ("all but identifiers", structured)]:
        recalls = [recall(documents(passages), question.document_ids, 5) for question, passages in some]
        sections = [shows_section(*one) for one in some if name == one[0].kind and one[0].section]
        mean = interval(recalls)
        table.add_row(
            name,
            str(len(some)),
            f"{mean.mean:.3f}",
            f"{mean.low:.3f} to {mean.high:.3f}",
            f"{interval(sections).mean:.3f}" if sections else "",
            str(sum(value < 1 for value in recalls)),
        )
    Console(width=110).print(table)


def documents(passages: Sequence[Passage]) -> list[str]:
    return list(dict.fromkeys(passage.chunk.document_id for passage in passages))


def shows_section(question: Structured, passages: Sequence[Passage]) -> float:
    """1 where a passage stands under the very heading that was asked for."""
    return float(
        any(
            passage.chunk.document_id in question.document_ids
            and passage.chunk.section.startswith(question.section)
            for passage in passages[:5]
        )
    )


def print_misses(questions: Sequence[Structured], found: Sequence[Sequence[Passage]]) -> None:
    for question, passages in zip(questions, found, strict=True):
        ranking = documents(passages)
        missing = set(question.document_ids) - set(ranking[:5])
        if missing:
            print(f"\n[{question.kind}] {question.text}")
            for document in sorted(missing):
                place = ranking.index(document) + 1 if document in ranking else f"not in {len(ranking)}"
                print(f"  missing {document} (place {place})")
            for passage in passages[:5]:
                chunk = passage.chunk
                print(f"  {passage.score:.3f} {chunk.document_id[:60]} | {chunk.title[:70]}")


if __name__ == "__main__":
    main()
