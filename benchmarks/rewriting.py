"""Query rewriting on and off: what a language model's other words for a question change.

    DEEPSEEK_API_KEY=... python benchmarks/rewriting.py --folder ../shared/retrieval/cranfield
    python benchmarks/rewriting.py --folder ../shared/retrieval/cranfield --url http://127.0.0.1:8001/v1 \\
        --model openai/data/models/SmolLM2-135M-Instruct --questions 60

Asks the finalist's model of models.yaml, or any OpenAI-compatible endpoint, once for each question; answers
are kept in `--cache`, so that a second run asks nothing. A question whose rewriting fails is searched as it
is, in both rows, as the service would do. The deadline is not applied: the seconds of a call are printed.
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
from pydantic import SecretStr
from retrieval import read_corpus, read_questions
from rich.console import Console
from rich.table import Table

from alchemy.catalog import RemoteModel, load_catalog
from alchemy.errors import AlchemyError
from alchemy.retrieval.embed import Embedder
from alchemy.retrieval.evaluate import Question, interval, ndcg, recall
from alchemy.retrieval.fuse import SearchWeights
from alchemy.retrieval.index import Index, build_index
from alchemy.retrieval.rerank import Reranker
from alchemy.retrieval.rewrite import Rewrite, rewrite_query
from alchemy.retrieval.search import Searcher
from alchemy.settings import load_settings
from alchemy.synthesis.client import LlmClient, RetryPolicy

Ranking = list[str]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--questions", type=int, default=60, help="use only the first N")
    parser.add_argument("--index", type=Path, help="folder to keep the index in between runs")
    parser.add_argument("--url", help="an OpenAI-compatible endpoint; default: model_d of models.yaml")
    parser.add_argument("--model", default="openai/local", help="its model, with --url")
    parser.add_argument("--cache", type=Path, help="keeps what the model said between runs")
    arguments = parser.parse_args()
    settings = load_settings()
    catalog = load_catalog(settings.catalog)
    model: RemoteModel = catalog.model_d
    if arguments.url:
        model = RemoteModel(model_id=arguments.model, base_url=arguments.url, api_key=SecretStr("none"))
    model = model.model_copy(update={"temperature": 0.0})
    embedder = Embedder(catalog.model_b, settings.models)
    questions = read_questions(arguments.folder)[: arguments.questions]
    with tempfile.TemporaryDirectory() as temporary:
        cache = arguments.cache or Path(temporary) / "cache.sqlite"
        with LlmClient(model, cache, retry=RetryPolicy(attempts=1)) as client:
            rewrites = [ask(client, question) for question in questions]
            print(f"{client.model.model_id}: {client.usage}")
        folder = arguments.index or Path(temporary) / "index"
        if not (folder / "index.json").exists():
            build_index(folder, read_corpus(arguments.folder), {}, embedder)
        reranker = Reranker(catalog.reranker, settings.models)
        with closing(Index.open(folder)) as index:
            for name, encoder in (("without reranker", None), ("with reranker", reranker)):
                with closing(Searcher(index, embedder, encoder, SearchWeights())) as searcher:
                    compare(name, searcher, questions, rewrites)


def ask(client: LlmClient, question: Question) -> Rewrite | None:
    started = time.perf_counter()
    try:
        rewrite = rewrite_query(client, question.question)
    except AlchemyError as error:
        print(f"{time.perf_counter() - started:6.1f} s  failed: {str(error)[:90]}")
        return None
    print(f"{time.perf_counter() - started:6.1f} s  {', '.join(rewrite.keywords)[:90]}")
    return rewrite


def compare(
    name: str, searcher: Searcher, questions: Sequence[Question], rewrites: Sequence[Rewrite | None]
) -> None:
    """nDCG and recall off and on, and the interval of what each question gained."""
    options = load_settings().search.model_copy(update={"top_k": 50, "infer_filters": False})
    rankings: dict[str, list[Ranking]] = {"off": [], "on": []}
    for question, rewrite in zip(questions, rewrites, strict=True):
        for row, words in (("off", None), ("on", rewrite)):
            passages = searcher.search(question.question, options, rewrite=words).passages
            rankings[row].append(list(dict.fromkeys(one.chunk.document_id for one in passages)))
    table = Table("rewriting", "nDCG@10", "95 %", "recall@5", "recall@20", title=name)
    gains: dict[str, np.ndarray] = {}
    for row, found in rankings.items():
        pairs = [(ids, question.document_ids) for ids, question in zip(found, questions, strict=True)]
        gains[row] = np.array([ndcg(ids, relevant) for ids, relevant in pairs])
        mean = interval(gains[row])
        table.add_row(
            row,
            f"{mean.mean:.3f}",
            f"{mean.low:.3f}-{mean.high:.3f}",
            *(f"{np.mean([recall(ids, relevant, k) for ids, relevant in pairs]):.3f}" for k in (5, 20)),
        )
    Console(width=90).print(table)
    gained = interval(gains["on"] - gains["off"])
    rewritten = sum(map(bool, rewrites))
    print(
        f"on - off: {gained.mean:+.3f} nDCG@10 (95 % {gained.low:+.3f} to {gained.high:+.3f}), ratio "
        f"{gains['on'].mean() / gains['off'].mean():.3f}; {rewritten} of {len(rewrites)} rewritten"
    )


if __name__ == "__main__":
    main()
