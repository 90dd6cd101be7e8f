"""The synthesis stage: which chunks are asked about, and what becomes of every pair that was written.

`max_samples` is shared over the splits first and then, in turns, over sources and kinds, so ten thousand
commits do not crowd out thirty pages. Within a kind the order is a hash: a sample, not the beginning.
"""

import heapq
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any

from alchemy.records import Chunk, Document, Insight, Split, fingerprint, to_line
from alchemy.settings import SynthesisOptions
from alchemy.synthesis.funnel import Funnel
from alchemy.synthesis.generate import Provider, Task
from alchemy.synthesis.judge import Judge
from alchemy.synthesis.kinds import plan_kinds, possible_kinds
from alchemy.synthesis.plants import OF_EACH, measure_judge
from alchemy.synthesis.split import assign_splits, content_key

_Stratum = tuple[Split, str, str]  # split, source, kind


def write_pairs(
    folder: Path,
    documents: Callable[[], Iterable[Document]],
    chunks: Iterable[Chunk],
    insights: Iterable[Insight],
    provider: Provider,
    options: SynthesisOptions,
    *,
    known_questions: Iterable[str] = (),
    leaks: Callable[[str], Any] | None = None,
    judge: Judge | None = None,
) -> dict[str, Any]:
    """Writes `sft_train.jsonl`, `sft_eval.jsonl`, `sft_holdout.jsonl` and `train.jsonl`.

    Args:
        folder: Where the files go.
        documents: Opens the cleaned corpus; it is read three times and never held.
        chunks: The chunks of the same corpus.
        insights: Insights of the same corpus; documents may lack one.
        provider: Who writes the pairs.
        options: Sizes and shares.
        known_questions: Questions that answers are judged by; nothing is taught or tuned that is near to one.
        leaks: True for a text with a secret or personal data; such pairs are rejected.
        judge: Judges what passed all else; what it is worth is measured first.

    Returns:
        The funnel: `written` = `kept` + the sum of `rejected` (by reason), how the kept ones are spread, and
        with a judge the measurement of it.

    Raises:
        Unavailable: The provider answers nobody, or nothing at all.
    """
    splits = assign_splits(documents(), options)
    texts = _write_texts(folder / "train.jsonl", documents(), splits)
    tasks = _tasks(_sample(chunks, splits, options), documents(), insights, options)
    measured = {"judge": measure_judge(judge, _some_of_each(tasks))} if judge else {}
    funnel = Funnel(options, known_questions, leaks, judge)
    left = options.max_samples
    with ExitStack() as stack:
        for split in ("holdout", "eval", "train"):
            file = stack.enter_context((folder / f"sft_{split}.jsonl").open("wb"))
            quota = left if split == "train" else min(left, _quota(split, options))
            for pair in funnel.run(provider, _turns(tasks, split), split, quota):
                file.write(to_line(pair))
                left -= 1
    funnel.check_answers()
    return {
        "provider": provider.name,
        "documents": len(splits),
        "documents_by_split": dict(sorted(Counter(splits.values()).items())),
        "texts": texts,
        **funnel.summary(),
        **measured,
    }


def _quota(split: Split, options: SynthesisOptions) -> int:
    share = options.holdout_share if split == "holdout" else options.eval_share
    return max(1, round(options.max_samples * share))


def _write_texts(path: Path, documents: Iterable[Document], splits: dict[str, Split]) -> int:
    """The texts of the train documents for continued pre-training, each text once."""
    seen: set[str] = set()
    with path.open("wb") as file:
        for document in documents:
            if splits[document.id] == "train" and (key := content_key(document)) not in seen:
                seen.add(key)
                file.write(to_line({"text": document.text}))
    return len(seen)


def _sample(
    chunks: Iterable[Chunk], splits: dict[str, Split], options: SynthesisOptions
) -> dict[_Stratum, list[Chunk]]:
    """For each stratum the chunks with the smallest hashes, in their order: as many as could be needed."""
    heaps: defaultdict[_Stratum, list[tuple[int, str, Chunk]]] = defaultdict(list)
    for chunk in chunks:
        split = splits.get(chunk.document_id)
        if split is None:
            continue
        # Whole numbers, negated, make the largest hash the first to go.
        entry = (-int(fingerprint("sample", chunk.id, length=16), 16), chunk.id, chunk)
        heap = heaps[split, chunk.source, chunk.kind]
        if len(heap) < options.max_samples:
            heapq.heappush(heap, entry)
        elif entry[:2] > heap[0][:2]:
            heapq.heapreplace(heap, entry)
    return {
        stratum: [chunk for _, _, chunk in sorted(heap, key=lambda entry: (-entry[0], entry[1]))]
        for stratum, heap in sorted(heaps.items())
    }


def _tasks(
    sample: dict[_Stratum, list[Chunk]],
    documents: Iterable[Document],
    insights: Iterable[Insight],
    options: SynthesisOptions,
) -> dict[_Stratum, deque[Task]]:
    wanted = {chunk.document_id for chunks in sample.values() for chunk in chunks}
    # Without their texts, of which the chunks hold what is needed: a document may be many megabytes.
    known = {of.id: replace(of, text="", blocks=()) for of in documents if of.id in wanted}
    measured = {insight.document_id: insight for insight in insights if insight.document_id in wanted}

    def task(chunk: Chunk) -> Task:
        insight = measured.get(chunk.document_id)
        possible = possible_kinds(chunk, insight)
        kinds = plan_kinds(chunk.id, options.kinds, options.pairs_per_chunk, possible)
        return Task(known[chunk.document_id], chunk, insight, kinds)

    return {stratum: deque(map(task, chunks)) for stratum, chunks in sample.items()}


def _some_of_each(tasks: dict[_Stratum, deque[Task]]) -> list[Task]:
    """The first tasks of every stratum, those of different strata side by side."""
    rows = zip_longest(*(islice(queue, OF_EACH) for queue in tasks.values()))
    return [task for row in rows for task in row if task]


def _turns(tasks: dict[_Stratum, deque[Task]], split: Split) -> Iterator[Task]:
    """One task of each source and kind in turn."""
    queues = [queue for stratum, queue in tasks.items() if stratum[0] == split]
    while any(queues):
        for queue in queues:
            if queue:
                yield queue.popleft()
