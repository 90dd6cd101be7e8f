"""Keyword search: queries a second of `Lexical` against rank_bm25 over the same tokens.

    OMP_NUM_THREADS=1 python benchmarks/lexical.py
    OMP_NUM_THREADS=1 python benchmarks/lexical.py --chunks 500000 --rival-queries 5

Chunks are made of a Zipfian vocabulary (exponent 1.07, as English has it) and lengths around a hundred words;
a question is eight words of one chunk, none of them among the hundred most common ones, as no stop word is
looked up. A query of ours is text, which is tokenized in the measured time; the rival gets the tokens.
Both return the ten best chunks; how often their scores agree is printed too.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rank_bm25 import BM25Okapi
from rich.console import Console
from rich.table import Table

from alchemy.retrieval.lexical import K1, B, Lexical, tokenize

VOCABULARY, EXPONENT, COMMON = 200_000, 1.07, 100
WORDS, QUESTION_WORDS = 100, 8
SYLLABLES = [consonant + vowel for consonant in "bdfgklmnprtvz" for vowel in "aiou"]


class LuceneBM25(BM25Okapi):
    """rank_bm25's Okapi, whose term part is Lucene's times k1 + 1, with Lucene's idf."""

    def _calc_idf(self, nd: dict[str, int]) -> None:
        size = self.corpus_size
        self.idf = {word: float(np.log1p((size - df + 0.5) / (df + 0.5))) for word, df in nd.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--chunks", type=int, nargs="+", default=[5_000, 50_000])
    parser.add_argument("--queries", type=int, default=300, help="questions that we answer")
    parser.add_argument("--rival-queries", type=int, default=20, help="of these, how many the rival answers")
    arguments = parser.parse_args()
    table = Table("chunks", "rank_bm25 queries/s", "alchemy queries/s", "ratio", "same ten")
    for count in arguments.chunks:
        texts, questions = make_corpus(count, arguments.queries)
        with tempfile.TemporaryDirectory() as folder:
            table.add_row(f"{count:,}", *compare(texts, questions, arguments.rival_queries, Path(folder)))
    Console(width=110).print(table)


def compare(texts: Sequence[str], questions: Sequence[str], rival_queries: int, folder: Path) -> list[str]:
    Lexical.build(folder, texts)
    ours, theirs = Lexical.open(folder), LuceneBM25([tokenize(text) for text in texts], k1=K1, b=B)
    asked = [list(dict.fromkeys(tokenize(question))) for question in questions[:rival_queries]]
    ours.scores(questions[0], 10)  # the first touches of the mapped files are the disk's time
    their_rate, their_best = rate(lambda tokens: ten_best(theirs.get_scores(tokens)), asked)
    our_rate, our_best = rate(lambda text: ours.scores(text, 10)[1], questions)
    scaled = [np.asarray(scores) / (K1 + 1) for scores in their_best]
    same = sum(np.allclose(a, b[: len(a)], rtol=1e-4) for a, b in zip(our_best, scaled, strict=False))
    return [
        f"{their_rate:,.1f}",
        f"{our_rate:,.0f}",
        f"{our_rate / their_rate:,.0f}x",
        f"{same}/{len(asked)}",
    ]


def rate(answer: Callable[[Any], Any], questions: Sequence[Any]) -> tuple[float, list[Any]]:
    """Questions a second, and the answers."""
    started = time.process_time()
    answers = [answer(question) for question in questions]
    return len(questions) / (time.process_time() - started), answers


def ten_best(scores: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.sort(scores[np.argpartition(scores, len(scores) - 10)[-10:]])[::-1]


def make_corpus(count: int, questions: int, seed: int = 7) -> tuple[list[str], list[str]]:
    """Texts of words whose frequency falls with a power of their rank, and questions from their words."""
    random = np.random.default_rng(seed)
    words = np.array([word_of(rank) for rank in range(VOCABULARY)])
    weights = np.arange(1, VOCABULARY + 1) ** -EXPONENT
    lengths = np.maximum(random.lognormal(np.log(WORDS), 0.4, count).astype(np.int64), 2 * QUESTION_WORDS)
    ranks = random.choice(VOCABULARY, lengths.sum(), p=weights / weights.sum())
    chunks = np.split(ranks, np.cumsum(lengths)[:-1])
    asked = []
    while len(asked) < questions:
        rare = np.unique(chunks[random.integers(count)])
        rare = rare[rare >= COMMON]
        if len(rare) >= QUESTION_WORDS:
            asked.append(" ".join(words[random.choice(rare, QUESTION_WORDS, replace=False)]))
    return [" ".join(words[chunk]) for chunk in chunks], asked


def word_of(rank: int) -> str:
    """A pronounceable word of its own for each rank, longer for rarer ones."""
    syllables = []
    rank += len(SYLLABLES)
    while rank:
        rank, place = divmod(rank, len(SYLLABLES))
        syllables.append(SYLLABLES[place])
    return "".join(syllables)


if __name__ == "__main__":
    main()
